//! What people type, and what is made of it.

use super::*;

#[test]
fn the_tree_is_consistent() {
    tree("caravan").debug_assert();
}

fn read(words: &[&str]) -> Result<Command, clap::Error> {
    let words = ["caravan"].iter().chain(words);
    let arguments = Arguments::from_arg_matches(&tree("caravan").try_get_matches_from(words)?)?;
    Ok(arguments.command.unwrap())
}

fn run(words: &[&str]) -> RunArgs {
    match read(&[&["run"], words].concat()) {
        Ok(Command::Client(ClientCommand::Run(run))) => run,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn flags_of_run_may_stand_anywhere() {
    for words in [
        &["--verbose", "--keepalive", "-1m", "m", "why", "so"][..],
        &["m", "--verbose", "why", "--keepalive=-1m", "so"],
        &["m", "why", "so", "--keepalive", "-1m", "--verbose"],
    ] {
        let run = run(words);
        assert!(run.verbose, "{words:?}");
        assert_eq!((run.keepalive.as_deref(), run.prompt.join(" ").as_str()), (Some("-1m"), "why so"));
    }
    assert!(run(&["m", "hi", "--insecure"]).insecure);
    let behind = run(&["m", "--", "hi", "--verbose"]);
    assert!(!behind.verbose && behind.prompt == ["hi", "--verbose"], "{behind:?}");
    let error = read(&["run", "m", "hi", "--nonsense"]).unwrap_err().to_string();
    assert!(error.starts_with("error: unexpected argument '--nonsense' found"), "{error}");
}

#[test]
fn values_may_begin_with_a_dash() {
    assert_eq!(run(&["m", "--dimensions", "-3"]).dimensions, Some(-3));
    assert_eq!(run(&["--keepalive", "-1", "m"]).keepalive.as_deref(), Some("-1"));
}

#[test]
fn a_switch_may_have_a_value_and_the_last_one_counts() {
    let verbose = |words: &[&str]| run(&[words, &["m"]].concat()).verbose;
    assert!(verbose(&["--verbose"]) && verbose(&["--verbose=T"]) && verbose(&["--verbose=1"]));
    assert!(!verbose(&[]) && !verbose(&["--verbose=false"]) && !verbose(&["--verbose", "--verbose=0"]));
    assert_eq!(run(&["--truncate=F", "m"]).truncate, Some(false));
    assert_eq!(run(&["--keepalive", "1m", "m", "--keepalive", "2m"]).keepalive.as_deref(), Some("2m"));
    let error = read(&["run", "--hidethinking=maybe", "m"]).unwrap_err().to_string();
    assert!(error.contains("invalid value 'maybe'") && error.contains("must be true or false"), "{error}");
    let Ok(Command::Client(ClientCommand::Show(show))) = read(&["show", "-v=false", "--license=true", "m"])
    else {
        panic!("show was asked for")
    };
    assert!(!show.verbose && show.part.license);
}

#[test]
fn think_takes_a_level_or_nothing() {
    assert_eq!(run(&["--think", "m"]).think.as_deref(), Some("true"));
    assert_eq!(run(&["--think=low", "m"]).think.as_deref(), Some("low"));
    assert_eq!(run(&["--think", "m", "low"]).prompt, ["low"]);
}

#[test]
fn of_several_prefixes_the_first_is_there() {
    for name in ["list", "ls", "ps"] {
        match read(&[name, "a", "b"]) {
            Ok(Command::Client(ClientCommand::List(filter) | ClientCommand::Ps(filter))) => {
                assert_eq!(filter.prefix, ["a", "b"]);
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn each_role_shows_the_flags_that_it_takes() {
    for (role, takes, refuses) in [
        ("serve", "--threads", "--etcd"),
        ("serve", "--keys-file", "--advertise"),
        ("gateway", "--etcd", "--threads"),
        ("gateway", "--keys-file", "--device"),
        ("worker", "--advertise", "--keys-file"),
    ] {
        let help = read(&[role, "--help"]).unwrap_err().to_string();
        assert!(help.contains(takes) && !help.contains(refuses), "{role}: {help}");
        assert!(read(&[role, takes, "x"]).is_ok(), "{role} {takes}");
        let refused = read(&[role, refuses, "x"]).unwrap_err().to_string();
        assert!(refused.contains("; run ") && refused.contains(refuses), "{refused}");
    }
}

#[test]
fn limits_are_set_by_one_flag_at_least() {
    assert!(read(&["limits", "set", "--etcd", "http://a:1"]).is_err());
    assert!(read(&["limits", "set", "--max-queue", "-1", "--num-parallel", "2"]).is_ok());
}

#[test]
fn the_verbs_come_in_the_order_of_ollama() {
    let tree = tree("caravan");
    let names: Vec<_> = tree.get_subcommands().map(|command| command.get_name()).collect();
    let ollamas = [
        "serve", "create", "show", "run", "stop", "pull", "push", "signin", "signout", "list", "ps", "cp",
        "rm",
    ];
    let there: Vec<_> = names.iter().filter(|name| ollamas.contains(name)).copied().collect();
    assert_eq!(there, ollamas);
}

#[test]
fn aliases_are_those_of_ollama() {
    for (alias, name) in [("ls", "list"), ("start", "serve"), ("login", "signin"), ("logout", "signout")] {
        let tree = tree("caravan");
        assert_eq!(tree.find_subcommand(alias).map(clap::Command::get_name), Some(name));
    }
}

#[test]
fn the_help_is_that_of_the_name_that_was_called() {
    let mut tree = tree("ollama");
    let error = tree.try_get_matches_from_mut(["/usr/bin/ollama", "run", "--help"]).unwrap_err();
    let help = error.to_string();
    assert!(help.contains("Usage: ollama run [OPTIONS] <MODEL>"), "{help}");
    assert!(help.contains("Environment Variables:\n      OLLAMA_HOST"), "{help}");
}
