//! Templates that are wrong, and those that ask for too much: each error names its line and what is wrong.

use crate::support::{hello, system, tools, turns};
use template::{Error, Go, MAX_OUTPUT_BYTES, Values};

fn refusal(template: &str) -> String {
    Go::parse(template).expect_err("the template must be refused").to_string()
}

fn failure(template: &str, values: &Values) -> String {
    let go = Go::parse(template).expect("the template is well formed");
    go.render(values).expect_err("the rendering must fail").to_string()
}

#[test]
fn a_template_that_does_not_parse_names_the_line() {
    let cases = [
        ("a\n{{ if .X }}", "line 2: unexpected EOF"),
        ("{{ end }}", "line 1: unexpected {{end}}"),
        ("a{{ else }}b", "line 1: unexpected {{else}}"),
        ("{{ if .X }}{{ else }}{{ else }}{{ end }}", "line 1: expected end; found {{else}}"),
        ("{{ .X ", "line 1: unclosed action"),
        ("{{ (.X }}", "line 1: unclosed left paren"),
        ("{{ .X) }}", "line 1: unexpected right paren"),
        ("{{ \"abc }}", "line 1: unterminated quoted string"),
        ("{{ `abc }}", "line 1: unterminated raw quoted string"),
        ("{{ 'abc }}", "line 1: unterminated character constant"),
        ("\n\n{{/* x }}", "line 3: unclosed comment"),
        ("{{/* x */ .X }}", "line 1: comment ends before closing delimiter"),
        ("{{ nothing .X }}", "line 1: function \"nothing\" not defined"),
        ("{{ $x }}", "line 1: undefined variable \"$x\""),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", "line 1: undefined variable \"$x\""),
        ("{{ }}", "line 1: missing value for command"),
        ("{{ if }}{{ end }}", "line 1: missing value for if"),
        ("{{ .X | 3 }}", "line 1: non executable command in pipeline stage 2"),
        ("{{ break }}", "line 1: {{break}} outside {{range}}"),
        ("{{ $a, $b := .X }}", "line 1: too many declarations in command"),
        ("{{ range $a, 3 := .X }}{{ end }}", "line 1: range can only initialize variables"),
        ("{{ .X.3 }}", "line 1: unexpected \".3\" in operand"),
        ("{{ $x-1 }}", "line 1: bad character '-'"),
        ("{{ 1x }}", "line 1: bad number syntax: \"1x\""),
        ("{{ 2i }}", "line 1: complex numbers are not supported: \"2i\""),
        ("{{ \"\\q\" }}", "line 1: invalid escape in \"\\q\""),
        ("{{ .X ? }}", "line 1: unexpected \"?\" in operand"),
        ("{{ \u{1} }}", "line 1: unrecognized character in action: '\\u{1}'"),
        ("{{ \"a\".X }}", "line 1: unexpected . after term: .X"),
        (
            "{{ if .X }}{{ define \"a\" }}{{ end }}{{ end }}",
            "line 1: unexpected {{define}}: only the top level takes definitions",
        ),
        (
            "{{ define \"a\" }}1{{ end }}{{ define \"a\" }}2{{ end }}",
            "line 1: multiple definition of template \"a\"",
        ),
        ("{{ template .X }}", "line 1: unexpected \".X\" in template clause"),
    ];
    for (template, expected) in cases {
        assert_eq!(refusal(template), expected, "{template}");
    }
}

#[test]
fn a_rendering_that_fails_names_the_line() {
    type Case = (&'static str, fn() -> Values, &'static str);
    let cases: [Case; 14] = [
        (
            "\n{{ range .Messages }}{{ .Nope }}{{ end }}",
            hello,
            "line 2: can't evaluate field Nope in type Message",
        ),
        (
            "{{ range .Tools }}{{ .Name }}{{ end }}{{ range .Messages }}{{ end }}",
            tools,
            "line 1: can't evaluate field Name in type Tool",
        ),
        ("{{ .System.Length }}", system, "line 1: can't evaluate field Length in type string"),
        ("{{ .Nothing.More }}", hello, "line 1: nil pointer evaluating interface {}.More"),
        (
            "{{ index .Messages 7 }}{{ range .Messages }}{{ end }}",
            turns,
            "line 1: error calling index: index out of range: 7",
        ),
        ("{{ slice \"abc\" 2 1 }}", hello, "line 1: error calling slice: invalid slice index: 2 > 1"),
        ("{{ len 3 }}", hello, "line 1: error calling len: len of type int"),
        (
            "{{ eq 1 \"a\" }}",
            hello,
            "line 1: error calling eq: incompatible types for comparison: int and string",
        ),
        ("{{ lt nil 1 }}", hello, "line 1: error calling lt: invalid type for comparison"),
        ("{{ .System 3 }}", hello, "line 1: can't give argument to non-function .System"),
        ("{{ range true }}{{ end }}", hello, "line 1: range can't iterate over bool"),
        ("{{ template \"nowhere\" }}", hello, "line 1: template \"nowhere\" not defined"),
        (
            "{{ printf 3 }}",
            hello,
            "line 1: error calling printf: wrong type for value; expected string; got int",
        ),
        ("{{ nil }}", hello, "line 1: nil is not a command"),
    ];
    for (template, values, expected) in cases {
        assert_eq!(failure(template, &values()), expected, "{template}");
    }
}

#[test]
fn nesting_is_bounded_when_it_is_parsed() {
    let nest = |levels: usize| format!("{}x{}", "{{if 1}}".repeat(levels), "{{end}}".repeat(levels));
    assert_eq!(Go::parse(&nest(100)).unwrap().render(&hello()).unwrap(), "x");
    assert_eq!(refusal(&nest(101)), "line 1: more than 100 levels of nesting");
    let parens = format!("{{{{ {}1{} }}}}", "(".repeat(101), ")".repeat(101));
    assert_eq!(refusal(&parens), "line 1: more than 100 levels of nesting");
}

#[test]
fn templates_that_call_each_other_end() {
    let endless =
        "{{ define \"a\" }}{{ if 1 }}{{ template \"a\" . }}{{ end }}{{ end }}\n{{ template \"a\" }}";
    assert_eq!(failure(endless, &hello()), "line 1: more than 200 levels of nesting");
}

#[test]
fn loops_within_loops_end() {
    let loops = "{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}";
    assert_eq!(failure(loops, &hello()), "line 1: more than 10000000 steps to render");
}

#[test]
fn the_output_is_bounded() {
    let fills = format!("{{{{ range 20000 }}}}{}{{{{ end }}}}", "x".repeat(1000));
    let error = Go::parse(&fills).unwrap().render(&hello()).unwrap_err();
    assert_eq!(error, Error::Limit { line: 1, unit: "bytes of output", bound: MAX_OUTPUT_BYTES });
}

#[test]
fn a_text_that_doubles_itself_is_stopped() {
    let doubles = "{{ $x := \"0123456789\" }}{{ range 64 }}{{ $x = print $x $x }}{{ end }}";
    let found = failure(doubles, &hello());
    let bounds = ["line 1: more than 16777216 bytes of output", "line 1: more than 10000000 steps to render"];
    assert!(bounds.contains(&found.as_str()), "{found}");
}

#[test]
fn variables_and_the_source_are_bounded() {
    let many: String = (0..200).map(|at| format!("{{{{ $v{at} := 1 }}}}")).collect();
    assert_eq!(refusal(&many), "line 1: more than 200 variables in scope");
    assert_eq!(refusal(&"x".repeat((1 << 20) + 1)), "line 1: more than 1048576 bytes of template");
}
