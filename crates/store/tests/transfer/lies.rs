//! Registries that lie, break off, hang or talk nonsense: an error in words, within bounds, and nothing left behind.

use store::transfer::Config;
use store::{Digest, Layer, LayerKind, Manifest};

use crate::rig::{Rig, announce, noise, publish};
use crate::server::{Asked, End, Reply, Server};

/// Pulls from a registry that spoils its answers, and says what came of it.
async fn spoiled(
    spoil: impl Fn(&Asked, &Reply) -> Reply + Send + Sync + 'static,
    change: impl FnOnce(&mut Config),
) -> String {
    let (server, rig) = (Server::start(spoil).await, Rig::with(change));
    publish(&server, &noise(1, 3000));
    let error = rig.refused(&server.name("m")).await;
    assert!(rig.files().is_empty(), "{:?} was left after: {error}", rig.files());
    error
}

fn is_weights(asked: &Asked) -> bool {
    asked.target.ends_with(&Digest::of(&noise(1, 3000)).to_string())
}

#[tokio::test]
async fn a_blob_of_another_length_than_promised_is_not_read() {
    let longer = |asked: &Asked, honest: &Reply| match is_weights(asked) {
        true => {
            let range = asked.header("range").replace('=', " ");
            Reply::new(206, &honest.body).with("content-range", &format!("{range}/3001"))
        }
        false => honest.clone(),
    };
    let error = spoiled(longer, |_| {}).await;
    assert!(error.ends_with(" has 3001 bytes, the manifest says 3000"), "{error}");
}

#[tokio::test]
async fn a_part_that_is_longer_than_asked_for_is_cut_off() {
    let longer = |asked: &Asked, honest: &Reply| match is_weights(asked) {
        true => {
            let mut reply = honest.clone();
            reply.body.extend_from_slice(&[0; 100]);
            reply.sent += 100;
            reply
        }
        false => honest.clone(),
    };
    let error = spoiled(longer, |_| {}).await;
    assert!(error.ends_with("the registry sends more than the 3000 bytes that the manifest says"), "{error}");
}

#[tokio::test]
async fn a_whole_body_that_is_too_long_is_not_read() {
    let longer = |asked: &Asked, honest: &Reply| match is_weights(asked) {
        true => Reply::new(200, noise(1, 4000)),
        false => honest.clone(),
    };
    let error = spoiled(longer, |config| config.tuning.min_part_bytes = 3000).await;
    assert!(error.ends_with(" has 4000 bytes, the manifest says 3000"), "{error}");
}

#[tokio::test]
async fn another_range_than_asked_for_is_refused() {
    let shifted = |asked: &Asked, honest: &Reply| match is_weights(asked) {
        true => Reply::new(206, &honest.body).with("content-range", "bytes 7-1006/3000"),
        false => honest.clone(),
    };
    let error = spoiled(shifted, |_| {}).await;
    assert!(error.contains("the registry answers bytes 7-1006/3000, asked for bytes"), "{error}");
}

#[tokio::test]
async fn other_bytes_than_the_digest_says_are_removed() {
    let wrong = |asked: &Asked, honest: &Reply| {
        let mut reply = honest.clone();
        if is_weights(asked) {
            reply.body[0] ^= 1;
        }
        reply
    };
    let error = spoiled(wrong, |_| {}).await;
    let want =
        format!("digest mismatch, file must be downloaded again: want {}, got", Digest::of(&noise(1, 3000)));
    assert!(error.starts_with(&want), "{error}");
}

#[tokio::test]
async fn a_registry_that_hangs_is_given_up() {
    let silent = |asked: &Asked, honest: &Reply| match is_weights(asked) {
        true => honest.clone().stopped(0, End::Hang),
        false => honest.clone(),
    };
    let error = spoiled(silent, |config| config.tuning.tries = 2).await;
    assert!(error.starts_with("max retries exceeded: GET http://"), "{error}");
    assert!(error.ends_with(": no answer within 0 s"), "{error}");
    let mute = |_: &Asked, honest: &Reply| honest.clone().stopped(0, End::Hang);
    let error = spoiled(mute, |_| {}).await;
    assert!(error.starts_with("pull model manifest: ") && error.contains("no answer within"), "{error}");
}

#[tokio::test]
async fn what_a_registry_says_is_told_and_bounded() {
    let error = spoiled(|_, _| Reply::new(412, "{\"errors\":\"too old\"}"), |_| {}).await;
    assert_eq!(error, "pull model manifest: 412: {\"errors\":\"too old\"}");
    let error = spoiled(|_, _| Reply::new(500, vec![b'x'; 10_000]), |_| {}).await;
    assert_eq!(error, "pull model manifest: 500: the registry's error must be at most 4096 bytes, got 10000");
}

#[tokio::test]
async fn a_missing_model_has_ollamas_text() {
    let (server, rig) = (Server::honest().await, Rig::new());
    assert_eq!(rig.refused(&server.name("m")).await, "pull model manifest: file does not exist");
    assert!(rig.files().is_empty());
}

#[tokio::test]
async fn a_missing_blob_is_told_at_once() {
    let gone = |asked: &Asked, honest: &Reply| match is_weights(asked) {
        true => Reply::new(404, ""),
        false => honest.clone(),
    };
    assert_eq!(spoiled(gone, |_| {}).await, "file does not exist");
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    let busy = |asked: &Asked, honest: &Reply| match is_weights(asked) {
        true => Reply::new(503, "later"),
        false => honest.clone(),
    };
    assert_eq!(spoiled(busy, |_| {}).await, "max retries exceeded: 503: later");
}

#[tokio::test]
async fn nobody_at_the_address_is_said_with_the_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let rig = Rig::new();
    let error = rig.refused(&format!("http://{address}/library/m")).await;
    let url = format!("http://{address}/v2/library/m/manifests/latest");
    assert!(error.starts_with(&format!("pull model manifest: GET {url}: ")), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_is_none_is_refused_before_any_blob() {
    let (server, rig) = (Server::honest().await, Rig::new());
    let put = |text: &str| server.put("/v2/library/m/manifests/latest", text.as_bytes());
    let config = format!(r#"{{"digest":"{}","size":1}}"#, Digest::of(b"c"));
    let layer = |kind: &str, size: u64| {
        format!(
            r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"{}","size":{size}}}"#,
            Digest::of(b"l")
        )
    };
    let with = |layers: &str| format!(r#"{{"config":{config},"layers":[{layers}]}}"#);
    for (text, message) in [
        ("<html>login</html>".to_owned(), "the registry's manifest cannot be read"),
        (r#"{"config":{"digest":"sha256:../../x"}}"#.to_owned(), "the registry's manifest cannot be read"),
        (
            r#"{"config":{"digest":"#.to_owned() + &"[".repeat(10_000),
            "the registry's manifest cannot be read",
        ),
        (with(""), "the registry's manifest has no layers"),
        (with(&layer("tensor", 1)), "this model requires MLX support, but the MLX runtime is not available"),
        (with(&layer("model", 1 << 50)), "a layer must be at most 4398046511104 bytes, got 1125899906842624"),
        (
            with(&layer("model", 1)) + &" ".repeat(5 << 20),
            "the registry's manifest must be at most 4194304 bytes",
        ),
    ] {
        put(&text);
        let error = rig.refused(&server.name("m")).await;
        assert!(error.starts_with(&format!("pull model manifest: {message}")), "{error}");
    }
    assert!(server.asked().iter().all(|asked| !asked.is_blob()));
    assert!(rig.files().is_empty());
}

#[tokio::test]
async fn a_blob_that_is_here_in_another_length_is_not_renamed_to_fit() {
    let (server, rig) = (Server::honest().await, Rig::new());
    publish(&server, &noise(1, 3000));
    rig.pull(&server.name("m")).await.outcome.unwrap();
    let config = server.blob(b"{}");
    let layer = Layer::new(LayerKind::Model, Digest::of(&noise(1, 3000)), 2999);
    announce(&server, &Manifest::new(Layer::config(config, 2), vec![layer]));
    let error = rig.refused(&server.name("m")).await;
    assert!(error.ends_with(" has 3000 bytes, the manifest says 2999"), "{error}");
    assert_eq!(rig.get(&server, "m").await.manifest.layers.len(), 2, "the old model stays");
}
