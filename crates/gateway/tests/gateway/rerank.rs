//! `POST /rerank` under all its paths.

use gguf::{TensorType, Value as Metadata, Writer};
use http::Method;
use serde_json::{Value, json};

use crate::rig::Rig;

const PATHS: [&str; 5] = ["/rerank", "/v1/rerank", "/v2/rerank", "/v1/v2/rerank", "/api/rerank"];

/// A gateway with `ranker`, a reranker, and `embedder`, which is none. `m` is a language model.
async fn start() -> Rig {
    let rig = Rig::start().await;
    for (name, pooling) in [("ranker", 4u32), ("embedder", 1)] {
        let mut writer = Writer::new();
        let keys: [(&str, Metadata); 4] = [
            ("general.architecture", "llama".into()),
            ("general.name", name.into()),
            ("llama.context_length", 512u32.into()),
            ("llama.pooling_type", pooling.into()),
        ];
        for (key, value) in keys {
            writer.metadata(key, value).unwrap();
        }
        writer.tensor("token_embd.weight", &[32, 4], TensorType::F32, vec![0; 32 * 4 * 4]).unwrap();
        let digest = rig.upload(writer.to_bytes().unwrap()).await;
        let request = json!({ "model": name, "files": { "m.gguf": digest }, "stream": false });
        assert_eq!(rig.post("/api/create", request).await.json(), json!({ "status": "success" }));
    }
    rig
}

fn request(more: Value) -> Value {
    let mut request = json!({ "model": "ranker", "query": "long", "documents": ["aa", "aaaa", "a"] });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn every_path_answers_with_the_best_documents_first() {
    let rig = start().await;
    for path in PATHS {
        let reply = rig.post(path, request(json!({ "top_n": 2 }))).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-caravan-worker")), (200, "w0"), "{path}");
        let answer = reply.json();
        let expected = json!([
            { "index": 1, "relevance_score": 0.04, "document": { "text": "aaaa" } },
            { "index": 0, "relevance_score": 0.02, "document": { "text": "aa" } },
        ]);
        assert_eq!(answer["results"], expected, "{path}");
        assert_eq!((&answer["model"], &answer["object"]), (&json!("ranker"), &json!("list")));
        assert_eq!(answer["usage"], json!({ "prompt_tokens": 9, "total_tokens": 9 }));
        let version = if path.contains("v2") { "2" } else { "1" };
        assert_eq!(answer["meta"]["api_version"], json!({ "version": version }));
        assert!(answer["id"].as_str().unwrap().starts_with("rerank-"));
    }
    rig.until_idle().await;
}

#[tokio::test]
async fn documents_are_left_out_where_that_can_be_asked() {
    let rig = start().await;
    let silent = || request(json!({ "return_documents": false }));
    assert!(rig.post("/v1/rerank", silent()).await.json()["results"][0]["document"].is_null());
    let second = rig.post("/v2/rerank", silent()).await.json();
    assert_eq!(second["results"][0]["document"], json!({ "text": "aaaa" }), "its clients read it");
}

#[tokio::test]
async fn the_worker_is_told_all_that_matters() {
    let rig = start().await;
    let more =
        json!({ "documents": [{ "text": "b", "id": 7 }], "max_tokens_per_doc": 12, "keep_alive": "1m" });
    rig.post("/v2/rerank", request(more)).await.json();
    let sent = &rig.worker().seen().rerank[0];
    assert_eq!((sent.query.as_str(), &sent.documents[..]), ("long", &["b".to_owned()][..]));
    assert_eq!((sent.max_tokens_per_document, sent.keep_alive_ns), (12, Some(60_000_000_000)));
}

#[tokio::test]
async fn an_embedder_ranks_and_a_language_model_does_not() {
    let rig = start().await;
    let embedder = rig.post("/rerank", request(json!({ "model": "embedder" }))).await;
    assert_eq!(embedder.json()["results"][0]["index"], 1);
    let reply = rig.post("/v2/rerank", request(json!({ "model": "m" }))).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json(), json!({ "message": "\"m\" does not support rerank" }));
}

#[tokio::test]
async fn a_reranker_embeds_and_shows_both() {
    let rig = start().await;
    let show = rig.post("/api/show", json!({ "model": "ranker" })).await.json();
    assert_eq!(show["capabilities"], json!(["embedding", "rerank"]));
    let answer = rig.post("/api/embed", json!({ "model": "ranker", "input": ["ab"] })).await.json();
    assert_eq!(answer["embeddings"], json!([[2, 1]]));
    let chat = rig.post("/api/chat", crate::rig::hello("ranker")).await;
    assert_eq!(chat.refused(400), "\"ranker\" does not support chat");
}

#[tokio::test]
async fn what_is_wrong_is_told_in_the_envelope_of_the_path() {
    let rig = start().await;
    let cases = [
        (json!({ "model": "" }), 400, "model is required"),
        (json!({ "model": "none" }), 404, "model 'none' not found"),
        (json!({ "query": "" }), 400, "`query` is required"),
        (json!({ "documents": [] }), 400, "`documents` must have between 1 and 1000 entries, got 0"),
        (json!({ "top_n": -1 }), 400, "`top_n` must be 0 or more, got -1"),
        (json!({ "query": "poison" }), 500, "cannot rank this"),
    ];
    for (more, status, text) in cases {
        for path in PATHS {
            let reply = rig.post(path, request(more.clone())).await;
            assert_eq!(reply.status.as_u16(), status, "{path} {more}");
            let name = if path == "/api/rerank" { "error" } else { "message" };
            assert_eq!(reply.json(), json!({ name: text }), "{path} {more}");
        }
    }
    let odd = rig.post("/v1/rerank", request(json!({ "documents": [1] }))).await;
    assert!(odd.text().contains("`documents` must be a list of strings"), "{}", odd.text());
    let wrong = rig.post("/v1/rerank", request(json!({ "query": ["a"] }))).await;
    assert!(wrong.status == 400 && wrong.text().contains("query"), "{}", wrong.text());
    for path in PATHS {
        assert_eq!(rig.call(Method::GET, path, "").await.status, 405);
        assert_eq!(rig.call(Method::POST, path, "").await.status, 400);
    }
    rig.until_idle().await;
}
