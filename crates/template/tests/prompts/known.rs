//! Shapes of turns that are known by what a template makes.

use template::known::{KNOWN, recognise};
use template::{Go, Jinja};

use crate::support::{system, turns};

fn name(source: &str) -> Option<&'static str> {
    recognise(&Jinja::parse(source).unwrap(), "<s>", "</s>").map(|known| known.name)
}

/// One turn after the other, each between what stands before and behind its role.
fn by_role(before: &str, between: &str, behind: &str, end: &str) -> String {
    format!(
        "{{{{ bos_token }}}}{{% for m in messages %}}{{{{ '{before}' + m['role'] + '{between}' + m['content'] + '{behind}' }}}}\
         {{% endfor %}}{{% if add_generation_prompt %}}{{{{ '{end}' }}}}{{% endif %}}"
    )
}

#[test]
fn a_template_is_known_by_the_prompts_that_it_makes() {
    for (source, expected) in [
        (by_role("<|im_start|>", "\\n", "<|im_end|>\\n", "<|im_start|>assistant\\n"), "chatml"),
        (
            by_role(
                "<|start_header_id|>",
                "<|end_header_id|>\\n\\n",
                "<|eot_id|>",
                "<|start_header_id|>assistant<|end_header_id|>\\n\\n",
            ),
            "llama3-instruct",
        ),
        (by_role("<|", "|>\\n", "</s>\\n", "<|assistant|>"), "zephyr"),
        (by_role("<|", "|>\\n", "' + eos_token + '\\n", "<|assistant|>\\n"), "zephyr"),
        (by_role("<|", "|>\\n", "<|end|>\\n", "<|assistant|>\\n"), "phi-3"),
        (by_role("<start_", ">", "<end_message>", "<start_assistant>"), "alfred"),
        (
            by_role("Source: ", "\\n\\n ", " <step> ", "Source: assistant\\nDestination: user\\n\\n "),
            "codellama-70b-instruct",
        ),
    ] {
        assert_eq!(name(&source), Some(expected), "{source}");
    }
    let named = "{% for m in messages %}{{ {'user': 'Question', 'assistant': 'Answer', 'system': 'System'}[m.role] }}:\n\
                 {{ m.content }}\n\n{% endfor %}Answer:\n";
    assert_eq!(name(named), Some("granite-instruct"));
    let titled = "{{ bos_token }}{% for m in messages %}{{ 'GPT4 Correct ' + m.role.title() + ': ' + m.content + '<|end_of_turn|>' }}\
                  {% endfor %}{{ 'GPT4 Correct Assistant:' }}";
    assert_eq!(name(titled), Some("openchat"));
}

#[test]
fn a_place_for_system_messages_tells_two_gemmas_apart() {
    assert_eq!(name(include_str!("../fixtures/gemma3.jinja")), Some("gemma3-instruct"));
    let first = "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}\
                 <start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end_of_turn>\n\
                 {% endfor %}<start_of_turn>model\n";
    assert_eq!(name(first), Some("gemma-instruct"));
    let mistral = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}\
                   {% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% else %}{{ raise_exception('no') }}\
                   {% endif %}{% endfor %}";
    assert_eq!(name(mistral), Some("mistral-instruct"));
}

#[test]
fn a_template_that_makes_anything_else_is_not_known() {
    for source in [
        // A system message of its own.
        include_str!("../fixtures/smollm2.jinja"),
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        "{{ raise_exception('never') }}",
        "",
    ] {
        assert_eq!(name(source), None, "{source}");
    }
}

#[test]
fn every_known_template_renders_and_has_a_name_of_its_own() {
    let mut names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
    names.dedup();
    assert_eq!(names.len(), KNOWN.len());
    for known in &KNOWN {
        let go = Go::parse(known.template).unwrap();
        assert!(!known.stops.is_empty(), "{}", known.name);
        for values in [turns(), system()] {
            let prompt = go.render(&values).unwrap();
            for content in values.messages.iter().map(|message| message.content.as_str()) {
                assert!(prompt.contains(content), "{}: {prompt}", known.name);
            }
        }
    }
}
