//! `sh`: runs lines of the commands here. WASI starts no processes, so each command runs to its end before the next one
//! in a pipe begins, and what it wrote waits in memory.
//!
//! Understood: quotes, variables and what can be done with them in `${...}`, `$(...)`, `$((...))`, file names with `*?[]`,
//! pipes, `&&`, `||`, `;`, redirections, here-documents, assignments, `if`, `while`, `for`, `case`, functions, `[[`, `cd`,
//! `export`, `exit`, `set -e`, `trap ... EXIT`. `COMMAND &` runs when it is waited for, or when the script ends: there is
//! one thing at a time. Not understood: arrays, signals.

use std::{
    collections::HashMap,
    io::{BufRead as _, IsTerminal as _, Write as _},
    rc::Rc,
};

use crate::{
    Code,
    find::matches,
    io::{Io, Out, buffer, nothing, words},
};

mod arithmetic;
mod builtins;
mod expand;
mod parse;
mod redirect;
mod tokens;

pub use arithmetic::compute;
use parse::{Item, Simple};

/// Functions within functions.
const CALLS_MAX: u32 = 100;

/// What a shell keeps between commands.
#[derive(Clone)]
pub struct Shell {
    variables: HashMap<String, String>,
    arguments: Vec<String>,
    functions: HashMap<String, Rc<Item>>,
    last: Code,
    exit_on_failure: bool,
    /// Whether a variable that had to be there was not.
    failed: bool,
    /// What was followed by `&` and has not run.
    jobs: Vec<Item>,
    at_exit: Option<String>,
    calls: u32,
    /// What `local` hid, of the function that runs.
    hidden: Vec<(String, Option<String>)>,
}

/// Why a line is over.
enum Stop {
    Exit(Code),
    Return(Code),
    Break,
    Continue,
}

type Ran = Result<Code, Stop>;

pub fn sh(args: &[String], io: &mut Io) -> Code {
    let mut shell = Shell::new();
    let mut rest = args;
    while let Some((first, behind)) = rest.split_first().filter(|(first, _)| first.starts_with('-') && first.len() > 1)
    {
        rest = behind;
        shell.exit_on_failure |= first.contains('e') && !first.starts_with("--");
        if first == "-o" {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        if !first.starts_with("--") && first.contains('c') {
            let Some((text, behind)) = rest.split_first() else {
                return io.fail("sh", "-c: option requires an argument");
            };
            if !behind.is_empty() {
                shell.arguments = behind.to_vec();
            }
            return shell.whole(text, io);
        }
    }
    match rest.split_first() {
        Some((file, _)) => match std::fs::read_to_string(file) {
            Ok(text) => {
                shell.arguments = rest.to_vec();
                shell.whole(&text, io)
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
    fn new() -> Self {
        Self {
            variables: HashMap::new(),
            arguments: vec!["sh".to_owned()],
            functions: HashMap::new(),
            last: 0,
            exit_on_failure: false,
            failed: false,
            jobs: Vec::new(),
            at_exit: None,
            calls: 0,
            hidden: Vec::new(),
        }
    }

    /// Runs a whole text, and what was put off until its end.
    fn whole(&mut self, text: &str, io: &mut Io) -> Code {
        let code = self.script(text, io);
        self.finish(code, io)
    }

    fn finish(&mut self, code: Code, io: &mut Io) -> Code {
        self.exit_on_failure = false;
        self.wait(io);
        match self.at_exit.take() {
            Some(text) => {
                self.last = code;
                let stopped = parse::parse(&text).map(|items| self.run(&items, io));
                if let Ok(Err(Stop::Exit(code))) = stopped { code } else { code }
            }
            None => code,
        }
    }

    /// Runs what was followed by `&`.
    fn wait(&mut self, io: &mut Io) -> Code {
        let mut code = 0;
        for job in std::mem::take(&mut self.jobs) {
            code = self.subshell(&[job], io);
        }
        code
    }

    /// Runs a text.
    fn script(&mut self, text: &str, io: &mut Io) -> Code {
        match parse::parse(text) {
            Ok(items) => match self.run(&items, io) {
                Ok(code) | Err(Stop::Exit(code) | Stop::Return(code)) => code,
                Err(_) => self.last,
            },
            Err(why) => {
                io.fail("sh", format!("syntax error: {why}"));
                2
            }
        }
    }

    /// Runs commands whose changes are forgotten.
    fn subshell(&mut self, items: &[Item], io: &mut Io) -> Code {
        let mut inner = Self { jobs: Vec::new(), at_exit: None, ..self.clone() };
        let (before, dir): (Vec<_>, _) = (std::env::vars().collect(), std::env::current_dir());
        let code = match inner.run(items, io) {
            Ok(code) | Err(Stop::Exit(code) | Stop::Return(code)) => code,
            Err(_) => inner.last,
        };
        let code = inner.finish(code, io);
        for (name, _) in std::env::vars().filter(|(name, _)| !before.iter().any(|(n, _)| n == name)) {
            crate::host::remove_var(&name);
        }
        before.iter().for_each(|(name, value)| crate::host::set_var(name, value));
        if let Ok(dir) = dir {
            // Where it was, it can be.
            let _back = crate::host::change_dir(&dir.to_string_lossy());
        }
        code
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
                    return self.finish(self.last, io);
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
                        return self.finish(code, io);
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
            Item::Subshell(items) => Ok(self.subshell(items, io)),
            Item::Case(word, arms) => self.case(word, arms, io),
            Item::Function(name, body) => {
                self.functions.insert(name.clone(), Rc::new((**body).clone()));
                Ok(0)
            }
            Item::Redirected(item, redirects) => {
                let targets = self.targets(redirects, io);
                redirect::with(&targets, io, |io| self.item(item, io))
            }
            Item::Later(item) => {
                self.jobs.push((**item).clone());
                Ok(0)
            }
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
        loop {
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
            self.set(name, value);
            match self.run(body, io) {
                Ok(last) => code = last,
                Err(Stop::Break) => break,
                Err(Stop::Continue) => {}
                Err(exit) => return Err(exit),
            }
        }
        Ok(code)
    }

    fn case(&mut self, word: &str, arms: &[(Vec<String>, Vec<Item>)], io: &mut Io) -> Ran {
        let value = self.expand_one(word, io);
        for (patterns, items) in arms {
            for pattern in patterns {
                let pattern = self.expand_pattern(pattern, io);
                if matches(&pattern, &value) {
                    return self.run(items, io);
                }
            }
        }
        Ok(0)
    }

    /// Runs a function.
    fn call(&mut self, body: &Item, name: &str, args: &[String], io: &mut Io) -> Ran {
        if self.calls >= CALLS_MAX {
            io.fail("sh", format!("{name}: functions are nested too deeply"));
            return Ok(2);
        }
        let own = [self.arguments.first().cloned().unwrap_or_default()];
        let arguments = std::mem::replace(&mut self.arguments, own.into_iter().chain(args.iter().cloned()).collect());
        let hidden = std::mem::take(&mut self.hidden);
        self.calls += 1;
        let result = self.item(body, io);
        self.calls -= 1;
        for (name, value) in std::mem::replace(&mut self.hidden, hidden).into_iter().rev() {
            match value {
                Some(value) => self.variables.insert(name, value),
                None => self.variables.remove(&name),
            };
        }
        self.arguments = arguments;
        match result {
            Err(Stop::Return(code)) => Ok(code),
            result => result,
        }
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
            // Each in a shell of its own, as elsewhere.
            let result: Ran = Ok(self.subshell(std::slice::from_ref(item), &mut inner));
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
        self.failed = false;
        let words = self.expand_all(&simple.words, io);
        let last = self.last;
        self.last = 0;
        let assigned: Vec<(String, String)> =
            simple.assignments.iter().map(|(name, value)| (name.clone(), self.expand_one(value, io))).collect();
        let targets = self.targets(&simple.redirects, io);
        if self.failed {
            return Err(Stop::Exit(2));
        }
        let Some((name, args)) = words.split_first() else {
            // `x=$(false)` fails as the command does.
            let code = if simple.assignments.is_empty() { 0 } else { self.last };
            assigned.into_iter().for_each(|(name, value)| self.set(&name, value));
            return redirect::with(&targets, io, |_| Ok(code));
        };
        self.last = last;
        let before: Vec<_> = assigned.iter().map(|(name, _)| (name.clone(), std::env::var(name).ok())).collect();
        for (name, value) in &assigned {
            crate::host::set_var(name, value);
        }
        let result = redirect::with(&targets, io, |io| self.command(name, args, io));
        for (name, value) in before {
            match value {
                Some(value) => crate::host::set_var(&name, &value),
                None => crate::host::remove_var(&name),
            }
        }
        result
    }

    /// What commands write, for `$(...)`.
    fn output_of(&mut self, text: &str, io: &mut Io) -> String {
        let (output, written) = Out::buffer();
        let mut inner = Io { input: nothing(), output, errors: io.errors.clone() };
        self.last = match parse::parse(text) {
            Ok(items) => self.subshell(&items, &mut inner),
            Err(why) => {
                io.fail("sh", format!("syntax error: {why}"));
                2
            }
        };
        String::from_utf8_lossy(&written.take()).trim_end_matches('\n').to_owned()
    }
}
