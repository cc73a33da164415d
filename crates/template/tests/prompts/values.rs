//! What templates see of messages, tools and switches.

use crate::support::{Row, check_rows, hello, thinking, tools};

#[test]
fn values_look_as_in_ollama() {
    check_rows(ROWS);
}

const ROWS: &[Row] = &[
    Row {
        name: "arguments print as sorted json",
        values: tools,
        template: r#"{{ range .Messages }}{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}{{ end }}"#,
        expected: r#"{"name": "get_weather", "arguments": {"city":"Köln","days":3,"size":2000000}}"#,
    },
    Row {
        name: "tools print as json in ollamas key order",
        values: tools,
        template: "{{ .Tools }}{{ range .Messages }}{{ end }}",
        expected: r#"[{"type":"function","function":{"name":"get_weather","description":"Weather of a \u003ccity\u003e","parameters":{"type":"object","required":["city"],"properties":{"city":{"type":"string","description":"Its name"},"days":{"type":["integer","null"],"description":"How many"},"mood":{"anyOf":[{"type":"string"},{"type":"boolean"}],"enum":["good","bad"]}}}}}]"#,
    },
    Row {
        name: "a tools function prints as json",
        values: tools,
        template: "{{ range .Tools }}{\"type\": \"function\", \"function\": {{ .Function }}}\n{{ end }}{{ range .Messages }}{{ end }}",
        expected: "{\"type\": \"function\", \"function\": {\"name\":\"get_weather\",\"description\":\"Weather of a \\u003ccity\\u003e\",\"parameters\":{\"type\":\"object\",\"required\":[\"city\"],\"properties\":{\"city\":{\"type\":\"string\",\"description\":\"Its name\"},\"days\":{\"type\":[\"integer\",\"null\"],\"description\":\"How many\"},\"mood\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"boolean\"}],\"enum\":[\"good\",\"bad\"]}}}}}\n",
    },
    Row {
        name: "parameters and properties can be walked",
        values: tools,
        template: "{{ range .Tools }}{{ .Function.Parameters.Type }}:{{ range $n, $p := .Function.Parameters.Properties }}{{ $n }} {{ $p.Type }} {{ $p.Description }};{{ end }}{{ .Function.Parameters.Required }}{{ end }}{{ range .Messages }}{{ end }}",
        expected: "object:city string Its name;days [integer null] How many;mood  ;[city]",
    },
    Row {
        name: "types read as typescript",
        values: tools,
        template: "{{ range .Tools }}{{ range $n, $p := .Function.Parameters.Properties }}{{ $n }}: {{ toTypeScriptType $p }}, {{ end }}{{ end }}{{ range .Messages }}{{ end }}",
        expected: "city: string, days: number | null, mood: string | boolean, ",
    },
    Row {
        name: "json escapes for html and sorts",
        values: tools,
        template: "{{ range .Messages }}{{ json .Content }}{{ range .ToolCalls }}{{ json . }}{{ end }}{{ end }}",
        expected: r#""Weather \u0026 more?"""{"id":"call_1","function":{"index":0,"name":"get_weather","arguments":{"city":"Köln","days":3,"size":2000000}}}"sunny""#,
    },
    Row {
        name: "a struct is true and an empty list is not",
        values: tools,
        template: "{{ range .Tools }}{{ if .Function.Parameters }}T{{ end }}{{ end }}{{ range .Messages }}{{ if .ToolCalls }}C{{ end }}{{ if .Images }}I{{ end }}{{ end }}",
        expected: "TC",
    },
    Row {
        name: "whole numbers of a call print as floats",
        values: tools,
        template: "{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Arguments.days }} {{ .Function.Arguments.size }} {{ json .Function.Arguments.size }}{{ end }}{{ end }}",
        expected: "3 2e+06 2000000",
    },
    Row {
        name: "tool results know their tool",
        values: tools,
        template: r#"{{ range .Messages }}{{ if eq .Role "tool" }}{{ .ToolName }} {{ .ToolCallID }}: {{ .Content }}{{ end }}{{ end }}"#,
        expected: "get_weather call_1: sunny",
    },
    Row {
        name: "thinking switches are visible",
        values: thinking,
        template: "{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}{{ range .Messages }}{{ .Thinking }}{{ end }}",
        expected: "true high trueHm.",
    },
    Row {
        name: "thinking switches are false when nobody asked",
        values: hello,
        template: "{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}{{ range .Messages }}{{ end }}",
        expected: "false  false",
    },
];
