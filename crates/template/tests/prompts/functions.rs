//! The functions: Go's own and Ollama's.

use crate::support::{Row, check_rows, hello, system, turns};

#[test]
fn functions_answer_what_go_answers() {
    check_rows(ROWS);
}

const ROWS: &[Row] = &[
    Row {
        name: "eq takes several right sides",
        values: system,
        template: r#"{{ range .Messages }}{{ eq .Role "system" "user" }} {{ end }}"#,
        expected: "true true false true ",
    },
    Row {
        name: "comparisons are by type",
        values: hello,
        template: r#"{{ lt 1 2 }} {{ le 2 2 }} {{ gt "b" "a" }} {{ ge 1.5 2.5 }} {{ ne 1 2 }} {{ eq .Nothing nil }} {{ eq .Nothing "x" }}{{ .Response }}"#,
        expected: "true true true false true true false",
    },
    Row {
        name: "and or give the deciding operand",
        values: hello,
        template: r#"{{ and .System "last" }}|{{ or .System "default" }}|{{ and 1 0 2 }}|{{ or 0 "" }}|{{ not .System }}{{ .Response }}"#,
        expected: "|default|0||true",
    },
    Row {
        name: "and or do not evaluate what does not matter",
        values: hello,
        template: "{{ or true (index .Messages 99) }} {{ and false (index .Messages 99) }}",
        expected: "true false",
    },
    Row {
        name: "the last message is found with slice and len",
        values: turns,
        template: "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ .Role }}{{ if $last }} is last{{ else }}, {{ end }}{{ end }}",
        expected: "user, assistant, user is last",
    },
    Row {
        name: "slice and index work on texts and lists",
        values: turns,
        template: r#"{{ slice "abcdef" 1 3 }} {{ slice "abc" 1 }} {{ index "abc" 1 }} {{ len (slice .Messages 1 2) }} {{ (index .Messages 2).Content }}"#,
        expected: "bc bc 98 1 Three",
    },
    Row {
        name: "printf knows gos verbs",
        values: hello,
        template: r#"{{ printf "%s|%q|%v|%d|%5d|%-4s|%04d|%x|%t|%.2f|%%|%c|%T" "a" "b\n" 1.5 7 8 "c" 9 255 true 3.14159 65 1 }}{{ .Response }}"#,
        expected: r#"a|"b\n"|1.5|7|    8|c   |0009|ff|true|3.14|%|A|int"#,
    },
    Row {
        name: "printf prints what does not fit",
        values: hello,
        template: r#"{{ printf "%d %s %d" "x" 1 }}{{ printf "a" 2 }}{{ .Response }}"#,
        expected: "%!d(string=x) %!s(int=1) %!d(MISSING)a%!(EXTRA int=2)",
    },
    Row {
        name: "print puts blanks between what are no texts",
        values: hello,
        template: r#"{{ print 1 2 "a" "b" 3 }}|{{ println "a" 1 }}|{{ print .Nothing }}{{ .Response }}"#,
        expected: "1 2ab3|a 1\n|<nil>",
    },
    Row {
        name: "html js and urlquery escape",
        values: hello,
        template: r#"{{ html "<a href='x'>" }} {{ js "a'b<" }} {{ urlquery "a b&c/é" }}{{ .Response }}"#,
        expected: r#"&lt;a href=&#39;x&#39;&gt; a\'b\u003C a+b%26c%2F%C3%A9"#,
    },
    Row {
        name: "the dates come from the values",
        values: hello,
        template: r#"{{ currentDate }} {{ yesterdayDate }} {{ currentDate "2006-01-02" }}{{ .Response }}"#,
        expected: "2024-07-04 2024-07-03 2024-07-04",
    },
];
