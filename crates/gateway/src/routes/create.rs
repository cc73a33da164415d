//! `POST /api/create`: progress as lines, or the last of them.

use std::sync::Arc;

use api::ollama::{CreateRequest, Progress};
use api::{Code, Error, Result, gojson};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use store::CreateSpec;
use tokio::sync::mpsc;

use crate::app::App;
use crate::call::Call;
use crate::conversion;
use crate::frames::{self, Parts};
use crate::resolve;
use crate::respond::{self, Native};

/// Lines that a slow client has not read yet. The store waits beyond that: nothing is lost, nothing piles up.
const UNREAD_LINES: usize = 64;
const SUCCESS: &str = "success";

pub async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Native> {
    let request: CreateRequest = app.read(request, gojson::MISSING_BODY).await?;
    if !request.remote_host.is_empty() || resolve::is_cloud(&request.from) {
        return Err(Error::new(Code::Forbidden, resolve::NO_CLOUD).into());
    }
    let streams = request.stream.unwrap_or(true);
    let parts = begin(app.clone(), call.id, CreateSpec::new(request, app.config.supports)?);
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

fn begin(app: Arc<App>, request_id: String, spec: CreateSpec) -> Parts<Progress> {
    let (tell, told) = mpsc::channel(UNREAD_LINES);
    let lines = tell.clone();
    let work = async move {
        let name = spec.name.clone();
        let progress = move |progress: Progress| {
            // The last line is ours to tell, when every gateway can see the model. A client that left is noticed by
            // the store itself.
            if progress.status != SUCCESS {
                let _ = tell.blocking_send(progress);
            }
        };
        let spec = conversion::prepare(&app, &request_id, spec, &lines).await?;
        drop(lines);
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
