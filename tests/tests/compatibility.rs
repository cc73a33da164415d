//! Holds `docs/compatibility.md` to the code: what there is stands there, what stands there is there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use reqwest::Method;
use tests::{
    cluster::Cluster,
    compatibility::{self, Page, Row},
    process::binary,
    scenario,
};

/// How many rows of each chapter may say "not yet". These numbers only ever become smaller; take yours down when you
/// set a row.
const NOT_YET: [(&str, usize); 0] = [];

/// Fails with all that is wrong at once: one line each, so that a page is mended in one go.
fn fail_with(wrong: &[String]) {
    assert!(wrong.is_empty(), "docs/compatibility.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_status_is_one_and_tells_why() {
    let wrong = Page::read().unwrap().rows.into_iter().filter_map(|row| {
        let status = row.status();
        let has_reason = status.ends_with(')') && status.contains(" (");
        let is_right = match status.split(' ').next().unwrap_or_default() {
            "yes" | "added" => !status.contains(' ') || has_reason,
            "differs" | "refused" => has_reason,
            _ => row.is_not_yet(),
        };
        (!is_right).then(|| format!("line {}: {status:?} is no status, or tells no reason", row.line))
    });
    fail_with(&wrong.collect::<Vec<_>>());
}

#[test]
fn rows_that_say_not_yet_become_fewer() {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for row in Page::read().unwrap().rows.iter().filter(|row| row.is_not_yet()) {
        *found.entry(row.section.split(" / ").next().unwrap().to_owned()).or_default() += 1;
    }
    let bounds: BTreeMap<&str, usize> = NOT_YET.into();
    let wrong = found.iter().filter_map(|(chapter, count)| {
        let bound = bounds.get(chapter.as_str()).copied().unwrap_or_default();
        (*count > bound).then(|| format!("{chapter}: {count} rows say \"not yet\", at most {bound} may"))
    });
    fail_with(&wrong.collect::<Vec<_>>());
}

/// What is claimed without a reservation is held by a test.
#[test]
fn every_yes_names_a_test() {
    let page = Page::read().unwrap();
    let bare = page.rows.iter().filter(|row| row.status() == "yes" && row.tests().is_empty());
    fail_with(&bare.map(|row| format!("line {}: \"yes\" names no test", row.line)).collect::<Vec<_>>());
}

/// `01: a sentence` for every scenario.
fn scenarios() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let number = name.split('-').next().unwrap();
        let scenarios = scenario::read(&path).unwrap().scenarios;
        found.extend(scenarios.iter().map(|scenario| format!("{number}: {}", scenario.name)));
    }
    found
}

#[test]
fn every_scenario_has_a_name_of_its_own() {
    let mut seen = BTreeSet::new();
    let twice: Vec<String> = scenarios().into_iter().filter(|name| !seen.insert(name.clone())).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn every_test_that_is_named_exists() {
    let (scenarios, functions) = (scenarios(), compatibility::test_functions().unwrap());
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut wrong = Vec::new();
    for row in Page::read().unwrap().rows {
        for test in row.tests() {
            let is_client = (test.ends_with(".py") || test.ends_with(".mjs")) && clients.join(&test).exists();
            if !is_client && !scenarios.contains(&test) && !functions.contains(&test) {
                wrong.push(format!("line {}: there is no test `{test}`", row.line));
            }
        }
    }
    fail_with(&wrong);
}

#[test]
fn every_golden_test_is_there() {
    let page = Page::read().unwrap();
    let rows: Vec<&Row> = page.of_kind("golden").collect();
    let numbers: Vec<&str> = rows.iter().flat_map(|row| row.names.iter().map(String::as_str)).collect();
    assert_eq!(numbers, (1..=20).map(|number| number.to_string()).collect::<Vec<_>>());
    let untested = rows.iter().filter(|row| row.tests().is_empty() && !row.is_not_yet());
    fail_with(&untested.map(|row| format!("line {}: a golden test is a test", row.line)).collect::<Vec<_>>());
}

/// The methods of a row of the routes.
fn methods(row: &Row) -> BTreeSet<String> {
    row.cells[1].split(", ").map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_listed_and_answers_to_its_methods() {
    let cluster = Cluster::serve(&[("CARAVAN_ENGINE", "scripted".to_owned())]).await.unwrap();
    let (base, http, page) = (cluster.base(0).unwrap(), tests::http(), Page::read().unwrap());
    let listed = page.names("route");
    let routes = compatibility::routes().unwrap();
    let mut wrong: Vec<String> = routes
        .iter()
        .filter(|route| !listed.contains(route.as_str()))
        .map(|route| format!("the route {route} is not listed"))
        .collect();
    for row in page.of_kind("route") {
        for route in &row.names {
            // A method that no route has is refused with the list of those that it has.
            let url = format!("{base}{}", route.replace(['{', '}'], ""));
            let answer = http.request(Method::PATCH, &url).send().await.unwrap();
            let allow = answer.headers().get("allow").map(|value| value.to_str().unwrap().to_owned());
            let found: BTreeSet<String> =
                allow.iter().flat_map(|allow| allow.split(", ").map(str::to_owned)).collect();
            let expected = if row.is_not_yet() { BTreeSet::new() } else { methods(row) };
            if found != expected {
                wrong.push(format!("line {}: {route} answers to {found:?}, not to {expected:?}", row.line));
            }
        }
    }
    fail_with(&wrong);
    cluster.check_logs(&[]).unwrap();
}

#[test]
fn every_field_is_listed() {
    let (page, fields) = (Page::read().unwrap(), compatibility::fields().unwrap());
    let last = |name: &String| name.rsplit('.').next().unwrap_or(name).trim_end_matches("[]").to_owned();
    let (mut wrong, mut covered) = (Vec::new(), BTreeSet::new());
    for types in &page.types {
        let rows: Vec<&Row> = page.rows.iter().filter(|row| row.section == types.section).collect();
        let listed: BTreeSet<String> = rows.iter().flat_map(|row| row.names.iter().map(last)).collect();
        let mut there = BTreeSet::new();
        for name in &types.names {
            let Some(fields) = fields.get(name) else {
                wrong.push(format!("{}: there is no type `{name}`", types.section));
                continue;
            };
            covered.insert(name.as_str());
            there.extend(fields.iter().cloned());
            let missing = fields.difference(&listed);
            wrong.extend(missing.map(|field| format!("{}: `{field}` of `{name}` has no row", types.section)));
        }
        for row in rows.iter().filter(|row| row.status() == "yes") {
            let invented = row.names.iter().filter(|name| !there.contains(&last(name)));
            wrong.extend(invented.map(|name| format!("line {}: no type here has `{name}`", row.line)));
        }
    }
    // What no client sees: errors become other types, options are a table of their own.
    let inner = |name: &str| name.starts_with("options/") || name.starts_with("error/");
    let missing = fields.keys().filter(|name| !covered.contains(name.as_str()) && !inner(name));
    wrong.extend(
        missing.map(|name| format!("no section says that it is about `{name}` (<!-- types: .. -->)")),
    );
    fail_with(&wrong);
}

#[test]
fn every_option_is_listed() {
    let page = Page::read().unwrap();
    let (listed, known) = (page.names("option"), api::options::names().collect::<BTreeSet<_>>());
    let missing = known.difference(&listed).map(|name| format!("the option `{name}` has no row"));
    fail_with(&missing.collect::<Vec<_>>());
    for row in page.of_kind("option").filter(|row| row.status() == "yes") {
        for name in &row.names {
            assert!(known.contains(name.as_str()), "line {}: there is no option `{name}`", row.line);
        }
    }
}

/// What a command's help lists: the commands below it, and its flags in all their spellings.
fn help(command: &[String]) -> (Vec<String>, Vec<String>) {
    let output = Command::new(binary().unwrap()).args(command).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut commands, mut flags, mut part) = (Vec::new(), Vec::new(), "");
    for line in text.lines() {
        if line.ends_with(':') && !line.starts_with(' ') {
            part = line;
        }
        let words = line.trim_start();
        match part {
            "Commands:" if line.starts_with("  ") && !line.starts_with("   ") => {
                commands.extend(words.split(' ').next().map(str::to_owned));
            }
            "Options:" if words.starts_with('-') => {
                let spellings = words.split([' ', ',', '=', '[']).filter(|word| word.starts_with('-'));
                flags.extend(spellings.take_while(|word| word.starts_with('-')).map(str::to_owned));
            }
            _ => {}
        }
    }
    (commands, flags)
}

#[test]
fn every_command_and_flag_is_listed() {
    let page = Page::read().unwrap();
    let (listed, flags_listed) = (page.names("command"), page.names("flag"));
    let (mut wrong, mut there) = (Vec::new(), BTreeSet::new());
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(command) = open.pop() {
        let name = command.join(" ");
        let (commands, flags) = help(&command);
        assert!(!flags.is_empty(), "`caravan {name} --help` lists no flag");
        if !command.is_empty() && !listed.contains(name.as_str()) {
            wrong.push(format!("the command `{name}` has no row"));
        }
        for flag in flags {
            let full = if name.is_empty() { flag.clone() } else { format!("{name} {flag}") };
            // Every command has these two.
            let is_everywhere = ["-h", "--help"].contains(&flag.as_str());
            if !flags_listed.contains(full.as_str()) && !is_everywhere {
                wrong.push(format!("the flag `{full}` has no row"));
            }
            there.insert(full);
        }
        there.insert(name);
        // `help` shows the same tree again.
        let below = commands.into_iter().filter(|below| below != "help");
        open.extend(below.map(|below| command.iter().cloned().chain([below]).collect()));
    }
    for row in page.of_kind("flag").filter(|row| row.status() == "yes") {
        let invented = row.names.iter().filter(|name| !there.contains(name.as_str()));
        wrong.extend(invented.map(|name| format!("line {}: there is no flag `{name}`", row.line)));
    }
    fail_with(&wrong);
}

#[test]
fn every_variable_is_listed() {
    let page = Page::read().unwrap();
    let (listed, known) = (page.names("variable"), compatibility::variables().unwrap());
    let missing = known.iter().filter(|name| !listed.contains(name.as_str()));
    let mut wrong: Vec<String> = missing.map(|name| format!("the variable `{name}` has no row")).collect();
    for row in page.of_kind("variable") {
        let is_ours = ["yes", "differs", "added"].contains(&row.status().split(' ').next().unwrap());
        let is_inherited = row.status().starts_with("yes (");
        let unread = row.names.iter().filter(|name| is_ours && !is_inherited && !known.contains(*name));
        wrong.extend(unread.map(|name| format!("line {}: nothing reads `{name}`", row.line)));
    }
    fail_with(&wrong);
}
