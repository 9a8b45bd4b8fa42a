//! Streams from and to files, other streams and texts.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader},
};

use super::{
    Ran, Shell,
    parse::{Redirect, Target},
};
use crate::io::{Io, Out, buffer, nothing, words};

impl Shell {
    /// Redirections with their words expanded.
    pub(super) fn targets(&mut self, redirects: &[Redirect], io: &mut Io) -> Vec<Redirect> {
        let mut one = |target: &Target| match target {
            Target::Input(word) => Target::Input(self.expand_one(word, io)),
            Target::Output(word) => Target::Output(self.expand_one(word, io)),
            Target::Append(word) => Target::Append(self.expand_one(word, io)),
            Target::Both(word, append) => Target::Both(self.expand_one(word, io), *append),
            Target::Stream(word) => Target::Stream(self.expand_one(word, io)),
            Target::Text(text, true) => Target::Text(self.expand_text(text, io), false),
            Target::Text(text, false) => Target::Text(text.clone(), false),
            Target::Word(word) => Target::Text(self.expand_one(word, io) + "\n", false),
        };
        redirects.iter().map(|redirect| Redirect { stream: redirect.stream, to: one(&redirect.to) }).collect()
    }
}

/// Streams as they are being put together.
struct Streams {
    input: Option<Box<dyn BufRead>>,
    output: Out,
    errors: Out,
}

impl Streams {
    fn set(&mut self, stream: usize, to: Out) {
        match stream {
            2 => self.errors = to,
            _ => self.output = to,
        }
    }

    fn apply(&mut self, redirect: &Redirect) -> Result<(), String> {
        let said = |path: &str, error: &io::Error| format!("{path}: {}", words(error));
        match &redirect.to {
            Target::Text(text, _) | Target::Word(text) => self.input = Some(buffer(text.clone().into_bytes())),
            Target::Input(path) if path == "/dev/null" => self.input = Some(nothing()),
            Target::Input(path) if path == "/dev/stdin" => {}
            Target::Input(path) => {
                let file = File::open(path).map_err(|error| said(path, &error))?;
                self.input = Some(Box::new(BufReader::new(file)));
            }
            Target::Stream(to) => match to.as_str() {
                "1" => self.set(redirect.stream, self.output.clone()),
                "2" => self.set(redirect.stream, self.errors.clone()),
                "-" if redirect.stream == 0 => self.input = Some(nothing()),
                "-" => self.set(redirect.stream, Out::Nowhere),
                "0" => {}
                path if redirect.stream == 1 && path.parse::<u32>().is_err() => self.both(path, false)?,
                other => return Err(format!("{other}: Bad file descriptor")),
            },
            Target::Output(path) => {
                let to = self.open(path, false).map_err(|error| said(path, &error))?;
                self.set(redirect.stream, to);
            }
            Target::Append(path) => {
                let to = self.open(path, true).map_err(|error| said(path, &error))?;
                self.set(redirect.stream, to);
            }
            Target::Both(path, append) => self.both(path, *append)?,
        }
        Ok(())
    }

    fn both(&mut self, path: &str, append: bool) -> Result<(), String> {
        let to = self.open(path, append).map_err(|error| format!("{path}: {}", words(&error)))?;
        (self.output, self.errors) = (to.clone(), to);
        Ok(())
    }

    /// There are no such files as `/dev/null` here, but what is meant is plain.
    fn open(&self, path: &str, append: bool) -> io::Result<Out> {
        Ok(match path {
            "/dev/null" => Out::Nowhere,
            "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" | "/proc/1/fd/1" => self.output.clone(),
            "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" | "/proc/1/fd/2" => self.errors.clone(),
            _ if append => Out::file(OpenOptions::new().create(true).append(true).open(path)?),
            _ => Out::file(File::create(path)?),
        })
    }
}

/// Runs with other streams.
pub(super) fn with(redirects: &[Redirect], io: &mut Io, run: impl FnOnce(&mut Io) -> Ran) -> Ran {
    let mut streams = Streams { input: None, output: io.output.clone(), errors: io.errors.clone() };
    for redirect in redirects {
        if let Err(why) = streams.apply(redirect) {
            return Ok(io.fail("sh", why));
        }
    }
    let own = streams.input.is_none();
    let input = streams.input.unwrap_or_else(|| std::mem::replace(&mut io.input, nothing()));
    let mut inner = Io { input, output: streams.output, errors: streams.errors };
    let result = run(&mut inner);
    if own {
        io.input = inner.input;
    }
    result
}
