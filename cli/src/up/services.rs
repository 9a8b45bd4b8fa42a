//! How the API server reaches webhooks that are pods of this process.

use std::net::SocketAddr;

use async_trait::async_trait;
use http::{Request, Response, Uri};
use podium_apiserver::{ServiceBody, ServiceDialer};
use podium_network::{Caller, Dialer, Network};

/// The pod network as the API server wants it.
pub(crate) struct Pods {
    network: Network,
    dialer: Dialer,
}

impl Pods {
    pub(crate) fn new(network: Network) -> Self {
        let caller = Caller { namespace: "kube-system".to_owned(), pod: "kube-apiserver".to_owned(), ip: None };
        Self { dialer: network.dialer(caller), network }
    }
}

#[async_trait]
impl ServiceDialer for Pods {
    fn serves(&self, address: SocketAddr) -> bool {
        self.network.is_attached(address.ip(), address.port())
    }

    async fn send(
        &self,
        address: SocketAddr,
        mut request: Request<ServiceBody>,
    ) -> Result<Response<ServiceBody>, String> {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let uri: Uri = format!("http://{address}{path}").parse().map_err(|error| format!("parse: {error}"))?;
        *request.uri_mut() = uri;
        self.dialer.send(request).await.map_err(|error| error.to_string())
    }
}
