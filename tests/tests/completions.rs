//! What `caravan completions` and `caravan man` print, as shells and readers use it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use tests::{
    cluster::{Cluster, SMOLLM2},
    process::binary,
};

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What bash would offer for the end of a line. As bash does, it takes colons for the ends of words.
fn offered(base: &str, line: &str) -> String {
    let binary = binary().unwrap();
    let folder = binary.parent().unwrap().to_str().unwrap();
    let script = format!(
        "source <(caravan completions bash)
         COMP_LINE={line:?}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; COMP_WORDBREAKS=$' \\t\\n\"=:'
         COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
         completer=$(complete -p caravan | sed 's/.*-F \\([^ ]*\\).*/\\1/')
         $completer caravan \"${{COMP_WORDS[COMP_CWORD]}}\"
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words = line.replace(':', " : "),
    );
    let path = format!("{folder}:/usr/bin:/bin");
    output(Command::new("bash").args(["-c", &script]).env("PATH", path).env("OLLAMA_HOST", base))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_completes_commands_flags_and_models() {
    let cluster = Cluster::serve(&[("CARAVAN_ENGINE", "scripted".to_owned())]).await.unwrap();
    for name in ["smol", "small:tiny", "other"] {
        cluster.create(name, SMOLLM2).await.unwrap();
    }
    let base = cluster.base(0).unwrap();
    let offered = |words: &str| {
        let mut found: Vec<String> = tokio::task::block_in_place(|| offered(&base, words))
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        found.sort();
        found
    };
    assert_eq!(offered("caravan crea"), ["create"]);
    assert_eq!(offered("caravan run --hide"), ["--hidethinking"]);
    assert_eq!(offered("caravan limits sho"), ["show"]);
    assert_eq!(offered("caravan run sm"), ["small:tiny", "smol:latest"]);
    // What bash has as a word of its own is behind the colon.
    assert_eq!(offered("caravan run small:ti"), ["tiny"]);
    assert_eq!(offered("caravan cp small:tiny sm"), [""; 0]);
    assert_eq!(offered("caravan rm small:tiny smol:"), ["latest"]);
    assert_eq!(offered("caravan rm other:latest smo"), ["smol:latest"]);
    assert_eq!(offered("caravan completions f"), ["fish"]);
    cluster.check_logs(&[]).unwrap();
}

#[test]
fn every_shell_has_its_script() {
    for (shell, sign) in [
        ("bash", "complete -o"),
        ("zsh", "#compdef caravan"),
        ("fish", "complete --keep-order --exclusive --command caravan"),
        ("elvish", "edit:completion:arg-completer"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = output(Command::new(binary().unwrap()).args(["completions", shell]));
        assert!(script.contains(sign), "{shell}: {script}");
    }
    let refused = Command::new(binary().unwrap()).args(["completions", "tcsh"]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.starts_with("Error: `SHELL` must be one of bash, ") && said.ends_with("got \"tcsh\"\n"),
        "{said}"
    );
}

#[test]
fn without_a_server_there_is_no_model_to_complete() {
    assert_eq!(offered("http://127.0.0.1:9", "caravan run sm").trim(), "");
}

#[test]
fn the_manual_has_a_page_for_the_program_and_for_each_command() {
    let whole = output(Command::new(binary().unwrap()).arg("man"));
    for text in [".TH caravan 1", ".SH SUBCOMMANDS", "caravan\\-serve(1)", "caravan\\-limits(1)"] {
        assert!(whole.contains(text), "{text}: {whole}");
    }
    let run = output(Command::new(binary().unwrap()).args(["man", "run"]));
    for text in [".TH caravan-run 1", "\\-\\-keepalive", "OLLAMA_NOHISTORY"] {
        assert!(run.contains(text), "{text}: {run}");
    }
    let refused = Command::new(binary().unwrap()).args(["man", "nonsense"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
}
