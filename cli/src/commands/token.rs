//! `podium token`: bootstrap tokens, by which machines become nodes. As kubeadm's.
//!
//! # Source
//! Kubernetes `cmd/kubeadm/app/cmd/token.go`, `cmd/kubeadm/app/apis/bootstraptoken/v1/utils.go`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use podium_client::remote::ca_hashes;
use serde_json::{Value, json};

use crate::{
    Usage,
    connect::{Call, ConnectOptions, Connection, JSON, escape},
    duration_seconds,
    output::print_line,
};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Makes, lists and deletes tokens by which machines join as nodes
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium token create --print-join-command   what to run on the machine that is to join
  podium token create --ttl 15m
  podium token list
  podium token delete abcdef")]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    Create(CreateArgs),
    List(ListArgs),
    Delete(DeleteArgs),
}

/// Makes a token and prints it
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium token create --print-join-command
  podium token create --ttl 0 --description 'for the machines of rack 7'   one without an end")]
struct CreateArgs {
    /// Print the command that joins with the token, instead of the token
    #[arg(long)]
    print_join_command: bool,
    /// How long it is good: 90s, 15m, 24h; 0: for ever
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration_seconds)]
    ttl: u64,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
}

/// Lists the tokens that there are, without their secrets
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium token list")]
struct ListArgs {}

/// Deletes tokens; nodes that have joined with them stay
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium token delete abcdef")]
struct DeleteArgs {
    /// The part before the dot, or the whole token. Repeatable
    #[arg(required = true, value_name = "TOKEN")]
    tokens: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// What the server says.
pub(crate) async fn run(args: TokenArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let connection = connect.connect().await?;
    match args.action {
        Action::Create(args) => create(&args, connect, &connection).await?,
        Action::List(ListArgs {}) => list(&connection).await?,
        Action::Delete(args) => {
            for token in &args.tokens {
                let id = token.split('.').next().unwrap_or_default();
                let path = format!("{SECRETS}/{PREFIX}{}", escape(id));
                connection.json(Call::new(Method::DELETE, path)).await?;
                print_line(&format!("bootstrap token {id:?} deleted"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: &CreateArgs, connect: &ConnectOptions, connection: &Connection) -> Result<()> {
    let (id, secret) = (random(6)?, random(16)?);
    let expiration = match args.ttl {
        0 => None,
        seconds => {
            let ttl = i64::try_from(seconds).map(SignedDuration::from_secs).ok();
            let end = ttl.and_then(|ttl| Timestamp::now().checked_add(ttl).ok());
            Some(end.ok_or_else(|| Usage("--ttl is too long".to_owned()))?)
        }
    };
    let body = token_secret((&id, &secret), expiration, &args.description);
    connection.json(Call::new(Method::POST, SECRETS).body(JSON, &body)).await?;
    let token = format!("{id}.{secret}");
    if !args.print_join_command {
        return Ok(print_line(&token)?);
    }
    let (_, server, ca_pem) = connect.trusted().await?;
    let hashes: Vec<_> = ca_hashes(&ca_pem)?.into_iter().map(|hash| format!(" --ca-cert-hash {hash}")).collect();
    Ok(print_line(&format!("podium node join --server {server} --token {token}{}", hashes.concat()))?)
}

fn token_secret((id, secret): (&str, &str), expiration: Option<Timestamp>, description: &str) -> Value {
    let mut data = json!({
        "token-id": id, "token-secret": secret,
        "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
        "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    });
    if let Some(end) = expiration {
        data["expiration"] = end.round(jiff::Unit::Second).unwrap_or(end).to_string().into();
    }
    if !description.is_empty() {
        data["description"] = description.into();
    }
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": TYPE, "stringData": data,
        "metadata": { "name": format!("{PREFIX}{id}"), "namespace": "kube-system" },
    })
}

/// Characters that nobody can guess.
fn random(length: usize) -> Result<String> {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut byte = [0_u8; 1];
        getrandom::fill(&mut byte).context("draw random bytes")?;
        // Every character as likely as any other.
        let index = usize::from(byte[0]);
        if index < 7 * ALPHABET.len() {
            text.push(char::from(ALPHABET[index % ALPHABET.len()]));
        }
    }
    Ok(text)
}

async fn list(connection: &Connection) -> Result<()> {
    let call = Call::get(SECRETS).query("fieldSelector", format!("type={TYPE}"));
    let found = connection.json(call).await?;
    let Some(items) = found["items"].as_array() else { bail!("the server's answer is no list") };
    let mut lines = vec![["TOKEN".to_owned(), "EXPIRES".to_owned(), "DESCRIPTION".to_owned()]];
    lines.extend(items.iter().map(row));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default() + 3;
    let (first, second) = (width(0), width(1));
    for [token, expires, description] in &lines {
        print_line(format!("{token:first$}{expires:second$}{description}").trim_end())?;
    }
    Ok(())
}

fn row(secret: &Value) -> [String; 3] {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let field = |name: &str| {
        let bytes = secret["data"][name].as_str().and_then(|text| STANDARD.decode(text).ok());
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    let expires = Some(field("expiration")).filter(|text| !text.is_empty()).unwrap_or_else(|| "<forever>".to_owned());
    [field("token-id"), expires, field("description")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_secrets_that_kubeadm_would_make() {
        let (id, secret) = (random(6).unwrap(), random(16).unwrap());
        assert!(id.bytes().chain(secret.bytes()).all(|b| ALPHABET.contains(&b)), "{id} {secret}");
        assert_ne!(random(16).unwrap(), secret);
        let end = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let made = token_secret(("abcdef", "0123456789abcdef"), Some(end), "rack 7");
        assert_eq!(made["metadata"]["name"], "bootstrap-token-abcdef");
        assert_eq!(made["stringData"]["expiration"], "2026-01-02T03:04:06Z");
        assert_eq!(made["stringData"]["description"], "rack 7");
        assert_eq!(token_secret(("a", "b"), None, "")["stringData"].get("expiration"), None);
    }

    #[test]
    fn a_list_shows_no_secret() {
        let shown = row(&json!({ "data": { "token-id": "YWJjZGVm", "token-secret": "c2VjcmV0" } }));
        assert_eq!(shown, ["abcdef", "<forever>", ""].map(str::to_owned));
    }
}
