//! What the shell does itself, since it changes the shell.

use super::{Ran, Shell, Stop, parse};
use crate::{
    Code, find_command,
    io::{Io, words},
};

impl Shell {
    pub(super) fn command(&mut self, name: &str, args: &[String], io: &mut Io) -> Ran {
        if let Some(body) = self.functions.get(name).cloned() {
            return self.call(&body, name, args, io);
        }
        let number = |code: Code| args.first().and_then(|arg| arg.parse().ok()).unwrap_or(code);
        match name {
            ":" | "ulimit" | "umask" | "times" | "hash" => Ok(0),
            "exit" => Err(Stop::Exit(number(self.last))),
            "return" => Err(Stop::Return(number(self.last))),
            "break" => Err(Stop::Break),
            "continue" => Err(Stop::Continue),
            "cd" => Ok(change_dir(args, io)),
            "export" | "readonly" | "declare" => Ok(self.export(args)),
            "local" => Ok(self.local(args)),
            "let" => {
                let results: Vec<String> = args.iter().map(|arg| self.expand_one(&format!("$(({arg}))"), io)).collect();
                Ok(i32::from(results.last().is_none_or(|last| last == "0")))
            }
            "unset" => {
                for name in args {
                    self.variables.remove(name);
                    self.functions.remove(name);
                    crate::host::remove_var(name);
                }
                Ok(0)
            }
            "set" => Ok(self.options(args)),
            "shift" => {
                let count = usize::try_from(number(1)).unwrap_or(0);
                let end = self.arguments.len().min(1 + count);
                self.arguments.drain(self.arguments.len().min(1)..end);
                Ok(0)
            }
            "trap" => Ok(self.trap(args)),
            "wait" => Ok(self.wait(io)),
            "kill" => {
                // There is nothing that a signal could reach but what has not begun.
                self.jobs.clear();
                Ok(0)
            }
            "read" => Ok(self.read(args, io)),
            "command" if args.first().is_some_and(|arg| !arg.starts_with('-')) => {
                self.command(&args[0], &args[1..], io)
            }
            "command" | "type" | "which" => Ok(self.which(args, io)),
            "exec" => match args.split_first() {
                Some((name, args)) => Err(Stop::Exit(self.command(name, args, io)?)),
                None => Ok(0),
            },
            "eval" => match parse::parse(&args.join(" ")) {
                Ok(items) => self.run(&items, io),
                Err(why) => Ok(io.fail("eval", why)),
            },
            "." | "source" => self.source(args, io),
            _ => match find_command(name.rsplit('/').next().unwrap_or_default()) {
                Some(command) => Ok(command(args, io)),
                None => {
                    io.fail("sh", format!("{name}: not found"));
                    Ok(127)
                }
            },
        }
    }

    fn source(&mut self, args: &[String], io: &mut Io) -> Ran {
        let Some(file) = args.first() else { return Ok(io.fail("source", "filename argument required")) };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => return Ok(io.fail("sh", format!("{file}: {}", words(&error)))),
        };
        match parse::parse(&text) {
            Ok(items) => match self.run(&items, io) {
                Err(Stop::Return(code)) => Ok(code),
                result => result,
            },
            Err(why) => Ok(io.fail("sh", format!("{file}: {why}"))),
        }
    }

    fn export(&mut self, args: &[String]) -> Code {
        for arg in args.iter().filter(|arg| !arg.starts_with('-')) {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), self.variables.get(arg).cloned()),
            };
            if let Some(value) = value {
                self.variables.remove(name);
                crate::host::set_var(name, &value);
            }
        }
        0
    }

    /// Variables that are as before when the function ends.
    fn local(&mut self, args: &[String]) -> Code {
        for arg in args {
            let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
            self.hidden.push((name.to_owned(), self.variables.get(name).cloned()));
            self.variables.insert(name.to_owned(), value.to_owned());
        }
        0
    }

    fn options(&mut self, args: &[String]) -> Code {
        let mut rest = args;
        while let Some((first, behind)) = rest.split_first().filter(|(first, _)| first.starts_with(['-', '+'])) {
            rest = behind;
            match first.as_str() {
                "--" => {
                    self.arguments.truncate(1);
                    self.arguments.extend(behind.iter().cloned());
                    return 0;
                }
                "-o" | "+o" => {
                    if behind.first().is_some_and(|name| name == "errexit") {
                        self.exit_on_failure = first == "-o";
                    }
                    rest = behind.get(1..).unwrap_or_default();
                }
                letters if letters.contains('e') => self.exit_on_failure = letters.starts_with('-'),
                _ => {}
            }
        }
        if !rest.is_empty() {
            self.arguments.truncate(1);
            self.arguments.extend(rest.iter().cloned());
        }
        0
    }

    /// No signal comes, so that only the end can be waited for.
    fn trap(&mut self, args: &[String]) -> Code {
        let Some((action, signals)) = args.split_first() else { return 0 };
        if signals.iter().any(|signal| signal == "EXIT" || signal == "0") {
            self.at_exit = (action != "-").then(|| action.clone());
        }
        0
    }

    fn which(&self, args: &[String], io: &mut Io) -> Code {
        let mut code = 0;
        for name in args.iter().filter(|arg| !arg.starts_with('-')) {
            match find_command(name.rsplit('/').next().unwrap_or_default()) {
                _ if self.functions.contains_key(name) => io.line(name),
                Some(_) => io.line(format!("/bin/{}", name.rsplit('/').next().unwrap_or_default())),
                None => code = 127,
            }
        }
        code
    }

    fn read(&mut self, args: &[String], io: &mut Io) -> Code {
        let names: Vec<_> = args.iter().filter(|a| !a.starts_with('-')).cloned().collect();
        let mut line = String::new();
        if !matches!(io.input.read_line(&mut line), Ok(1..)) {
            return 1;
        }
        let mut rest = line.trim();
        for (i, name) in names.iter().enumerate() {
            let (word, behind) = match rest.split_once(char::is_whitespace) {
                Some((word, behind)) if i + 1 < names.len() => (word, behind.trim_start()),
                _ => (std::mem::take(&mut rest), ""),
            };
            self.set(name, word.to_owned());
            rest = behind;
        }
        0
    }
}

fn change_dir(args: &[String], io: &mut Io) -> Code {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/".to_owned());
    let dir = args.first().cloned().unwrap_or(home);
    match crate::host::change_dir(&dir) {
        Ok(()) => 0,
        Err(error) => io.fail("cd", format!("{dir}: {}", words(&error))),
    }
}
