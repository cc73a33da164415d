//! Bytes of a request as they come in: at the client's own pace, but not slower than a bound. A body that trickles in
//! holds a connection, a request and perhaps an open blob; it must not do so for ever.

use std::io;
use std::time::Duration;

use api::{Code, Error, Result};
use axum::body::Body;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

/// How slowly a body may come.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What every body is given, however short it is.
    pub grace: Duration,
    /// What must come in each second beyond that, on average.
    pub bytes_per_second: u64,
}

/// JSON, which is bounded in length as well: the longest may take a quarter of an hour.
pub const JSON: Pace = Pace { grace: Duration::from_secs(30), bytes_per_second: 64 << 10 };

/// Blobs, which people send over slow lines, too.
pub const BLOB: Pace = Pace { grace: Duration::from_secs(60), bytes_per_second: 4 << 10 };

/// A body that is being read.
pub struct Intake {
    body: Body,
    pace: Pace,
    began: Instant,
    received: u64,
}

// === impl Intake ===

impl Intake {
    pub fn new(body: Body, pace: Pace) -> Intake {
        Intake { body, pace, began: Instant::now(), received: 0 }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Code::TooSlow`]; [`Code::Invalid`] when it is no body; [`Code::Canceled`] when the client has left.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = timeout_at(self.deadline(), self.body.frame()).await.map_err(|_| self.too_slow())?;
            let Some(frame) = frame else { return Ok(None) };
            // What is no data is trailers, and nobody reads those.
            if let Ok(bytes) = frame.map_err(|error| broken(&error))?.into_data() {
                self.received += bytes.len() as u64;
                return Ok(Some(bytes));
            }
        }
    }

    /// The same, for who reads streams. It ends with an error.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(
            self,
            |mut intake| async move { Ok(intake.next().await?.map(|bytes| (bytes, intake))) },
        )
        .boxed()
    }

    /// Reads what a client still sends, without keeping it: one that writes before it reads would see a broken
    /// connection instead of the answer. At most `limit` bytes.
    pub async fn discard(mut self, limit: usize) {
        while self.received <= limit as u64 && matches!(self.next().await, Ok(Some(_))) {}
    }

    fn deadline(&self) -> Instant {
        self.began + self.pace.grace + Duration::from_secs(self.received / self.pace.bytes_per_second)
    }

    fn too_slow(&self) -> Error {
        let Pace { grace, bytes_per_second } = self.pace;
        let text = format!(
            "request body must come with at least {bytes_per_second} bytes per second after the first {} seconds, got \
             {} bytes in {} seconds",
            grace.as_secs(),
            self.received,
            self.began.elapsed().as_secs()
        );
        Error::new(Code::TooSlow, text)
    }
}

/// Chunks that are none are the client's fault, and it is still there to hear so, in Go's words.
fn broken(error: &axum::Error) -> Error {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(one) = cause {
        let kind = one.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) {
            return Error::invalid("malformed chunked encoding");
        }
        cause = one.source();
    }
    Error::new(Code::Canceled, format!("read the request body: {error}"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const PACE: Pace = Pace { grace: Duration::from_secs(10), bytes_per_second: 2 };

    /// Bytes that come so many seconds after each other.
    fn trickle(chunks: &'static [&'static str], seconds: u64) -> Intake {
        let frames = stream::iter(chunks).then(move |chunk| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok::<_, Infallible>(Bytes::from_static(chunk.as_bytes()))
        });
        Intake::new(Body::from_stream(frames), PACE)
    }

    async fn read(mut intake: Intake) -> Result<String> {
        let mut text = String::new();
        while let Some(bytes) = intake.next().await? {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        Ok(text)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_rest_for_the_grace_and_for_what_has_come() {
        assert_eq!(read(trickle(&["a", "b"], 5)).await.unwrap(), "ab");
        // 12 seconds are more than the grace; four bytes earn two more.
        assert_eq!(read(trickle(&["abcd", "efgh"], 6)).await.unwrap(), "abcdefgh");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_in_is_given_up_with_the_bound_and_what_came() {
        let error = read(trickle(&["a"; 100], 1)).await.unwrap_err();
        assert_eq!(error.code, Code::TooSlow);
        assert!(error.message.contains("at least 2 bytes per second after the first 10 seconds"), "{error}");
        // A byte each second earns half a second each.
        assert!(error.message.ends_with("got 19 bytes in 19 seconds"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_given_up_after_the_grace() {
        let began = Instant::now();
        let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(Intake::new(silent, PACE).next().await.unwrap_err().code, Code::TooSlow);
        assert_eq!(began.elapsed().as_secs(), PACE.grace.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_kept_is_read_up_to_its_bound_only() {
        let endless =
            Body::from_stream(stream::repeat(Ok::<_, Infallible>(Bytes::from_static(b"0123456789"))));
        Intake::new(endless, PACE).discard(1000).await;
        let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        Intake::new(silent, PACE).discard(1000).await;
    }
}
