//! What a client may hold, on a clock that does not run by itself.

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 2\r\n";

fn router() -> Router {
    Router::new()
        .route("/", get(async || "hi"))
        .route("/long", get(async || tokio::time::sleep(HOUR).await))
        .route("/body", post(async |body: Bytes| body.len().to_string()))
}

/// The client's end of a connection.
fn connect() -> DuplexStream {
    let (ours, theirs) = duplex(1 << 16);
    let requests = Requests { router: router(), activity: Arc::new(Activity::new(Arc::default())) };
    tokio::spawn(converse(theirs, requests, HEAD, CancellationToken::new()));
    ours
}

/// Asks for `/` and reads the answer.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    stream.write_all(GET).await.unwrap();
    let answer = read_answer(stream).await;
    assert!(answer.starts_with(ANSWER) && answer.ends_with("\r\n\r\nhi"), "{answer}");
}

/// An answer with a body of two bytes.
async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nhi") {
        let byte = stream.read_u8().await;
        answer.push(byte.unwrap_or_else(|error| panic!("{error} after {}", answer.escape_ascii())));
    }
    String::from_utf8(answer).unwrap()
}

/// How long it takes from now until the server hangs up.
async fn until_hung_up(stream: &mut DuplexStream) -> Duration {
    let begin = Instant::now();
    assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0, "the server said something");
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_hung_up_on() {
    assert_eq!(until_hung_up(&mut connect()).await, HEAD);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_is_hung_up_on_however_it_begins() {
    for head in [&b"GET / HTTP/1.1\r\na: bcdefghijklmnopqrstuvwxyz"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let begin = Instant::now();
        let mut stream = connect();
        for byte in head.iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(begin.elapsed() < 2 * HEAD, "{}", head.escape_ascii());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_be_idle_between_requests_and_no_head_may_take_longer_for_it() {
    let mut stream = connect();
    greet(&mut stream).await;
    tokio::time::sleep(HOUR).await;
    greet(&mut stream).await;
    tokio::time::sleep(HOUR + Duration::from_secs(7)).await;
    stream.write_all(&GET[..9]).await.unwrap();
    assert_eq!(until_hung_up(&mut stream).await, HEAD);
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_and_a_slow_body_are_not_cut() {
    let mut stream = connect();
    stream.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");

    let mut stream = connect();
    stream.write_all(b"POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 60\r\n\r\n").await.unwrap();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        stream.write_all(b"x").await.unwrap();
    }
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// A server with room for two.
async fn small_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = Bounds { connections: 2, ..Bounds::default() };
    tokio::spawn(serve(listener, router(), bounds, CancellationToken::new()));
    address
}

#[tokio::test]
async fn where_there_is_no_room_the_longest_idle_makes_some() {
    let address = small_server().await;
    let mut first = TcpStream::connect(address).await.unwrap();
    greet(&mut first).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    greet(&mut second).await;
    let mut third = TcpStream::connect(address).await.unwrap();
    greet(&mut third).await;
    assert_eq!(first.read(&mut [0; 8]).await.unwrap(), 0, "the first has made room");
    greet(&mut second).await;
    // Now the third one has been idle for longer; half a request does not help it.
    third.write_all(&GET[..9]).await.unwrap();
    greet(&mut TcpStream::connect(address).await.unwrap()).await;
    // An error where the half was not even read.
    assert!(third.read(&mut [0; 8]).await.map_or(true, |bytes| bytes == 0), "the third has made room");
}

#[tokio::test]
async fn who_is_being_answered_is_not_sent_away_and_who_comes_waits() {
    let address = small_server().await;
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        running.push(stream);
    }
    let mut newcomer = TcpStream::connect(address).await.unwrap();
    newcomer.write_all(GET).await.unwrap();
    let wait = tokio::time::timeout(Duration::from_millis(100), newcomer.read_u8()).await;
    assert!(wait.is_err(), "the newcomer was answered beside two that run");
    drop(running.pop());
    assert!(read_answer(&mut newcomer).await.starts_with(ANSWER));
    let mut other = [0; 8];
    assert!(
        running[0].try_read(&mut other).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    );
}

#[test]
fn a_process_bears_connections_by_its_handles() {
    raise_handles();
    let (soft, hard) = getrlimit(Resource::NOFILE).unwrap();
    assert_eq!(soft, hard);
    assert!((1..=MAX_CONNECTIONS).contains(&Bounds::default().connections));
}
