//! `Convert`: the work runs on a blocking thread and tells what it does over a short channel. A caller that leaves
//! closes the channel, which the thread notices before the next piece.

use std::ops::ControlFlow;

use api::Error;
use futures::{Stream, StreamExt, stream};
use protocol::v1::{ConvertProgress, ConvertRequest};
use store::{Digest, Store};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::converter::{Converter, Prepared};

/// Lines that the gateway has not read yet; the work waits for it beyond that.
const UNREAD: usize = 16;

type Told = Result<ConvertProgress, Error>;

pub(super) async fn begin(
    converter: Option<&Converter>,
    request: ConvertRequest,
    closed: &CancellationToken,
) -> Result<impl Stream<Item = Told> + Send + use<>, Error> {
    let none = || Error::invalid("this worker has no store, so it cannot convert models");
    let converter = converter.ok_or_else(none)?;
    let prepared = converter.prepare(&request)?;
    let store = prepared.store();
    let turn = tokio::select! {
        turn = converter.turn() => turn?,
        () = closed.cancelled() => return Err(leaving()),
    };
    let (tell, told) = mpsc::channel(UNREAD);
    let ending = closed.clone();
    tracing::info!(
        request_id = request.request_id,
        quantization = request.quantization,
        "converting a model"
    );
    let work = spawn_blocking(move || {
        let _turn = turn;
        run(prepared, &tell, &ending);
    });
    let lines = Lines { told, work: Some(work), store };
    let lines = stream::unfold(lines, async |mut lines| Some((lines.next().await?, lines)));
    Ok(lines.boxed())
}

/// What the thread tells. Dropped early, it takes back what was made and not fetched.
struct Lines {
    told: mpsc::Receiver<Told>,
    work: Option<JoinHandle<()>>,
    store: Store,
}

impl Lines {
    /// Ends when the thread has dropped its end of the channel, and awaits the thread then, so that a panic is no
    /// success.
    async fn next(&mut self) -> Option<Told> {
        if let Some(line) = self.told.recv().await {
            return Some(line);
        }
        match self.work.take()?.await {
            Ok(()) => None,
            Err(_) => Some(Err(Error::internal("the conversion has died"))),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // From here on the thread itself sees that nobody listens.
        self.told.close();
        while let Ok(line) = self.told.try_recv() {
            if let Some(digest) = line.ok().and_then(|line| Digest::parse(&line.made).ok()) {
                self.store.discard(&digest);
            }
        }
    }
}

fn run(prepared: Prepared, tell: &mpsc::Sender<Told>, ending: &CancellationToken) {
    let store = prepared.store();
    let mut last = ConvertProgress::default();
    let made = prepared.run(&mut |progress| {
        if tell.is_closed() || ending.is_cancelled() {
            return ControlFlow::Break(());
        }
        if !is_news(&last, &progress) {
            return ControlFlow::Continue(());
        }
        last = progress.clone();
        match tell.blocking_send(Ok(progress)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    let (line, digest) = match made {
        Ok(digest) => {
            (Ok(ConvertProgress { made: digest.to_string(), ..ConvertProgress::default() }), Some(digest))
        }
        Err(_) if ending.is_cancelled() => (Err(leaving()), None),
        Err(error) => (Err(error), None),
    };
    let is_told = tell.blocking_send(line).is_ok();
    if let Some(digest) = digest.filter(|_| !is_told) {
        store.discard(&digest);
    }
}

/// A line for each hundredth: a bar moves, and nobody drowns.
fn is_news(last: &ConvertProgress, progress: &ConvertProgress) -> bool {
    last.status != progress.status
        || progress.completed == progress.total
        || progress.completed.saturating_sub(last.completed) >= progress.total / 100
}

/// Another worker can do it.
fn leaving() -> Error {
    Error::unavailable("the worker is shutting down")
}
