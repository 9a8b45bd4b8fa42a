//! What a client hears at the end of a command: a `Status` with the exit code, or in words by older protocols.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kubelet/pkg/cri/streaming/remotecommand/{exec,attach}.go`.

use bytes::Bytes;
use podium_api::ApiError;
use serde_json::json;

use crate::gateway::{AttachOptions, ExecOptions, Session, SessionEnd, TerminalSize};

/// A prepared session and how it is spoken of.
pub(crate) struct Prepared {
    pub(crate) session: Session,
    pub(crate) options: AttachOptions,
    /// The command; none when a client attaches.
    pub(crate) command: Option<Vec<String>>,
}

impl Prepared {
    pub(crate) fn exec(session: Session, options: ExecOptions) -> Self {
        Self { session, options: options.attach, command: Some(options.command) }
    }

    pub(crate) fn attach(session: Session, options: AttachOptions) -> Self {
        Self { session, options, command: None }
    }
}

/// How the end is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// As a `Status`: from version 4 on.
    Status,
    /// Only failures, in words.
    Words,
}

/// What is said of an end, if anything.
pub(crate) fn said(end: &SessionEnd, command: Option<&[String]>, ends: Ends) -> Option<Bytes> {
    let (message, status) = match end {
        Ok(0) => (None, json!({"metadata": {}, "status": "Success"})),
        Ok(code) => {
            let command = command.unwrap_or_default().join(" ");
            let message = format!(
                "command terminated with non-zero exit code: error executing command [{command}], exit code {code}"
            );
            let causes = json!([{"reason": "ExitCode", "message": code.to_string()}]);
            let status = json!({"metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
                "details": {"causes": causes}});
            (Some(message), status)
        }
        Err(why) => {
            let what =
                if command.is_some() { "error executing command in container" } else { "error attaching to container" };
            let why = format!("{what}: {why}");
            let message = format!("Internal error occurred: {why}");
            let status = json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
                "details": {"causes": [{"message": why}]}, "code": 500});
            (Some(message), status)
        }
    };
    match ends {
        Ends::Status => Some(status.to_string().into()),
        Ends::Words => message.map(Bytes::from),
    }
}

/// Reads the size of a terminal.
pub(crate) fn size(message: &[u8]) -> Option<TerminalSize> {
    let value: serde_json::Value = serde_json::from_slice(message).ok()?;
    let side = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
    Some(TerminalSize { width: side("Width")?, height: side("Height")? })
}

/// As the kubelet says it: a failure of the node is no `Status`.
pub(crate) fn node_error(error: &ApiError) -> Option<String> {
    let words = error.message.strip_prefix("Internal error occurred: ").unwrap_or(&error.message);
    (error.reason == podium_api::Reason::InternalError).then(|| words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let command = ["sh".to_owned(), "-c".to_owned(), "exit 3".to_owned()];
        for (end, ends, wanted) in [
            (Ok(0), Ends::Status, Some(r#"{"metadata":{},"status":"Success"}"#)),
            (Ok(0), Ends::Words, None),
            (
                Ok(3),
                Ends::Words,
                Some("command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3"),
            ),
            (
                Err("no".to_owned()),
                Ends::Words,
                Some("Internal error occurred: error executing command in container: no"),
            ),
        ] {
            let found = said(&end, Some(&command), ends).map(|b| String::from_utf8(b.to_vec()).unwrap());
            assert_eq!(found.as_deref(), wanted, "{end:?}");
        }
        let status: serde_json::Value = serde_json::from_slice(&said(&Ok(3), None, Ends::Status).unwrap()).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
        assert_eq!(size(b"{\"Width\":80,\"Height\":24}\n"), Some(TerminalSize { width: 80, height: 24 }));
        assert_eq!(size(b"{\"Width\":80000,\"Height\":24}"), None);
        assert_eq!(size(b"x"), None);
    }
}
