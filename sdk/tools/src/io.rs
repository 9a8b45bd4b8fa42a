//! A command's streams: those of the process, or buffers and files that the shell puts in their place.

use std::{
    cell::RefCell,
    fmt::Display,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read, Write},
    rc::Rc,
};

use crate::Code;

/// Where output goes. Clones go to the same place.
#[derive(Clone)]
pub enum Out {
    Output,
    Errors,
    File(Rc<RefCell<File>>),
    /// Memory, up to a bound.
    Buffer(Rc<RefCell<Vec<u8>>>),
    Nowhere,
}

/// Bytes that a buffer takes.
const BUFFER_BYTES_MAX: usize = 64 << 20;

impl Out {
    pub fn buffer() -> (Self, Rc<RefCell<Vec<u8>>>) {
        let bytes = Rc::new(RefCell::new(Vec::new()));
        (Self::Buffer(bytes.clone()), bytes)
    }

    pub fn file(file: File) -> Self {
        Self::File(Rc::new(RefCell::new(file)))
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Output => {
                // Lines at once: the host is the buffer.
                let mut output = io::stdout().lock();
                output.write_all(bytes)?;
                output.flush()?;
            }
            Self::Errors => io::stderr().write_all(bytes)?,
            Self::File(file) => file.borrow_mut().write_all(bytes)?,
            Self::Buffer(buffer) => {
                let mut buffer = buffer.borrow_mut();
                if buffer.len() + bytes.len() > BUFFER_BYTES_MAX {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                buffer.extend_from_slice(bytes);
            }
            Self::Nowhere => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Streams of one command.
pub struct Io {
    pub input: Box<dyn BufRead>,
    pub output: Out,
    pub errors: Out,
}

impl Io {
    pub fn of_process() -> Self {
        let input = Box::new(BufReader::with_capacity(64 * 1024, io::stdin()));
        Self { input, output: Out::Output, errors: Out::Errors }
    }

    /// Says what went wrong; answers with 1.
    pub fn fail(&mut self, command: &str, what: impl Display) -> Code {
        // There is nobody else to tell.
        let _ = self.errors.write_all(format!("{command}: {what}\n").as_bytes());
        1
    }

    /// Writes a line. Whoever reads no more is no failure.
    pub fn line(&mut self, text: impl Display) {
        let _ = self.output.write_all(format!("{text}\n").as_bytes());
    }
}

/// Input that is there already.
pub fn buffer(bytes: Vec<u8>) -> Box<dyn BufRead> {
    Box::new(Cursor::new(bytes))
}

/// No input.
pub fn nothing() -> Box<dyn BufRead> {
    Box::new(io::empty())
}

/// `No such file or directory`, without Rust's number behind it.
pub fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory".to_owned(),
        io::ErrorKind::AlreadyExists => "File exists".to_owned(),
        io::ErrorKind::PermissionDenied => "Permission denied".to_owned(),
        io::ErrorKind::DirectoryNotEmpty => "Directory not empty".to_owned(),
        io::ErrorKind::NotADirectory => "Not a directory".to_owned(),
        io::ErrorKind::IsADirectory => "Is a directory".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "Read-only file system".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
    }
}

/// Options (`-xyz`, `--long`, `-n 5`) before operands.
pub struct Options {
    /// Single letters, and long names.
    pub flags: Vec<String>,
    /// Letters and long names with their values.
    pub values: Vec<(String, String)>,
    pub operands: Vec<String>,
}

impl Options {
    /// Reads arguments. `valued`: letters and long names that take a value.
    pub fn read(args: &[String], valued: &[&str]) -> Self {
        let mut found = Self { flags: Vec::new(), values: Vec::new(), operands: Vec::new() };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            if arg == "--" {
                found.operands.extend(rest.cloned());
                break;
            }
            if let Some(long) = arg.strip_prefix("--") {
                match long.split_once('=') {
                    Some((name, value)) => found.values.push((name.to_owned(), value.to_owned())),
                    None if valued.contains(&long) => {
                        found.values.push((long.to_owned(), rest.next().cloned().unwrap_or_default()));
                    }
                    None => found.flags.push(long.to_owned()),
                }
                continue;
            }
            match arg.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                Some(letters) => found.letters(letters, valued, &mut rest),
                None => found.operands.push(arg.clone()),
            }
        }
        found
    }

    fn letters<'a>(&mut self, letters: &str, valued: &[&str], rest: &mut impl Iterator<Item = &'a String>) {
        for (at, letter) in letters.char_indices() {
            let name = letter.to_string();
            if valued.contains(&name.as_str()) {
                let behind = &letters[at + letter.len_utf8()..];
                let value =
                    if behind.is_empty() { rest.next().cloned().unwrap_or_default() } else { behind.to_owned() };
                self.values.push((name, value));
                return;
            }
            self.flags.push(name);
        }
    }

    pub fn has(&self, names: &[&str]) -> bool {
        self.flags.iter().any(|flag| names.contains(&flag.as_str()))
    }

    pub fn value(&self, names: &[&str]) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| value.as_str())
    }
}

/// Copies everything; where the reader has gone, as much as it took.
pub fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut copied = 0;
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(copied);
        }
        to.write_all(&buffer[..n])?;
        copied += n as u64;
    }
}
