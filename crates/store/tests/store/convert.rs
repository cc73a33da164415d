//! What must be converted before a model can be made, and what becomes of the blob.

use std::io::Write;

use gguf::{TensorType, Writer};
use serde_json::{Value, json};
use store::{Conversion, CreateSpec, Digest, LayerKind, Made};

use crate::fixture::{Folder, answer, gguf, writer};

fn spec(request: Value) -> CreateSpec {
    CreateSpec::new(serde_json::from_value(request).unwrap(), |architecture| architecture == "llama").unwrap()
}

/// What a worker would be asked for: names, and the quantization.
async fn asked(folder: &Folder, request: Value) -> Result<Option<(Vec<String>, String)>, (u16, String)> {
    let conversion = folder.store.conversion(&spec(request)).await.map_err(answer)?;
    Ok(conversion.map(|Conversion { files, quantization, .. }| {
        (files.into_iter().map(|(name, _)| name).collect(), quantization)
    }))
}

/// A file whose tensors lost precision before.
fn quantized() -> Vec<u8> {
    let mut writer = writer("llama", "quantized");
    writer.tensor("blk.0.attn_q.weight", &[32, 1], TensorType::Q8_0, vec![0; 34]).unwrap();
    writer.to_bytes().unwrap()
}

fn part(number: u16, count: u16) -> Vec<u8> {
    let mut writer: Writer = writer("llama", "part");
    writer.metadata("split.no", number - 1).unwrap();
    writer.metadata("split.count", count).unwrap();
    writer.to_bytes().unwrap()
}

#[tokio::test]
async fn only_what_must_be_converted_is() {
    let folder = Folder::new();
    let plain = folder.upload(gguf("plain")).await.to_string();
    let json = folder.upload("{}").await.to_string();
    folder.model("base", json!({})).await;
    let none = Ok(None);
    assert_eq!(asked(&folder, json!({"model": "a", "files": {"m.gguf": plain}})).await, none);
    assert_eq!(asked(&folder, json!({"model": "a", "from": "base"})).await, none);
    assert_eq!(asked(&folder, json!({"model": "a"})).await, none);
    // The file says that it is of that type.
    assert_eq!(asked(&folder, json!({"model": "a", "from": "base", "quantize": "q4_k"})).await, none);
    let some = |names: &[&str], quantization: &str| {
        Ok(Some((names.iter().map(|&name| name.to_owned()).collect(), quantization.to_owned())))
    };
    let request = json!({"model": "a", "files": {"m.gguf": plain}, "quantize": "q8_0"});
    assert_eq!(asked(&folder, request).await, some(&["m.gguf"], "Q8_0"));
    let request = json!({"model": "a", "from": "base", "quantization": "Q6_k"});
    assert_eq!(asked(&folder, request).await, some(&["model.gguf"], "Q6_K"));
    let files = json!({"model.safetensors": json, "config.json": json});
    assert_eq!(
        asked(&folder, json!({"model": "a", "files": files})).await,
        some(&["model.safetensors", "config.json"], "")
    );
}

#[tokio::test]
async fn parts_of_a_model_are_put_together() {
    let folder = Folder::new();
    let one = folder.upload(part(1, 2)).await.to_string();
    let two = folder.upload(part(2, 2)).await.to_string();
    let files = json!({"m-00001-of-00002.gguf": one, "m-00002-of-00002.gguf": two});
    let (names, quantization) = asked(&folder, json!({"model": "a", "files": files})).await.unwrap().unwrap();
    assert_eq!((names.len(), quantization.as_str()), (2, ""));
    let alone = json!({"model": "a", "files": {"m-00001-of-00002.gguf": one}});
    assert_eq!(asked(&folder, alone).await.unwrap().unwrap().0.len(), 1, "the worker says which is missing");
    let files = json!({"m.gguf": one, "n.gguf": two});
    let request = json!({"model": "a", "files": files, "quantize": "q8_0"});
    let (status, text) = asked(&folder, request).await.unwrap_err();
    assert_eq!((status, text.as_str()), (400, "a model made of 2 GGUF files is not supported yet"));
}

#[tokio::test]
async fn what_cannot_be_quantized_is_refused() {
    let folder = Folder::new();
    let done = folder.upload(quantized()).await.to_string();
    let json = folder.upload("{}").await.to_string();
    let zeros = Digest::of(b"nowhere").to_string();
    let only_plain = "quantization is only supported for F16, BF16 and F32 models";
    let unknown = "unsupported quantization type Q3_K_M - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0";
    for (request, expected) in [
        (json!({"model": "a", "files": {"m.gguf": done}, "quantize": "q4_0"}), only_plain.to_owned()),
        (json!({"model": "a", "files": {"m.gguf": done}, "quantize": "q3_k_m"}), unknown.to_owned()),
        (
            json!({"model": "a", "files": {"model.safetensors": zeros}}),
            format!("file `model.safetensors`: blob {zeros} not found, upload it first"),
        ),
        (
            json!({"model": "a", "files": {"model.safetensors": json, "m.gguf": done}}),
            "file `m.gguf`: a GGUF beside a checkpoint is not supported yet".to_owned(),
        ),
        (
            json!({"model": "a", "files": {"model.safetensors": json, "adapter_config.json": json}}),
            "file `adapter_config.json`: an adapter goes into `adapters` (ADAPTER in a Modelfile)".to_owned(),
        ),
    ] {
        let (status, text) = asked(&folder, request.clone()).await.unwrap_err();
        assert!(status == 400 && text.starts_with(&expected), "{request}: {text}");
    }
    let unconverted = json!({"model": "a", "files": {"model.safetensors": json}});
    assert_eq!(
        folder.create(unconverted).await.map_err(answer).unwrap_err().0,
        500,
        "nobody has converted it"
    );
}

#[tokio::test]
async fn a_made_blob_stays_with_its_model_only() {
    let folder = Folder::new();
    let source = folder.upload(gguf("source")).await;
    let conversion = Conversion {
        part: LayerKind::Model,
        files: vec![("m.gguf".to_owned(), source.clone())],
        base: None,
        quantization: "Q8_0".to_owned(),
    };
    let blob = |bytes: Vec<u8>| {
        let mut blob = folder.store.new_blob().unwrap();
        blob.write_all(&bytes).unwrap();
        assert_eq!(std::fs::read(blob.path().unwrap()).unwrap(), bytes);
        blob.finish().unwrap()
    };
    let lost = blob(gguf("lost"));
    let made = folder.store.adopt(lost.clone(), &conversion).await.unwrap();
    drop(made);
    assert!(!folder.store.has_blob(&lost).await, "no model came of it");
    let error = folder.store.adopt(lost, &conversion).await.unwrap_err();
    assert!(answer(error).1.contains("is not in this store"));

    let kept = blob(gguf("kept"));
    let mut spec = spec(json!({"model": "a", "files": {"m.gguf": source.to_string()}, "quantize": "q8_0"}));
    spec.made.push(folder.store.adopt(kept.clone(), &conversion).await.unwrap());
    folder
        .store
        .create(spec, |line| assert!(!line.status.contains("GGUF"), "{}", line.status))
        .await
        .unwrap();
    let model = folder.get("a").await.unwrap();
    assert_eq!((model.weights.as_ref(), model.details.parent_model.as_str()), (Some(&kept), "m.gguf"));
    assert!(folder.store.has_blob(&kept).await);
}

#[tokio::test]
async fn what_is_made_of_a_model_takes_the_place_of_its_weights() {
    let folder = Folder::new();
    let base = folder.model("base", json!({"system": "Be kind.", "license": "free"})).await;
    let conversion = Conversion {
        part: LayerKind::Model,
        base: None,
        files: vec![("model.gguf".to_owned(), base.weights.clone().unwrap())],
        quantization: "Q8_0".to_owned(),
    };
    let mut blob = folder.store.new_blob().unwrap();
    blob.write_all(&gguf("smaller")).unwrap();
    let digest = blob.finish().unwrap();
    let mut spec = spec(json!({"model": "a", "from": "base", "quantize": "q8_0"}));
    spec.made.push(folder.store.adopt(digest.clone(), &conversion).await.unwrap());
    folder.store.create(spec, |_| ()).await.unwrap();
    let model = folder.get("a").await.unwrap();
    assert_eq!((model.weights.as_ref(), model.system.as_deref()), (Some(&digest), Some("Be kind.")));
    assert_eq!((model.licenses.len(), model.details.parent_model.as_str()), (1, "base:latest"));
    assert_eq!(model.manifest.layers.len(), base.manifest.layers.len());
}

#[tokio::test]
async fn a_blob_that_is_not_finished_leaves_nothing() {
    let folder = Folder::new();
    let mut blob = folder.store.new_blob().unwrap();
    blob.write_all(b"half").unwrap();
    assert_eq!(folder.blobs().len(), 1);
    assert!(folder.store.prune().await.unwrap().skipped, "nothing is pruned while it is being made");
    drop(blob);
    assert!(folder.blobs().is_empty());
}

/// An adapter as a file.
fn adapter() -> Vec<u8> {
    let mut writer = writer("llama", "adapter");
    writer.metadata("general.type", "adapter").unwrap();
    writer.to_bytes().unwrap()
}

/// As a worker would have put it there for that conversion.
async fn made(folder: &Folder, conversion: &Conversion, bytes: &[u8]) -> Made {
    let mut blob = folder.store.new_blob().unwrap();
    blob.write_all(bytes).unwrap();
    folder.store.adopt(blob.finish().unwrap(), conversion).await.unwrap()
}

#[tokio::test]
async fn weights_adapter_and_draft_are_made_one_after_the_other() {
    let folder = Folder::new();
    let json = folder.upload("{}").await.to_string();
    let plain = folder.upload(gguf("plain")).await.to_string();
    let mut spec = spec(json!({
        "model": "a", "files": {"model.safetensors": json, "config.json": json},
        "adapters": {"adapter_model.safetensors": json, "adapter_config.json": json},
        "draft_files": {"d.gguf": plain}, "draft_quantize": "q8_0",
    }));
    let mut digests = Vec::new();
    for (part, bytes) in [
        (LayerKind::Model, gguf("whole")),
        (LayerKind::Adapter, adapter()),
        (LayerKind::Draft, gguf("draft")),
    ] {
        let conversion = folder.store.conversion(&spec).await.unwrap().expect("something is left to be made");
        assert_eq!(conversion.part, part);
        assert_eq!(conversion.base.as_ref(), digests.first().filter(|_| part == LayerKind::Adapter));
        let quantization = if part == LayerKind::Draft { "Q8_0" } else { "" };
        assert_eq!(conversion.quantization, quantization);
        spec.made.push(made(&folder, &conversion, &bytes).await);
        digests.push(Digest::of(&bytes));
    }
    assert_eq!(folder.store.conversion(&spec).await.unwrap(), None);
    folder.store.create(spec, |_| ()).await.unwrap();
    let model = folder.get("a").await.unwrap();
    assert_eq!((model.weights.as_ref(), &model.adapters), (Some(&digests[0]), &vec![digests[1].clone()]));
    let draft = model.manifest.of_kind(LayerKind::Draft).next().unwrap();
    assert_eq!((&draft.digest, draft.from.as_str()), (&digests[2], "d.gguf"));
    let shown = folder.show("a", json!({"model": "a"})).await.modelfile;
    for (instruction, digest) in ["FROM", "ADAPTER", "DRAFT"].iter().zip(&digests) {
        let line =
            shown.lines().find(|line| line.starts_with(&format!("{instruction} "))).unwrap_or_default();
        assert!(line.ends_with(&digest.file_name()), "{instruction}: {shown}");
    }
    // A child that changes none of it has all of it.
    folder.create(json!({"model": "b", "from": "a", "system": "s"})).await.unwrap();
    assert_eq!(folder.get("b").await.unwrap().adapters, model.adapters);
}

#[tokio::test]
async fn an_adapter_changes_the_model_that_it_comes_with() {
    let folder = Folder::new();
    let json = folder.upload("{}").await.to_string();
    let plain = folder.upload(gguf("plain")).await;
    let base = folder.model("base", json!({})).await;
    let adapters = json!({"adapters.safetensors": json, "adapter_config.json": json});
    let of = async |source: Value| {
        let mut request = source;
        request["model"] = json!("a");
        request["adapters"] = adapters.clone();
        folder.store.conversion(&spec(request)).await.unwrap().unwrap().base
    };
    assert_eq!(of(json!({"from": "base"})).await, base.weights);
    assert_eq!(of(json!({"files": {"m.gguf": plain.to_string()}})).await, Some(plain));
    let alone = spec(json!({"model": "a", "adapters": adapters}));
    assert_eq!(answer(folder.store.conversion(&alone).await.unwrap_err()).0, 400);
    let zeros = format!("sha256:{}", "0".repeat(64));
    let missing = spec(json!({"model": "a", "from": "base", "adapters": {"a.safetensors": zeros}}));
    let (status, text) = answer(folder.store.conversion(&missing).await.unwrap_err());
    assert_eq!(
        (status, text),
        (400, format!("file `a.safetensors`: blob {zeros} not found, upload it first"))
    );
}

#[tokio::test]
async fn a_draft_is_quantized_only_where_it_must_be() {
    let folder = Folder::new();
    let draft = folder.upload(gguf("draft")).await.to_string();
    folder.model("base", json!({})).await;
    let request = |fields: Value| {
        let mut request = json!({"model": "a", "from": "base"});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        request
    };
    let files = json!({"d.gguf": draft});
    assert_eq!(asked(&folder, request(json!({"draft_files": files}))).await, Ok(None));
    // The file says that it is of that type.
    assert_eq!(
        asked(&folder, request(json!({"draft_files": files, "draft_quantize": "q4_K_M"}))).await,
        Ok(None)
    );
    let expected = Ok(Some((vec!["d.gguf".to_owned()], "Q4_0".to_owned())));
    assert_eq!(
        asked(&folder, request(json!({"draft_files": files, "draft_quantize": "q4_0"}))).await,
        expected
    );
    let (status, text) = asked(&folder, request(json!({"draft_quantize": "q8_0"}))).await.unwrap_err();
    assert_eq!((status, text.as_str()), (400, "--draft-quantize requires a DRAFT model"));
    let (_, text) =
        asked(&folder, request(json!({"draft_files": files, "draft_quantize": "q1"}))).await.unwrap_err();
    assert!(text.starts_with("unsupported quantization type Q1 - supported types are F32, F16,"), "{text}");
    // What is wrong is said before the large model is worked on.
    let early = request(json!({"quantize": "q8_0", "draft_quantize": "q8_0"}));
    assert_eq!(asked(&folder, early).await.unwrap_err().1, "--draft-quantize requires a DRAFT model");
    let both = json!({"d.gguf": draft, "e.gguf": draft});
    let several = folder.create(request(json!({"draft_files": both}))).await.map_err(answer);
    assert_eq!(several.unwrap_err().1, "a model made of 2 GGUF files is not supported yet");
}
