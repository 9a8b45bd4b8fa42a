//! The formats of names: object names, label keys and values, ports, keys of ConfigMaps, environment variables.
//!
//! Each check answers with what is wrong, in Kubernetes' words; nothing when the value is right.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/validation/validation.go`.

/// How objects of a kind may be named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NameRule {
    /// `web.example-1`: at most 253 bytes.
    #[default]
    Dns1123Subdomain,
    /// `web-1`: at most 63 bytes.
    Dns1123Label,
    /// `web-1`, not starting with a digit: at most 63 bytes.
    Dns1035Label,
    /// `system:node-a`: anything that can stand between two slashes of a path.
    PathSegment,
    /// `10.96.0.1`: an IP address in its canonical form.
    Ip,
    /// Anything: the kind checks its names itself, together with what they are made of.
    Any,
}

impl NameRule {
    /// What is wrong with a name.
    pub fn check(self, name: &str) -> Vec<String> {
        match self {
            Self::Dns1123Subdomain => is_dns1123_subdomain(name),
            Self::Dns1123Label => is_dns1123_label(name),
            Self::Dns1035Label => is_dns1035_label(name),
            Self::PathSegment => is_path_segment(name),
            Self::Ip => crate::ip::is_canonical_ip(name),
            Self::Any => Vec::new(),
        }
    }

    /// What is wrong with a `generateName`, whose trailing dash is fine.
    pub fn check_prefix(self, prefix: &str) -> Vec<String> {
        match prefix.strip_suffix('-') {
            _ if matches!(self, Self::PathSegment | Self::Ip | Self::Any) => self.check(prefix),
            Some(rest) if !rest.is_empty() => self.check(&format!("{rest}a")),
            _ => self.check(prefix),
        }
    }
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn length(value: &str, bytes_max: usize, messages: &mut Vec<String>) {
    if value.len() > bytes_max {
        messages.push(format!("must be no more than {bytes_max} bytes"));
    }
}

fn format_message(message: &str, regex: &str, examples: &[&str]) -> String {
    let examples = examples.iter().map(|e| format!("'{e}', ")).collect::<Vec<_>>().join(" or ");
    let examples = if examples.is_empty() { examples } else { format!("e.g. {examples}") };
    format!("{message} ({examples}regex used for validation is '{regex}')")
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn label_format(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(|b| lower_or_digit(*b))
        && bytes.last().is_some_and(|b| lower_or_digit(*b))
        && bytes.iter().all(|b| lower_or_digit(*b) || *b == b'-')
}

/// A DNS label: lower case, digits, dashes; at most 63 bytes.
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    length(value, 63, &mut messages);
    if !label_format(value) {
        let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                       start and end with an alphanumeric character";
        messages.push(format_message(message, LABEL, &["my-name", "123-abc"]));
    }
    messages
}

/// A DNS name: labels with dots between; at most 253 bytes.
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    length(value, 253, &mut messages);
    if !value.split('.').all(label_format) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                       and must start and end with an alphanumeric character";
        messages.push(format_message(message, SUBDOMAIN, &["example.com"]));
    }
    messages
}

/// The same with underscores, which names of search domains may have.
pub fn is_dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    length(value, 253, &mut messages);
    // An underscore may stand wherever a letter may.
    if !value.replace('_', "a").split('.').all(label_format) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or \
                       '.', and must start and end with an alphanumeric character";
        let label = "[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?";
        messages.push(format_message(message, &format!("{label}(\\.{label})*"), &["example.com"]));
    }
    messages
}

/// `*.` and a DNS name.
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    length(value, 253, &mut messages);
    if !value.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(label_format)) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
                       must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric \
                       character";
        messages.push(format_message(message, &format!("\\*\\.{SUBDOMAIN}"), &["*.example.com"]));
    }
    messages
}

/// A DNS label that starts with a letter; at most 63 bytes.
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    length(value, 63, &mut messages);
    if !label_format(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                       alphabetic character, and end with an alphanumeric character";
        messages.push(format_message(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    messages
}

fn qualified_format(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The key of a label or annotation: a name of at most 63 bytes, with an optional DNS name and `/` before it.
pub fn is_qualified_name(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    let wrong = || {
        let message = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                       alphanumeric character";
        format_message(message, QUALIFIED, &["MyName", "my.name", "123-abc"])
    };
    let name = match value.split_once('/') {
        None => value,
        Some((_, rest)) if rest.contains('/') => {
            let tail = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {} {tail}", wrong())];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".to_owned());
            } else {
                messages.extend(is_dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        messages.push("name part must be no more than 63 bytes".to_owned());
    }
    if !qualified_format(name) {
        messages.push(format!("name part {}", wrong()));
    }
    messages
}

/// The value of a label: at most 63 bytes, may be empty.
pub fn is_label_value(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    length(value, 63, &mut messages);
    if !value.is_empty() && !qualified_format(value) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                       and must start and end with an alphanumeric character";
        messages.push(format_message(message, &format!("({QUALIFIED})?"), &["MyValue", "my_value", "12345"]));
    }
    messages
}

/// The name of a port: at most 15 bytes, with a letter in it.
pub fn is_port_name(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    length(value, 15, &mut messages);
    if value.is_empty() || !value.bytes().all(|b| lower_or_digit(b) || b == b'-') {
        messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        messages.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        messages.push("must not begin or end with a hyphen".to_owned());
    }
    messages
}

/// The number of a port.
pub fn is_port_number(value: i32) -> Vec<String> {
    in_range(i64::from(value), 1, 65_535)
}

/// A number between two bounds, both included.
pub fn in_range(value: i64, min: i64, max: i64) -> Vec<String> {
    if (min..=max).contains(&value) { Vec::new() } else { vec![format!("must be between {min} and {max}, inclusive")] }
}

/// A key of a ConfigMap or Secret, which becomes a file name.
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    length(value, 253, &mut messages);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(allowed) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        messages.push(format_message(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match value {
        "." => messages.push("must not be '.'".to_owned()),
        ".." => messages.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => messages.push("must not start with '..'".to_owned()),
        _ => {}
    }
    messages
}

/// An identifier of the language C.
pub fn is_c_identifier(value: &str) -> Vec<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !value.is_empty() && value.bytes().all(word) && !value.as_bytes()[0].is_ascii_digit() {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
                   characters or '_'";
    vec![format_message(message, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// The name of an environment variable: printable ASCII but `=`.
pub fn is_env_var_name(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.is_empty() {
        messages.push("environment variable name must be non-empty".to_owned());
    }
    if value.bytes().any(|b| !(b' '..=b'~').contains(&b) || b == b'=') {
        let message =
            "a valid environment variable name must consist only of printable ASCII characters other than '='";
        messages.push(message.to_owned());
    }
    messages
}

/// The name of an HTTP header.
pub fn is_http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![format_message(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// Anything that can stand between two slashes of a path.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apimachinery/pkg/api/validation/path/name.go`.
pub fn is_path_segment(value: &str) -> Vec<String> {
    if matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'")];
    }
    let contained = ["/", "%"].into_iter().filter(|part| value.contains(part));
    contained.map(|part| format!("may not contain '{part}'")).collect()
}

/// A DNS name, `/` and a path: `example.com/ingress`. Each message comes with the part that it is about.
pub fn is_domain_prefixed_path(value: &str) -> Vec<(&str, String)> {
    let Some((domain, path)) = value.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        return vec![(value, "must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned())];
    };
    let mut messages: Vec<_> = is_dns1123_subdomain(domain).into_iter().map(|m| (domain, m)).collect();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(allowed) {
        messages.push((path, format_message("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[])));
    }
    messages
}

/// An IPv4 or IPv6 address.
pub fn is_ip(value: &str) -> Vec<String> {
    if value.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

/// Words that CEL keeps for itself, so that no variable may have such a name.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apiserver/pkg/cel/escaping.go`.
pub const CEL_RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        type Check = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let very_long = "a".repeat(254);
        let cases: [(&str, Check, &[&str], &[&str]); 8] = [
            ("label", is_dns1123_label, &["a", "0", "a-b", "a--b"], &["", "-a", "a-", "A", "a.b", "a_b", &long, "ä"]),
            (
                "subdomain",
                is_dns1123_subdomain,
                &["a", "a.b", "0.1-2", &long],
                &["", ".a", "a..b", "a.", "A", &very_long],
            ),
            ("1035", is_dns1035_label, &["a", "a1"], &["", "1a", "a.b", "-", &long]),
            (
                "qualified",
                is_qualified_name,
                &["a", "A_b.c-d", "example.com/A", "1"],
                &["", "/", "/a", "a/", "a/b/c", "A/b", "-a", "a b", &long],
            ),
            ("value", is_label_value, &["", "a", "A_b.c", "1"], &["-", "a/b", "a ", &long]),
            ("port", is_port_name, &["a", "http-2", "a1"], &["", "1", "a--b", "-a", "A", "abcdefghijklmnop"]),
            ("key", is_config_map_key, &["a", ".a", "A_b-c.d", "a.."], &["", ".", "..", "..a", "a/b", "a b"]),
            ("env", is_env_var_name, &["A", "a.b", "1 x"], &["", "a=b", "ä", "a\n"]),
        ];
        for (what, check, good, bad) in cases {
            for value in good {
                assert_eq!(check(value), Vec::<String>::new(), "{what}: {value:?}");
            }
            for value in bad {
                assert!(!check(value).is_empty(), "{what}: {value:?} should be refused");
            }
        }
    }

    #[test]
    fn words_are_those_of_kubernetes() {
        assert_eq!(
            is_dns1123_subdomain("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
              and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            is_label_value("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
              and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
              validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
    }

    #[test]
    fn a_prefix_may_end_with_a_dash() {
        assert!(NameRule::Dns1123Label.check_prefix("web-").is_empty());
        assert!(!NameRule::Dns1123Label.check_prefix("-").is_empty());
        assert!(!NameRule::Dns1123Label.check("web-").is_empty());
    }
}
