//! Resume: one uninterrupted stream for the client, however many workers die on the way (contract C4).
//!
//! Every token id that a worker has sent is kept, and how many bytes of text went with them. When the connection
//! breaks, another replica gets the same request with these: it replays the tokens, sends nothing twice, and goes
//! on with the next one. That the next one is the same as it would have been is the sampler's doing, which draws by
//! seed and position; the seed was fixed when the request was composed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::{Code, Error, Result};
use futures::{StreamExt, stream};
use protocol::v1::{GenerateChunk, GenerateRequest, Resume};
use tonic::Streaming;

use crate::cluster::Link;
use crate::compose::Composed;
use crate::dispatch::{Dispatcher, Journey, Opened};
use crate::errand::Errand;
use crate::frames::Parts;

/// More deaths than this in one answer are no accident: the request itself may be what kills the workers.
const MAX_RESUMES: u32 = 5;

/// The end of a stream follows its last chunk at once. A worker that keeps it back does not keep the client.
const LONGEST_END: Duration = Duration::from_secs(1);

struct Resumable {
    dispatcher: Dispatcher,
    errand: Errand,
    request: GenerateRequest,
    /// `None` when there is nothing more to come.
    running: Option<Opened<Streaming<GenerateChunk>>>,
    /// The last chunk was sent.
    is_done: bool,
    emitted_ids: Vec<u32>,
    delivered: u64,
    resumes: u32,
    /// Where the client's headers look for it.
    cached_tokens: Arc<OnceLock<u64>>,
}

/// The chunks of a stream that has been opened, and of those that continue it.
pub fn stream(
    dispatcher: Dispatcher,
    composed: Composed,
    opened: Opened<Streaming<GenerateChunk>>,
) -> Parts<GenerateChunk> {
    let resumable = Resumable {
        dispatcher,
        cached_tokens: opened.route.cached_tokens.clone(),
        errand: composed.errand,
        request: composed.request,
        running: Some(opened),
        is_done: false,
        emitted_ids: Vec::new(),
        delivered: 0,
        resumes: 0,
    };
    stream::unfold(resumable, |mut resumable| async move {
        let chunk = resumable.next().await?;
        Some((chunk, resumable))
    })
    .boxed()
}

impl Resumable {
    async fn next(&mut self) -> Option<Result<GenerateChunk>> {
        if self.is_done {
            self.close().await;
        }
        loop {
            let running = self.running.as_mut()?;
            let error = match running.value.message().await {
                Ok(Some(chunk)) => return Some(Ok(self.deliver(chunk))),
                Ok(None) => Error::unavailable("the worker ended the stream before the answer"),
                Err(status) => protocol::from_status(&status),
            };
            let link = running.slot.link.clone();
            self.running = None;
            if error.code != Code::Unavailable {
                return Some(Err(error));
            }
            if let Err(error) = self.resume(link, error).await {
                return Some(Err(error));
            }
        }
    }

    fn deliver(&mut self, chunk: GenerateChunk) -> GenerateChunk {
        self.is_done = chunk.done.is_some();
        if let Some(cached_tokens) = chunk.cached_tokens {
            // What another worker finds in its cache after a resume comes after the headers.
            self.cached_tokens.get_or_init(|| cached_tokens);
        }
        self.emitted_ids.extend_from_slice(&chunk.token_ids);
        self.delivered += (chunk.content.len() + chunk.thinking.len()) as u64;
        chunk
    }

    /// Reads the stream to its end: one that is dropped before counts as cancelled, and the slot is not free yet.
    async fn close(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = tokio::time::timeout(LONGEST_END, running.value.message()).await;
        }
    }

    async fn resume(&mut self, lost: Link, cause: Error) -> Result<()> {
        self.resumes += 1;
        let worker = &lost.worker;
        if self.resumes > MAX_RESUMES {
            let text = format!(
                "the answer was interrupted {} times, the last time on `{worker}`: {cause}",
                self.resumes
            );
            return Err(Error::unavailable(text));
        }
        tracing::warn!(worker, error = %cause, emitted = self.emitted_ids.len(), "worker lost, resuming elsewhere");
        if !self.emitted_ids.is_empty() {
            let emitted_ids = self.emitted_ids.clone();
            self.request.resume = Some(Resume { emitted_ids, delivered: self.delivered });
        }
        let journey = Journey::interrupted(lost);
        self.running = Some(self.dispatcher.begin(&self.errand, &self.request, journey).await?);
        Ok(())
    }
}
