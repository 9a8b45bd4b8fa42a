//! Flags as Go programs take them: `--name=value`, `--name value`, `--name` for those that are switches.

use std::time::Duration;

pub struct Flags {
    values: Vec<(String, String)>,
    pub operands: Vec<String>,
}

impl Flags {
    /// Reads arguments. `switches`: flags that need no value.
    pub fn read(args: &[String], switches: &[&str]) -> Self {
        let mut found = Self { values: Vec::new(), operands: Vec::new() };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let Some(flag) = arg.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
                found.operands.push(arg.clone());
                continue;
            };
            let flag = flag.trim_start_matches('-');
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if switches.contains(&flag) => (flag, "true".to_owned()),
                None => (flag, rest.next().cloned().unwrap_or_default()),
            };
            // Dashes and underlines are one to the flags' library.
            found.values.push((name.replace('_', "-"), value));
        }
        found
    }

    pub fn text<'a>(&'a self, name: &str, otherwise: &'a str) -> &'a str {
        let found = self.values.iter().rev().find(|(known, _)| known == name);
        found.map_or(otherwise, |(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str, otherwise: i64) -> i64 {
        self.text(name, "").parse().unwrap_or(otherwise)
    }

    /// A port; none for what is no port, -1 for example.
    pub fn port(&self, name: &str, otherwise: u16) -> Option<u16> {
        match self.text(name, "") {
            "" => Some(otherwise),
            text => text.parse().ok(),
        }
    }

    pub fn is(&self, name: &str, otherwise: bool) -> bool {
        self.text(name, "").parse().unwrap_or(otherwise)
    }

    pub fn time(&self, name: &str, otherwise: Duration) -> Duration {
        duration(self.text(name, "")).unwrap_or(otherwise)
    }
}

/// `1m30s`, `500ms`, `0`.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut total, mut rest) = (0.0, text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        rest = &rest[end..];
        total += number * unit;
    }
    Duration::try_from_secs_f64(total).ok()
}
