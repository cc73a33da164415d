//! What a push sends, where to, and what it does about a registry that fails. What a real one makes of it is in
//! `tests/tests/transfer.rs`.

use std::sync::{Arc, Mutex};

use md5::{Digest as _, Md5};

use crate::rig::{Rig, noise};
use crate::server::{Asked, Reply, Server};

/// A store that has a model, and the name of the model at `registry`.
async fn stocked(registry: &Server, weights: &[u8]) -> (Rig, String) {
    let (rig, source) = (Rig::new(), Server::honest().await);
    rig.stock(&source, weights).await;
    let (from, to) = (source.name("m"), registry.name("m"));
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    rig.store.copy(&from, &to).await.unwrap();
    (rig, registry.name("m"))
}

fn manifest(rig: &Rig) -> Vec<u8> {
    let path = rig.files().into_iter().find(|path| path.starts_with("manifests/")).unwrap();
    std::fs::read(rig.root().join(path)).unwrap()
}

/// A registry that takes everything, in sessions named by the digest's place in line.
fn take(asked: &Asked, honest: &Reply) -> Reply {
    match asked.method.as_str() {
        "POST" => Reply::new(202, "").with("location", "/session?state=a%2Bb"),
        "PATCH" => Reply::new(202, "").with("location", "/session?state=a%2Bb"),
        "PUT" => Reply::new(201, ""),
        _ => honest.clone(),
    }
}

fn of<'a>(asked: &'a [Asked], method: &str) -> Vec<&'a Asked> {
    asked.iter().filter(|asked| asked.method == method).collect()
}

#[tokio::test]
async fn a_push_sends_what_is_missing_and_the_manifest_as_it_is() {
    let registry = Server::start(take).await;
    let weights = noise(1, 2500);
    let (rig, name) = stocked(&registry, &weights).await;
    // The registry has one of the three.
    registry.blob(b"Be brief.");
    let push = rig.push(&name).await;
    push.outcome.as_ref().unwrap();
    let statuses = push.statuses();
    assert_eq!(
        (statuses[0].as_str(), statuses.last().unwrap().as_str()),
        ("retrieving manifest", "pushing manifest")
    );
    assert!(push.lines.iter().any(|line| line.status.starts_with("pushing ") && line.completed == 2500));

    let asked = registry.asked();
    assert_eq!(of(&asked, "POST").len(), 2);
    let pieces = of(&asked, "PATCH");
    let ranges: Vec<&str> = pieces.iter().map(|asked| asked.header("content-range")).collect();
    assert_eq!(ranges, ["0-999", "1000-1999", "2000-2499", "0-45"]);
    assert!(
        pieces.iter().all(|asked| asked.target == "/session?state=a%2Bb"),
        "the address is sent back as it came"
    );
    assert_eq!(pieces[..3].iter().flat_map(|asked| asked.body.clone()).collect::<Vec<_>>(), weights);
    let commits = of(&asked, "PUT");
    assert!(commits[0].target.starts_with("/session?state=a%2Bb&digest=sha256%3A"), "{:?}", commits[0]);
    let last = commits.last().unwrap();
    assert_eq!(last.target, "/v2/library/m/manifests/latest");
    assert_eq!(last.header("content-type"), "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(last.body, manifest(&rig));
}

#[tokio::test]
async fn pieces_go_where_the_registry_sends_them() {
    let storage = Server::start(|_, _| Reply::new(200, "")).await;
    let away = storage.address().to_owned();
    let registry = Server::start(move |asked, honest| match asked.method.as_str() {
        "PATCH" => {
            let piece = asked.header("content-range");
            Reply::new(307, "")
                .with("location", &format!("http://{away}/{piece}"))
                .with("docker-upload-location", "/session")
        }
        _ => take(asked, honest),
    })
    .await;
    let weights = noise(1, 2500);
    let (rig, name) = stocked(&registry, &weights).await;
    rig.push(&name).await.outcome.unwrap();

    let mut stored: Vec<Asked> =
        storage.asked().into_iter().filter(|asked| asked.target != "/0-45").collect();
    stored.retain(|asked| asked.target != "/0-8");
    stored.sort_by_key(|asked| asked.target[1..].split('-').next().unwrap().parse::<usize>().unwrap());
    let bodies: Vec<&[u8]> = stored.iter().map(|asked| asked.body.as_slice()).collect();
    assert_eq!(bodies.concat(), weights);
    assert!(stored.iter().all(|asked| asked.method == "PUT" && asked.header("authorization").is_empty()));
    let sums: Vec<[u8; 16]> = bodies.iter().map(|body| Md5::digest(body).into()).collect();
    let etag = format!("etag={}-3", hex::encode(Md5::digest(sums.concat())));
    assert!(of(&registry.asked(), "PUT")[0].target.ends_with(&etag), "{etag}");
}

#[tokio::test]
async fn an_upload_that_breaks_goes_on_where_the_registry_has_it() {
    let failures = Arc::new(Mutex::new(1));
    let left = Arc::clone(&failures);
    let registry = Server::start(move |asked, honest| match (asked.method.as_str(), asked.target.as_str()) {
        ("GET", "/session?state=a%2Bb") => Reply::new(204, "").with("range", "0-1499"),
        ("PATCH", _) if asked.header("content-range") == "1000-1999" && *left.lock().unwrap() > 0 => {
            *left.lock().unwrap() -= 1;
            Reply::new(502, "half of it is lost")
        }
        _ => take(asked, honest),
    })
    .await;
    let weights = noise(1, 2500);
    let (rig, name) = stocked(&registry, &weights).await;
    rig.push(&name).await.outcome.unwrap();
    let asked = registry.asked();
    let ranges: Vec<&str> = of(&asked, "PATCH").iter().map(|asked| asked.header("content-range")).collect();
    assert_eq!(ranges[..3], ["0-999", "1000-1999", "1500-2499"]);
    assert!(!of(&asked, "PUT")[0].target.contains("etag"), "the pieces are not known any more");
}

/// Pushes to a registry that fails in one thing, and says what came of it.
async fn spoiled(spoil: impl Fn(&Asked, &Reply) -> Reply + Send + Sync + 'static) -> String {
    let registry = Server::start(spoil).await;
    let (rig, name) = stocked(&registry, &noise(1, 2500)).await;
    let before = rig.files();
    let error = api::Error::from(rig.push(&name).await.outcome.unwrap_err());
    assert_eq!((error.code.http_status(), rig.files()), (500, before));
    error.message
}

#[tokio::test]
async fn what_a_registry_refuses_is_told() {
    let refused = spoiled(|asked, honest| match asked.method.as_str() {
        "POST" => Reply::new(403, "not yours"),
        _ => take(asked, honest),
    });
    assert_eq!(refused.await, "403: not yours");
    let denied = spoiled(|_, _| Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\""));
    assert_eq!(denied.await, "unauthorized: access denied");
    let homeless = spoiled(|asked, honest| match asked.method.as_str() {
        "POST" => Reply::new(202, ""),
        _ => take(asked, honest),
    });
    assert_eq!(homeless.await, "the registry's answer has no Location");
    let invalid = spoiled(|asked, honest| match asked.target.contains("/manifests/") {
        true => Reply::new(400, "MANIFEST_INVALID"),
        false => take(asked, honest),
    });
    assert_eq!(invalid.await, "400: MANIFEST_INVALID");
}

#[tokio::test]
async fn a_registry_that_keeps_failing_or_hangs_is_given_up() {
    let failing = spoiled(|asked, honest| match asked.method.as_str() {
        "PATCH" => Reply::new(503, "later"),
        "GET" => Reply::new(204, "").with("range", "0-0"),
        _ => take(asked, honest),
    });
    assert_eq!(failing.await, "max retries exceeded: 503: later");
    let hanging = spoiled(|asked, honest| match asked.method.as_str() {
        "PATCH" => Reply::mute(),
        "GET" => Reply::new(204, "").with("range", "0-0"),
        _ => take(asked, honest),
    });
    let error = hanging.await;
    assert!(error.starts_with("max retries exceeded: PATCH http://"), "{error}");
    assert!(error.ends_with("/session: no answer within 0 s"), "{error}");
}
