//! The three ways of executing, and collation.

use crate::support::{Row, check_rows, infill, late_system, neighbours, prefill, system, turns};

#[test]
fn a_template_is_executed_as_its_variables_ask() {
    check_rows(ROWS);
}

const ROWS: &[Row] = &[
    Row {
        name: "neighbours of one role are merged but not tool results",
        values: neighbours,
        template: "{{ .System }}#{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}",
        expected: "A\n\nB\n\nG#[system:A\n\nB][user:C\n\nD][tool:E][tool:F][system:G]",
    },
    Row {
        name: "a prompt and a suffix fill in the middle",
        values: infill,
        template: "{{ if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ else }}{{ .Prompt }}{{ end }}{{ .System }}",
        expected: "<PRE>def f(<SUF>return x<MID><no value>",
    },
    Row {
        name: "turns are executed one by one",
        values: system,
        template: "{{ if .System }}[{{ .System }}] {{ end }}{{ if .Prompt }}U:{{ .Prompt }} {{ end }}A:{{ .Response }}</s>",
        expected: "[Be kind.] U:One A:Two</s>U:Three A:",
    },
    Row {
        name: "the last turn ends at its response",
        values: prefill,
        template: "{{ .Prompt }} > {{ .Response }}{{ if .Response }} ({{ .Prompt }}){{ end }} !",
        expected: "One > Two (One) !Three > Fo",
    },
    Row {
        name: "a condition on the response is not its place",
        values: turns,
        template: "{{ if .Response }}+{{ end }}{{ .Prompt }}={{ .Response }};",
        expected: "+One=Two;Three=",
    },
    Row {
        name: "a response inside a branch cuts all behind it",
        values: turns,
        template: "{{ if .Prompt }}{{ .Prompt }}:{{ .Response }}</s>{{ end }}end",
        expected: "One:Two</s>endThree:",
    },
    Row {
        name: "a response in a pipeline cuts its later arguments",
        values: turns,
        template: r#"{{ .Prompt }}{{ printf "%s" .Response }} tail"#,
        expected: "OneTwo tailThree",
    },
    Row {
        name: "a system message in between starts a turn",
        values: late_system,
        template: "{{ if .System }}<S>{{ .System }}{{ end }}<U>{{ .Prompt }}<A>{{ .Response }}",
        expected: "<U>One<A>Two<S>Now rhyme.<U>Three<A>",
    },
];
