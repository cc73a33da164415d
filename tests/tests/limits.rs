//! `caravan limits`: what an operator fixes holds in every process of a cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Output};

use serde_json::Value;
use tests::{
    cluster::{Cluster, Plan, until},
    process::binary,
};

/// Runs `caravan limits ARGUMENTS` for the cluster in that etcd.
fn limits(etcd: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary().unwrap());
    let Output { stdout, stderr, status } =
        command.arg("limits").args(arguments).env("CARAVAN_ETCD", etcd).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// The row of a limit without the spaces between its columns.
fn row(text: &str, name: &str) -> String {
    let line =
        text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_for_the_whole_cluster() {
    let environment = vec![("OLLAMA_MAX_QUEUE", "9".to_owned())];
    let plan = Plan { workers: 1, gateways: 1, engine: "scripted", environment };
    let mut cluster = Cluster::start_on_etcd(&plan).await.unwrap();
    let etcd = cluster.etcd.as_ref().unwrap().endpoint();
    let limits = |arguments: &[&str]| tokio::task::block_in_place(|| limits(&etcd, arguments));

    let (code, shown) = limits(&["show"]);
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(row(&shown, "max-loaded-models"), "max-loaded-models automatic environment");
    assert_eq!(row(&shown, "max-queue"), "max-queue 9 environment");
    assert!(shown.contains("Last written by gateway-0, "), "{shown}");

    // Two models are loaded; the limit shrinks; the worker keeps one.
    let ps = format!("{}/api/ps", cluster.base(0).unwrap());
    let loaded =
        |body: &str| serde_json::from_str::<Value>(body).unwrap()["models"].as_array().unwrap().len();
    for model in ["one", "two"] {
        cluster.chat(0, model, "hello").await.unwrap();
    }
    until(&ps, |_, body| loaded(body) == 2).await.unwrap();
    let (code, set) = limits(&["set", "--max-loaded-models", "1", "--max-queue", "7"]);
    assert_eq!(code, Some(0), "{set}");
    assert_eq!(row(&set, "max-loaded-models"), "max-loaded-models 1");
    until(&ps, |_, body| loaded(body) == 1).await.unwrap();

    // The environment of a gateway that starts later does not count, until the limits are free again.
    cluster.add_gateway(&[("OLLAMA_MAX_QUEUE", "3".to_owned())]).await.unwrap();
    cluster.gateways[1].wait_for("limits are pinned").await.unwrap();
    let (_, shown) = limits(&["show"]);
    assert_eq!(row(&shown, "max-queue"), "max-queue 7 limits set");
    let (code, unset) = limits(&["unset"]);
    assert_eq!((code, row(&unset, "max-queue").as_str()), (Some(0), "max-queue 3"), "{unset}");
    cluster.check_logs(&[]).unwrap();
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    // A port that nobody listens on: nothing of this gets so far as to need one.
    let nowhere = "http://127.0.0.1:9";
    for (arguments, text) in [
        (
            &["set", "--max-queue", "many"][..],
            "Error: `--max-queue` must be a number from 0 to 1000000, got \"many\" (command line)\n",
        ),
        (
            &["set", "--max-loaded-models", "-1"],
            "Error: `--max-loaded-models` must be a number from 0 to 1000000; 0 = three for each device, got \"-1\" \
             (command line)\n",
        ),
        (
            &["show", "--etcd", "localhost"],
            "Error: `--etcd` must be http(s)://host:port, separated by commas, got \"localhost\" (command line)\n",
        ),
    ] {
        let (code, said) = limits(nowhere, arguments);
        assert_eq!((code, said.as_str()), (Some(64), text), "{arguments:?}");
    }
    let (code, said) = limits(nowhere, &["set"]);
    let text = "Error: the following required arguments were not provided:\n  <--max-loaded-models";
    assert!(code == Some(64) && said.starts_with(text), "{said}");
    let (code, said) = limits("", &["show"]);
    assert!(
        code == Some(64) && said.starts_with("Error: `--etcd` must name the etcd of a cluster"),
        "{said}"
    );
    let (code, said) = limits(nowhere, &["show"]);
    assert!(code == Some(1) && said.starts_with("Error: connect to etcd at http://127.0.0.1:9"), "{said}");
}
