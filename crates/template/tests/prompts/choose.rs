//! Which template makes the prompt, and what the model can do by it.

use template::{Capabilities, Go, Jinja, Kind, capabilities, choose};

const PLAIN_GO: &str = "{{ .Prompt }}";
const TOOLS_GO: &str = "{{ range .Messages }}{{ if $.Tools }}{{ .ToolCalls }}{{ end }}{{ end }}";
const ROUND_TRIP_GO: &str = "{{ range .Messages }}{{ if $.Tools }}{{ .ToolCalls }}{{ end }}{{ if eq .Role \"tool\" }}R{{ end }}{{ end }}";
const PLAIN_JINJA: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";
const TOOLS_JINJA: &str = "{{ tools }}{% for m in messages %}{{ m.content }}{% endfor %}";
const ROUND_TRIP_JINJA: &str = "{{ tools }}{% for m in messages %}{% if m.role == 'tool' %}R{% endif %}{{ m.tool_calls }}{{ m.content }}{% endfor %}";
const THINKING_JINJA: &str = "{{ tools }}{% for m in messages %}<think></think>{{ m.content }}{% endfor %}";

fn pick(go: Option<&str>, jinja: Option<&str>) -> Kind {
    let go = go.map(|source| Go::parse(source).unwrap());
    let jinja = jinja.map(|source| Jinja::parse(source).unwrap());
    choose(go.as_ref(), jinja.as_ref())
}

#[test]
fn the_only_template_is_used() {
    assert_eq!(pick(None, None), Kind::Plain);
    assert_eq!(pick(Some(PLAIN_GO), None), Kind::Go);
    assert_eq!(pick(None, Some(PLAIN_JINJA)), Kind::Jinja);
}

#[test]
fn go_wins_unless_jinja_can_do_more() {
    let cases = [
        (PLAIN_GO, PLAIN_JINJA, Kind::Go),
        (PLAIN_GO, TOOLS_JINJA, Kind::Jinja),
        (TOOLS_GO, PLAIN_JINJA, Kind::Go),
        (TOOLS_GO, TOOLS_JINJA, Kind::Go),
        // The same capabilities, but only Jinja shows results.
        (TOOLS_GO, ROUND_TRIP_JINJA, Kind::Jinja),
        (ROUND_TRIP_GO, ROUND_TRIP_JINJA, Kind::Go),
        // More capabilities, but only Go shows results.
        (ROUND_TRIP_GO, THINKING_JINJA, Kind::Go),
        (TOOLS_GO, THINKING_JINJA, Kind::Jinja),
    ];
    for (go, jinja, expected) in cases {
        assert_eq!(pick(Some(go), Some(jinja)), expected, "{go} or {jinja}");
    }
}

#[test]
fn capabilities_are_those_of_the_template_that_is_used() {
    let go = Go::parse("{{ .Suffix }}{{ range .Messages }}<t>{{ .Thinking }}</t>{{ end }}").unwrap();
    let expected = Capabilities { tools: false, insert: true, thinking: true };
    assert_eq!(capabilities(Some(&go), None), expected);
    let jinja = Jinja::parse(THINKING_JINJA).unwrap();
    let expected = Capabilities { tools: true, insert: false, thinking: true };
    assert_eq!(capabilities(None, Some(&jinja)), expected);
    let plain = Go::parse(PLAIN_GO).unwrap();
    assert_eq!(capabilities(Some(&plain), Some(&jinja)), expected);
    assert_eq!(capabilities(None, None), Capabilities::default());
}

#[test]
fn cutting_off_the_thinking_counts_as_thinking() {
    let cuts = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}";
    assert!(capabilities(None, Some(&Jinja::parse(cuts).unwrap())).thinking);
    let keeps = format!("{cuts}{{{{ reasoning_content }}}}");
    assert!(!capabilities(None, Some(&Jinja::parse(&keeps).unwrap())).thinking);
}
