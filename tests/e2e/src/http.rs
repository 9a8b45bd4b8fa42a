//! A client outside the cluster: single requests, and load that never pauses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::{Condvar, Mutex};

/// No request of the tests takes longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a load may take to go on.
const GO_ON_WITHIN: Duration = Duration::from_secs(60);
/// After a request that failed.
const PAUSE: Duration = Duration::from_millis(10);

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

async fn ask(client: &HttpClient, method: &Method, url: &str) -> Result<(u16, String)> {
    let whole = async {
        let request = Request::builder().method(method).uri(url).body(Empty::new())?;
        let response = client.request(request).await.with_context(|| format!("{method} {url}"))?;
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
    runtime()?.block_on(ask(&client, &Method::GET, url))
}

/// Clients that ask without pause until told to stop.
pub struct Load {
    done: Arc<AtomicBool>,
    answered: Arc<Count>,
    /// What became of requests that failed or were not answered with 200.
    failed: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<Result<()>>,
}

/// How many were answered with 200.
#[derive(Default)]
struct Count {
    now: Mutex<u64>,
    changed: Condvar,
}

/// One of them.
struct Asker {
    method: Method,
    url: String,
    done: Arc<AtomicBool>,
    answered: Arc<Count>,
    failed: Arc<Mutex<Vec<String>>>,
}

impl Load {
    /// Starts `clients` of them, each on its own kept-alive connection.
    pub fn start(url: &str, clients: usize) -> Self {
        Self::of(Method::GET, url, clients)
    }

    /// The same with requests of a method.
    pub fn of(method: Method, url: &str, clients: usize) -> Self {
        let (done, answered, failed) = (Arc::default(), Arc::default(), Arc::default());
        let asker = || Asker {
            method: method.clone(),
            url: url.to_owned(),
            done: Arc::clone(&done),
            answered: Arc::clone(&answered),
            failed: Arc::clone(&failed),
        };
        let askers: Vec<_> = (0..clients).map(|_| asker()).collect();
        let thread = std::thread::spawn(move || {
            runtime()?.block_on(async {
                let each = askers.into_iter().map(|asker| tokio::spawn(asker.run()));
                for client in each.collect::<Vec<_>>() {
                    client.await.context("a client panicked")?;
                }
                Ok(())
            })
        });
        Self { done, answered, failed, thread }
    }

    /// Requests answered with 200 so far.
    pub fn answered(&self) -> u64 {
        *self.answered.now.lock()
    }

    /// Waits until so many more were answered.
    ///
    /// # Errors
    /// They were not within a minute.
    pub fn go_on(&self, more: u64) -> Result<()> {
        let deadline = Instant::now() + GO_ON_WITHIN;
        let mut answered = self.answered.now.lock();
        let (before, wanted) = (*answered, *answered + more);
        while *answered < wanted {
            if self.answered.changed.wait_until(&mut answered, deadline).timed_out() {
                bail!("only {} of {more} requests were answered within {GO_ON_WITHIN:?}", *answered - before);
            }
        }
        Ok(())
    }

    /// Stops; answers with the number of requests.
    ///
    /// # Errors
    /// The first request that failed or was not answered with 200.
    pub fn stop(self) -> Result<u64> {
        let (answered, failed) = self.tally()?;
        match failed.first() {
            None => Ok(answered),
            Some(first) => {
                bail!("{} of {} requests failed; the first: {first}", failed.len(), answered + failed.len() as u64)
            }
        }
    }

    /// Stops; answers with the number of requests answered with 200, and what became of the others.
    ///
    /// # Errors
    /// A client did not run.
    pub fn tally(self) -> Result<(u64, Vec<String>)> {
        self.done.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| bail!("the load panicked"))?;
        Ok((*self.answered.now.lock(), std::mem::take(&mut *self.failed.lock())))
    }
}

impl Asker {
    async fn run(self) {
        let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
        while !self.done.load(Ordering::Relaxed) {
            let failed = match ask(&client, &self.method, &self.url).await {
                Ok((200, _)) => {
                    *self.answered.now.lock() += 1;
                    self.answered.changed.notify_all();
                    continue;
                }
                Ok((status, body)) => format!("{} answered {status}: {body}", self.url),
                Err(error) => format!("{error:#}"),
            };
            self.failed.lock().push(failed);
            // Not without pause: who fails at once fails often.
            tokio::time::sleep(PAUSE).await;
        }
    }
}
