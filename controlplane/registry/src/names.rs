//! Names of repositories, tags and digests, checked: whatever passes here is safe as a path below the registry's folder.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadName {
    Repository,
    Reference,
    Digest,
}

/// `demo/app`: lower-case words separated by slashes. No word begins with a dot or an underscore.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Repository(String);

/// Longest name of a repository, as most clients have it.
const REPOSITORY_BYTES_MAX: usize = 255;

impl Repository {
    pub(crate) fn parse(name: &str) -> Result<Self, BadName> {
        let ok = name.len() <= REPOSITORY_BYTES_MAX && name.split('/').all(is_word);
        if ok { Ok(Self(name.to_owned())) } else { Err(BadName::Repository) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_word(word: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = word;
    loop {
        let end = rest.find(|c| !alphanumeric(c)).unwrap_or(rest.len());
        if end == 0 {
            return false;
        }
        rest = &rest[end..];
        if rest.is_empty() {
            return true;
        }
        let end = rest.find(alphanumeric).unwrap_or(rest.len());
        let separator = &rest[..end];
        if !matches!(separator, "." | "_" | "__") && !separator.bytes().all(|b| b == b'-') {
            return false;
        }
        rest = &rest[end..];
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn parse(text: &str) -> Result<Self, BadName> {
        text.strip_prefix("sha256:").and_then(Self::from_hex).ok_or(BadName::Digest)
    }

    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        let ok = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        ok.then(|| Self(hex.to_owned()))
    }

    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new().chain_update(bytes))
    }

    pub(crate) fn finish(hash: Sha256) -> Self {
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    pub(crate) fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    pub(crate) fn parse(text: &str) -> Result<Self, BadName> {
        if text.contains(':') {
            return Digest::parse(text).map(Self::Digest);
        }
        if is_tag(text) { Ok(Self::Tag(text.to_owned())) } else { Err(BadName::Reference) }
    }
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
pub(crate) fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_specification_allows_is_a_name() {
        for name in ["a", "demo/app", "a.b/c_d/e__f/g-h/i---j", "0/1"] {
            assert!(Repository::parse(name).is_ok(), "{name}");
        }
        for name in
            ["", "/", "a/", "/a", "A", "a//b", "..", "a/../b", "_a", "a_", "a___b", "a..b", ".a", "a b", "ä", "a._b"]
        {
            assert!(Repository::parse(name).is_err(), "{name}");
        }
        assert!(Repository::parse(&"a".repeat(256)).is_err());
        for tag in ["latest", "v1.2", "_x", "A-b_c.d"] {
            assert_eq!(Reference::parse(tag), Ok(Reference::Tag(tag.to_owned())));
        }
        for tag in ["", ".a", "-a", "a/b", "a b", "..", &"a".repeat(129)] {
            assert_eq!(Reference::parse(tag), Err(BadName::Reference), "{tag}");
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(Digest::parse(&digest).unwrap().to_string(), digest);
        for digest in ["sha256:", "sha256:aa", "sha512:aa", &digest.to_uppercase(), &format!("{digest}/..")] {
            assert_eq!(Digest::parse(digest), Err(BadName::Digest), "{digest}");
        }
        assert!(Digest::of(b"abc").hex().starts_with("ba7816bf"));
    }
}
