//! The rest of Ollama's own API: what would need its cloud, stubs of cloud models, bodies that come slowly or are far
//! too long.

use std::net::SocketAddr;

use http::{Method, Request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, hello, not_stuck};

#[tokio::test]
async fn a_server_without_a_cloud_says_so_where_ollama_would_ask_it() {
    let rig = Rig::start().await;
    let status = rig.get("/api/status").await;
    assert_eq!(status.json(), json!({ "cloud": { "disabled": true, "source": "config" } }));
    let recommended = rig.get("/api/experimental/model-recommendations").await;
    assert_eq!(recommended.json(), json!({ "recommendations": [] }));
    for (method, path, code, text) in [
        (Method::POST, "/api/me", 401, "unauthorized"),
        (Method::POST, "/api/signout", 401, "you are not currently signed in"),
        (Method::DELETE, "/api/user/keys/abc", 401, "you are not currently signed in"),
        (
            Method::POST,
            "/api/experimental/web_search",
            403,
            "ollama cloud is disabled: web search is unavailable",
        ),
        (
            Method::POST,
            "/api/experimental/web_fetch",
            403,
            "ollama cloud is disabled: web fetch is unavailable",
        ),
    ] {
        assert_eq!(rig.call(method.clone(), path, "{}").await.refused(code), text, "{path}");
        let other = if method == Method::POST { Method::GET } else { Method::POST };
        let wrong = rig.call(other, path, "").await;
        assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, method.as_str()), "{path}");
    }
}

#[tokio::test]
async fn a_model_of_the_cloud_is_refused_by_name() {
    let rig = Rig::start().await;
    let refusal = "ollama cloud is disabled: remote model is unavailable";
    for name in ["big:cloud", "big:120b-cloud", "big:120b:Cloud"] {
        for path in ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"] {
            assert_eq!(rig.post(path, json!({ "model": name })).await.refused(403), refusal, "{path} {name}");
        }
    }
    let details = rig.post("/api/show", json!({ "model": "big:cloud" })).await;
    assert_eq!(details.refused(403), "ollama cloud is disabled: remote model details are unavailable");
    let both = rig.post("/api/chat", json!({ "model": "m:local:cloud" })).await;
    assert_eq!(both.refused(400), "use either :local or :cloud, not both: \"m:local:cloud\"");
}

#[tokio::test]
async fn a_local_suffix_means_the_model_without_it() {
    let rig = Rig::start().await;
    let reply = rig.post("/api/generate", json!({ "model": "m:local" })).await;
    assert_eq!((&reply.json()["model"], &reply.json()["done_reason"]), (&json!("m:local"), &json!("load")));
    assert_eq!(rig.post("/api/show", json!({ "model": "m:latest:LOCAL" })).await.status, 200);
    let copy = json!({ "source": "m:local", "destination": "copy:local" });
    assert_eq!(rig.post("/api/copy", copy).await.status, 200);
    let delete = json!({ "model": "copy:latest:local" }).to_string();
    assert_eq!(rig.call(Method::DELETE, "/api/delete", delete).await.status, 200);
    assert_eq!(rig.post("/api/show", json!({ "model": "copy" })).await.status, 404);
}

/// A stub as Ollama makes them: a config that names another host, and no layers.
async fn stub(rig: &Rig) {
    let config = json!({
        "model_format": "", "model_family": "", "model_families": null, "model_type": "", "file_type": "",
        "remote_host": "https://ollama.com:443", "remote_model": "big:120b", "capabilities": ["completion", "tools"],
    });
    let config = config.to_string();
    let digest = rig.upload(config.clone().into_bytes()).await;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": config.len(),
        },
        "layers": null,
    });
    let folder = rig.folder.path().join("manifests/registry.ollama.ai/library/stub");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("latest"), manifest.to_string()).unwrap();
}

#[tokio::test]
async fn a_stub_of_the_cloud_is_listed_but_not_run() {
    let rig = Rig::start().await;
    stub(&rig).await;
    let listing = rig.get("/api/tags").await.json();
    let models = listing["models"].as_array().unwrap();
    let row = models.iter().find(|model| model["name"] == "stub:latest").unwrap();
    let remote = (&row["remote_model"], &row["remote_host"]);
    assert_eq!(remote, (&json!("big:120b"), &json!("https://ollama.com:443")));
    assert_eq!(row["capabilities"], json!(["completion", "tools"]));
    let local = models.iter().find(|model| model["name"] == "m:latest").unwrap();
    assert!(local.get("remote_model").is_none() && local.get("remote_host").is_none());
    let chat = rig.post("/api/chat", hello("stub")).await;
    assert_eq!(chat.refused(403), "ollama cloud is disabled: remote model is unavailable");
    let show = rig.post("/api/show", json!({ "model": "stub" })).await;
    assert_eq!(show.refused(403), "ollama cloud is disabled: remote model details are unavailable");
    let delete = json!({ "model": "stub" }).to_string();
    assert_eq!(rig.call(Method::DELETE, "/api/delete", delete).await.status, 200);
}

#[tokio::test]
async fn all_that_a_model_cannot_do_is_told_at_once() {
    let rig = Rig::start().await;
    let mut request = hello("m");
    request["tools"] = json!([{ "type": "function", "function": { "name": "f" } }]);
    request["messages"][0]["images"] = json!(["AAE="]);
    let refusal = rig.post("/api/chat", request).await.refused(400);
    assert_eq!(refusal, "registry.ollama.ai/library/m:latest does not support tools\nvision");
}

#[tokio::test]
async fn an_embedding_of_nothing_has_no_figures() {
    let rig = Rig::start().await;
    for input in [json!(""), json!([]), Value::Null] {
        let reply = rig.post("/api/embed", json!({ "model": "m", "input": input })).await;
        assert_eq!(reply.json(), json!({ "model": "m", "embeddings": [] }));
    }
    assert_eq!(rig.post("/api/embeddings", json!({ "model": "m" })).await.json(), json!({ "embedding": [] }));
}

#[tokio::test]
async fn githubs_chat_is_shown_the_name_that_it_asked_for() {
    let rig = Rig::start().await;
    let show = |agent: &str| {
        let request = Request::post("/api/show").header("user-agent", agent);
        rig.send(request.body(json!({ "model": "m" }).to_string().into()).unwrap())
    };
    let shown = show("GitHubCopilotChat/0.30").await.json();
    assert_eq!(shown["model_info"]["general.basename"], "m");
    let shown = show("curl/8").await.json();
    assert!(shown["model_info"].get("general.basename").is_none());
}

/// What the server answers to `head`, of a body of which only `body` comes.
async fn answer(address: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(body).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = not_stuck(client.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn a_body_of_a_gigabyte_is_refused_before_any_of_it_is_read() {
    let rig = Rig::start().await;
    let served = rig.serve(CancellationToken::new()).await;
    for path in ["/api/chat", "/api/generate", "/api/embed", "/api/show", "/api/create"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1073741824\r\n\r\n");
        let answer = answer(served.address, &head, b"{").await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{path}: {answer}");
        assert!(answer.contains("request body must be at most 67108864 bytes, got 1073741824"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_given_up_and_leaves_nothing() {
    let rig = Rig::start().await;
    let files = rig.files();
    let silent = || {
        let begun = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"{"))]);
        axum::body::Body::from_stream(futures::StreamExt::chain(begun, futures::stream::pending()))
    };
    // Not `send`, whose own patience ends before the server's.
    let send = |request: Request<axum::body::Body>| tower::ServiceExt::oneshot(rig.router(), request);
    let digest = format!("/api/blobs/sha256:{}", "0".repeat(64));
    for path in ["/api/chat", "/api/create", digest.as_str()] {
        let answer = send(Request::post(path).body(silent()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 408, "{path}");
    }
    let form =
        Request::post("/v1/audio/transcriptions").header("content-type", "multipart/form-data; boundary=b");
    assert_eq!(send(form.body(silent()).unwrap()).await.unwrap().status(), 408);
    // Its answer has begun already.
    let bundle = send(Request::post("/api/load").body(silent()).unwrap()).await.unwrap();
    let told = axum::body::to_bytes(bundle.into_body(), 1 << 16).await.unwrap();
    assert!(
        String::from_utf8_lossy(&told).contains("must come with at least 4096 bytes per second"),
        "{told:?}"
    );
    assert_eq!(rig.files(), files);
}
