//! API keys over the life of a process: a file that is wrong at the start, one that changes, and what is never logged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use tempfile::TempDir;
use tests::{
    cluster::{Cluster, until},
    process::binary,
};

const SECRET: &str = "a-secret-that-nobody-logs";

async fn status(base: &str, path: &str, key: &str) -> u16 {
    let request = tests::http().get(format!("{base}{path}"));
    request.header("authorization", format!("Bearer {key}")).send().await.unwrap().status().as_u16()
}

#[test]
fn a_file_of_keys_that_makes_no_sense_ends_the_process_before_a_port_is_bound() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys");
    let start = |arguments: &[&str]| {
        let mut command = Command::new(binary().unwrap());
        // A second start would find the port of the first one bound, if that had come so far.
        let output = command.args(arguments).env("CARAVAN_KEYS_FILE", &path).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = start(&["serve"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("`--keys-file` (`CARAVAN_KEYS_FILE`): read `"), "{said}");
    std::fs::write(&path, format!("# keys\nada:{SECRET}\n")).unwrap();
    let (code, said) = start(&["serve"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("line 2 of") && said.contains("64 hex digits") && !said.contains(SECRET), "{said}");
    let (code, said) = start(&["gateway", "--etcd", "http://127.0.0.1:1"]);
    assert!(code == Some(64) && said.contains("line 2 of"), "{said}");
    std::fs::write(&path, "# none\n").unwrap();
    let (code, said) = start(&["serve", "--keys-file", path.to_str().unwrap()]);
    assert!(code == Some(64) && said.contains("must have 1 to 4096 keys, got 0"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_again_and_never_logged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let environment = [
        ("CARAVAN_ENGINE", "scripted".to_owned()),
        ("CARAVAN_KEYS_FILE", path.to_str().unwrap().to_owned()),
        ("CARAVAN_LOG", "debug".to_owned()),
    ];
    let mut cluster = Cluster::serve(&environment).await.unwrap();
    let base = cluster.base(0).unwrap();
    assert_eq!(status(&base, "/api/tags", SECRET).await, 200);
    assert_eq!(status(&base, "/api/tags", "other-key").await, 401);
    assert_eq!(status(&base, &format!("/k/{SECRET}/api/tags"), "none").await, 200);
    assert_eq!(status(&base, &format!("/k/{SECRET}/nothing"), "none").await, 404);

    let listed = |secret: &str| {
        let host = base.replace("http://", &format!("http://anybody:{secret}@"));
        let mut list = Command::new(binary().unwrap());
        tokio::task::block_in_place(|| list.arg("list").env("OLLAMA_HOST", host).output()).unwrap()
    };
    assert!(listed(SECRET).status.success());
    let refused = listed("wrong-key");
    assert!(!refused.status.success() && !String::from_utf8_lossy(&refused.stderr).contains("wrong-key"));

    // A new file in the place of the old one, as an orchestrator changes a mounted secret.
    let next = folder.path().join("next");
    std::fs::write(
        &next,
        "other-key\nbob:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\n",
    )
    .unwrap();
    std::fs::rename(&next, &path).unwrap();
    until(&format!("{base}/k/other-key/api/tags"), |status, _| status == 200).await.unwrap();
    assert_eq!(status(&base, "/api/tags", SECRET).await, 401);
    assert_eq!(status(&base, "/api/tags", "hello").await, 200);

    // What makes no sense changes nothing, and is said once.
    std::fs::write(&path, format!("other key {SECRET}\n")).unwrap();
    cluster.gateways[0].wait_for("API keys stay as they were").await.unwrap();
    assert_eq!(status(&base, "/api/tags", "other-key").await, 200);
    std::fs::remove_file(&path).unwrap();
    cluster.gateways[0].wait_for("No such file").await.unwrap();
    assert_eq!(status(&base, "/api/tags", "other-key").await, 200);

    let log = cluster.gateways[0].lines().join("\n");
    assert!(!log.contains(SECRET) && !log.contains("other-key"), "{log}");
    assert!(log.contains("key=\"bob\"") && log.contains("path=\"/api/tags\""), "{log}");
    assert_eq!(log.matches("API keys stay as they were").count(), 2);
    cluster.check_logs(&["API keys stay as they were"]).unwrap();
}
