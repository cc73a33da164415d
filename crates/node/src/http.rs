//! HTTP on a listener, for the API and for the admin port: HTTP/1, and HTTP/2 for who begins with it.
//!
//! What a client may hold by doing nothing is bounded. The head of a request must be whole a while after its first byte;
//! what comes after the head is its handler's business. A connection that is idle between two requests may stay, until
//! there are as many as there may be: then the one that has been idle for the longest makes room.

mod activity;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rlimit::{Resource, getrlimit, increase_nofile_limit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::activity::{Activity, Running};

/// A line that takes longer for some hundred bytes is of no use for what comes after them.
const HEAD: Duration = Duration::from_secs(30);
/// Each may have some 20 KiB of buffers.
const MAX_CONNECTIONS: usize = 16_384;

/// For the last bytes of a connection that makes room; somebody waits for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a client may hold without asking for anything.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the first byte of a request, or the beginning of the connection, to the end of the request's head.
    pub head: Duration,
    /// At the same time.
    pub connections: usize,
}

impl Default for Bounds {
    /// Half of the handles that this process may have: models, workers and etcd need some, too.
    fn default() -> Bounds {
        let handles = getrlimit(Resource::NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let half = usize::try_from(handles / 2).unwrap_or(usize::MAX);
        Bounds { head: HEAD, connections: half.clamp(1, MAX_CONNECTIONS) }
    }
}

/// Lets this process have as many handles as the system allows, as Go does for every program. Before any [`Bounds`].
pub fn raise_handles() {
    if let Err(error) = increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "cannot raise the limit of handles");
    }
}

/// Serves until the drain begins, then finishes the requests that run. Dropped, it cuts them.
pub async fn serve(mut listener: TcpListener, router: Router, bounds: Bounds, drain: CancellationToken) {
    let mut open = Open::default();
    while let Some((stream, _)) = drain.run_until_cancelled(Listener::accept(&mut listener)).await {
        // Tokens are small packets: each must leave at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        if drain.run_until_cancelled(open.make_room(bounds.connections)).await.is_none() {
            break;
        }
        let activity = Arc::new(Activity::new(open.idle.clone()));
        let requests = Requests { router: router.clone(), activity: activity.clone() };
        let task = open.tasks.spawn(converse(stream, requests, bounds.head, drain.clone()));
        open.activities.insert(task.id(), activity);
    }
    // Who comes now is told at once that nobody listens.
    drop(listener);
    while open.tasks.join_next().await.is_some() {}
}

/// The connections that there are.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    activities: HashMap<task::Id, Arc<Activity>>,
    /// One of them has become idle.
    idle: Arc<Notify>,
}

impl Open {
    /// Back when there are fewer than `limit`.
    async fn make_room(&mut self, limit: usize) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
        while self.activities.len() >= limit {
            let staying = || self.activities.values().filter(|activity| !activity.is_leaving());
            let idle = staying().filter_map(|activity| Some((activity.idle_since()?, activity)));
            if let Some((_, longest)) = idle.min_by_key(|(since, _)| *since)
                && staying().count() >= limit
            {
                longest.ask_to_leave();
            }
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => self.forget(ended),
                () = self.idle.notified() => {}
            }
        }
    }

    fn forget(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        self.activities.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
    }
}

/// Answers the requests of one connection until it ends, or must.
async fn converse<S>(stream: S, requests: Requests, head: Duration, drain: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (activity, reading) = (requests.activity.clone(), requests.activity.clone());
    let stream = InspectReader::new(stream, move |bytes: &[u8]| reading.read(bytes.len()));
    let builder = Builder::new(TokioExecutor::new());
    let service = TowerToHyperService::new(requests);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut due = pin!(sleep_until(activity.due(head)));
    let mut is_draining = false;
    loop {
        tokio::select! {
            // A head that is whole in time is not late because we are.
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a connection broke off");
                }
                return;
            }
            () = drain.cancelled(), if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = activity.asked_to_leave() => {
                connection.as_mut().graceful_shutdown();
                if activity.idle_since().is_some() {
                    // What was said is written to its end, if anybody reads it.
                    let _ = timeout(FAREWELL, connection).await;
                    return;
                }
            }
            () = due.as_mut() => match activity.due(head) {
                at if at <= Instant::now() => {
                    tracing::debug!(?head, "the head of a request was not whole in time");
                    return;
                }
                at => due.as_mut().reset(at),
            },
        }
    }
}

/// The router, told apart by connection.
#[derive(Clone)]
struct Requests {
    router: Router,
    activity: Arc<Activity>,
}

impl<B> Service<Request<B>> for Requests
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let running = self.activity.begin(request.version());
        let answered = self.router.call(request);
        Box::pin(async move { Ok(answered.await?.map(|body| Answer { body, _running: running })) })
    }
}

/// A body during which its request runs.
struct Answer {
    body: Body,
    _running: Running,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
