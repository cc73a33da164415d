//! Conversions: what is made, what is told, and what is left when nobody waits any more.

use std::{fs, path::Path, sync::Arc};

use api::{Code, Error};
use engine::{CandleEngine, Device, Engine, KvType, LoadOptions};
use protocol::{
    from_status,
    v1::{ConvertProgress, ConvertRequest, NamedBlob},
};
use store::{Digest, Store};
use tempfile::TempDir;
use worker::CandleLoader;

use crate::{
    ground::{Setup, Site},
    tiny,
};

struct Place {
    site: Site,
    store: Store,
    folder: TempDir,
}

impl Place {
    async fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let loader = CandleLoader {
            store: store.clone(),
            threads: 2,
            tier: None,
            kv_type: KvType::F16,
            guesses: None,
            device: Device::Cpu,
        };
        Place { site: Site::with_loader(Setup::default(), Arc::new(loader)).await, store, folder }
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        fs::write(self.store.blob_path(&digest), bytes).unwrap();
        digest.to_string()
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.folder.path().join("blobs")).unwrap().count()
    }

    /// Every line, or how it failed.
    async fn convert(
        &self,
        files: &[(&str, &str)],
        quantization: &str,
    ) -> Result<Vec<ConvertProgress>, Error> {
        let answer = self.site.client.clone().convert(request(files, quantization)).await;
        let mut lines = answer.map_err(|status| from_status(&status))?.into_inner();
        let mut all = Vec::new();
        while let Some(line) = lines.message().await.map_err(|status| from_status(&status))? {
            all.push(line);
        }
        Ok(all)
    }
}

fn request(files: &[(&str, &str)], quantization: &str) -> ConvertRequest {
    let named = |(name, digest): &(&str, &str)| NamedBlob { name: (*name).into(), digest: (*digest).into() };
    ConvertRequest {
        request_id: "r".into(),
        files: files.iter().map(named).collect(),
        quantization: quantization.into(),
        base: None,
    }
}

fn logits(path: &Path) -> Vec<f32> {
    let file = gguf::File::open(path).unwrap();
    let mut engine =
        CandleEngine::load(&file, LoadOptions::default(), &mut |_| std::ops::ControlFlow::Continue(()))
            .unwrap();
    engine.embed(&[vec![1, 70, 80, 90]]).unwrap().concat()
}

#[tokio::test]
async fn a_quantized_model_computes_nearly_the_same() {
    let place = Place::new().await;
    let source = place.blob(&tiny::gguf());
    let lines = place.convert(&[("m.gguf", &source)], "Q8_0").await.unwrap();
    let statuses: Vec<&str> = lines.iter().map(|line| line.status.as_str()).collect();
    assert_eq!(statuses[0], "parsing GGUF");
    assert_eq!(statuses[1], "quantizing F32 model to Q8_0");
    assert_eq!(statuses[statuses.len() - 2], "verifying conversion");
    let counted = &lines[lines.len() - 3];
    assert!(counted.completed == counted.total && counted.total > 0);
    let made = Digest::parse(&lines.last().unwrap().made).unwrap();
    let (before, after) =
        (place.store.blob_path(&Digest::parse(&source).unwrap()), place.store.blob_path(&made));
    assert_eq!(made, Digest::of(&fs::read(&after).unwrap()));
    let header = gguf::File::open(&after).unwrap().header().clone();
    assert_eq!(header.file_type(), "Q8_0");
    assert_eq!(header.tensor("blk.0.ffn_down.weight").unwrap().kind.name(), "Q8_0");
    assert_eq!(header.tensor("blk.0.ffn_norm.weight").unwrap().kind.name(), "F32");
    let off = logits(&before).iter().zip(logits(&after)).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(off > 0.0 && off < 0.06, "{off}");
    assert_eq!(place.blobs(), 2);
}

#[tokio::test]
async fn the_same_conversion_makes_the_same_blob() {
    let place = Place::new().await;
    let source = place.blob(&tiny::gguf());
    let files = [("m.gguf", source.as_str())];
    let (one, two) = tokio::join!(place.convert(&files, "Q4_K_M"), place.convert(&files, "Q4_K_M"));
    assert_eq!(one.unwrap().pop(), two.unwrap().pop());
    assert_eq!(place.blobs(), 2);
}

#[tokio::test]
async fn what_cannot_be_converted_is_refused_and_leaves_nothing() {
    let place = Place::new().await;
    let source = place.blob(&tiny::gguf());
    let broken = place.blob(&tiny::gguf()[..4000]);
    let made = place.convert(&[("m.gguf", &source)], "Q8_0").await.unwrap().pop().unwrap().made;
    let before = place.blobs();
    for (files, quantization, expected) in [
        (vec![("m.gguf", source.as_str())], "Q9", "`quantization` must be a type"),
        (vec![("m.gguf", "sha256:no")], "Q8_0", "invalid digest format"),
        (vec![("m.gguf", made.as_str())], "Q4_0", "only supported for F16, BF16 and F32"),
        (vec![("m.gguf", broken.as_str())], "Q8_0", "m.gguf: "),
        (vec![], "Q8_0", "no files provided to convert"),
        (vec![("model.safetensors", source.as_str())], "", "config.json"),
        (vec![("m-00001-of-00002.gguf", source.as_str())], "", "the others are missing"),
    ] {
        let error = place.convert(&files, quantization).await.unwrap_err();
        assert!(error.message.contains(expected) && error.code == Code::Invalid, "{error:?}");
    }
    assert_eq!(place.blobs(), before);
    let gone = Digest::of(b"gone").to_string();
    assert!(place.convert(&[("m.gguf", &gone)], "Q8_0").await.is_err());
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_work_and_nothing_stays() {
    let place = Place::new().await;
    let source = place.blob(&tiny::gguf());
    let request = request(&[("m.gguf", &source)], "F16");
    let mut lines = place.site.client.clone().convert(request.clone()).await.unwrap().into_inner();
    lines.message().await.unwrap();
    drop(lines);
    // The next has its turn only when that one has ended. It makes the same blob, and again leaves.
    let mut lines = place.site.client.clone().convert(request).await.unwrap().into_inner();
    lines.message().await.unwrap();
    drop(lines);
    let last = place.convert(&[("m.gguf", &source)], "Q8_0").await.unwrap().pop().unwrap().made;
    let made = place.store.blob_path(&Digest::parse(&last).unwrap());
    let left = fs::read_dir(place.folder.path().join("blobs")).unwrap().map(|entry| entry.unwrap().path());
    let source = place.store.blob_path(&Digest::parse(&source).unwrap());
    let strange: Vec<_> = left.filter(|path| *path != source && *path != made).collect();
    // Whoever left after the last line was on its way has perhaps got it; then it is the caller's to use or to prune.
    let is_whole =
        |path: &std::path::PathBuf| !path.file_name().unwrap().to_string_lossy().starts_with(".tmp");
    assert!(strange.iter().all(is_whole) && strange.len() <= 1, "{strange:?}");
}

#[tokio::test]
async fn a_worker_without_a_store_says_so() {
    let site = Site::new().await;
    let status = site.client.clone().convert(request(&[], "")).await.unwrap_err();
    assert!(from_status(&status).message.contains("cannot convert"));
}
