//! Parameters of a query, decoded as forms are.

use std::borrow::Cow;

/// The first value of a parameter.
pub(super) fn first<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| decoded(key) == name).map(|(_, value)| decoded(value))
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let (bytes, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        for (query, name, value) in [
            ("animal=whale", "animal", Some("whale")),
            ("a=1&animal=dolphin&animal=whale", "animal", Some("dolphin")),
            ("animal", "animal", Some("")),
            ("ANIMAL=whale", "animal", None),
            ("a%20b=c+d%2Fe%", "a b", Some("c d/e%")),
            ("a=%zz", "a", Some("%zz")),
            ("", "a", None),
        ] {
            assert_eq!(first(query, name).as_deref(), value, "{query}");
        }
    }
}
