//! `create` when it must not work: the text names what is wrong, and nothing stays behind.

use gguf::{TensorType, Writer};
use proptest::prelude::*;
use serde_json::{Value, json};
use store::Digest;

use crate::fixture::{Folder, gguf, message, writer};

/// Runs a request that must fail, and holds that the folder is as before.
async fn refused(folder: &Folder, request: Value) -> (u16, String) {
    let before = folder.files();
    let answer = message(folder.create(request).await);
    assert_eq!(folder.files(), before, "something was left behind or removed");
    answer
}

/// Uploads a file that cannot be served, and holds that even its blob is gone.
async fn refused_file(file: &str, bytes: Vec<u8>) -> (u16, String) {
    let folder = Folder::new();
    let digest = folder.upload(bytes).await;
    let answer = message(folder.create(json!({"model": "a", "files": {file: digest.to_string()}})).await);
    assert!(folder.files().is_empty(), "left behind: {:?}", folder.files());
    assert!(!folder.path("manifests/registry.ollama.ai").exists());
    answer
}

#[tokio::test]
async fn requests_that_make_no_sense_have_ollamas_texts() {
    let folder = Folder::new();
    folder.model("base", json!({})).await;
    let digest = Digest::of(&gguf("base")).to_string();
    let missing = Digest::of(b"missing").to_string();
    for (request, status, text) in [
        (json!({"model": "", "from": "base"}), 400, "invalid model name".to_owned()),
        (json!({"model": "a b", "from": "base"}), 400, "invalid model name".to_owned()),
        (json!({"model": "a", "from": "a//b"}), 400, "invalid model name".to_owned()),
        (json!({"model": "a"}), 400, "neither 'from' or 'files' was specified".to_owned()),
        (json!({"model": "a", "files": {}}), 400, "neither 'from' or 'files' was specified".to_owned()),
        (json!({"model": "a", "from": "nobody"}), 404, "model 'nobody:latest' not found".to_owned()),
        (json!({"model": "a", "files": {"a.gguf": ""}}), 400, "invalid digest format".to_owned()),
        (json!({"model": "a", "files": {"a.gguf": 7}}), 400, "invalid digest format".to_owned()),
        (json!({"model": "a", "files": {"a.gguf": "sha256:xyz"}}), 400, "invalid digest format".to_owned()),
        (json!({"model": "a", "files": {"/a.gguf": digest}}), 400, "file path must be relative".to_owned()),
        (json!({"model": "a", "files": {"../a.gguf": digest}}), 400, "file path must be relative".to_owned()),
        (
            json!({"model": "a", "files": {"x/./a.gguf": digest}}),
            400,
            "file path must be relative".to_owned(),
        ),
        (json!({"model": "a", "files": {"": digest}}), 400, "file path must be relative".to_owned()),
        (
            json!({"model": "a", "files": {"a.gguf": missing}}),
            400,
            format!("file `a.gguf`: blob {missing} not found, upload it first"),
        ),
        (
            json!({"model": "a", "from": "base", "adapters": {"a.gguf": digest, "b.gguf": digest}}),
            400,
            "only one adapter is currently supported".to_owned(),
        ),
        (
            json!({"model": "a", "from": "base", "adapters": {"a.gguf": digest}}),
            400,
            "unknown type".to_owned(),
        ),
        (
            json!({"model": "a", "from": "base", "quantize": "iq2_s"}),
            400,
            "unsupported quantization type IQ2_S - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0, BF16, Q4_0, Q5_K_M, Q6_K"
                .to_owned(),
        ),
        (
            json!({"model": "a", "from": "base", "parameters": {"temperature": "hot"}}),
            400,
            "option \"temperature\" must be of type float32".to_owned(),
        ),
    ] {
        assert_eq!(refused(&folder, request.clone()).await, (status, text), "{request}");
    }
}

#[tokio::test]
async fn a_template_that_does_not_parse_is_refused_with_its_line() {
    let folder = Folder::new();
    folder.model("base", json!({})).await;
    let request = json!({"model": "a", "from": "base", "system": "s", "template": "{{ .Prompt }}\n{{ if }}"});
    let (status, text) = refused(&folder, request).await;
    assert_eq!(status, 400);
    assert!(text.starts_with("template error: line 2: "), "{text}");
    let digest = folder.upload(gguf("new")).await.to_string();
    let request = json!({"model": "a", "files": {"a.gguf": digest}, "template": "{{ range }"});
    let (status, text) = refused(&folder, request).await;
    assert!(status == 400 && text.starts_with("template error: line 1: "), "{text}");
}

#[tokio::test]
async fn too_many_or_too_long_texts_are_refused() {
    let folder = Folder::new();
    folder.model("base", json!({})).await;
    let licenses: Vec<String> = (0..101).map(|index| format!("license {index}")).collect();
    let answer = refused(&folder, json!({"model": "a", "from": "base", "license": licenses})).await;
    assert_eq!(answer, (400, "`license` must be at most 100 texts, got 101".to_owned()));
    let system = "s".repeat((16 << 20) + 1);
    let answer = refused(&folder, json!({"model": "a", "from": "base", "system": system})).await;
    assert_eq!(answer, (400, "`system` must be at most 16777216 bytes, got 16777217".to_owned()));
    let licenses = ["a", "b", "c"].map(|letter| letter.repeat(11 << 20));
    let (status, text) = refused(&folder, json!({"model": "a", "from": "base", "license": licenses})).await;
    assert!(status == 400 && text.contains("`texts` must be at most 33554432 bytes together"), "{text}");
    folder.create(json!({"model": "a", "from": "base", "system": &system[1..]})).await.unwrap();
    assert_eq!(folder.get("a").await.unwrap().system.as_ref().unwrap().len(), 16 << 20);
}

#[tokio::test]
async fn files_that_are_no_gguf_are_refused() {
    let not_gguf = (400, "supplied file was not in GGUF format".to_owned());
    assert_eq!(refused_file("a.gguf", b"not a model".to_vec()).await, not_gguf);
    assert_eq!(refused_file("a.gguf", Vec::new()).await, not_gguf);
    let folder = Folder::new();
    let digest = folder.upload("{}").await.to_string();
    let answer = refused(&folder, json!({"model": "a", "files": {"tokenizer.json": digest}})).await;
    assert_eq!(answer, (400, "unknown type".to_owned()));
    let answer = refused(&folder, json!({"model": "a", "files": {"pytorch_model.bin": digest}})).await;
    let text = "file `pytorch_model.bin`: PyTorch's own format can hold programs and is not read, save the model as safetensors";
    assert_eq!(answer, (400, text.to_owned()));
}

#[tokio::test]
async fn a_gguf_of_an_unknown_architecture_is_refused() {
    let bytes = writer("mamba9", "a").to_bytes().unwrap();
    assert_eq!(refused_file("a.gguf", bytes).await, (400, "unsupported architecture \"mamba9\"".to_owned()));
    let mut nameless = Writer::new();
    nameless.tensor("t", &[1], TensorType::F32, vec![0; 4]).unwrap();
    let (status, text) = refused_file("a.gguf", nameless.to_bytes().unwrap()).await;
    assert_eq!(
        (status, text.as_str()),
        (400, "file `a.gguf`: metadata key `general.architecture` is missing")
    );
}

#[tokio::test]
async fn a_gguf_that_ends_early_is_refused_wherever_it_ends() {
    let bytes = gguf("a");
    for length in [4, 8, 20, 24, 60, bytes.len() / 2, bytes.len() - 1] {
        let (status, text) = refused_file("a.gguf", bytes[..length].to_vec()).await;
        assert_eq!(status, 400);
        assert!(text.starts_with("file `a.gguf`: "), "cut at {length}: {text}");
    }
}

#[tokio::test]
async fn a_gguf_that_lies_about_lengths_is_refused() {
    let bytes = gguf("a");
    // The tensor count, the entry count, and the length of the first key.
    for at in [8, 16, 24] {
        let mut lying = bytes.clone();
        lying[at..at + 8].copy_from_slice(&(u64::MAX / 3).to_le_bytes());
        let (status, text) = refused_file("a.gguf", lying).await;
        assert_eq!(status, 400, "{text}");
    }
}

#[tokio::test]
async fn a_gguf_with_a_tensor_beyond_its_end_is_refused() {
    let bytes = gguf("a");
    let key = b"token_embd.weight";
    let name = bytes.windows(key.len()).position(|window| window == key).unwrap();
    // Behind the name: the dimensions' count, two of them, the type, the offset.
    let offset = name + key.len() + 4 + 16 + 4;
    let mut lying = bytes.clone();
    lying[offset..offset + 8].copy_from_slice(&(1u64 << 20).to_le_bytes());
    let (status, text) = refused_file("a.gguf", lying).await;
    assert_eq!(status, 400);
    assert!(text.contains("`token_embd.weight`"), "{text}");
}

#[tokio::test]
async fn a_refused_blob_that_a_model_uses_is_kept() {
    let folder = Folder::new();
    folder.model("base", json!({"system": "no gguf"})).await;
    let digest = Digest::of(b"no gguf").to_string();
    let answer = refused(&folder, json!({"model": "a", "files": {"a.gguf": digest}})).await;
    assert_eq!(answer.1, "supplied file was not in GGUF format");
}

#[tokio::test]
async fn several_models_in_one_are_refused() {
    let folder = Folder::new();
    let one = folder.upload(gguf("one")).await.to_string();
    let two = folder.upload(gguf("two")).await.to_string();
    let files = json!({"m.gguf": one, "n.gguf": two});
    let answer = refused(&folder, json!({"model": "a", "files": files})).await;
    assert_eq!(answer, (400, "a model made of 2 GGUF files is not supported yet".to_owned()));
}

#[tokio::test]
async fn a_manifest_that_cannot_be_written_takes_its_blobs_with_it() {
    let folder = Folder::new();
    folder.model("base", json!({})).await;
    // A folder where the manifest should go: the rename fails after everything else has been written.
    std::fs::create_dir_all(folder.path("manifests/registry.ollama.ai/library/a/latest")).unwrap();
    let answer = refused(&folder, json!({"model": "a", "from": "base", "system": "new"})).await;
    assert_eq!(answer.0, 500);
    // A file where a folder should be.
    folder.write("manifests/registry.ollama.ai/library/b", b"");
    let answer = refused(&folder, json!({"model": "b", "from": "base", "system": "new"})).await;
    assert_eq!(answer.0, 500);
}

#[tokio::test]
async fn a_failed_create_keeps_the_model_that_was_there() {
    let folder = Folder::new();
    let old = folder.model("a", json!({"system": "old"})).await;
    let missing = Digest::of(b"missing").to_string();
    refused(&folder, json!({"model": "a", "files": {"a.gguf": missing}})).await;
    assert_eq!(folder.get("a").await.unwrap().digest, old.digest);
}

proptest! {
    // Each case has a folder of its own.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_called_a_gguf_leaves_nothing_or_a_model(flips in prop::collection::vec((0usize..400, any::<u8>()), 1..6)) {
        let mut bytes = gguf("a");
        for (at, value) in flips {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = Folder::new();
            let digest = folder.upload(bytes).await;
            match folder.create(json!({"model": "a", "files": {"a.gguf": digest.to_string()}})).await {
                Ok(_) => assert_eq!(folder.listed().await, ["a:latest"]),
                Err(_) => assert!(folder.listed().await.is_empty() && folder.blobs().is_empty()),
            }
        });
    }
}
