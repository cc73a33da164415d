//! The language: actions, variables, trimming, definitions, literals.

use crate::support::{Row, check_rows, hello, system, tools, turns};

#[test]
fn the_language_prints_what_go_prints() {
    check_rows(ROWS);
}

const ROWS: &[Row] = &[
    Row {
        name: "text without actions gets the response appended",
        values: turns,
        template: "Say: ",
        expected: "Say: TwoSay: ",
    },
    Row {
        name: "trim markers eat all white space next to them",
        values: hello,
        template: "a \n\t{{- \" b \" -}} \n c",
        expected: "a b c",
    },
    Row {
        name: "a dash without a space is a sign",
        values: hello,
        template: "{{-3}} {{ -3 -}} .",
        expected: "-3 -3.",
    },
    Row {
        name: "comments print nothing",
        values: hello,
        template: "a{{/* one */}}b {{- /* two */ -}} c",
        expected: "abc",
    },
    Row {
        name: "a missing key is false but prints no value",
        values: hello,
        template: "{{ if .Nothing }}yes{{ else }}no{{ end }} {{ .Nothing }} {{ with .Nothing }}x{{ else }}empty{{ end }}",
        expected: "no <no value> empty",
    },
    Row {
        name: "if else chains take the first true branch",
        values: system,
        template: r#"{{ range .Messages }}{{ if eq .Role "system" }}S{{ else if eq .Role "user" }}U{{ else }}A{{ end }}{{ end }}"#,
        expected: "SUAU",
    },
    Row {
        name: "with moves the dot and dollar stays at the root",
        values: turns,
        template: "{{ with index .Messages 0 }}{{ .Role }} of {{ len $.Messages }}{{ end }}",
        expected: "user of 3",
    },
    Row {
        name: "with chains through else",
        values: system,
        template: "{{ with .Nothing }}a{{ else with .System }}[{{ . }}]{{ else }}c{{ end }}{{ range .Messages }}{{ end }}",
        expected: "[Be kind.]",
    },
    Row {
        name: "range gives index and element",
        values: turns,
        template: "{{ range $i, $m := .Messages }}{{ $i }}={{ $m.Role }} {{ end }}",
        expected: "0=user 1=assistant 2=user ",
    },
    Row {
        name: "range over nothing takes its else",
        values: hello,
        template: "{{ range .Tools }}tool{{ else }}no tools{{ end }}{{ range .Messages }}{{ end }}",
        expected: "no tools",
    },
    Row {
        name: "range over an int counts",
        values: hello,
        template: "{{ range 3 }}{{ . }}{{ end }}{{ range $i := 2 }}<{{ $i }}>{{ end }}{{ .Response }}",
        expected: "012<0><1>",
    },
    Row {
        name: "range over a map is sorted by key",
        values: tools,
        template: "{{ range .Messages }}{{ range .ToolCalls }}{{ range $k, $v := .Function.Arguments }}{{ $k }}={{ $v }};{{ end }}{{ end }}{{ end }}",
        expected: "city=Köln;days=3;size=2e+06;",
    },
    Row {
        name: "break and continue leave the inner range",
        values: turns,
        template: "{{ range $i, $m := .Messages }}{{ if eq $i 1 }}{{ continue }}{{ end }}{{ range 5 }}{{ if gt . 1 }}{{ break }}{{ end }}{{ . }}{{ end }}{{ $m.Role }} {{ end }}",
        expected: "01user 01user ",
    },
    Row {
        name: "a variable set in a block keeps its value behind it",
        values: turns,
        template: r#"{{ $seen := "none" }}{{ range .Messages }}{{ if eq .Role "assistant" }}{{ $seen = .Content }}{{ end }}{{ end }}{{ $seen }}"#,
        expected: "Two",
    },
    Row {
        name: "a variable declared in a block hides the outer one",
        values: hello,
        template: "{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}{{ .Response }}",
        expected: "21",
    },
    Row {
        name: "a range may assign to variables of the outside",
        values: turns,
        template: "{{ $i := 0 }}{{ $m := 0 }}{{ range $i, $m = .Messages }}{{ end }}{{ $i }} {{ $m.Role }}",
        expected: "2 user",
    },
    Row {
        name: "a definition is called with its own dot and root",
        values: turns,
        template: r#"{{ define "turn" }}<{{ .Role }}|{{ $.Content }}>{{ end }}{{ range .Messages }}{{ template "turn" . }}{{ end }}"#,
        expected: "<user|One><assistant|Two><user|Three>",
    },
    Row {
        name: "a block is defined and called at once",
        values: turns,
        template: r#"{{ block "b" .Messages }}{{ len . }}{{ end }}{{ template "b" "abc" }}"#,
        expected: "33",
    },
    Row {
        name: "pipelines pass the value as last argument",
        values: hello,
        template: r#"{{ "x" | printf "%s-%s" "y" | len }} {{ .Messages | len | eq 1 }}"#,
        expected: "3 true",
    },
    Row {
        name: "parentheses can be asked for fields",
        values: hello,
        template: r#"{{ (index .Messages 0).Content }} {{ (print "a" "b") | len }}{{ range .Messages }}{{ end }}"#,
        expected: "Hi <b> 2",
    },
    Row {
        name: "literals are gos",
        values: hello,
        template: r#"{{ 0x1F }} {{ 017 }} {{ 1_000 }} {{ 'a' }} {{ 1.50 }} {{ 1e6 }} {{ "t\t\u00e9\x41" }} {{ `r\n` }} {{ true }}{{ .Response }}"#,
        expected: "31 15 1000 97 1.5 1e+06 t\téA r\\n true",
    },
];
