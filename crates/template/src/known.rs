//! Go templates for shapes of turns that many models share, under the names that Ollama gives them, with the stop
//! strings that go with each.
//!
//! Ollama looks how the *text* of a Jinja template differs from those of a list. Here it is rendered and what it makes
//! is compared, so that a Go template only takes the place of one that makes the same prompts.

use crate::{Go, Jinja, Message, Values};

/// A shape of turns.
#[derive(Debug)]
pub struct Known {
    pub name: &'static str,
    /// The Go template.
    pub template: &'static str,
    pub stops: &'static [&'static str],
    /// Whether it has a place for system messages. Where it has none, ours puts them before the next user message.
    has_system: bool,
}

const ROLES: Known = Known { name: "", template: "", stops: &[], has_system: true };

/// The more particular before the more general.
pub static KNOWN: [Known; 17] = [
    Known {
        name: "chatml",
        template: "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        stops: &["<|im_start|>", "<|im_end|>"],
        ..ROLES
    },
    Known {
        name: "llama3-instruct",
        template: "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>\
                   {{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
        stops: &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        ..ROLES
    },
    Known {
        name: "zephyr",
        template: "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}</s>\n{{ end }}<|assistant|>\n",
        stops: &["<|system|>", "</s>", "<|user|>", "<|assistant|>"],
        ..ROLES
    },
    Known {
        name: "phi-3",
        template: "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n",
        stops: &["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"],
        ..ROLES
    },
    Known {
        name: "gemma3-instruct",
        template: "{{ $rules := .System }}{{ range .Messages }}{{ if ne .Role \"system\" }}<start_of_turn>\
                   {{ if eq .Role \"assistant\" }}model{{ else }}{{ .Role }}{{ end }}\n\
                   {{ if and $rules (eq .Role \"user\") }}{{ $rules }}\n\n{{ $rules = \"\" }}{{ end }}{{ .Content }}\
                   <end_of_turn>\n{{ end }}{{ end }}<start_of_turn>model\n",
        stops: &["<end_of_turn>"],
        ..ROLES
    },
    Known {
        name: "gemma-instruct",
        template: "{{ $rules := \"\" }}{{ range .Messages }}{{ if eq .Role \"system\" }}{{ $rules = .Content }}\
                   {{ continue }}{{ end }}<start_of_turn>{{ if eq .Role \"assistant\" }}model{{ else }}{{ .Role }}\
                   {{ end }}\n{{ if and $rules (eq .Role \"user\") }}{{ $rules }} {{ $rules = \"\" }}{{ end }}\
                   {{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n",
        stops: &["<start_of_turn>", "<end_of_turn>"],
        has_system: false,
    },
    Known {
        name: "mistral-instruct",
        template: "{{ $rules := \"\" }}{{ range .Messages }}{{ if eq .Role \"system\" }}{{ $rules = .Content }}\
                   {{ else if eq .Role \"user\" }}[INST] {{ if $rules }}{{ $rules }}\n\n{{ $rules = \"\" }}{{ end }}\
                   {{ .Content }} [/INST]{{ else }}{{ .Content }}</s>{{ end }}{{ end }}",
        stops: &["[INST]", "[/INST]"],
        has_system: false,
    },
    Known {
        name: "llama2-chat",
        template: "{{ range $i, $_ := .Messages }}{{ if eq .Role \"user\" }}{{ if gt $i 1 }}<s>{{ end }}[INST] \
                   {{ if and $.System (le $i 1) }}<<SYS>>\n{{ $.System }}\n<</SYS>>\n\n{{ end }}{{ .Content }} [/INST]\
                   {{ else if eq .Role \"assistant\" }} {{ .Content }} </s>{{ end }}{{ end }}",
        stops: &["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"],
        ..ROLES
    },
    Known {
        name: "openchat",
        template: "{{ range .Messages }}GPT4 Correct {{ if eq .Role \"user\" }}User{{ else if eq .Role \"assistant\" }}\
                   Assistant{{ else }}System{{ end }}: {{ .Content }}<|end_of_turn|>{{ end }}GPT4 Correct Assistant:",
        stops: &["<|end_of_turn|>"],
        ..ROLES
    },
    Known {
        name: "granite-instruct",
        template: "{{ range .Messages }}{{ if eq .Role \"system\" }}System{{ else if eq .Role \"user\" }}Question\
                   {{ else }}Answer{{ end }}:\n{{ .Content }}\n\n{{ end }}Answer:\n",
        stops: &["System:", "Question:", "Answer:"],
        ..ROLES
    },
    Known {
        name: "solar-instruct",
        template: "{{ range .Messages }}### {{ if eq .Role \"system\" }}System{{ else if eq .Role \"user\" }}User\
                   {{ else }}Assistant{{ end }}:\n{{ .Content }}{{ if eq .Role \"assistant\" }}</s>{{ end }}\n\n\
                   {{ end }}### Assistant:\n",
        stops: &["### System:", "### User:", "### Assistant"],
        ..ROLES
    },
    Known {
        name: "magicoder",
        template: "{{ range .Messages }}{{ if eq .Role \"system\" }}{{ .Content }}\n\n{{ else }}@@ {{ if eq .Role \
                   \"user\" }}Instruction{{ else }}Response{{ end }}\n{{ .Content }}\n\n{{ end }}{{ end }}@@ Response\n",
        stops: &["@@ Instruction", "@@ Response"],
        ..ROLES
    },
    Known {
        name: "starcoder2-instruct",
        template: "{{ range .Messages }}{{ if eq .Role \"system\" }}{{ .Content }}\n\n{{ else if eq .Role \"user\" }}\
                   ### Instruction\n{{ .Content }}\n\n{{ else }}### Response\n{{ .Content }}<|endoftext|>\n\n{{ end }}\
                   {{ end }}### Response\n",
        stops: &["### Instruction", "### Response", "<|endoftext|>"],
        ..ROLES
    },
    Known {
        name: "alpaca",
        template: "{{ range .Messages }}{{ if eq .Role \"system\" }}{{ .Content }}\n\n{{ else }}### {{ if eq .Role \
                   \"user\" }}Instruction{{ else }}Response{{ end }}:\n{{ .Content }}\n\n{{ end }}{{ end }}### Response:\n",
        stops: &["### Instruction:", "### Response"],
        ..ROLES
    },
    Known {
        name: "falcon-instruct",
        template: "{{ range .Messages }}{{ if eq .Role \"system\" }}System: {{ .Content }}\n{{ else if eq .Role \
                   \"user\" }}User:\n{{ .Content }}\n{{ else }}Falcon:\n{{ .Content }}\n{{ end }}{{ end }}Falcon:\n",
        stops: &["User:", "Falcon:"],
        ..ROLES
    },
    Known {
        name: "alfred",
        template: "{{ range .Messages }}<start_{{ .Role }}>{{ .Content }}<end_message>{{ end }}<start_assistant>",
        stops: &["<start_system>", "<end_message>", "<start_user>", "<start_assistant>"],
        ..ROLES
    },
    Known {
        name: "codellama-70b-instruct",
        template: "{{ range .Messages }}Source: {{ .Role }}\n\n {{ .Content }} <step> {{ end }}Source: assistant\n\
                   Destination: user\n\n ",
        stops: &["Source:", "Destination:", "<step>"],
        ..ROLES
    },
];

/// The shape that `jinja` makes, if it is one of ours. `bos` and `eos` are the model's, which Jinja templates write.
pub fn recognise(jinja: &Jinja, bos: &str, eos: &str) -> Option<&'static Known> {
    let turns: [&[(&str, &str)]; 4] = [
        &[("user", "Ping one")],
        &[("user", "Ping one"), ("assistant", "Pong two"), ("user", "Ping three")],
        &[("system", "Be four"), ("user", "Ping one")],
        &[("system", "Be four"), ("user", "Ping one"), ("assistant", "Pong two"), ("user", "Ping three")],
    ];
    let has_system = jinja.has_system();
    let count = if has_system { turns.len() } else { 2 };
    let probes: Vec<Values> = turns[..count].iter().map(|turns| conversation(turns, bos, eos)).collect();
    let wanted: Vec<String> = probes
        .iter()
        .map(|values| jinja.render(values).map(|prompt| bare(&prompt, bos).to_owned()))
        .collect::<Result<_, _>>()
        .ok()?;
    KNOWN.iter().filter(|known| known.has_system == has_system).find(|known| {
        let go = Go::parse(known.template).expect("every template of the table parses");
        let mut prompts = probes.iter().map(|values| go.render(values)).zip(&wanted);
        prompts.all(|(prompt, wanted)| prompt.is_ok_and(|prompt| bare(&prompt, bos) == wanted))
    })
}

fn conversation(turns: &[(&str, &str)], bos: &str, eos: &str) -> Values {
    Values {
        messages: turns.iter().map(|(role, content)| Message::new(*role, *content)).collect(),
        bos_token: bos.to_owned(),
        eos_token: eos.to_owned(),
        add_generation_prompt: true,
        ..Values::default()
    }
}

/// The tokenizer writes the beginning of sequence where a Go template does not; white space at the ends is a matter of
/// taste.
fn bare<'a>(prompt: &'a str, bos: &str) -> &'a str {
    let prompt = if bos.is_empty() { prompt } else { prompt.strip_prefix(bos).unwrap_or(prompt) };
    prompt.trim()
}
