//! The turn shapes of well-known models, each with a template of our own.

use crate::support::{Row, check_rows, system, thinking, tools, turns};

#[test]
fn well_known_turn_shapes_render() {
    check_rows(ROWS);
}

const ROWS: &[Row] = &[
    Row {
        name: "chatml",
        values: system,
        template: "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        expected: r#"<|im_start|>system
Be kind.<|im_end|>
<|im_start|>user
One<|im_end|>
<|im_start|>assistant
Two<|im_end|>
<|im_start|>user
Three<|im_end|>
<|im_start|>assistant
"#,
    },
    Row {
        name: "chatml of one turn",
        values: system,
        template: r#"{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"#,
        expected: r#"<|im_start|>system
Be kind.<|im_end|>
<|im_start|>user
One<|im_end|>
<|im_start|>assistant
Two<|im_end|>
<|im_start|>user
Three<|im_end|>
<|im_start|>assistant
"#,
    },
    Row {
        name: "llama3",
        values: system,
        template: r#"{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>
{{- end }}<|start_header_id|>assistant<|end_header_id|>

"#,
        expected: r#"<|start_header_id|>system<|end_header_id|>

Be kind.<|eot_id|><|start_header_id|>user<|end_header_id|>

One<|eot_id|><|start_header_id|>assistant<|end_header_id|>

Two<|eot_id|><|start_header_id|>user<|end_header_id|>

Three<|eot_id|><|start_header_id|>assistant<|end_header_id|>

"#,
    },
    Row {
        name: "gemma",
        values: system,
        template: r#"{{- $system := "" }}{{ range .Messages }}
{{- if eq .Role "system" }}{{ $system = .Content }}{{ continue }}{{ end }}<start_of_turn>{{ if eq .Role "assistant" }}model{{ else }}{{ .Role }}{{ end }}
{{ if and (eq .Role "user") $system }}{{ $system }}

{{ $system = "" }}{{ end }}{{ .Content }}<end_of_turn>
{{ end }}<start_of_turn>model
"#,
        expected: r#"<start_of_turn>user
Be kind.

One<end_of_turn>
<start_of_turn>model
Two<end_of_turn>
<start_of_turn>user
Three<end_of_turn>
<start_of_turn>model
"#,
    },
    Row {
        name: "mistral",
        values: system,
        template: r#"{{- range $i, $m := .Messages }}
{{- if eq .Role "user" }}[INST] {{ if and (le $i 1) $.System }}{{ $.System }}

{{ end }}{{ .Content }}[/INST]
{{- else if eq .Role "assistant" }} {{ .Content }}</s>
{{- end }}{{ end }} "#,
        expected: "[INST] Be kind.\n\nOne[/INST] Two</s>[INST] Three[/INST] ",
    },
    Row {
        name: "llama2",
        values: turns,
        template: "[INST] <<SYS>>{{ .System }}<</SYS>>\n\n{{ .Prompt }} [/INST] {{ .Response }}</s><s>",
        expected: "[INST] <<SYS>><</SYS>>\n\nOne [/INST] Two</s><s>[INST] <<SYS>><</SYS>>\n\nThree [/INST] ",
    },
    Row {
        name: "phi3",
        values: turns,
        template: "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n",
        expected: "<|user|>\nOne<|end|>\n<|assistant|>\nTwo<|end|>\n<|user|>\nThree<|end|>\n<|assistant|>\n",
    },
    Row {
        name: "zephyr",
        values: system,
        template: "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}</s>\n{{ end }}<|assistant|>\n",
        expected: "<|system|>\nBe kind.</s>\n<|user|>\nOne</s>\n<|assistant|>\nTwo</s>\n<|user|>\nThree</s>\n<|assistant|>\n",
    },
    Row {
        name: "alpaca",
        values: system,
        template: r#"{{ if .System }}{{ .System }}

{{ end }}{{ if .Prompt }}### Instruction:
{{ .Prompt }}

{{ end }}### Response:
{{ .Response }}

"#,
        expected: "Be kind.\n\n### Instruction:\nOne\n\n### Response:\nTwo\n\n### Instruction:\nThree\n\n### Response:\n",
    },
    Row {
        name: "vicuna",
        values: turns,
        template: r#"{{ if .System }}{{ .System }}

{{ end }}{{ if .Prompt }}USER: {{ .Prompt }}
{{ end }}ASSISTANT: {{ .Response }}</s>
"#,
        expected: "USER: One\nASSISTANT: Two</s>\nUSER: Three\nASSISTANT: ",
    },
    Row {
        name: "openchat",
        values: system,
        template: r#"{{- range .Messages }}GPT4 Correct {{ if eq .Role "user" }}User{{ else if eq .Role "assistant" }}Assistant{{ else }}System{{ end }}: {{ .Content }}<|end_of_turn|>{{ end }}GPT4 Correct Assistant:"#,
        expected: "GPT4 Correct System: Be kind.<|end_of_turn|>GPT4 Correct User: One<|end_of_turn|>GPT4 Correct Assistant: Two<|end_of_turn|>GPT4 Correct User: Three<|end_of_turn|>GPT4 Correct Assistant:",
    },
    Row {
        name: "granite",
        values: system,
        template: r#"{{- range .Messages }}{{ if eq .Role "system" }}System{{ else if eq .Role "user" }}Question{{ else }}Answer{{ end }}:
{{ .Content }}

{{ end }}Answer:
"#,
        expected: "System:\nBe kind.\n\nQuestion:\nOne\n\nAnswer:\nTwo\n\nQuestion:\nThree\n\nAnswer:\n",
    },
    Row {
        name: "falcon",
        values: turns,
        template: r#"{{ if .System }}System: {{ .System }}
{{ end }}{{ if .Prompt }}User:
{{ .Prompt }}
{{ end }}Falcon:
{{ .Response }}
"#,
        expected: "User:\nOne\nFalcon:\nTwo\nUser:\nThree\nFalcon:\n",
    },
    Row {
        name: "alfred",
        values: turns,
        template: "{{- range .Messages }}<start_{{ .Role }}>{{ .Content }}<end_message>{{ end }}<start_assistant>",
        expected: "<start_user>One<end_message><start_assistant>Two<end_message><start_user>Three<end_message><start_assistant>",
    },
    Row {
        name: "hermes with tools",
        values: tools,
        template: r#"{{- if or .System .Tools }}<|im_start|>system
{{ .System }}
{{- if .Tools }}
<tools>
{{- range .Tools }}
{{ json .Function }}
{{- end }}
</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}
</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}"#,
        expected: r#"<|im_start|>system

<tools>
{"name":"get_weather","description":"Weather of a \u003ccity\u003e","parameters":{"type":"object","required":["city"],"properties":{"city":{"type":"string","description":"Its name"},"days":{"type":["integer","null"],"description":"How many"},"mood":{"anyOf":[{"type":"string"},{"type":"boolean"}],"enum":["good","bad"]}}}}
</tools><|im_end|>
<|im_start|>user
Weather & more?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "get_weather", "arguments": {"city":"Köln","days":3,"size":2000000}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
sunny
</tool_response><|im_end|>
<|im_start|>assistant
"#,
    },
    Row {
        name: "deepseek with thinking",
        values: thinking,
        template: r#"{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "user" }}<|User|>{{ .Content }}
{{- else if eq .Role "assistant" }}<|Assistant|>
{{- if and $.IsThinkSet (and $last .Thinking) -}}
<think>
{{ .Thinking }}
</think>
{{ end }}{{ .Content }}{{ if not $last }}<|end|>{{ end }}
{{- end }}
{{- if and $last (ne .Role "assistant") }}<|Assistant|>
{{- if and $.IsThinkSet (not $.Think) -}}
<think>

</think>

{{ end }}
{{- end -}}
{{- end }}"#,
        expected: "<|User|>One<|Assistant|>Two<|end|><|User|>Three<|Assistant|>",
    },
];
