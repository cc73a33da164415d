//! A registry for one test: HTTP/1.1 by hand, so that it can do what no server should.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use store::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub body: Vec<u8>,
    headers: HashMap<String, String>,
}

/// What is answered, and how far.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// `Content-Length`, if not the body's own.
    pub length: Option<usize>,
    /// Bytes of the body that are sent before `end`.
    pub sent: usize,
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Close,
    Hang,
}

/// The status of an answer that never begins.
const MUTE: u16 = 0;

type Handler = dyn Fn(&Asked, &Reply) -> Reply + Send + Sync;

/// Blobs and manifests, and a handler that may spoil the honest answer.
pub struct Server {
    address: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    content: Mutex<HashMap<String, Vec<u8>>>,
    asked: Mutex<Vec<Asked>>,
    handler: Box<Handler>,
    /// Ticks at every request.
    news: Notify,
}

// === impl Server ===

impl Server {
    pub async fn honest() -> Server {
        Server::start(|_, honest| honest.clone()).await
    }

    /// `handler` sees the request and what an honest registry would answer.
    pub async fn start(handler: impl Fn(&Asked, &Reply) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            content: Mutex::default(),
            asked: Mutex::default(),
            handler: Box::new(handler),
            news: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                connections.spawn(async move { drop(serve(stream, &shared).await) });
            }
        });
        Server { address, shared, _tasks: tasks }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The name under which a model of this registry is pulled.
    pub fn name(&self, model: &str) -> String {
        format!("http://{}/library/{model}", self.address)
    }

    pub fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.put(format!("/v2/library/m/blobs/{digest}"), bytes);
        digest
    }

    pub fn put(&self, path: impl Into<String>, bytes: &[u8]) {
        self.shared.content.lock().unwrap().insert(path.into(), bytes.to_vec());
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The ranges that were asked of a blob.
    pub fn ranges(&self, digest: &Digest) -> Vec<String> {
        let asked = self.asked();
        let of_blob = asked.iter().filter(|asked| asked.target.ends_with(&digest.to_string()));
        of_blob.map(|asked| asked.header("range").trim_start_matches("bytes=").to_owned()).collect()
    }

    /// Waits for the first request that `is_it`.
    pub async fn until(&self, is_it: impl Fn(&Asked) -> bool) {
        loop {
            let news = self.shared.news.notified();
            if self.asked().iter().any(&is_it) {
                return;
            }
            news.await;
        }
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let mut asked = Asked::parse(&head);
    asked.body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut asked.body).await?;
    let honest = shared.answer(&asked);
    let reply = (shared.handler)(&asked, &honest);
    shared.asked.lock().unwrap().push(asked);
    shared.news.notify_waiters();
    let mut text = format!("HTTP/1.1 {} Said\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = reply.length.unwrap_or(reply.body.len());
    text.push_str(&format!("content-length: {length}\r\n\r\n"));
    if reply.status != MUTE {
        stream.write_all(text.as_bytes()).await?;
    }
    stream.write_all(&reply.body[..reply.sent.min(reply.body.len())]).await?;
    match reply.end {
        End::Close => stream.shutdown().await,
        // Until the other side has enough of it.
        End::Hang => stream.read_u8().await.map(|_| ()),
    }
}

impl Shared {
    fn answer(&self, asked: &Asked) -> Reply {
        let path = asked.target.split('?').next().unwrap_or_default();
        let content = self.content.lock().unwrap().get(path).cloned();
        let Some(bytes) = content else { return Reply::new(404, "no such thing") };
        let range = asked.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        match range {
            None => Reply::new(200, bytes),
            Some((start, end)) => {
                let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
                let range = format!("bytes {start}-{end}/{}", bytes.len());
                Reply::new(206, &bytes[start..=end]).with("content-range", &range)
            }
        }
    }
}

// === impl Asked ===

impl Asked {
    fn parse(head: &[u8]) -> Asked {
        let text = std::str::from_utf8(head).unwrap();
        let mut lines = text.lines();
        let mut first = lines.next().unwrap().split(' ');
        let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Asked { method, target, body: Vec::new(), headers }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn is_blob(&self) -> bool {
        self.target.contains("/blobs/")
    }
}

// === impl Reply ===

impl Reply {
    pub fn new(status: u16, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref().to_vec();
        Reply { status, headers: Vec::new(), length: None, sent: body.len(), body, end: End::Close }
    }

    /// No answer at all, for as long as the client waits.
    pub fn mute() -> Reply {
        Reply { end: End::Hang, ..Reply::new(MUTE, "") }
    }

    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, but after `sent` bytes of the body comes `end`.
    pub fn stopped(mut self, sent: usize, end: End) -> Reply {
        (self.sent, self.end) = (sent, end);
        self
    }
}
