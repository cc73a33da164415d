//! The chunks of one answer on their way from the runner's thread to its reader.
//!
//! The writer never blocks, so a slow reader stalls neither its own sequence nor the others: the slot is free as soon
//! as the answer is complete, however long its reader takes. Pausing the sequence instead would let a reader that
//! does not read hold a slot for ever. Memory stays bounded all the same: a reader that is behind gets fewer, larger
//! chunks, which leaves little more than the answer's text, and one that is too far behind is given up.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use api::{Code, Error};
use futures::Stream;
use prost::Message;
use protocol::v1::GenerateChunk;

/// Chunks that wait one by one. Clients count frames as tokens, so chunks are only joined for a reader that is this
/// far behind: half a second of a fast model.
const SEPARATE_CHUNKS: usize = 64;

/// What may wait for one reader: some hundred thousand tokens of text, or ten thousand with log probabilities.
const MAX_BYTES: usize = 16 << 20;

/// The writing end; it lives on the runner's thread. Dropped without [`Writer::end`], the reader learns that the
/// answer broke off.
#[derive(Debug)]
pub struct Writer(Arc<Mutex<State>>);

/// The reading end: a stream that ends after the last chunk or the first error. Dropped, it cancels the sequence.
#[derive(Debug)]
pub struct Reader(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Each with its size.
    queue: VecDeque<(GenerateChunk, usize)>,
    bytes: usize,
    end: Option<Result<(), Error>>,
    gone: bool,
    waker: Option<Waker>,
}

/// The two ends of a new outbox.
pub fn outbox() -> (Writer, Reader) {
    let state = Arc::new(Mutex::new(State::default()));
    (Writer(state.clone()), Reader(state))
}

// === impl Writer ===

impl Writer {
    /// Fails when the reader is so far behind that it is given up.
    pub fn push(&self, chunk: GenerateChunk) -> Result<(), Error> {
        let mut state = lock(&self.0);
        if state.gone {
            return Ok(());
        }
        let size = chunk.encoded_len();
        state.bytes += size;
        if state.bytes > MAX_BYTES {
            let text =
                format!("the reader of the answer is {} bytes behind, the limit is {MAX_BYTES}", state.bytes);
            return Err(Error::new(Code::Canceled, text));
        }
        let behind = state.queue.len() >= SEPARATE_CHUNKS;
        match state.queue.back_mut() {
            Some((last, bytes)) if behind && can_join(last, &chunk) => {
                join(last, chunk);
                *bytes += size;
            }
            _ => state.queue.push_back((chunk, size)),
        }
        wake(state);
        Ok(())
    }

    /// Nothing comes after it.
    pub fn end(&self, end: Result<(), Error>) {
        let mut state = lock(&self.0);
        state.end.get_or_insert(end);
        wake(state);
    }

    /// Whether nobody reads any more.
    pub fn is_gone(&self) -> bool {
        lock(&self.0).gone
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The gateway continues it elsewhere.
        self.end(Err(Error::unavailable("the model runner ended before the answer did")));
    }
}

// === impl Reader ===

impl Stream for Reader {
    type Item = Result<GenerateChunk, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = lock(&self.0);
        if let Some((chunk, size)) = state.queue.pop_front() {
            state.bytes -= size;
            return Poll::Ready(Some(Ok(chunk)));
        }
        match state.end.take() {
            Some(end) => {
                // Asked again after an error, it has simply ended.
                state.end = Some(Ok(()));
                Poll::Ready(end.err().map(Err))
            }
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.gone = true;
        state.queue = VecDeque::new();
    }
}

/// A panic elsewhere leaves the queue whole: every change to it is one call.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the reader after the lock is free, which it takes at once.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Calls keep their place in the text, thinking stays before content, and the last chunk stays on its own.
fn can_join(last: &GenerateChunk, next: &GenerateChunk) -> bool {
    let plain = |chunk: &GenerateChunk| chunk.tool_calls.is_empty() && chunk.done.is_none();
    plain(last) && plain(next) && (last.content.is_empty() || next.thinking.is_empty())
}

fn join(last: &mut GenerateChunk, next: GenerateChunk) {
    last.token_ids.extend(next.token_ids);
    last.position = next.position;
    last.content.push_str(&next.content);
    last.thinking.push_str(&next.thinking);
    last.logprobs.extend(next.logprobs);
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use protocol::v1::Done;

    use super::*;

    fn chunk(position: u64, content: &str) -> GenerateChunk {
        let content = content.to_owned();
        GenerateChunk { token_ids: vec![position as u32], position, content, ..GenerateChunk::default() }
    }

    /// What the reader has now, without waiting.
    fn read(reader: &mut Reader) -> Vec<GenerateChunk> {
        std::iter::from_fn(|| reader.next().now_or_never().flatten()).map(Result::unwrap).collect()
    }

    #[test]
    fn a_reader_that_keeps_up_gets_chunk_by_chunk() {
        let (writer, mut reader) = outbox();
        for position in 0..1_000 {
            writer.push(chunk(position, "a")).unwrap();
            assert_eq!(read(&mut reader), [chunk(position, "a")]);
        }
    }

    #[test]
    fn a_reader_that_is_behind_gets_the_same_text_in_fewer_chunks() {
        let (writer, mut reader) = outbox();
        for position in 1..=1_000 {
            writer.push(chunk(position, "é")).unwrap();
        }
        writer.push(GenerateChunk { done: Some(Done::default()), ..chunk(1_001, "!") }).unwrap();
        writer.end(Ok(()));
        let chunks = read(&mut reader);
        assert_eq!(chunks.len(), SEPARATE_CHUNKS + 1);
        let text: String = chunks.iter().map(|chunk| chunk.content.as_str()).collect();
        assert_eq!(text, "é".repeat(1_000) + "!");
        let tokens: Vec<u32> = chunks.iter().flat_map(|chunk| chunk.token_ids.clone()).collect();
        assert_eq!(tokens, (1..=1_001).collect::<Vec<_>>());
        assert_eq!(chunks[SEPARATE_CHUNKS - 1].position, 1_000);
    }

    #[test]
    fn thinking_is_never_joined_behind_content() {
        let thinking = GenerateChunk { thinking: "hm".into(), ..GenerateChunk::default() };
        assert!(can_join(&thinking, &chunk(1, "a")));
        assert!(!can_join(&chunk(1, "a"), &thinking));
    }

    #[test]
    fn a_reader_that_is_too_far_behind_is_given_up() {
        let (writer, _reader) = outbox();
        let large = "a".repeat(1 << 20);
        let failed = (0..).find_map(|position| writer.push(chunk(position, &large)).err()).unwrap();
        assert_eq!(failed.code, Code::Canceled);
        assert!(failed.message.contains("16777216"), "{failed}");
    }

    #[test]
    fn reading_makes_room_again() {
        let (writer, mut reader) = outbox();
        let large = "a".repeat(1 << 20);
        for position in 0..64 {
            writer.push(chunk(position, &large)).unwrap();
            assert_eq!(read(&mut reader).len(), 1);
        }
    }

    #[test]
    fn a_writer_that_vanishes_ends_the_stream_with_an_error_after_what_it_wrote() {
        let (writer, mut reader) = outbox();
        writer.push(chunk(1, "a")).unwrap();
        drop(writer);
        assert!(reader.next().now_or_never().flatten().unwrap().is_ok());
        let error = reader.next().now_or_never().flatten().unwrap().unwrap_err();
        assert_eq!(error.code, Code::Unavailable);
        assert_eq!(reader.next().now_or_never(), Some(None));
    }

    #[test]
    fn a_reader_that_leaves_is_seen_by_the_writer() {
        let (writer, reader) = outbox();
        assert!(!writer.is_gone());
        drop(reader);
        assert!(writer.is_gone());
        writer.push(chunk(1, "a")).unwrap();
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let (writer, mut reader) = outbox();
        let (read, ()) = futures::join!(reader.next(), async { writer.push(chunk(1, "a")).unwrap() });
        assert_eq!(read, Some(Ok(chunk(1, "a"))));
    }
}
