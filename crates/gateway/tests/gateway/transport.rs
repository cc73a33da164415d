//! What holds for every route: paths, methods, headers, and the server around them.

use std::net::SocketAddr;

use http::{Method, Request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::rig::{Rig, Setup, hello, not_stuck};

#[tokio::test]
async fn the_root_says_that_ollama_is_running() {
    let rig = Rig::start().await;
    let reply = rig.get("/").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "Ollama is running"));
    assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
    let head = rig.call(Method::HEAD, "/", "").await;
    assert_eq!((head.status.as_u16(), head.text()), (200, ""));
}

#[tokio::test]
async fn the_version_is_one_that_editors_can_parse() {
    let rig = Rig::start().await;
    let reply = rig.get("/api/version").await;
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    let version = reply.json()["version"].as_str().unwrap().to_owned();
    assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
    assert_eq!(rig.call(Method::HEAD, "/api/version", "").await.status, 200);
}

#[tokio::test]
async fn an_unknown_path_is_answered_as_ollama_answers_it() {
    let rig = Rig::start().await;
    for path in ["/nothing", "/api", "/api/tokenize", "/v1/models/a/b", "/api/generate/x"] {
        let reply = rig.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (404, "404 page not found"), "{path}");
        assert_eq!(reply.header("content-type"), "text/plain");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let rig = Rig::start().await;
    for (method, path, allow) in [
        (Method::GET, "/api/generate", "POST"),
        (Method::GET, "/api/chat", "POST"),
        (Method::POST, "/api/tags", "GET, HEAD"),
        (Method::HEAD, "/api/ps", "GET"),
        (Method::POST, "/api/ps", "GET"),
        (Method::GET, "/api/blobs/sha256:aa", "HEAD, POST"),
        (Method::POST, "/api/delete", "DELETE"),
        (Method::PUT, "/", "GET, HEAD"),
        (Method::HEAD, "/v1/models", "GET"),
        (Method::GET, "/v1/chat/completions", "POST"),
    ] {
        let reply = rig.call(method.clone(), path, "").await;
        assert_eq!(reply.status, 405, "{method} {path}");
        assert_eq!(
            (reply.header("allow"), reply.header("content-type")),
            (allow, "text/plain"),
            "{method} {path}"
        );
        if method != Method::HEAD {
            assert_eq!(reply.text(), "405 method not allowed");
        }
    }
}

#[tokio::test]
async fn double_and_trailing_slashes_are_forgiven() {
    let rig = Rig::start().await;
    for path in ["//api/version", "/api/version/", "/api//version//", "//"] {
        assert_eq!(rig.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_request_keeps_its_id_and_gets_one_if_it_has_none() {
    let rig = Rig::start().await;
    let named = Request::get("/").header("x-request-id", "abc-1").body("".into()).unwrap();
    assert_eq!(rig.send(named).await.header("x-request-id"), "abc-1");
    assert_eq!(rig.get("/").await.header("x-request-id").len(), 16);
    let long = Request::get("/").header("x-request-id", "x".repeat(129)).body("".into()).unwrap();
    assert_eq!(rig.send(long).await.header("x-request-id").len(), 16);
    let chat = Request::post("/api/chat").header("x-request-id", "abc-2");
    rig.send(chat.body(hello("m").to_string().into()).unwrap()).await;
    assert_eq!(rig.worker().seen().generate[0].request_id, "abc-2");
}

#[tokio::test]
async fn browsers_are_answered_only_from_allowed_origins() {
    let mut setup = Setup::default();
    setup.config.origins = vec!["https://chat.example".into()];
    let rig = Rig::with(setup).await;
    let from = |origin: &str| Request::get("/api/version").header("origin", origin).body("".into()).unwrap();
    for origin in ["http://localhost:3000", "https://chat.example", "app://x"] {
        let reply = rig.send(from(origin)).await;
        assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (200, origin));
    }
    let refused = rig.send(from("https://evil.example")).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (403, ""));
    let question = Request::options("/api/chat").header("origin", "https://chat.example");
    let answer = rig.send(question.body("".into()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-max-age")), (204, "43200"));
    assert!(answer.header("access-control-allow-headers").contains("x-stainless-timeout"));
}

#[tokio::test]
async fn a_loopback_gateway_answers_to_no_foreign_host_name() {
    let rig = Rig::start().await;
    let to = |host: &str| Request::get("/").header("host", host).body("".into()).unwrap();
    assert_eq!(rig.send(to("localhost:11434")).await.status, 200);
    let refused = rig.send(to("rebind.example")).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (403, ""));
}

#[tokio::test]
async fn a_bad_origin_is_refused_before_a_port_is_bound() {
    let rig = Rig::start().await;
    let config = gateway::Config { origins: vec!["ftp://x".into()], ..gateway::Config::new(|_| true) };
    let error = gateway::Gateway::new(config, rig.registry.clone(), rig.store.clone()).err().unwrap();
    assert!(
        error.to_string().contains("`OLLAMA_ORIGINS`") && error.to_string().contains("ftp://x"),
        "{error}"
    );
}

#[tokio::test]
async fn a_shutdown_finishes_what_runs_and_takes_nothing_new() {
    let rig = Rig::start().await;
    rig.warm().await;
    let shutdown = CancellationToken::new();
    let served = rig.serve(shutdown.clone()).await;
    rig.worker().hold_tokens();
    let request = json!({ "model": "m", "prompt": "x", "stream": false, "options": { "seed": 1 } });
    let mut client = ask(served.address, "/api/generate", &request).await;
    rig.until(|rig| rig.worker().slots_used() == 1).await;
    shutdown.cancel();
    rig.worker().allow_tokens(99);
    let mut answer = String::new();
    not_stuck(client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"done\":true"), "{answer}");
    not_stuck(served.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn who_begins_with_http_2_is_answered_in_it_and_told_of_the_end() {
    let rig = Rig::start().await;
    let shutdown = CancellationToken::new();
    let served = rig.serve(shutdown.clone()).await;
    // What speaks gRPC speaks HTTP/2.
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{}", served.address)).unwrap();
    let mut client = endpoint.connect().await.unwrap();
    for _ in 0..3 {
        let request = Request::get("/api/version").body(tonic::body::Body::empty()).unwrap();
        let answer = not_stuck(client.ready().await.unwrap().call(request)).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    }
    shutdown.cancel();
    not_stuck(served.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_slot_whether_it_streams_or_not() {
    let rig = Rig::start().await;
    rig.warm().await;
    let served = rig.serve(CancellationToken::new()).await;
    rig.worker().hold_tokens();
    for stream in [false, true] {
        let request = json!({ "model": "m", "prompt": "x", "stream": stream });
        let client = ask(served.address, "/api/generate", &request).await;
        rig.until(|rig| rig.worker().slots_used() == 1).await;
        drop(client);
        rig.until_idle().await;
    }
}

#[tokio::test]
async fn a_body_in_chunks_that_are_none_is_the_clients_fault() {
    let rig = Rig::start().await;
    let served = rig.serve(CancellationToken::new()).await;
    for path in ["/api/show", "/v1/chat/completions", "/api/blobs/sha256:0"] {
        let mut client = TcpStream::connect(served.address).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        not_stuck(client.read_to_string(&mut answer)).await.unwrap();
        let is_digest = path.starts_with("/api/blobs");
        let text = if is_digest { "invalid digest format" } else { "malformed chunked encoding" };
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(text), "{path}: {answer}");
    }
}

/// Sends a request over a connection of its own.
async fn ask(address: SocketAddr, path: &str, body: &Value) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all((head + &body).as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn the_queue_is_told_to_the_metrics() {
    let rig = Rig::with_queue(1, 7).await;
    let metrics = node::Metrics::new("gateway", "1.0.0");
    rig.handle.measure(&metrics);
    let text = metrics.text();
    assert!(text.contains("caravan_queue_waiting 0") && text.contains("caravan_queue_limit 7"), "{text}");
}
