//! `sh`: runs lines of the commands here. WASI starts no processes, so each command runs to its end before the next one
//! in a pipe begins, and what it wrote waits in memory.
//!
//! Understood: quotes, `$NAME`, `${NAME}`, `${NAME:-word}`, `$?`, `$(...)`, file names with `*?[]`, pipes, `&&`, `||`, `;`,
//! redirections, assignments, `if`, `while`, `for`, `cd`, `export`, `exit`, `set -e`. Not understood: functions, jobs, here-documents.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
};

use crate::{
    Code, find_command,
    io::{Io, Out, buffer, nothing, words},
};

mod expand;
mod parse;

use parse::{Item, Redirect, Simple};

/// Commands in a row of a loop.
const ROUNDS_MAX: u32 = 10_000_000;

/// What a shell keeps between commands.
pub struct Shell {
    pub(crate) variables: HashMap<String, String>,
    pub(crate) arguments: Vec<String>,
    pub(crate) last: Code,
    exit_on_failure: bool,
}

/// Why a line is over.
enum Stop {
    Exit(Code),
    Break,
    Continue,
}

type Ran = Result<Code, Stop>;

pub fn sh(args: &[String], io: &mut Io) -> Code {
    let mut shell =
        Shell { variables: HashMap::new(), arguments: vec!["sh".to_owned()], last: 0, exit_on_failure: false };
    let mut rest = args;
    while let Some((first, behind)) = rest.split_first().filter(|(first, _)| first.starts_with('-') && first.len() > 1)
    {
        rest = behind;
        shell.exit_on_failure |= first.contains('e') && !first.starts_with("--");
        if !first.starts_with("--") && first.contains('c') {
            let Some((text, behind)) = rest.split_first() else {
                return io.fail("sh", "-c: option requires an argument");
            };
            if !behind.is_empty() {
                shell.arguments = behind.to_vec();
            }
            return shell.script(text, io);
        }
    }
    match rest.split_first() {
        Some((file, _)) => match std::fs::read_to_string(file) {
            Ok(text) => {
                shell.arguments = rest.to_vec();
                shell.script(&text, io)
            }
            Err(error) => {
                io.fail("sh", format!("{file}: {}", words(&error)));
                127
            }
        },
        None => shell.interactive(io),
    }
}

impl Shell {
    /// Runs a whole text.
    fn script(&mut self, text: &str, io: &mut Io) -> Code {
        match parse::parse(text) {
            Ok(items) => match self.run(&items, io) {
                Ok(code) | Err(Stop::Exit(code)) => code,
                Err(_) => self.last,
            },
            Err(why) => {
                io.fail("sh", format!("syntax error: {why}"));
                2
            }
        }
    }

    /// Runs lines as they come.
    fn interactive(&mut self, io: &mut Io) -> Code {
        let prompt = std::io::stdin().is_terminal();
        let mut text = String::new();
        loop {
            if prompt {
                let dir = std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default();
                let _ = write!(io.output, "{}", if text.is_empty() { format!("{dir} # ") } else { "> ".to_owned() });
            }
            let mut line = String::new();
            match io.input.read_line(&mut line) {
                Ok(1..) => text.push_str(&line),
                _ => {
                    if prompt {
                        io.line("");
                    }
                    return self.last;
                }
            }
            match parse::parse(&text) {
                Err(why) if why == parse::UNFINISHED => continue,
                Err(why) => {
                    self.last = 2;
                    io.fail("sh", format!("syntax error: {why}"));
                }
                Ok(items) => {
                    if let Err(Stop::Exit(code)) = self.run(&items, io) {
                        return code;
                    }
                }
            }
            text.clear();
        }
    }

    fn run(&mut self, items: &[Item], io: &mut Io) -> Ran {
        for item in items {
            self.last = self.item(item, io)?;
            let tested = matches!(item, Item::And(..) | Item::Or(..) | Item::Not(_));
            if self.exit_on_failure && self.last != 0 && !tested {
                return Err(Stop::Exit(self.last));
            }
        }
        Ok(self.last)
    }

    fn item(&mut self, item: &Item, io: &mut Io) -> Ran {
        match item {
            Item::Simple(simple) => self.simple(simple, io),
            Item::Pipe(items) => self.pipe(items, io),
            Item::And(a, b) => match self.item(a, io)? {
                0 => self.item(b, io),
                code => Ok(code),
            },
            Item::Or(a, b) => match self.item(a, io)? {
                0 => Ok(0),
                code => {
                    self.last = code;
                    self.item(b, io)
                }
            },
            Item::Not(item) => Ok(i32::from(self.item(item, io)? == 0)),
            Item::Group(items) => self.run(items, io),
            Item::If(branches, otherwise) => {
                for (condition, then) in branches {
                    if self.tested(condition, io)? == 0 {
                        return self.run(then, io);
                    }
                }
                if otherwise.is_empty() { Ok(0) } else { self.run(otherwise, io) }
            }
            Item::While { condition, until, body } => self.repeat(condition, *until, body, io),
            Item::For(name, words, body) => self.each(name, words, body, io),
        }
    }

    /// Runs a condition, whose failure is no failure.
    fn tested(&mut self, condition: &[Item], io: &mut Io) -> Ran {
        let exits = std::mem::take(&mut self.exit_on_failure);
        let code = self.run(condition, io);
        self.exit_on_failure = exits;
        code
    }

    fn repeat(&mut self, condition: &[Item], until: bool, body: &[Item], io: &mut Io) -> Ran {
        let mut code = 0;
        for _ in 0..ROUNDS_MAX {
            if (self.tested(condition, io)? == 0) == until {
                break;
            }
            match self.run(body, io) {
                Ok(last) => code = last,
                Err(Stop::Break) => break,
                Err(Stop::Continue) => {}
                Err(exit) => return Err(exit),
            }
        }
        Ok(code)
    }

    fn each(&mut self, name: &str, list: &[String], body: &[Item], io: &mut Io) -> Ran {
        let mut code = 0;
        for value in self.expand_all(list, io) {
            self.variables.insert(name.to_owned(), value);
            match self.run(body, io) {
                Ok(last) => code = last,
                Err(Stop::Break) => break,
                Err(Stop::Continue) => {}
                Err(exit) => return Err(exit),
            }
        }
        Ok(code)
    }

    fn pipe(&mut self, items: &[Item], io: &mut Io) -> Ran {
        let mut code = 0;
        let (mut input, mut rest) = (std::mem::replace(&mut io.input, nothing()), None);
        for (i, item) in items.iter().enumerate() {
            let (output, written) = match i + 1 == items.len() {
                true => (io.output.clone(), None),
                false => {
                    let (output, written) = Out::buffer();
                    (output, Some(written))
                }
            };
            let mut inner = Io { input, output, errors: io.errors.clone() };
            let result = self.item(item, &mut inner);
            // The first one's input is the shell's own.
            let used = inner.input;
            input = written.map_or_else(nothing, |written| buffer(written.take()));
            rest.get_or_insert(used);
            match result {
                Ok(last) | Err(Stop::Exit(last)) => code = last,
                Err(stop) => return Err(stop),
            }
        }
        io.input = rest.unwrap_or_else(nothing);
        Ok(code)
    }

    fn simple(&mut self, simple: &Simple, io: &mut Io) -> Ran {
        let words = self.expand_all(&simple.words, io);
        let assigned: Vec<(String, String)> =
            simple.assignments.iter().map(|(name, value)| (name.clone(), self.expand_one(value, io))).collect();
        let targets: Vec<(Redirect, String)> =
            simple.redirects.iter().map(|(redirect, word)| (*redirect, self.expand_one(word, io))).collect();
        let Some((name, args)) = words.split_first() else {
            self.variables.extend(assigned);
            return Ok(0);
        };
        let before: Vec<_> = assigned.iter().map(|(name, _)| (name.clone(), std::env::var(name).ok())).collect();
        for (name, value) in &assigned {
            crate::host::set_var(name, &value);
        }
        let result = redirected(&targets, io, |io| self.command(name, args, io));
        for (name, value) in before {
            match value {
                Some(value) => crate::host::set_var(&name, &value),
                None => crate::host::remove_var(&name),
            }
        }
        result
    }

    fn command(&mut self, name: &str, args: &[String], io: &mut Io) -> Ran {
        match name {
            ":" => Ok(0),
            "exit" => Err(Stop::Exit(args.first().and_then(|a| a.parse().ok()).unwrap_or(self.last))),
            "break" => Err(Stop::Break),
            "continue" => Err(Stop::Continue),
            "cd" => {
                let home = std::env::var("HOME").unwrap_or_else(|_| "/".to_owned());
                let dir = args.first().cloned().unwrap_or(home);
                Ok(match std::env::set_current_dir(&dir) {
                    Ok(()) => 0,
                    Err(error) => io.fail("cd", format!("{dir}: {}", words(&error))),
                })
            }
            "export" => {
                for arg in args {
                    let (name, value) = match arg.split_once('=') {
                        Some((name, value)) => (name, value.to_owned()),
                        None => (arg.as_str(), self.variables.get(arg).cloned().unwrap_or_default()),
                    };
                    crate::host::set_var(name, &value);
                }
                Ok(0)
            }
            "unset" => {
                for name in args {
                    self.variables.remove(name);
                    crate::host::remove_var(name);
                }
                Ok(0)
            }
            "set" => {
                for arg in args {
                    match arg.as_str() {
                        "-e" | "-eu" | "-ex" | "-eux" => self.exit_on_failure = true,
                        "+e" => self.exit_on_failure = false,
                        _ => {}
                    }
                }
                Ok(0)
            }
            "read" => Ok(self.read(args, io)),
            "command" | "type" | "which" => {
                let names = args.iter().filter(|a| !a.starts_with('-'));
                let mut code = 0;
                for name in names {
                    match find_command(name) {
                        Some(_) => io.line(format!("/bin/{name}")),
                        None => code = 127,
                    }
                }
                Ok(code)
            }
            "exec" => match args.split_first() {
                Some((name, args)) => Err(Stop::Exit(self.command(name, args, io)?)),
                None => Ok(0),
            },
            "eval" => match parse::parse(&args.join(" ")) {
                Ok(items) => self.run(&items, io),
                Err(why) => Ok(io.fail("eval", why)),
            },
            _ => match find_command(name.rsplit('/').next().unwrap_or_default()) {
                Some(command) => Ok(command(args, io)),
                None => {
                    io.fail("sh", format!("{name}: not found"));
                    Ok(127)
                }
            },
        }
    }

    fn read(&mut self, args: &[String], io: &mut Io) -> Code {
        let names: Vec<_> = args.iter().filter(|a| !a.starts_with('-')).collect();
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
            self.variables.insert((*name).clone(), word.to_owned());
            rest = behind;
        }
        0
    }

    /// What commands write, for `$(...)`.
    pub(crate) fn output_of(&mut self, text: &str, io: &mut Io) -> String {
        let (output, written) = Out::buffer();
        self.last = self.script(text, &mut Io { input: nothing(), output, errors: io.errors.clone() });
        String::from_utf8_lossy(&written.take()).trim_end_matches('\n').to_owned()
    }
}

/// Runs with streams from and to files.
fn redirected(targets: &[(Redirect, String)], io: &mut Io, run: impl FnOnce(&mut Io) -> Ran) -> Ran {
    let (mut output, mut errors, mut input) = (io.output.clone(), io.errors.clone(), None);
    for (redirect, path) in targets {
        let nowhere = path == "/dev/null";
        let opened = match redirect {
            Redirect::ErrorsToOutput => {
                errors = output.clone();
                continue;
            }
            Redirect::OutputToErrors => {
                output = errors.clone();
                continue;
            }
            // There is no such file here, but what is meant is plain.
            Redirect::Input if nowhere => {
                input = Some(nothing());
                continue;
            }
            Redirect::Output(_) | Redirect::Append(_) if nowhere => Ok(Out::Nowhere),
            Redirect::Output(_) => File::create(path).map(Out::file),
            Redirect::Append(_) => OpenOptions::new().create(true).append(true).open(path).map(Out::file),
            Redirect::Input => match File::open(path) {
                Ok(file) => {
                    input = Some(Box::new(BufReader::new(file)));
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        match (opened, redirect) {
            (Ok(to), Redirect::Output(2) | Redirect::Append(2)) => errors = to,
            (Ok(to), _) => output = to,
            (Err(error), _) => return Ok(io.fail("sh", format!("{path}: {}", words(&error)))),
        }
    }
    let own = input.is_none();
    let input = input.unwrap_or_else(|| std::mem::replace(&mut io.input, nothing()));
    let mut inner = Io { input, output, errors };
    let result = run(&mut inner);
    if own {
        io.input = inner.input;
    }
    result
}
