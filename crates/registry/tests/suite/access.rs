//! An etcd that does not let everybody in.

use std::{path::Path, sync::Arc};

use registry::{
    Etcd, EtcdConfig, SessionState,
    store::{Error, MetadataStore},
    testing::EtcdServer,
};

use crate::ground::{announce, config, soon, start, view};

fn with_password(server: &EtcdServer, password: &str) -> EtcdConfig {
    EtcdConfig { user: Some("root".into()), password: Some(password.into()), ..server.config("test") }
}

#[tokio::test]
async fn a_password_opens_and_a_wrong_one_fails_at_once() {
    let server = EtcdServer::start().await.unwrap();
    server.require_password("secret").await.unwrap();
    let etcd = Etcd::connect(&with_password(&server, "secret")).await.unwrap();
    etcd.range("").await.unwrap();
    for config in [with_password(&server, "wrong"), server.config("test")] {
        let error = soon("an answer", Etcd::connect(&config)).await.unwrap_err();
        assert!(matches!(error, Error::Denied(_)), "{error}");
        assert!(!error.is_retryable() && !error.to_string().contains("wrong"), "{error}");
    }
}

/// A restarted etcd has forgotten the tokens that it gave out.
#[tokio::test]
async fn a_password_still_opens_after_a_restart() {
    let mut server = EtcdServer::start().await.unwrap();
    server.require_password("secret").await.unwrap();
    let etcd = Etcd::connect(&with_password(&server, "secret")).await.unwrap();
    let registry = start(Arc::new(etcd), config()).await;
    let session = announce(&registry, "w").await;
    let permit = registry.acquire_permit(&session, "m").await.unwrap();
    server.restart().await.unwrap();
    let bump = async { while registry.bump_catalog().await.is_err() {} };
    soon("a write", bump).await;
    view(&registry, "a current view", |view| !view.is_stale() && view.catalog > 0).await;
    let mut state = session.watch_state();
    soon("the session", state.wait_for(|state| *state == SessionState::Live)).await.unwrap();
    permit.release().await.unwrap();
}

#[tokio::test]
async fn certificates_open_and_nothing_else_does() {
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certs");
    let server = EtcdServer::start_with_certs(&certs).await.unwrap();
    let etcd = server.connect("test").await.unwrap();
    let registry = start(Arc::new(etcd), config()).await;
    let _session = announce(&registry, "w").await;
    view(&registry, "the worker", |view| view.workers.len() == 1).await;

    let quick =
        EtcdConfig { connect_timeout: std::time::Duration::from_millis(100), ..server.config("test") };
    let without_own = EtcdConfig { cert: None, key: None, ..quick.clone() };
    let without_tls = EtcdConfig {
        endpoints: vec![format!("http://{}", server.address())],
        ca: None,
        ..without_own.clone()
    };
    let of_another = EtcdConfig { ca: quick.cert.clone(), ..quick };
    for config in [without_own, without_tls, of_another] {
        let error = soon("an answer", Etcd::connect(&config)).await.unwrap_err();
        assert!(error.to_string().contains(&server.address()), "{error}");
    }
}
