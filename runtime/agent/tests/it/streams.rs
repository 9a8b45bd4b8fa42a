//! Commands in containers and clients that take part.

use bytes::Bytes;
use podium_agent::streams::{AttachOptions, Session, StreamError, Streams, TerminalSize, Tools};
use podium_api::ObjectKey;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
};

use crate::cluster::{Cluster, hello};

/// Copies its input to its output.
const CAT: &str = include_str!("../../../../tests/e2e/fixtures/cat.wat");

/// Runs a session with some input; answers with both outputs and its end.
pub(crate) async fn talk(session: Session, input: &str) -> (String, String, Result<i32, String>) {
    let ((mut client_in, stdin), (mut out, stdout), (mut err, stderr)) =
        (tokio::io::duplex(1 << 16), tokio::io::duplex(64), tokio::io::duplex(64));
    let (_size, size) = watch::channel(Some(TerminalSize { width: 80, height: 24 }));
    let streams =
        Streams { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), stderr: Some(Box::new(stderr)), size };
    let typing = async move {
        client_in.write_all(input.as_bytes()).await.unwrap();
        client_in.shutdown().await.unwrap();
    };
    let (mut out_text, mut err_text) = (String::new(), String::new());
    let (end, read_out, read_err, ()) =
        tokio::join!(session(streams), out.read_to_string(&mut out_text), err.read_to_string(&mut err_text), typing);
    let _lengths = (read_out.unwrap(), read_err.unwrap());
    (out_text, err_text, end)
}

pub(crate) fn options(container: &str, tty: bool) -> AttachOptions {
    AttachOptions { container: container.to_owned(), stdin: true, tty }
}

pub(crate) async fn exec(cluster: &Cluster, pod: &str, tty: bool, command: &[&str]) -> Result<Session, StreamError> {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    cluster.streaming().exec(&ObjectKey::new("default", pod), options("app", tty), command).await
}

fn refusal(result: Result<Session, StreamError>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_of_the_image_or_of_the_tools() {
    let cluster = Cluster::start_with(|config| {
        config.tools = Tools::Module(Bytes::from_static(include_bytes!("../../../../sdk/tools/tools.wasm")));
    })
    .await;
    cluster.image("cat.wasm", CAT);
    cluster.pod("web", json!({ "containers": [hello()] })).await;
    cluster.pod("cat", json!({ "containers": [{ "name": "app", "image": "file://cat.wasm", "stdin": true }] })).await;
    cluster.until_ready("web").await;
    cluster.until_ready("cat").await;
    let large = "0123456789".repeat(100_000);
    for (pod, tty, command, input, wanted) in [
        ("web", false, &["printenv", "POD_NAME"][..], "", ("web\n", "", 0)),
        ("web", false, &["sh", "-c", "echo a; echo b >&2; exit 200"], "", ("a\n", "b\n", 200)),
        ("web", false, &["/bin/wc", "-c"], large.as_str(), ("1000000\n", "", 0)),
        ("web", true, &["sh", "-c", "echo $COLUMNS; echo x >&2"], "", ("80\r\nx\r\n", "", 0)),
        ("web", true, &["sleep", "1000"], "a\x03", ("a^C\r\n", "", 130)),
        (
            "web",
            false,
            &["hello.wasm"],
            "",
            (
                "",
                "OCI runtime exec failed: exec failed: unable to start container process: exec: \"hello.wasm\": the image's program answers HTTP requests and is no command\n",
                126,
            ),
        ),
        ("cat", false, &["cat.wasm"], "own program", ("own program", "", 0)),
        ("cat", false, &["cat"], large.as_str(), (large.as_str(), "", 0)),
    ] {
        let session = exec(&cluster, pod, tty, command).await.unwrap();
        let (out, err, code) = talk(session, input).await;
        assert!(
            (out.as_str(), err.as_str(), code.as_ref()) == (wanted.0, wanted.1, Ok(&wanted.2)),
            "{command:?}: {err} {code:?}"
        );
    }
    assert_eq!(refusal(exec(&cluster, "none", false, &["ls"]).await), "pod does not exist");
    let web = ObjectKey::new("default", "web");
    let other = cluster.streaming().exec(&web, options("other", false), vec!["ls".into()]).await;
    assert_eq!(refusal(other), "container not found (\"other\")");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tools_there_are_none_and_clients_take_part() {
    let cluster = Cluster::start().await;
    cluster.image("cat.wasm", CAT);
    let container = json!({ "name": "app", "image": "file://cat.wasm", "stdin": true, "stdinOnce": true });
    cluster.pod("cat", json!({ "restartPolicy": "Never", "containers": [container] })).await;
    cluster.until_ready("cat").await;
    let (_, err, code) = talk(exec(&cluster, "cat", false, &["ls"]).await.unwrap(), "").await;
    assert!(err.ends_with("exec: \"ls\": executable file not found in $PATH\n"), "{err}");
    assert_eq!(code, Ok(127));

    let key = ObjectKey::new("default", "cat");
    let session = cluster.streaming().attach(&key, options("app", false)).await.unwrap();
    let (out, _, end) = talk(session, "one line\n").await;
    assert_eq!((out.as_str(), end), ("one line\n", Ok(0)));
    // The end of the only client's input was the end of the container's.
    cluster.until_pod("cat", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(refusal(cluster.streaming().attach(&key, options("app", false)).await), "container not found (\"app\")");
    let gone = cluster.streaming().port_forward(&key).await.err().unwrap();
    assert_eq!(gone.to_string(), "pod not found (\"cat_default\")");
    cluster.shutdown().await;
}
