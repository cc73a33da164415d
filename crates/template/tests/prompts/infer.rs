//! What a template tells without being executed.

use template::Go;

fn go(template: &str) -> Go {
    Go::parse(template).expect("the template is well formed")
}

#[test]
fn variables_are_fields_and_variables_in_lower_case() {
    let template = "{{ define \"d\" }}{{ .InDefinition }}{{ end }}{{ range $i, $m := .Messages }}\
        {{ if and (eq $m.Role \"x\") $.Tools }}{{ json .Function.Name }}{{ end }}{{ end }}";
    let found: Vec<String> = go(template).variables().into_iter().collect();
    assert_eq!(found, ["$", "$m", "function", "indefinition", "messages", "name", "role", "tools"]);
}

#[test]
fn what_stands_before_a_chain_is_not_seen() {
    assert!(!go("{{ (index .Messages 0).Role }}").variables().contains("messages"));
}

#[test]
fn the_source_is_kept_as_it_was_given() {
    // The response that is appended for rendering is not part of it.
    assert_eq!(go("{{ .Prompt }}").source(), "{{ .Prompt }}");
    assert!(!go("{{ .Prompt }}").variables().contains("response"));
}

#[test]
fn thinking_tags_are_the_texts_around_the_thinking() {
    let tags = |template: &str| go(template).thinking_tags();
    let pair = |opening: &str, closing: &str| Some((opening.to_owned(), closing.to_owned()));
    let qwen = "{{ range .Messages }}{{ if .Thinking }}<think>\n{{ .Thinking }}\n</think>\n{{ end }}{{ .Content }}{{ end }}";
    assert_eq!(tags(qwen), pair("<think>", "</think>"));
    let trimmed = "{{ range $i, $_ := .Messages }}{{- if and $.IsThinkSet .Thinking -}} [T] {{- .Thinking -}} [/T] {{- end }}{{ end }}";
    assert_eq!(tags(trimmed), pair("[T]", "[/T]"));
}

#[test]
fn no_thinking_tags_without_messages_or_texts() {
    let cases = [
        "{{ .Prompt }}",
        "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ range .Messages }}{{ end }}",
        "{{ range .Tools }}<think>{{ .Thinking }}</think>{{ end }}{{ range .Messages }}{{ end }}",
        "{{ range .Messages }}{{ .Thinking }}</think>{{ end }}",
    ];
    for template in cases {
        assert_eq!(go(template).thinking_tags(), None, "{template}");
    }
}

#[test]
fn the_tool_tag_is_the_first_text_for_tool_calls() {
    let cases = [
        ("{{ .Prompt }}", "{"),
        ("{{ if .ToolCalls }}{{ range .ToolCalls }}{\"name\": 1}{{ end }}{{ end }}", "{"),
        ("{{ if .ToolCalls }}[{{ range .ToolCalls }}{\"name\": 1}{{ end }}]{{ end }}", "["),
        ("{{ if .ToolCalls }}<tool_call>\n{\"name\": 1}</tool_call>{{ end }}", "<tool_call>"),
        ("{{ if .ToolCalls }}[TOOL_CALLS] [{{ end }}", "[TOOL_CALLS] ["),
        (
            "{{ range .Messages }}{{ if eq .Role \"x\" }}{{ else if .ToolCalls }}Action: ```json\n{{ end }}{{ end }}",
            "Action: ```json",
        ),
        (
            "{{ with .X }}{{ if and .ToolCalls .Y }} \n{{ if .Z }}functools[{{ end }}{{ end }}{{ end }}",
            "functools[",
        ),
        ("{{ if .ToolCalls }}{{ .Content }}<late>{{ end }}", "{"),
        ("{{ if .ToolCalls }}{{ if .X }}{{ end }}<late>{{ end }}", "{"),
        ("{{ if .ToolCalls }}a\r\nb{{ end }}", "a\nb"),
    ];
    for (template, expected) in cases {
        assert_eq!(go(template).tool_tag(), expected, "{template}");
    }
}
