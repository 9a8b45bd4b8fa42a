//! The surroundings: environment, time, names, conditions.

use std::{fmt, fs, time::SystemTime};

use crate::{
    Code, find_command,
    io::{Io, Options},
    list::seconds,
};

pub fn env(args: &[String], io: &mut Io) -> Code {
    let assigned = args.iter().take_while(|a| a.contains('=') && !a.starts_with('-')).count();
    let (assigned, command) = args.split_at(assigned);
    let Some((name, args)) = command.split_first() else {
        let mut all: Vec<_> = std::env::vars().collect();
        all.extend(assigned.iter().filter_map(|a| a.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))));
        all.iter().for_each(|(name, value)| io.line(format!("{name}={value}")));
        return 0;
    };
    for (name, value) in assigned.iter().filter_map(|a| a.split_once('=')) {
        crate::host::set_var(name, value);
    }
    match find_command(name.rsplit('/').next().unwrap_or_default()) {
        Some(command) => command(args, io),
        None => {
            io.fail("env", format!("{name}: No such file or directory"));
            127
        }
    }
}

pub fn printenv(args: &[String], io: &mut Io) -> Code {
    if args.is_empty() {
        return env(args, io);
    }
    let mut code = 0;
    for name in args {
        match std::env::var(name) {
            Ok(value) => io.line(value),
            Err(_) => code = 1,
        }
    }
    code
}

pub fn pwd(_: &[String], io: &mut Io) -> Code {
    io.line(std::env::current_dir().map_or_else(|_| "/".to_owned(), |dir| dir.display().to_string()));
    0
}

pub fn hostname(_: &[String], io: &mut Io) -> Code {
    let from_file = fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned());
    io.line(std::env::var("HOSTNAME").ok().or(from_file).unwrap_or_else(|| "localhost".to_owned()));
    0
}

pub fn whoami(_: &[String], io: &mut Io) -> Code {
    io.line("root");
    0
}

pub fn id(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    io.line(match () {
        () if options.has(&["n"]) => "root",
        () if options.has(&["u", "g", "G"]) => "0",
        () => "uid=0(root) gid=0(root) groups=0(root)",
    });
    0
}

pub fn uname(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let all = options.has(&["a"]);
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned());
    let parts = [("s", "wasi"), ("n", host.as_str()), ("r", "preview1"), ("m", "wasm32")];
    let wanted = |letter: &str| all || options.has(&[letter]) || (letter == "s" && options.flags.is_empty());
    let shown: Vec<_> = parts.iter().filter(|(letter, _)| wanted(letter)).map(|(_, text)| *text).collect();
    io.line(shown.join(" "));
    0
}

pub fn sleep(args: &[String], io: &mut Io) -> Code {
    let mut total = 0.0;
    for arg in args {
        let (number, unit) = match arg.strip_suffix(['s', 'm', 'h', 'd']) {
            Some(number) => (number, arg.chars().last()),
            None if arg == "infinity" => ("1e9", None),
            None => (arg.as_str(), None),
        };
        let factor = match unit {
            Some('m') => 60.0,
            Some('h') => 3600.0,
            Some('d') => 86400.0,
            _ => 1.0,
        };
        match number.parse::<f64>() {
            Ok(n) if n >= 0.0 => total += n * factor,
            _ => return io.fail("sleep", format!("invalid time interval '{arg}'")),
        }
    }
    std::thread::sleep(std::time::Duration::from_secs_f64(f64::min(total, 1e9)));
    0
}

/// A moment in UTC.
pub struct Date {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    second: i64,
    weekday: i64,
    seconds: i64,
}

impl Date {
    /// From seconds since 1970.
    pub fn of(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
        // The calendar repeats every 400 years; its years begin in March, so that leap days come last.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: (days + 4).rem_euclid(7),
            seconds,
        }
    }

    pub fn format(&self, format: &str) -> String {
        const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
        const DAYS: &str = "SunMonTueWedThuFriSat";
        let three = |all: &str, at: i64| {
            let at = usize::try_from(at).unwrap_or(0) * 3;
            all.get(at..at + 3).unwrap_or_default().to_owned()
        };
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('Y') => out.push_str(&format!("{:04}", self.year)),
                Some('m') => out.push_str(&format!("{:02}", self.month)),
                Some('d') => out.push_str(&format!("{:02}", self.day)),
                Some('e') => out.push_str(&format!("{:2}", self.day)),
                Some('H') => out.push_str(&format!("{:02}", self.hour)),
                Some('M') => out.push_str(&format!("{:02}", self.minute)),
                Some('S') => out.push_str(&format!("{:02}", self.second)),
                Some('F') => out.push_str(&self.format("%Y-%m-%d")),
                Some('T') => out.push_str(&self.format("%H:%M:%S")),
                Some('s') => out.push_str(&self.seconds.to_string()),
                Some('b') => out.push_str(&three(MONTHS, self.month - 1)),
                Some('a') => out.push_str(&three(DAYS, self.weekday)),
                Some('Z') => out.push_str("UTC"),
                Some('z') => out.push_str("+0000"),
                Some('n') => out.push('\n'),
                Some(other) => out.extend(['%', other].into_iter().skip(usize::from(other == '%'))),
                None => out.push('%'),
            }
        }
        out
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format("%a %b %e %T UTC %Y"))
    }
}

pub fn date(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["d", "date"]);
    let now = match options.value(&["d", "date"]) {
        None => seconds(Some(SystemTime::now())),
        Some(text) => match text.strip_prefix('@').and_then(|n| n.parse().ok()) {
            Some(seconds) => seconds,
            None => return io.fail("date", format!("invalid date '{text}': only @SECONDS is known")),
        },
    };
    let date = Date::of(now);
    match options.operands.first().and_then(|text| text.strip_prefix('+')) {
        Some(format) => io.line(date.format(format)),
        None if options.has(&["I"]) => io.line(date.format("%F")),
        None => io.line(date),
    }
    0
}

pub fn test(args: &[String], io: &mut Io) -> Code {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let words = words.strip_suffix(&["]"]).or(words.strip_suffix(&["]]"])).unwrap_or(&words);
    match any(words) {
        Ok(holds) => i32::from(!holds),
        Err(why) => {
            io.fail("test", why);
            2
        }
    }
}

fn any(words: &[&str]) -> Result<bool, String> {
    for (at, word) in words.iter().enumerate().skip(1) {
        if *word == "-o" {
            return Ok(any(&words[..at])? | any(&words[at + 1..])?);
        }
    }
    for (at, word) in words.iter().enumerate().skip(1) {
        if *word == "-a" {
            return Ok(any(&words[..at])? & any(&words[at + 1..])?);
        }
    }
    one(words)
}

fn one(words: &[&str]) -> Result<bool, String> {
    let number = |text: &str| text.parse::<i64>().map_err(|_| format!("{text}: integer expression expected"));
    Ok(match words {
        [] => false,
        ["!", rest @ ..] => !one(rest)?,
        [text] => !text.is_empty(),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-e" | "-r" | "-w" | "-x", path] => fs::metadata(path).is_ok() || !crate::host::leads_to(path).is_empty(),
        ["-f", path] => fs::metadata(path).is_ok_and(|m| m.is_file()),
        ["-d", path] => fs::metadata(path).is_ok_and(|m| m.is_dir()) || !crate::host::leads_to(path).is_empty(),
        ["-s", path] => fs::metadata(path).is_ok_and(|m| m.len() > 0),
        ["-L" | "-h", path] => fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()),
        [a, "=" | "==", b] => a == b,
        [a, "!=", b] => a != b,
        [a, "-eq", b] => number(a)? == number(b)?,
        [a, "-ne", b] => number(a)? != number(b)?,
        [a, "-lt", b] => number(a)? < number(b)?,
        [a, "-le", b] => number(a)? <= number(b)?,
        [a, "-gt", b] => number(a)? > number(b)?,
        [a, "-ge", b] => number(a)? >= number(b)?,
        other => return Err(format!("{}: not understood", other.join(" "))),
    })
}

/// What means nothing here, since files have no modes and owners: done when they are there.
pub fn nothing(args: &[String], io: &mut Io) -> Code {
    let files = Options::read(args, &[]).operands;
    let missing = files.iter().skip(1).find(|file| fs::symlink_metadata(file).is_err());
    match missing {
        Some(file) => io.fail("chmod", format!("{file}: No such file or directory")),
        None => 0,
    }
}
