//! Who we are to a registry: tokens, signatures, users, and what other servers must not learn.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::rig::{Rig, noise, publish, teller};
use crate::server::{Asked, Reply, Server};

/// Asks everybody for a token, at `realm` or at itself.
async fn guarded(realm: Option<&'static str>, token: &'static str) -> Server {
    Server::start(move |asked, honest| {
        if asked.target.starts_with("/token") {
            return Reply::new(200, format!(r#"{{"token":"{token}"}}"#));
        }
        if asked.header("authorization") == "Bearer sesame" {
            return honest.clone();
        }
        let own = format!("http://{}/token", asked.header("host"));
        let realm = realm.unwrap_or(&own);
        let challenge =
            format!(r#"Bearer realm="{realm}",service="registry",scope="repository:library/m:pull""#);
        Reply::new(401, "who are you?").with("www-authenticate", &challenge)
    })
    .await
}

fn token_requests(server: &Server) -> Vec<Asked> {
    server.asked().into_iter().filter(|asked| asked.target.starts_with("/token")).collect()
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_signed_with_the_key() {
    let (server, rig) = (guarded(None, "sesame").await, Rig::new());
    publish(&server, &noise(1, 20_000));
    assert!(!rig.key().exists());
    rig.pull(&server.name("m")).await.outcome.unwrap();
    let asked = token_requests(&server);
    assert_eq!(asked.len(), 1, "sixteen parts share one token");
    let target = &asked[0].target;
    assert!(
        target.contains("service=registry&ts=") && target.contains("scope=repository%3Alibrary%2Fm%3Apull")
    );

    let (public, signature) = asked[0].header("authorization").split_once(':').unwrap();
    let (public, signature) = (BASE64.decode(public).unwrap(), BASE64.decode(signature).unwrap());
    let key = UnparsedPublicKey::new(&ED25519, &public[public.len() - 32..]);
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let text = format!("GET,http://{}{target},{}", server.address(), BASE64.encode(empty));
    key.verify(text.as_bytes(), &signature).unwrap();
    assert!(rig.key().exists() && rig.key().with_extension("pub").exists());
}

#[tokio::test]
async fn a_registry_that_asks_nothing_never_sees_a_key() {
    let (server, rig) = (Server::honest().await, Rig::new());
    publish(&server, &noise(1, 2000));
    rig.pull(&server.name("m")).await.outcome.unwrap();
    assert!(server.asked().iter().all(|asked| asked.header("authorization").is_empty()));
    assert!(!rig.key().exists());
}

#[tokio::test]
async fn a_token_that_does_not_help_is_not_asked_for_again() {
    let (server, rig) = (guarded(None, "wrong").await, Rig::new());
    publish(&server, &noise(1, 2000));
    let error = rig.refused(&server.name("m")).await;
    assert_eq!(error, "pull model manifest: unauthorized: access denied");
    assert_eq!(token_requests(&server).len(), 1);
    assert!(rig.files().is_empty());
}

#[tokio::test]
async fn a_realm_elsewhere_gets_no_signature() {
    let elsewhere = Server::honest().await;
    let realm: &'static str = format!("http://{}/token", elsewhere.address()).leak();
    let (server, rig) = (guarded(Some(realm), "sesame").await, Rig::new());
    publish(&server, &noise(1, 2000));
    let error = rig.refused(&server.name("m")).await;
    let (there, here) = (elsewhere.address(), server.address());
    assert_eq!(
        error,
        format!("pull model manifest: realm host \"{there}\" does not match original host \"{here}\"")
    );
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn a_token_that_is_none_is_garbage() {
    for token in ["", "a\\nb"] {
        let (server, rig) = (guarded(None, token).await, Rig::new());
        publish(&server, &noise(1, 2000));
        let error = rig.refused(&server.name("m")).await;
        assert!(error.starts_with("pull model manifest: the registry's token cannot be read"), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_server_goes_without_credentials() {
    let storage = Server::honest().await;
    let away = storage.address().to_owned();
    let server = Server::start(move |asked, honest| {
        if asked.header("authorization").is_empty() {
            return Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\"");
        }
        match asked.is_blob() {
            true => Reply::new(307, "").with("location", &format!("http://{away}{}?signed=1", asked.target)),
            false => honest.clone(),
        }
    })
    .await;
    let mirror = format!("http://me:secret@{}", server.address());
    let rig = Rig::with(|config| config.mirrors = mirror.parse().unwrap());
    let weights = noise(1, 5000);
    publish(&server, &weights);
    let (digest, _) = publish(&storage, &weights);
    rig.pull("m").await.outcome.unwrap();
    assert_eq!(rig.bytes(&digest), weights);
    assert!(storage.asked().iter().all(|asked| asked.header("authorization").is_empty()));
    let basic = format!("Basic {}", BASE64.encode("me:secret"));
    assert!(server.asked().iter().all(|asked| asked.header("authorization") == basic));
    // The name is the one that was asked for, not the mirror's.
    assert!(rig.files().contains("manifests/registry.ollama.ai/library/m/latest"), "{:?}", rig.files());
}

#[tokio::test]
async fn redirects_on_the_same_server_are_followed_and_counted() {
    let hops = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&hops);
    let server = Server::start(move |asked, honest| {
        if !asked.target.contains("/manifests/") {
            return honest.clone();
        }
        *counted.lock().unwrap() += 1;
        Reply::new(302, "").with("location", "/v2/library/m/manifests/other")
    })
    .await;
    let rig = Rig::new();
    publish(&server, &noise(1, 2000));
    assert_eq!(rig.refused(&server.name("m")).await, "pull model manifest: stopped after 10 redirects");
    assert_eq!(*hops.lock().unwrap(), 11);
}

#[tokio::test]
async fn plain_http_needs_to_be_asked_for() {
    let rig = Rig::new();
    let (tell, _told) = teller();
    let wish = store::transfer::Wish::parse("http://localhost:1/library/m", false).unwrap();
    let error = rig.transfer.fetch(&wish, &tell).await.err().unwrap();
    assert_eq!(error.to_string(), "insecure protocol http");
}
