//! The line discipline of a terminal: WASI has none, so what a kernel does between a keyboard and a program is done here.
//! Echo, line editing, end of input and interrupt, as in the kernel's cooked mode; no modes, no job control.
//!
//! Bound: [`LINE_BYTES_MAX`] of a line that is being typed.

/// As `MAX_CANON` of Linux, less the line break.
const LINE_BYTES_MAX: usize = 4095;

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL_LINE: u8 = 0x15;
const ERASE_WORD: u8 = 0x17;
const QUIT: u8 = 0x1c;
const DELETE: u8 = 0x7f;

/// What some typing comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    /// For the program.
    pub(crate) input: Vec<u8>,
    /// For the screen.
    pub(crate) echo: Vec<u8>,
    /// What happens besides.
    pub(crate) event: Option<Event>,
}

/// What a key can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The input has ended.
    End,
    /// The program is to be ended.
    Interrupt,
}

/// The line that is being typed.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    line: Vec<u8>,
}

impl Terminal {
    /// Takes what was typed, up to the first event.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for byte in bytes {
            self.key(*byte, &mut typed);
            if typed.event.is_some() {
                break;
            }
        }
        typed
    }

    fn key(&mut self, key: u8, typed: &mut Typed) {
        match key {
            b'\r' | b'\n' => {
                typed.echo.push(b'\n');
                self.line.push(b'\n');
                typed.input.append(&mut self.line);
            }
            END if self.line.is_empty() => typed.event = Some(Event::End),
            END => typed.input.append(&mut self.line),
            INTERRUPT | QUIT => {
                typed.echo.extend_from_slice(if key == QUIT { b"^\\\n" } else { b"^C\n" });
                self.line.clear();
                typed.event = Some(Event::Interrupt);
            }
            BACKSPACE | DELETE => self.erase(typed),
            KILL_LINE => {
                while !self.line.is_empty() {
                    self.erase(typed);
                }
            }
            ERASE_WORD => {
                while self.line.last() == Some(&b' ') {
                    self.erase(typed);
                }
                while self.line.last().is_some_and(|last| *last != b' ') {
                    self.erase(typed);
                }
            }
            _ if self.line.len() >= LINE_BYTES_MAX => typed.echo.push(0x07),
            b'\t' | 0x20.. => {
                self.line.push(key);
                typed.echo.push(key);
            }
            control => {
                self.line.push(control);
                typed.echo.extend_from_slice(&[b'^', control + b'@']);
            }
        }
    }

    /// Takes one character back, which may have several bytes.
    fn erase(&mut self, typed: &mut Typed) {
        while self.line.pop_if(|last| *last & 0xc0 == 0x80).is_some() {}
        match self.line.pop() {
            None => {}
            Some(control) if control < 0x20 && control != b'\t' => typed.echo.extend_from_slice(b"\x08 \x08\x08 \x08"),
            Some(_) => typed.echo.extend_from_slice(b"\x08 \x08"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (keys, input, echo, event) in [
            ("ls\r", "ls\n", "ls\n", None),
            ("ls", "", "ls", None),
            ("a\x7fb\r", "b\n", "a\x08 \x08b\n", None),
            ("\x7f", "", "", None),
            ("é\x7f\r", "\n", "é\x08 \x08\n", None),
            ("ab cd\x17\r", "ab \n", "ab cd\x08 \x08\x08 \x08\n", None),
            ("ab\x15c\r", "c\n", "ab\x08 \x08\x08 \x08c\n", None),
            ("\x01\x7f\r", "\n", "^A\x08 \x08\x08 \x08\n", None),
            ("a\x04", "a", "a", None),
            ("a\r\x04never", "a\n", "a\n", Some(Event::End)),
            ("a\x03b", "", "a^C\n", Some(Event::Interrupt)),
            ("\x1c", "", "^\\\n", Some(Event::Interrupt)),
        ] {
            let typed = Terminal::default().take(keys.as_bytes());
            let wanted = Typed { input: input.into(), echo: echo.into(), event };
            assert_eq!(typed, wanted, "{keys:?}");
        }
    }

    #[test]
    fn lines_are_bounded_and_go_on_over_several_reads() {
        let mut terminal = Terminal::default();
        assert_eq!(terminal.take(b"a").input, b"");
        assert_eq!(terminal.take(b"b\r").input, b"ab\n");
        let typed = terminal.take(&vec![b'x'; LINE_BYTES_MAX + 7]);
        assert_eq!((typed.input.len(), typed.echo.len()), (0, LINE_BYTES_MAX + 7));
        assert_eq!(terminal.take(b"\r").input.len(), LINE_BYTES_MAX + 1);
    }
}
