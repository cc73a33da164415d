//! Connects a gateway and a worker that live in one process: gRPC as between machines, over memory instead of TCP,
//! so that both sides run the same code in both cases.

use std::io;

use futures::{Stream, stream};
use hyper_util::rt::TokioIo;
use tokio::{io::DuplexStream, sync::mpsc};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Bytes on their way in one direction: a few chunks of a fast model.
const BUFFER_BYTES: usize = 64 << 10;

/// Connections that wait to be accepted. A gateway opens one.
const BACKLOG: usize = 16;

/// The gateways' side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector(mpsc::Sender<DuplexStream>);

/// The worker's side: connections as they come in.
pub type Incoming = futures::stream::BoxStream<'static, io::Result<DuplexStream>>;

/// A worker's door inside the process.
pub fn in_process() -> (Connector, Incoming) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (Connector(sender), Box::pin(accept(receiver)))
}

fn accept(receiver: mpsc::Receiver<DuplexStream>) -> impl Stream<Item = io::Result<DuplexStream>> {
    stream::unfold(receiver, async |mut receiver| Some((Ok(receiver.recv().await?), receiver)))
}

impl Connector {
    /// A channel that connects at its first call, and again after the worker closed the connection.
    pub fn channel(&self) -> Channel {
        let connector = self.clone();
        let connect = service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move { connector.connect().await.map(TokioIo::new) }
        });
        // The name resolves to nothing; it is the `authority` of the requests.
        Endpoint::from_static("http://in-process").connect_with_connector_lazy(connect)
    }

    async fn connect(&self) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        let closed =
            || io::Error::new(io::ErrorKind::ConnectionRefused, "the worker of this process has ended");
        self.0.send(far).await.map_err(|_| closed())?;
        Ok(near)
    }
}
