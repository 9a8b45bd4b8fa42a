//! A client outside the cluster: single requests, and load that never pauses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// No request of the tests takes longer.
const TIMEOUT: Duration = Duration::from_secs(30);

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

async fn ask(client: &HttpClient, url: &str) -> Result<(u16, String)> {
    let whole = async {
        let response = client.get(url.parse()?).await.with_context(|| format!("GET {url}"))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.with_context(|| format!("read the body of {url}"))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    tokio::time::timeout(TIMEOUT, whole).await.with_context(|| format!("{url} did not answer in {TIMEOUT:?}"))?
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")
}

/// Status and body of `GET url`.
///
/// # Errors
/// No answer.
pub fn get(url: &str) -> Result<(u16, String)> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    runtime()?.block_on(ask(&client, url))
}

/// Clients that ask without pause until told to stop.
pub struct Load {
    done: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    /// Starts `clients` of them, each on its own kept-alive connection.
    pub fn start(url: &str, clients: usize) -> Self {
        let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (url, done, answered) = (url.to_owned(), done.clone(), answered.clone());
            move || {
                runtime()?.block_on(async {
                    let each = (0..clients).map(|_| tokio::spawn(one(url.clone(), done.clone(), answered.clone())));
                    for client in each.collect::<Vec<_>>() {
                        client.await.context("a client panicked")??;
                    }
                    Ok(())
                })
            }
        });
        Self { done, answered, thread }
    }

    /// Requests answered with 200 so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Stops; answers with the number of requests.
    ///
    /// # Errors
    /// The first request that failed or was not answered with 200.
    pub fn stop(self) -> Result<u64> {
        self.done.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(ended) => ended.map(|()| self.answered.load(Ordering::Relaxed)),
            Err(_) => bail!("the load panicked"),
        }
    }
}

async fn one(url: String, done: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> Result<()> {
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    while !done.load(Ordering::Relaxed) {
        match ask(&client, &url).await? {
            (200, _) => answered.fetch_add(1, Ordering::Relaxed),
            (status, body) => bail!("{url} answered {status}: {body}"),
        };
    }
    Ok(())
}
