//! The formats of texts that definitions may name. Others are ignored.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apiserver/validation/formats.go`, kube-openapi `pkg/validation/strfmt`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use base64::Engine;
use regex::Regex;

fn regex(text: &'static str) -> Regex {
    Regex::new(text).expect("invariant: a pattern that the tests compile")
}

macro_rules! patterns {
    ($($name:ident = $text:expr;)*) => { $(static $name: LazyLock<Regex> = LazyLock::new(|| regex($text));)* };
}

patterns! {
    OBJECT_ID = "^[0-9a-fA-F]{24}$";
    EMAIL = r#"^[^@\s<>()\[\],;:"]+@[^@\s<>()\[\],;:"]+$"#;
    HOSTNAME = r"^([a-zA-Z0-9\x{00a1}-\x{ffff}]([-a-zA-Z0-9\x{00a1}-\x{ffff}]{0,61}[a-zA-Z0-9\x{00a1}-\x{ffff}])?)(\.[a-zA-Z0-9\x{00a1}-\x{ffff}]([-a-zA-Z0-9\x{00a1}-\x{ffff}]{0,61}[a-zA-Z0-9\x{00a1}-\x{ffff}])?)*\.?$";
    MAC = "^([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2}[:-]){0,14}[0-9a-fA-F]{2}$|^([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$|^([0-9a-fA-F]{4}\\.){2,9}[0-9a-fA-F]{4}$";
    UUID = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID3 = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID4 = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    UUID5 = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    CREDIT_CARD = r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$";
    SSN = r"^\d{3}[- ]?\d{2}[- ]?\d{4}$";
    HEX_COLOR = "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
    RGB_COLOR = r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$";
    URI = "^([a-zA-Z][a-zA-Z0-9+.-]*:.+|/.*)$";
}

/// Whether a text has a format. Formats that are not known fit anything.
pub(crate) fn fits(format: &str, text: &str) -> bool {
    use crate::cel::temporal_formats as times;
    match format {
        "bsonobjectid" => OBJECT_ID.is_match(text),
        "uri" => URI.is_match(text) && !text.contains(char::is_control) && !text.contains(' '),
        "email" => EMAIL.is_match(text),
        "hostname" => text.len() <= 255 && HOSTNAME.is_match(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => MAC.is_match(text),
        "uuid" => UUID.is_match(text),
        "uuid3" => UUID3.is_match(text),
        "uuid4" => UUID4.is_match(text),
        "uuid5" => UUID5.is_match(text),
        "isbn" => is_isbn(text, 10) || is_isbn(text, 13),
        "isbn10" => is_isbn(text, 10),
        "isbn13" => is_isbn(text, 13),
        "creditcard" => is_credit_card(text),
        "ssn" => SSN.is_match(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => times::is_date(text),
        "duration" => times::is_duration(text),
        "datetime" | "date-time" => times::is_timestamp(text),
        "k8s-short-name" => podium_api::names::is_dns1123_label(text).is_empty(),
        "k8s-long-name" => podium_api::names::is_dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    bits.parse::<u8>().is_ok_and(|n| n <= bits_max) && !bits.starts_with('+')
}

fn is_isbn(text: &str, length: usize) -> bool {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .enumerate()
        .map_while(|(i, c)| if length == 10 && i == 9 && matches!(c, 'X' | 'x') { Some(10) } else { c.to_digit(10) })
        .collect();
    let clean = text.chars().filter(|c| !matches!(c, '-' | ' ')).count();
    if digits.len() != length || clean != length {
        return false;
    }
    let weigh = |(i, d): (usize, &u32)| {
        let i = u32::try_from(i).unwrap_or(0);
        if length == 10 { (i + 1) * d } else { d * if i % 2 == 0 { 1 } else { 3 } }
    };
    let sum: u32 = digits.iter().enumerate().map(weigh).sum();
    sum.is_multiple_of(if length == 10 { 11 } else { 10 })
}

fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if !CREDIT_CARD.is_match(&digits) {
        return false;
    }
    let weigh = |(i, c): (usize, char)| {
        let d = c.to_digit(10).unwrap_or(0);
        if i % 2 == 0 { d } else { d * 2 / 10 + d * 2 % 10 }
    };
    digits.chars().rev().enumerate().map(weigh).sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_refused() {
        for (format, good, bad) in [
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("uri", "https://example.com/a?b", "example com"),
            ("email", "a@example.com", "a@"),
            ("hostname", "a.example.com", "-a"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810"),
            ("uuid4", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            ("uuid3", "6fa459ea-ee8a-3ca4-894e-db77e160355e", "f47ac10b-58cc-4372-a567-0e02b2c3d479"),
            ("uuid5", "886313e1-3b8a-5372-9b90-0c9aee199e5d", "f47ac10b-58cc-4372-a567-0e02b2c3d479"),
            ("isbn", "978-0321751041", "978-0321751042"),
            ("isbn10", "0321751043", "0321751044"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "123-45-6789", "123"),
            ("hexcolor", "#FFFFFF", "#GG"),
            ("rgbcolor", "rgb(255,255,25)", "rgb(256,0,0)"),
            ("byte", "aGk=", "?"),
            ("date", "2006-01-02", "2006-13-02"),
            ("date-time", "2014-12-15T19:30:20.000Z", "2014"),
            ("duration", "22ns", "22x"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "a_b"),
        ] {
            assert!(fits(format, good), "{format}: {good}");
            assert!(!fits(format, bad), "{format}: {bad}");
        }
        assert!(fits("unheard-of", "anything"));
    }
}
