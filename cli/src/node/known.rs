//! Which cluster a node belongs to: kept in its folder, so that it comes back by itself.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use podium_agent::Credentials;
use podium_client::{
    RemoteApi,
    remote::{Access, Shown, discover_ca},
};
use serde::{Deserialize, Serialize};

use super::join::JoinArgs;
use crate::{Usage, connect::ConnectOptions, up::data_dir::DataDir};

/// A cluster, as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) server: String,
    pub(super) ca_pem: String,
}

fn file(data: &DataDir) -> PathBuf {
    data.join("cluster.json")
}

impl Known {
    fn read(data: &DataDir) -> Result<Option<Self>> {
        let path = file(data);
        match std::fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).with_context(|| format!("cannot read {}", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(super) fn write(&self, data: &DataDir) -> Result<()> {
        let path = file(data);
        let temporary = path.with_extension("new");
        let written = std::fs::write(&temporary, serde_json::to_vec_pretty(self)?);
        written
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// How the node itself reaches the cluster.
    pub(super) fn as_node(&self, credentials: &Credentials) -> Option<Access> {
        let pem = credentials.client_pem()?;
        let shown = Shown::Certificate { certificate: pem.certificate, key: pem.key };
        Some(Access { server: self.server.clone(), ca_pem: self.ca_pem.clone(), shown })
    }
}

/// Finds out which cluster is meant, and by whose leave the node asks for its first certificate: by a token's, a
/// kubeconfig's, or nobody's, when it has been there before.
pub(super) async fn find(
    args: &JoinArgs,
    connect: &ConnectOptions,
    data: &DataDir,
) -> Result<(Known, Option<RemoteApi>)> {
    let before = Known::read(data)?;
    if let Some(server) = &args.server {
        let ca_pem = match before.filter(|_| args.ca_cert_hash.is_empty()) {
            Some(known) => known.ca_pem,
            None if args.ca_cert_hash.is_empty() => {
                bail!(Usage(
                    "name the cluster's CA with --ca-cert-hash: podium token create --print-join-command".into()
                ))
            }
            None => discover_ca(server, &args.ca_cert_hash).await.map_err(|error| anyhow::anyhow!(error.message))?,
        };
        let known = Known { server: server.clone(), ca_pem };
        let Some(token) = &args.token else { return Ok((known, None)) };
        let shown = Shown::Token(token.clone());
        let access = Access { server: server.clone(), ca_pem: known.ca_pem.clone(), shown };
        return Ok((known, Some(RemoteApi::connect(&access)?)));
    }
    if let Some(known) = before {
        return Ok((known, None));
    }
    if connect.kubeconfig.is_none() {
        bail!(Usage("name the cluster with --server, --token and --ca-cert-hash, or with --kubeconfig".to_owned()));
    }
    let (client, server, ca_pem) = connect.trusted().await?;
    Ok((Known { server, ca_pem }, Some(RemoteApi::new(client))))
}
