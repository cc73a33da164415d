//! Creates for which a worker has to make something first.

use api::{Code, Error};
use gguf::{TensorType, Writer};
use protocol::v1::ConvertProgress;
use serde_json::{Value, json};

use crate::fake::Machine;
use crate::rig::{Rig, Setup, not_stuck, small_gguf};

/// As a worker would have put it into the store.
async fn made(rig: &Rig) -> String {
    let mut writer = Writer::new();
    writer.metadata("general.architecture", "llama").unwrap();
    writer.metadata("general.file_type", 7u32).unwrap();
    writer.tensor("token_embd.weight", &[32, 4], TensorType::Q8_0, vec![0; 34 * 4]).unwrap();
    rig.upload(writer.to_bytes().unwrap()).await
}

fn line(status: &str) -> Result<ConvertProgress, Error> {
    Ok(ConvertProgress { status: status.into(), ..ConvertProgress::default() })
}

fn counted(completed: u64) -> Result<ConvertProgress, Error> {
    Ok(ConvertProgress {
        status: "quantizing F32 model to Q8_0".into(),
        total: 8,
        completed,
        made: String::new(),
    })
}

fn done(made: &str) -> Result<ConvertProgress, Error> {
    Ok(ConvertProgress { made: made.into(), ..ConvertProgress::default() })
}

fn quantized() -> Value {
    json!({ "model": "small", "from": "m", "quantize": "q8_0" })
}

fn has_blob(rig: &Rig, digest: &str) -> bool {
    rig.files().iter().any(|file| file.ends_with(&digest.replace(':', "-")))
}

#[tokio::test]
async fn what_the_worker_tells_comes_before_the_layers() {
    let rig = Rig::start().await;
    let made = made(&rig).await;
    rig.worker().convert(vec![
        line("parsing GGUF"),
        counted(4),
        counted(8),
        line("verifying conversion"),
        done(&made),
    ]);
    let reply = rig.post("/api/create", quantized()).await;
    let lines = reply.lines();
    let statuses: Vec<&str> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(
        statuses[..5],
        [
            "parsing GGUF",
            "quantizing F32 model to Q8_0",
            "quantizing F32 model to Q8_0",
            "verifying conversion",
            &format!("using existing layer {made}")
        ]
    );
    assert_eq!(lines[1]["digest"], "0000000000000000000");
    assert_eq!((&lines[1]["total"], &lines[1]["completed"]), (&json!(8), &json!(4)));
    assert!(lines[0].get("digest").is_none());
    assert_eq!(*statuses.last().unwrap(), "success");
    let shown = rig.post("/api/show", json!({ "model": "small" })).await.json();
    assert_eq!(
        (&shown["details"]["quantization_level"], &shown["details"]["parent_model"]),
        (&json!("Q8_0"), &json!("m:latest"))
    );
    let asked = rig.worker().seen().convert.pop().unwrap();
    assert_eq!((asked.quantization.as_str(), asked.files.len()), ("Q8_0", 1));
    assert!(!asked.request_id.is_empty());
}

#[tokio::test]
async fn without_a_worker_a_conversion_is_answered_503_and_a_plain_create_works() {
    let rig = Rig::with(Setup { slots: vec![], ..Setup::default() }).await;
    let text = rig.post("/api/create", quantized()).await.refused(503);
    assert_eq!(text, "no worker is up that could convert the model, start one and try again");
    rig.create("other", json!({})).await;
    let machine = Machine { device: "scripted", ..Machine::default() };
    let rig = Rig::with(Setup { machine, ..Setup::default() }).await;
    rig.post("/api/create", quantized()).await.refused(503);
    assert!(rig.worker().seen().convert.is_empty(), "a scripted worker has no store");
}

#[tokio::test]
async fn a_worker_that_is_lost_is_replaced_by_another() {
    let rig = Rig::with_slots(&[1, 1]).await;
    let made = made(&rig).await;
    rig.workers[0]
        .convert(vec![line("parsing GGUF"), Err(Error::unavailable("the worker is shutting down"))]);
    rig.workers[1].convert(vec![line("parsing GGUF"), done(&made)]);
    let reply = rig.post("/api/create", quantized()).await;
    assert_eq!(reply.lines().last().unwrap()["status"], "success");
    // One that ends without a word has been lost, too.
    rig.workers[0].convert(vec![line("parsing GGUF")]);
    rig.workers[1].convert(vec![]);
    let lines = rig.post("/api/create", quantized()).await.lines();
    assert_eq!(
        lines.last().unwrap()["error"],
        "worker `w1` was lost while it converted the model, try again"
    );
    assert_eq!(rig.workers.iter().map(|worker| worker.seen().convert.len()).sum::<usize>(), 4);
}

#[tokio::test]
async fn a_model_that_cannot_be_converted_is_not_tried_again() {
    let rig = Rig::with_slots(&[1, 1]).await;
    rig.workers[0].convert(vec![Err(Error::new(Code::Invalid, "tensor `x` is missing"))]);
    assert_eq!(rig.post("/api/create", quantized()).await.refused(400), "tensor `x` is missing");
    assert!(rig.workers[1].seen().convert.is_empty());
    rig.post("/api/show", json!({ "model": "small" })).await.refused(404);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_conversion() {
    let rig = Rig::start().await;
    rig.worker().hold_tokens();
    rig.worker().convert(vec![line("parsing GGUF"), counted(4)]);
    rig.worker().allow_tokens(1);
    let mut reading = rig.open("/api/create", quantized()).await;
    reading.line().await;
    assert_eq!(rig.worker().converting(), 1);
    drop(reading);
    rig.until(|rig| rig.worker().converting() == 0).await;
}

#[tokio::test]
async fn what_was_made_goes_when_no_model_comes_of_it() {
    let rig = Rig::start().await;
    let made = made(&rig).await;
    rig.worker().convert(vec![line("parsing GGUF"), done(&made)]);
    let mut request = quantized();
    request["template"] = json!("{{ .Broken");
    let lines = not_stuck(rig.post("/api/create", request)).await.lines();
    assert!(lines.last().unwrap()["error"].as_str().unwrap().contains("template error"));
    assert!(!has_blob(&rig, &made));
    // A worker on another machine, with another folder.
    rig.worker().convert(vec![done(&made)]);
    let text = rig.post("/api/create", quantized()).await.refused(500);
    assert!(text.contains("workers must share the gateway's models folder"), "{text}");
}

#[tokio::test]
async fn a_digest_that_is_none_is_the_workers_fault() {
    let rig = Rig::start().await;
    rig.worker().convert(vec![done("sha256:no")]);
    rig.post("/api/create", quantized()).await.refused(500);
    let digest = rig.upload(small_gguf("x")).await;
    let files = json!({ "model": "small", "files": { "model.safetensors": digest, "config.json": digest } });
    rig.worker().convert(vec![Err(Error::invalid("config.json: it is no JSON"))]);
    assert_eq!(rig.post("/api/create", files).await.refused(400), "config.json: it is no JSON");
    assert_eq!(rig.worker().seen().convert.pop().unwrap().files[0].name, "model.safetensors");
}
