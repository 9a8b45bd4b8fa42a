//! What a request for streams asks for: which container, which streams, which command; and whether the pod can have it.
//!
//! # Source
//! Kubernetes `pkg/registry/core/pod/strategy.go` (`streamLocation`), `pkg/kubelet/server/server.go` and
//! `staging/src/k8s.io/kubelet/pkg/cri/streaming`.

use k8s_openapi::api::core::v1::Pod;
use podium_api::ApiError;

use crate::{
    gateway::{AttachOptions, ExecOptions},
    http::path::Query,
};

/// Reads `PodAttachOptions`.
///
/// # Errors
/// 400 when no stream is asked for.
pub(crate) fn attach(query: &Query) -> Result<AttachOptions, ApiError> {
    let tty = query.flag("tty");
    let options = AttachOptions {
        container: query.get("container").to_owned(),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        // A terminal has one output.
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if !options.stdin && !options.stdout && !options.stderr {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(options)
}

/// Reads `PodExecOptions`.
///
/// # Errors
/// 400 when no stream is asked for, or there is no command.
pub(crate) fn exec(query: &Query) -> Result<ExecOptions, ApiError> {
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.first().is_none_or(String::is_empty) {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    Ok(ExecOptions { attach: attach(query)?, command })
}

/// Reads the ports of `PodPortForwardOptions`, which only clients of WebSockets say beforehand.
///
/// # Errors
/// 400 for what is no port.
pub(crate) fn ports(query: &Query) -> Result<Vec<u16>, ApiError> {
    let mut ports = Vec::new();
    for text in query.all("ports") {
        if text.is_empty() {
            return Err(ApiError::bad_request("query parameter \"ports\" cannot be empty"));
        }
        for part in text.split(',') {
            ports.push(port(part).map_err(ApiError::bad_request)?);
        }
    }
    Ok(ports)
}

/// Reads a port.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("unable to parse {text:?} as a port: it is no number from 1 to 65535")),
    }
}

/// Fills in the container.
///
/// # Errors
/// 400 in Kubernetes' words.
pub(crate) fn choose_container(pod: &Pod, container: &mut String) -> Result<(), ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let all = containers(pod);
    let mains = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    match (container.as_str(), mains) {
        ("", 0) => {
            return Err(ApiError::bad_request(format!("a container name must be specified for pod {name}")));
        }
        ("", 1) => pod.spec.iter().flat_map(|spec| &spec.containers).for_each(|c| c.name.clone_into(container)),
        ("", _) => {
            let all = all.join(" ");
            return Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{all}]"
            )));
        }
        (asked, _) if !all.contains(&asked) => {
            return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")));
        }
        _ => {}
    }
    Ok(())
}

/// Refuses pods that are nowhere.
///
/// # Errors
/// 400 in Kubernetes' words.
pub(crate) fn check_host(pod: &Pod) -> Result<(), ApiError> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    if node.is_empty() {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(())
}

/// Names of all containers: those that run first, the pod's own, those for debugging.
fn containers(pod: &Pod) -> Vec<&str> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let inits = spec.init_containers.iter().flatten().map(|c| c.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str());
    inits.chain(spec.containers.iter().map(|c| c.name.as_str())).chain(ephemeral).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let all = AttachOptions { container: "a".into(), stdin: true, stdout: true, stderr: true, tty: false };
        for (query, wanted) in [
            ("container=a&stdin=1&stdout=true&stderr=1", Ok(all.clone())),
            (
                "container=a&stdin=1&stdout=true&stderr=1&tty=true",
                Ok(AttachOptions { tty: true, stderr: false, ..all }),
            ),
            ("stdin=false&stdout=0", Err("you must specify at least 1 of stdin, stdout, stderr")),
            ("stderr=1&tty=1", Err("you must specify at least 1 of stdin, stdout, stderr")),
        ] {
            assert_eq!(
                attach(&Query::parse(Some(query))).map_err(|e| e.message),
                wanted.map_err(str::to_owned),
                "{query}"
            );
        }
        let found = exec(&Query::parse(Some("command=sh&command=-c&command=a%20b&stdout=1"))).unwrap();
        assert_eq!(found.command, ["sh", "-c", "a b"]);
        let refused = exec(&Query::parse(Some("stdout=1"))).unwrap_err();
        assert_eq!(refused.message, "you must specify at least one command for the container");
        for (query, wanted) in [
            ("", Ok(vec![])),
            ("ports=80&ports=81,82", Ok(vec![80, 81, 82])),
            ("ports=", Err("query parameter \"ports\" cannot be empty")),
            ("ports=0", Err("port \"0\" must be > 0")),
            ("ports=x", Err("unable to parse \"x\" as a port: it is no number from 1 to 65535")),
        ] {
            assert_eq!(
                ports(&Query::parse(Some(query))).map_err(|e| e.message),
                wanted.map_err(str::to_owned),
                "{query}"
            );
        }
    }

    #[test]
    fn containers_are_chosen() {
        let pod = |containers: &[&str]| -> Pod {
            let containers: Vec<_> = containers.iter().map(|n| serde_json::json!({"name": n})).collect();
            let spec = serde_json::json!({"containers": containers, "initContainers": [{"name": "i"}]});
            serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
        };
        for (containers, asked, wanted) in [
            (&["a"][..], "", Ok("a")),
            (&["a"], "i", Ok("i")),
            (&["a", "b"], "b", Ok("b")),
            (&["a", "b"], "", Err("a container name must be specified for pod p, choose one of: [i a b]")),
            (&["a"], "x", Err("container x is not valid for pod p")),
            (&[], "", Err("a container name must be specified for pod p")),
        ] {
            let mut chosen = asked.to_owned();
            let found = choose_container(&pod(containers), &mut chosen).map_err(|e| e.message);
            assert_eq!(found.map(|()| chosen), wanted.map(str::to_owned).map_err(str::to_owned), "{asked}");
        }
        assert_eq!(check_host(&pod(&["a"])).unwrap_err().message, "pod p does not have a host assigned");
    }
}
