//! Laws for any template: it parses or is refused, it renders or fails, it never panics.

use crate::support::{hello, infill, thinking, tools, turns};
use proptest::prelude::*;
use template::{Go, Jinja, MAX_OUTPUT_BYTES};

/// Pieces that make templates more often than plain noise does.
const GO_PIECES: [&str; 44] = [
    "{{",
    "}}",
    "{{- ",
    " -}}",
    "{{ if .Messages }}",
    "{{ else }}",
    "{{ else if ",
    "{{ end }}",
    "{{ range $i, $m := .Messages }}",
    "{{ range ",
    "{{ with ",
    "{{ define \"t\" }}",
    "{{ template \"t\" . }}",
    "{{ block \"b\" . }}",
    "{{ break }}",
    "{{ continue }}",
    "{{ $x := ",
    "{{ $x = ",
    ".Role",
    ".Content",
    "$.Tools",
    ".Function.Parameters",
    "$m",
    "$i",
    "$x",
    " | ",
    "(",
    ")",
    "eq ",
    "and ",
    "or ",
    "slice ",
    "index ",
    "len ",
    "printf \"%v%5d%q\" ",
    "json ",
    "html ",
    "\"é\\n\"",
    "`raw`",
    "3",
    "-1.5e3",
    "'a'",
    "nil",
    " ",
];

const JINJA_PIECES: [&str; 36] = [
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "#}",
    "{%- ",
    " -%}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if ",
    "{% endif %}",
    "{% else %}",
    "{% set x = ",
    "{% generation %}",
    "{% endgeneration %}",
    "{% macro f(a) %}",
    "{% endmacro %}",
    "f(1)",
    "m.content",
    "m['role']",
    "messages",
    "tools",
    "x",
    " | tojson",
    " | trim",
    " ~ ",
    " + ",
    "'é'",
    "[1, 2]",
    "{'a': 1}",
    ".split('a')",
    "[::-1]",
    " is string ",
    "namespace(a=1)",
    "3",
];

fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![6 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn check_go(source: &str) -> Result<(), TestCaseError> {
    let Ok(go) = Go::parse(source) else { return Ok(()) };
    prop_assert_eq!(go.source(), source);
    go.thinking_tags();
    prop_assert!(!go.tool_tag().is_empty());
    for values in [hello(), turns(), tools(), thinking(), infill()] {
        if let Ok(prompt) = go.render(&values) {
            prop_assert!(prompt.len() <= MAX_OUTPUT_BYTES);
        }
    }
    Ok(())
}

fn check_jinja(source: &str) -> Result<(), TestCaseError> {
    if let Ok(jinja) = Jinja::parse(source) {
        for values in [hello(), tools()] {
            if let Ok(prompt) = jinja.render(&values) {
                prop_assert!(prompt.len() <= MAX_OUTPUT_BYTES);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_a_go_template_or_refused(source in any::<String>()) {
        check_go(&source)?;
    }

    #[test]
    fn any_pieces_are_a_go_template_or_refused(source in pieces(&GO_PIECES)) {
        check_go(&source)?;
    }

    #[test]
    fn any_text_is_a_jinja_template_or_refused(source in any::<String>()) {
        check_jinja(&source)?;
    }

    #[test]
    fn any_pieces_are_a_jinja_template_or_refused(source in pieces(&JINJA_PIECES)) {
        check_jinja(&source)?;
    }

    #[test]
    fn text_without_actions_renders_as_itself(source in "[^{}]{0,80}", content in ".{0,40}") {
        let mut values = hello();
        values.messages[0].content = content;
        let source = format!("{source}{{{{ .Messages | len }}}}");
        prop_assert_eq!(Go::parse(&source).unwrap().render(&values).unwrap(), source.replace("{{ .Messages | len }}", "1"));
    }
}
