//! Which kubectl there is.

use std::process::Command;

/// The oldest kubectl whose output the transcripts hold.
const MINOR_MIN: u32 = 27;

/// Whether the machine's kubectl can run the transcripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kubectl {
    /// It can.
    Usable,
    /// It cannot, and why.
    NotUsable(String),
}

impl Kubectl {
    /// Asks the kubectl on the path.
    pub fn find() -> Self {
        let Ok(output) = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output() else {
            return Self::NotUsable("kubectl is not installed".to_owned());
        };
        Self::judge(&String::from_utf8_lossy(&output.stdout))
    }

    fn judge(version: &str) -> Self {
        let minor = serde_json::from_str::<serde_json::Value>(version).ok().and_then(|v| {
            let minor = v["clientVersion"]["minor"].as_str()?;
            minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok()
        });
        match minor {
            Some(minor) if minor >= MINOR_MIN => Self::Usable,
            Some(minor) => Self::NotUsable(format!("kubectl is 1.{minor}, older than 1.{MINOR_MIN}")),
            None => Self::NotUsable("kubectl does not say its version".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_broken_ones_are_not_used() {
        let version = |minor: &str| format!(r#"{{"clientVersion":{{"major":"1","minor":"{minor}"}}}}"#);
        assert_eq!(Kubectl::judge(&version("32+")), Kubectl::Usable);
        assert_eq!(Kubectl::judge(&version("27")), Kubectl::Usable);
        assert!(matches!(Kubectl::judge(&version("20")), Kubectl::NotUsable(why) if why.contains("1.20")));
        assert!(matches!(Kubectl::judge("nonsense"), Kubectl::NotUsable(_)));
    }
}
