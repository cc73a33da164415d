//! Bytes on a real port that no client library writes: addresses, chunks, and bodies that nobody needs.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, not_stuck, small_gguf};

/// The answer to a request that is written whole before anything is read. The connection is one of its own.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    not_stuck(async {
        client.write_all(request).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = client.read(&mut answer).await.unwrap();
        String::from_utf8(answer[..length].to_vec()).unwrap()
    })
    .await
}

#[tokio::test]
async fn a_foreign_name_in_the_address_is_refused_whatever_the_header_says() {
    let rig = Rig::start().await;
    let served = rig.serve(CancellationToken::new()).await;
    let get = |address: &str| format!("GET {address} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    for (address, status) in [
        ("/api/version", 200),
        ("http://localhost:11434/api/version", 200),
        ("http://evil.example/api/version", 403),
        ("http://evil.example//api//version/", 403),
        ("http://evil.example/k/key/api/version", 403),
        ("http://localhost@evil.example/api/version", 403),
    ] {
        let answer = exchange(served.address, get(address).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{address}: {answer}");
    }
    // The address of HTTP/2, beside which the header is not looked at either.
    let request = http::Request::get("http://evil.example/api/version").header("host", "localhost");
    assert_eq!(rig.send(request.body("".into()).unwrap()).await.status, 403);
}

#[tokio::test]
async fn chunks_that_are_none_are_a_bad_request() {
    let rig = Rig::start().await;
    let served = rig.serve(CancellationToken::new()).await;
    for chunks in ["zz\r\n{}\r\n0\r\n\r\n", "2\r\n{}x\r\n0\r\n\r\n", "fffffffffffffffff\r\n{}"] {
        let head = "POST /api/chat HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = exchange(served.address, format!("{head}{chunks}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{chunks:?}: {answer}");
        assert!(answer.ends_with(r#"{"error":"malformed chunked encoding"}"#), "{chunks:?}: {answer}");
    }
}

#[tokio::test]
async fn a_blob_that_is_there_already_is_read_by_who_writes_first_and_not_by_who_asks() {
    let rig = Rig::start().await;
    let digest = rig.upload(small_gguf("new")).await;
    let served = rig.serve(CancellationToken::new()).await;
    // More than waits in the buffers of two sockets.
    let length = 32 << 20;
    let head =
        format!("POST /api/blobs/{digest} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n");
    let mut all = format!("{head}\r\n").into_bytes();
    all.resize(all.len() + length, 0);
    assert!(exchange(served.address, &all).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let asked = exchange(served.address, format!("{head}expect: 100-continue\r\n\r\n").as_bytes()).await;
    assert!(asked.starts_with("HTTP/1.1 200 OK\r\n"), "{asked}");
}
