//! The worker on a models folder with a real, tiny model in it.

use std::{fs, io::Write, ops::ControlFlow, path::Path, sync::Arc};

use api::{Code, Error};
use engine::{CandleEngine, Device, KvType, LoadOptions};
use protocol::v1::{
    EmbedRequest, GenerateRequest, LoadRequest, Model, Resume, done::Reason, generate_request::Input,
};
use store::{Digest, Store};
use tempfile::TempDir;
use worker::CandleLoader;

use crate::{
    ground::{Setup, Site, ask, load_request, model, options},
    tiny,
};

/// A site whose models folder has that blob, and the request to load it.
pub async fn site(blob: &[u8]) -> (Site, LoadRequest, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let digest = Digest::of(blob);
    write(&store.blob_path(&digest), blob);
    let loader = CandleLoader {
        store,
        threads: 1,
        tier: None,
        kv_type: KvType::F16,
        guesses: None,
        device: Device::Cpu,
    };
    let site = Site::with_loader(Setup::default(), Arc::new(loader)).await;
    let weights = Model { weights: digest.to_string(), ..model("model") };
    (site, LoadRequest { model: Some(weights), ..load_request("model") }, folder)
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn raw(text: &str) -> GenerateRequest {
    let mut options = options();
    (options.num_predict, options.temperature) = (24, 1.5);
    GenerateRequest { input: Some(Input::Raw(text.into())), options: Some(options), ..ask("") }
}

async fn refusal(edit: impl FnOnce(&mut Model), blob: &[u8]) -> Error {
    let (site, mut request, _folder) = site(blob).await;
    edit(request.model.as_mut().unwrap());
    let error = site.load(request).await.unwrap_err();
    site.wait_until_empty().await;
    error
}

#[tokio::test]
async fn zero_tokens_are_none_behind_a_jinja_template_and_no_bound_elsewhere() {
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}>";
    let (site, request, _folder) = site(&tiny::with_template(template)).await;
    site.load(request).await.unwrap();
    let mut options = options();
    options.num_predict = 0;
    let none = GenerateRequest { options: Some(options.clone()), ..ask("hi") };
    let (text, done) = site.answer(none).await.unwrap();
    assert_eq!((text.as_str(), done.eval_tokens, done.reason()), ("", 0, Reason::Length));
    options.stop = vec!["e".into(), "t".into(), "a".into(), "o".into(), " ".into(), "n".into()];
    let unbound = GenerateRequest { options: Some(options), ..raw("hi") };
    let (_, done) = site.answer(unbound).await.unwrap();
    assert!(done.eval_tokens > 0);
}

#[tokio::test]
async fn a_model_file_is_loaded_and_answers() {
    let (site, request, _folder) = site(&tiny::gguf()).await;
    let ready = site.load(request).await.unwrap();
    assert_eq!((ready.slots, ready.context_length as usize), (4, tiny::TRAIN_CONTEXT_LENGTH));
    let (text, done) = site.answer(raw("hello")).await.unwrap();
    // The beginning of sequence, the space that the vocabulary puts in front, and five bytes.
    assert_eq!(done.prompt_tokens, 7);
    assert!(done.reason() == Reason::Stop || done.eval_tokens == 24, "{done:?}");
    assert_eq!(site.answer(raw("hello")).await.unwrap().0, text);
    assert_ne!(site.answer(raw("hallo")).await.unwrap().0, text);
}

#[tokio::test]
async fn a_prompt_that_was_computed_before_is_cached_and_counts_all_the_same() {
    let (site, request, _folder) = site(&tiny::gguf()).await;
    site.load(request).await.unwrap();
    let prompt = "the caravan goes on and on and on";
    let (first, told) = site.answer(raw(prompt)).await.unwrap();
    assert_eq!((told.prompt_tokens, told.cached_tokens), (35, 0));
    let (second, told) = site.answer(raw(prompt)).await.unwrap();
    assert_eq!((told.prompt_tokens, told.cached_tokens), (35, 32), "one full page");
    assert_eq!(second, first);
}

#[tokio::test]
async fn an_answer_keeps_to_its_format() {
    let (site, request, _folder) = site(&tiny::gguf()).await;
    site.load(request).await.unwrap();
    let answer = |format: &str| site.answer(GenerateRequest { format: format.into(), ..raw("hello") });
    for _ in 0..3 {
        let (text, done) = answer(r#"{"enum":["yes","no"]}"#).await.unwrap();
        assert!(text == "\"yes\"" || text == "\"no\"", "{text}");
        assert_eq!(done.reason(), Reason::Stop);
    }
    let (text, _) = answer("\"json\"").await.unwrap();
    assert!(text.starts_with('{'), "{text}");
    let error = answer(r#"{"enum":[]}"#).await.unwrap_err();
    assert!(error.code == Code::Invalid && error.message.contains("invalid format"), "{error}");
}

#[tokio::test]
async fn an_answer_of_a_real_model_can_be_resumed() {
    let (site, request, _folder) = site(&tiny::gguf()).await;
    site.load(request).await.unwrap();
    let as_chat = GenerateRequest { input: ask("Once upon a time").input, ..raw("") };
    let (whole, done) = site.answer(as_chat.clone()).await.unwrap();
    let ids = done.context[done.prompt_tokens as usize..].to_vec();
    assert_eq!(ids.len() as u64, done.eval_tokens);
    let half = &ids[..ids.len() / 2];
    let resume = Some(Resume { emitted_ids: half.to_vec(), delivered: 0 });
    let (again, resumed) = site.answer(GenerateRequest { resume, ..as_chat }).await.unwrap();
    assert_eq!((again, resumed.context), (whole, done.context));
}

#[tokio::test]
async fn a_model_file_embeds() {
    let (site, request, _folder) = site(&tiny::gguf()).await;
    site.load(request).await.unwrap();
    let embed = EmbedRequest {
        model: Some(model("model")),
        inputs: vec!["one".into(), String::new()],
        normalize: true,
        ..EmbedRequest::default()
    };
    let response = site.client.clone().embed(embed).await.unwrap().into_inner();
    assert!(response.embeddings.iter().all(|vector| vector.values.len() == 32));
}

#[test]
fn a_load_ends_before_the_next_tensor_when_it_is_given_up() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&tiny::gguf()).unwrap();
    let file = gguf::File::open(file.path()).unwrap();
    let mut calls = 0;
    let mut give_up = |_| {
        calls += 1;
        ControlFlow::Break(())
    };
    assert_eq!(
        CandleEngine::load(&file, LoadOptions::default(), &mut give_up).err(),
        Some(engine::Error::GivenUp)
    );
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_a_model_that_is_not_there() {
    let error = refusal(|model| model.weights = Digest::of(b"other").to_string(), &tiny::gguf()).await;
    assert_eq!(error, Error::not_found("model \"model:latest\" not found, try pulling it first"));
}

#[tokio::test]
async fn what_cannot_be_loaded_is_refused_and_leaves_nothing() {
    let error = refusal(|model| model.adapters = vec![Digest::of(b"a").to_string()], &tiny::gguf()).await;
    assert_eq!((error.code, error.message.contains("adapters")), (Code::Invalid, true));
    let error = refusal(|model| model.weights = "sha256:no".into(), &tiny::gguf()).await;
    assert!(error.message.contains("digest"), "{error}");
    let error = refusal(|_| (), b"GGML").await;
    assert!(error.message.starts_with("load model:latest: not a GGUF file"), "{error}");
    let mut cut = tiny::gguf();
    cut.truncate(cut.len() / 2);
    assert_eq!(refusal(|_| (), &cut).await.code, Code::Internal);
}
