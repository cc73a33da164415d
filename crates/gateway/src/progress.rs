//! Work that takes long and tells how far it is: creates, pulls and pushes, as lines or as the last of them.

use std::future::Future;

use api::Result;
use api::ollama::Progress;
use axum::response::Response;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc;

use crate::frames::{self, Parts};
use crate::respond;

/// Lines that a slow client has not read yet. Whoever tells waits beyond that: nothing is lost, nothing piles up.
const UNREAD_LINES: usize = 64;
/// The last line of every work that ends well.
pub const SUCCESS: &str = "success";

/// Answers with what `work` tells, and `success` at its end. Nothing happens unless somebody reads; a client that leaves
/// drops the work.
pub async fn respond<F>(streams: bool, work: impl FnOnce(mpsc::Sender<Progress>) -> F) -> Result<Response>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let parts = begin(work);
    if streams {
        return frames::ndjson(parts).await;
    }
    let last = frames::fold(parts, |whole, part| *whole = part).await?;
    Ok(respond::collected(&last))
}

/// The work and what it has to say.
struct Working {
    told: mpsc::Receiver<Progress>,
    work: Option<BoxFuture<'static, Result<()>>>,
    outcome: Option<Result<Progress>>,
}

fn begin<F>(work: impl FnOnce(mpsc::Sender<Progress>) -> F) -> Parts<Progress>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (tell, told) = mpsc::channel(UNREAD_LINES);
    let working = Working { told, work: Some(work(tell).boxed()), outcome: None };
    stream::unfold(working, Working::next).boxed()
}

impl Working {
    async fn next(mut self) -> Option<(Result<Progress>, Working)> {
        loop {
            let is_working = self.work.is_some();
            let work = async {
                match &mut self.work {
                    Some(work) => work.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Lines first, so that none comes after the outcome.
                biased;
                Some(progress) = self.told.recv() => return Some((Ok(progress), self)),
                outcome = work, if is_working => {
                    self.work = None;
                    self.outcome = Some(outcome.map(|()| Progress::status(SUCCESS)));
                }
                else => return self.outcome.take().map(|outcome| (outcome, self)),
            }
        }
    }
}
