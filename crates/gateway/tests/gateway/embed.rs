//! `POST /api/embed` and `/api/embeddings`.

use serde_json::json;

use crate::rig::Rig;

#[tokio::test]
async fn texts_become_vectors_in_their_order() {
    let rig = Rig::start().await;
    let reply =
        rig.post("/api/embed", json!({ "model": "m", "input": ["ab c", "", "abc"], "dimensions": 7 })).await;
    assert_eq!(reply.header("x-caravan-worker"), "w0");
    let answer = reply.json();
    assert_eq!(answer["embeddings"], json!([[4, 1], [0, 1], [3, 1]]));
    assert_eq!((&answer["model"], &answer["prompt_eval_count"]), (&json!("m"), &json!(3)));
    assert!(answer["total_duration"].as_u64() > Some(0) && answer["load_duration"].as_u64() > Some(0));
    let sent = &rig.worker().seen().embed[0];
    assert_eq!((sent.truncate, sent.dimensions, sent.normalize), (true, 7, true));
    rig.until_idle().await;
}

#[tokio::test]
async fn one_text_is_one_vector() {
    let rig = Rig::start().await;
    let answer =
        rig.post("/api/embed", json!({ "model": "m", "input": "ab", "truncate": false })).await.json();
    assert_eq!(answer["embeddings"], json!([[2, 1]]));
    assert!(!rig.worker().seen().embed[0].truncate);
}

#[tokio::test]
async fn no_text_loads_the_model() {
    let rig = Rig::start().await;
    for input in [json!(""), json!([]), json!(null)] {
        let answer = rig.post("/api/embed", json!({ "model": "m", "input": input })).await.json();
        assert_eq!(answer["embeddings"], json!([]));
    }
    assert_eq!(rig.worker().loaded().len(), 1);
    let legacy = rig.post("/api/embeddings", json!({ "model": "m", "prompt": "" })).await.json();
    assert_eq!(legacy, json!({ "embedding": [] }));
    assert!(rig.worker().seen().embed.is_empty());
}

#[tokio::test]
async fn the_legacy_route_answers_raw_numbers() {
    let rig = Rig::start().await;
    let answer = rig.post("/api/embeddings", json!({ "model": "m", "prompt": "abc" })).await.json();
    assert_eq!(answer, json!({ "embedding": [6, 2] }));
    assert!(!rig.worker().seen().embed[0].normalize);
}

#[tokio::test]
async fn bad_inputs_are_told_in_the_words_of_each_route() {
    let rig = Rig::start().await;
    for input in [json!(3), json!(["a", 1]), json!({ "a": 1 })] {
        let reply = rig.post("/api/embed", json!({ "model": "m", "input": input })).await;
        assert_eq!(reply.refused(400), "invalid input type");
    }
    let missing = rig.post("/api/embed", json!({ "model": "x", "input": "a" })).await;
    assert_eq!(missing.refused(404), "model 'x' not found");
    let legacy = rig.post("/api/embeddings", json!({ "model": "x", "prompt": "a" })).await;
    assert_eq!(legacy.refused(404), "model \"x\" not found, try pulling it first");
    assert_eq!(rig.post("/api/embed", json!({ "input": "a" })).await.refused(400), "model is required");
}

#[tokio::test]
async fn a_failure_of_the_engine_is_400_there_and_500_on_the_legacy_route() {
    let rig = Rig::start().await;
    let new = rig.post("/api/embed", json!({ "model": "m", "input": ["fine", "poison"] })).await;
    assert_eq!(new.refused(400), "cannot embed this");
    let old = rig.post("/api/embeddings", json!({ "model": "m", "prompt": "poison" })).await;
    assert_eq!(old.refused(500), "cannot embed this");
    rig.until_idle().await;
}

#[tokio::test]
async fn a_burst_of_two_hundred_texts_is_served_by_two_slots() {
    let rig = Rig::start().await;
    rig.warm().await;
    let request = || json!({ "model": "m", "prompt": "abc" });
    let burst: Vec<_> = (0..200).map(|_| rig.spawn("/api/embeddings", request())).collect();
    for reply in burst {
        assert_eq!(crate::rig::not_stuck(reply).await.unwrap().status, 200);
    }
    assert_eq!(rig.handle.waiting(), 0);
}
