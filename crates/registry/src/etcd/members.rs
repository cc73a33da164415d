//! The members of an etcd cluster: one connection each, and one member that is asked until it fails.
//!
//! The client's own balancing asks a member that is down again and again, so that with one of three members down
//! every third request would fail.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, KvClient, LeaseClient, WatchClient};
use tokio::{sync::OnceCell, time::timeout};

use super::errors::{convert, was_never_sent};
use crate::store::{Error, Result};

/// The largest answer that is read. The client's own bound of 4 MiB is less than three large values.
const DECODE_BYTES: usize = 256 * 1024 * 1024;

pub(super) struct Members {
    members: Vec<Member>,
    options: ConnectOptions,
    /// Which one is asked first: the one that answered last.
    current: AtomicUsize,
    request_timeout: Duration,
}

struct Member {
    endpoint: String,
    /// Made when it is first asked, because with a password that takes a request.
    clients: OnceCell<Clients>,
}

#[derive(Clone)]
pub(super) struct Clients {
    pub keys: KvClient,
    pub watch: WatchClient,
    pub lease: LeaseClient,
}

/// Whether a request may be made again without knowing what became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Yes,
    /// Only when it cannot have reached etcd.
    IfNeverSent,
}

// === impl Members ===

impl Members {
    pub fn new(endpoints: &[String], options: ConnectOptions, request_timeout: Duration) -> Members {
        let member = |endpoint: &String| Member { endpoint: endpoint.clone(), clients: OnceCell::new() };
        let members = endpoints.iter().map(member).collect();
        Members { members, options, current: AtomicUsize::new(0), request_timeout }
    }

    /// Asks one member after another until one answers. What an answer says, a refusal included, is final.
    pub async fn ask<T, F>(&self, again: Again, request: impl Fn(Clients) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let first = self.current.load(Ordering::Relaxed);
        let mut attempt = 0;
        loop {
            let at = (first + attempt) % self.members.len();
            let (error, may_repeat) = match self.ask_one(&self.members[at], &request).await {
                Ok(answer) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            attempt += 1;
            if !error.is_retryable() {
                return Err(error);
            }
            // The next request begins with the next member, whoever makes it.
            self.current.store(at + 1, Ordering::Relaxed);
            if attempt == self.members.len() || !(may_repeat || again == Again::Yes) {
                return Err(error);
            }
        }
    }

    /// An error comes with whether the request certainly did not reach etcd.
    async fn ask_one<T, F>(&self, member: &Member, request: impl Fn(Clients) -> F) -> Result<T, (Error, bool)>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let connect = member.clients.get_or_try_init(|| member.connect(&self.options));
        let clients = match self.limited(connect).await {
            Ok(clients) => clients.clone(),
            Err((error, _)) => return Err((error, true)),
        };
        self.limited(request(clients)).await
    }

    /// Within the time limit of one request.
    async fn limited<T>(
        &self,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, (Error, bool)> {
        match timeout(self.request_timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let never_sent = was_never_sent(&error);
                Err((convert(error), never_sent))
            }
            Err(_) => Err((Error::Timeout(self.request_timeout), false)),
        }
    }
}

// === impl Member ===

impl Member {
    async fn connect(&self, options: &ConnectOptions) -> Result<Clients, etcd_client::Error> {
        let client = Client::connect([&self.endpoint], Some(options.clone())).await?;
        Ok(Clients {
            keys: client.kv_client().max_decoding_message_size(DECODE_BYTES),
            watch: client.watch_client().max_decoding_message_size(DECODE_BYTES),
            lease: client.lease_client(),
        })
    }
}
