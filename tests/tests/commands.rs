//! The command line where things are not as they should be: readers that leave, addresses that lead nowhere, keys that are
//! missing, names and files that are wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{BufRead, BufReader, Read, Write, pipe},
    net::TcpListener,
    process::{Command, Output, Stdio},
    thread,
};

use tempfile::TempDir;
use tests::{
    cluster::{Cluster, SMOLLM2},
    process::{Process, binary},
};

/// `caravan ARGUMENTS` for the server at `base`.
fn caravan(base: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary().unwrap());
    command.args(arguments).env("OLLAMA_HOST", base).stdin(Stdio::null());
    command
}

/// How it ends: its code, and what it printed on standard output and standard error.
fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = tokio::task::block_in_place(|| command.output().unwrap());
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A server with the model `m`, which says what it is told to: `[[say ...]]`.
async fn server() -> Cluster {
    let cluster = Cluster::serve(&[("CARAVAN_ENGINE", "scripted".to_owned())]).await.unwrap();
    cluster.create("m", SMOLLM2).await.unwrap();
    cluster
}

/// A server that answers everything with a line of plain HTTP; it lives as long as the test.
fn plain_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // A part of what was said, and the answer: the rest does not matter.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_ends_a_command_quietly() {
    let cluster = server().await;
    let base = cluster.base(0).unwrap();
    for arguments in [
        &["list"][..],
        &["show", "--modelfile", "m"],
        &["run", "m", "[[say hello]]"],
        &["man"],
        &["completions", "bash"],
        &["limits"],
        &["run", "--help"],
    ] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let (code, _, err) = said(caravan(&base, arguments).stdout(writer));
        assert_eq!((code, err.as_str()), (Some(141), ""), "{arguments:?}");
    }
    // Nobody hears what went wrong, and still it is told by the code.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = caravan(&base, &["show", "nothing"]);
    let status = tokio::task::block_in_place(|| command.stderr(writer).status().unwrap());
    assert_eq!(status.code(), Some(1));
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_on_when_nobody_reads_its_log() {
    let home = TempDir::new().unwrap();
    let (reader, writer) = pipe().unwrap();
    let mut command = Command::new(binary().unwrap());
    command.arg("serve").env_clear().env("HOME", home.path()).env("OLLAMA_HOST", "127.0.0.1:0");
    command
        .env("CARAVAN_ENGINE", "scripted")
        .env("CARAVAN_LOG", "trace")
        .env("CARAVAN_ADMIN_LISTEN", "127.0.0.1:0");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    // The command holds the end that is written to, too.
    drop(command);
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
    let ready = lines.find(|line| line.contains("ready") && line.contains("listen=")).unwrap();
    drop(lines);
    let address = ready.split("listen=").nth(1).unwrap().split(' ').next().unwrap();
    for _ in 0..3 {
        let answer = tests::http().get(format!("http://{address}/api/tags")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert!(child.try_wait().unwrap().is_none(), "it lives");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_may_be_empty_and_of_any_bytes() {
    let cluster = server().await;
    let base = cluster.base(0).unwrap();
    for arguments in [&["run", "m", ""][..], &["run", "m"]] {
        assert_eq!(
            said(&mut caravan(&base, arguments)),
            (Some(0), String::new(), String::new()),
            "{arguments:?}"
        );
        let (_, loaded, _) = said(&mut caravan(&base, &["ps"]));
        assert!(loaded.contains("m:latest"), "{loaded}");
        assert_eq!(said(&mut caravan(&base, &["stop", "m"])).0, Some(0));
    }
    let mut child =
        caravan(&base, &["run", "m"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"[[say h\xffllo]]").unwrap();
    let output = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "h\u{fffd}llo\n\n");
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_from_connecting_is_told_as_what_it_is() {
    let refused = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let (code, _, err) = said(&mut caravan(&refused, &["list"]));
    assert!(code == Some(1) && err.starts_with("Error: could not connect to caravan server, run"), "{err}");

    // No label of a name is that long, so nobody is asked for it.
    let nameless = format!("http://{}.invalid:1", "x".repeat(64));
    let (code, _, err) = said(&mut caravan(&nameless, &["list"]));
    assert!(code == Some(1) && err.starts_with("Error: ask http://x") && err.contains("dns error"), "{err}");

    let plain = format!("https://{}", plain_server());
    let (code, _, err) = said(&mut caravan(&plain, &["list"]));
    assert!(
        code == Some(1) && err.starts_with(&format!("Error: the server at {plain} speaks http")),
        "{err}"
    );

    let (_, _, err) = said(&mut caravan("127.0.0.1:66000", &["list"]));
    let warning = "Warning: `OLLAMA_HOST`: a port must be a number from 0 to 65535, got \"66000\"; asking http://127.0.0.1:11434\n";
    assert!(err.starts_with(warning), "{err}");
    assert_eq!(err.matches("Warning").count(), 1, "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_speaks_http_must_be_allowed_to() {
    let cluster = server().await;
    let base = cluster.base(0).unwrap();
    let model = format!("{}/library/m", plain_server());
    let (code, _, err) = said(&mut caravan(&base, &["pull", &model]));
    assert_eq!(code, Some(1));
    assert!(err.contains("Error: pull model manifest: GET https://127.0.0.1:"), "{err}");
    assert!(err.contains(": the registry speaks http, which must be allowed: --insecure"), "{err}");
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_cannot_be_is_refused_before_anything_is_read() {
    let cluster = server().await;
    let base = cluster.base(0).unwrap();
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("w.gguf"), "weights").unwrap();
    let modelfile = folder.path().join("Modelfile");
    std::fs::write(&modelfile, "FROM ./w.gguf\n").unwrap();
    let create = |model: &str, file: &std::path::Path| {
        said(&mut caravan(&base, &["create", model, "-f", file.to_str().unwrap()]))
    };
    let (code, _, err) = create("bad name", &modelfile);
    assert_eq!((code, err.as_str()), (Some(1), "Error: invalid model name\n"));
    let (code, _, err) = create("good", folder.path());
    assert!(code == Some(1) && err.contains("Is a directory") && !err.contains("wasn't found"), "{err}");
    let (code, _, err) = create("good", &folder.path().join("other"));
    assert_eq!((code, err.as_str()), (Some(1), "Error: specified Modelfile wasn't found\n"));
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_is_told_where_it_goes() {
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "a-key-of-ours\n").unwrap();
    let environment =
        [("CARAVAN_ENGINE", "scripted".to_owned()), ("CARAVAN_KEYS_FILE", keys.to_str().unwrap().to_owned())];
    let cluster = Cluster::serve(&environment).await.unwrap();
    let base = cluster.base(0).unwrap();
    let (code, _, err) = said(&mut caravan(&base, &["list"]));
    assert!(
        code == Some(1) && err.starts_with("Error: unauthorized: ") && err.contains("OLLAMA_API_KEY"),
        "{err}"
    );
    let (code, out, _) = said(&mut caravan(&base, &["-v"]));
    assert!(
        code == Some(0) && out.contains("the server asks for a key, which goes into OLLAMA_API_KEY"),
        "{out}"
    );
    let (code, out, _) = said(caravan(&base, &["-v"]).env("OLLAMA_API_KEY", "a-key-of-ours"));
    assert!(code == Some(0) && out.contains("the server speaks version"), "{out}");
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_need_two_addresses_and_no_more() {
    let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut admins = Vec::new();
    let mut servers = Vec::new();
    for home in &homes {
        let environment = [
            ("HOME", home.path().to_str().unwrap()),
            ("OLLAMA_HOST", "127.0.0.1:0"),
            ("CARAVAN_ENGINE", "scripted"),
        ];
        let server = Process::start("serve", &["serve"], &environment).await.unwrap();
        admins.push(server.told("admin").unwrap());
        servers.push(server);
    }
    assert_ne!(admins[0], admins[1]);
    for admin in &admins {
        let answer = tests::http().get(format!("http://{admin}/livez")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    // An address that somebody chose is taken or not.
    let home = homes[0].path().to_str().unwrap();
    let mut third = caravan("127.0.0.1:0", &["serve", "--admin-listen", &admins[0]]);
    let (code, _, err) = said(third.env("HOME", home).env("CARAVAN_ENGINE", "scripted"));
    assert!(code == Some(1) && err.contains(&format!("Error: listen on {}", admins[0])), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_wrong_is_told_once() {
    let folder = TempDir::new().unwrap();
    let good = folder.path().to_str().unwrap();
    let start = |models: &str, origins: &str| {
        let mut command =
            caravan("127.0.0.1:0", &["serve", "--admin-listen", "127.0.0.1:0", "--store", models]);
        let (code, _, err) = said(command.env("CARAVAN_ENGINE", "scripted").env("OLLAMA_ORIGINS", origins));
        assert_eq!(code, Some(1), "{err}");
        err.lines().find(|line| line.starts_with("Error: ")).unwrap_or(&err).to_owned()
    };
    let store = start("/proc/nowhere", "");
    assert!(store.contains("`/proc/nowhere") && store.matches("No such file").count() == 1, "{store}");
    let origin = start(good, "http://*.a.*");
    assert_eq!(origin, "Error: `OLLAMA_ORIGINS`: origin `http://*.a.*` must have at most one `*`");
}

#[test]
fn a_variable_of_others_is_none_of_ours() {
    let output = caravan("http://127.0.0.1:9", &["help"]).env("COMPLETE", "1").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("Usage: caravan"), "{text}");
}
