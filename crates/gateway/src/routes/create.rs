//! `POST /api/create`: progress as lines, or the last of them.

use std::sync::Arc;

use api::ollama::{CreateRequest, Progress};
use api::{Result, gojson};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use store::CreateSpec;
use tokio::sync::mpsc;

use crate::app::App;
use crate::frames::{self, Parts};
use crate::respond::{self, Native};

/// Lines that a slow client has not read yet. The store waits beyond that: nothing is lost, nothing piles up.
const UNREAD_LINES: usize = 64;
const SUCCESS: &str = "success";

pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Native> {
    let request: CreateRequest = app.read(request, gojson::MISSING_BODY).await?;
    let streams = request.stream.unwrap_or(true);
    let parts = begin(app.clone(), CreateSpec::new(request, app.config.supports)?);
    if streams {
        return Ok(frames::ndjson(parts).await?);
    }
    let last = frames::fold(parts, |whole, part| *whole = part).await?;
    Ok(respond::collected(&last))
}

/// The create and what it has to say. Nothing happens unless somebody reads.
struct Creating {
    told: mpsc::Receiver<Progress>,
    work: Option<BoxFuture<'static, Result<Progress>>>,
    outcome: Option<Result<Progress>>,
}

fn begin(app: Arc<App>, spec: CreateSpec) -> Parts<Progress> {
    let (tell, told) = mpsc::channel(UNREAD_LINES);
    let work = async move {
        let name = spec.name.clone();
        let progress = move |progress: Progress| {
            // The last line is ours to tell, when every gateway can see the model. A client that left is noticed by
            // the store itself.
            if progress.status != SUCCESS {
                let _ = tell.blocking_send(progress);
            }
        };
        app.write_model(&name, app.store.create(spec, progress)).await?;
        Ok(Progress::status(SUCCESS))
    };
    let creating = Creating { told, work: Some(work.boxed()), outcome: None };
    stream::unfold(creating, Creating::next).boxed()
}

impl Creating {
    async fn next(mut self) -> Option<(Result<Progress>, Creating)> {
        loop {
            let working = self.work.is_some();
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
                outcome = work, if working => {
                    self.work = None;
                    self.outcome = Some(outcome);
                }
                else => return self.outcome.take().map(|outcome| (outcome, self)),
            }
        }
    }
}
