//! Jinja: real and realistic chat templates, Python's ways, and its bounds.

use crate::support::{conversation, hello, prefill, system, thinking, tools, turns};
use template::{Jinja, Message, Think, Values};

const SMOLLM2: &str = include_str!("../fixtures/smollm2.jinja");
const GEMMA3: &str = include_str!("../fixtures/gemma3.jinja");
const HERMES: &str = include_str!("../fixtures/hermes.jinja");

fn render(template: &str, values: Values) -> String {
    let values = Values { bos_token: "<s>".into(), eos_token: "</s>".into(), ..values };
    Jinja::parse(template).unwrap().render(&values).unwrap()
}

fn failure(template: &str) -> String {
    Jinja::parse(template).unwrap().render(&hello()).expect_err("the rendering must fail").to_string()
}

#[test]
fn smollm2_renders_as_in_python() {
    assert_eq!(
        render(SMOLLM2, hello()),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi <b><|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        render(SMOLLM2, system()),
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nOne<|im_end|>\n\
         <|im_start|>assistant\nTwo<|im_end|>\n<|im_start|>user\nThree<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn gemma3_renders_as_in_python() {
    assert_eq!(
        render(GEMMA3, turns()),
        "<s><start_of_turn>user\nOne<end_of_turn>\n<start_of_turn>model\nTwo<end_of_turn>\n\
         <start_of_turn>user\nThree<end_of_turn>\n<start_of_turn>model\n"
    );
    assert_eq!(
        render(GEMMA3, system()),
        "<s><start_of_turn>user\nBe kind.\n\nOne<end_of_turn>\n<start_of_turn>model\nTwo<end_of_turn>\n\
         <start_of_turn>user\nThree<end_of_turn>\n<start_of_turn>model\n"
    );
}

#[test]
fn gemma3_sees_images_as_parts() {
    let mut values = conversation(&[("user", "What is this?")]);
    values.messages[0].images = 2;
    assert_eq!(
        render(GEMMA3, values),
        "<s><start_of_turn>user\n<start_of_image><start_of_image>What is this?<end_of_turn>\n<start_of_turn>model\n"
    );
}

#[test]
fn what_the_assistant_has_begun_is_left_open() {
    assert_eq!(
        render(GEMMA3, prefill()),
        "<s><start_of_turn>user\nOne<end_of_turn>\n<start_of_turn>model\nTwo<end_of_turn>\n\
         <start_of_turn>user\nThree<end_of_turn>\n<start_of_turn>model\nFo"
    );
    let said = conversation(&[("user", "a"), ("assistant", "b"), ("assistant", "c ")]);
    assert_eq!(render(GEMMA3, said), "<s><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb\n\nc ");
}

#[test]
fn an_assistant_that_called_said_nothing_or_is_alone_is_not_continued() {
    let template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}>";
    assert_eq!(render(template, conversation(&[("user", "a"), ("assistant", "")])), "[user]a[assistant]>");
    assert_eq!(render(template, conversation(&[("assistant", "a")])), "[assistant]a>");
    let mut called = tools();
    called.messages.truncate(2);
    called.messages[1].content = "I look.".into();
    assert!(!called.messages[1].tool_calls.is_empty());
    assert_eq!(render(template, called), "[user]Weather & more?[assistant]I look.>");
}

#[test]
fn what_the_assistant_has_begun_comes_after_its_thought() {
    let template =
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]<think>{{ '\n' }}";
    let mut begun = conversation(&[("user", "a"), ("assistant", "b")]);
    assert_eq!(render(template, begun.clone()), "[user]a[assistant]<think>\n\n</think>\n\nb");
    begun.messages[1].thinking = "hm".into();
    assert_eq!(render(template, begun.clone()), "[user]a[assistant]<think>\nhm\n</think>\n\nb");
    begun.messages[1].content = "so</think>b".into();
    assert_eq!(render(template, begun), "[user]a[assistant]<think>\nso</think>b");
}

#[test]
fn a_raised_exception_is_the_error() {
    let values = conversation(&[("user", "a"), ("user", "b")]);
    let error = Jinja::parse(GEMMA3).unwrap().render(&values).unwrap_err();
    assert_eq!(error.to_string(), "line 16: Roles must alternate: user, assistant, user, ...");
}

#[test]
fn a_round_trip_of_tools_renders_as_in_python() {
    let expected = r#"<|im_start|>system
<tools>
{"type": "function", "function": {"name": "get_weather", "description": "Weather of a <city>", "parameters": {"type": "object", "required": ["city"], "properties": {"mood": {"anyOf": [{"type": "string"}, {"type": "boolean"}], "enum": ["good", "bad"]}, "city": {"type": "string", "description": "Its name"}, "days": {"type": ["integer", "null"], "description": "How many"}}}}}
</tools><|im_end|>
<|im_start|>user
Weather & more?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "get_weather", "arguments": {"size": 2000000, "city": "Köln", "days": 3}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
sunny
</tool_response><|im_end|>
<|im_start|>assistant
"#;
    assert_eq!(render(HERMES, tools()), expected);
}

/// In the shape of Phi 4 mini's.
const TOOLS_IN_SYSTEM: &str = "{% for message in messages %}\
    {% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}\
    {{ '<|system|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|><|end|>' }}\
    {% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}";

#[test]
fn tools_that_are_looked_for_in_the_system_message_are_there() {
    let tool =
        |name: &str| serde_json::json!({"type": "function", "function": {"name": name, "parameters": {}}});
    let with = |values: Values| Values { tools: vec![tool("a"), tool("b<c")], ..values };
    let shown =
        r#"<|tool|>[{"name": "a", "parameters": {}}, {"name": "b<c", "parameters": {}}]<|/tool|><|end|>"#;
    assert_eq!(
        render(TOOLS_IN_SYSTEM, with(hello())),
        format!("<|system|>{shown}<|user|>Hi <b><|end|>"),
        "a system message is made for them"
    );
    let two = conversation(&[("user", "One"), ("system", "Be kind."), ("system", "Be brief.")]);
    assert_eq!(
        render(TOOLS_IN_SYSTEM, with(two)),
        format!("<|user|>One<|end|><|system|>Be kind.{shown}<|system|>Be brief.<|end|>")
    );
    assert_eq!(render(TOOLS_IN_SYSTEM, hello()), "<|user|>Hi <b><|end|>");
}

#[test]
fn arguments_are_a_mapping_and_print_as_json() {
    let template = "{% for m in messages %}{% for c in m.tool_calls or [] %}{% set a = c.function.arguments %}\
        {{ a }} {{ a is mapping }} {{ a is string }} {{ a.days }} {{ a.nope is defined }}\
        {% for k, v in a.items() %} {{ k }}={{ v }}{% endfor %} {{ a|length }}{% endfor %}{% endfor %}";
    let expected =
        r#"{"size": 2000000, "city": "Köln", "days": 3} True False 3 False size=2000000 city=Köln days=3 3"#;
    assert_eq!(render(template, tools()), expected);
}

#[test]
fn thinking_is_switched_by_the_values() {
    let template = "{{ enable_thinking is defined }} {{ enable_thinking }} {{ reasoning_effort }}";
    assert_eq!(render(template, hello()), "False  ");
    assert_eq!(render(template, thinking()), "True True high");
    let off = Values { think: Some(Think::default()), ..hello() };
    assert_eq!(render(template, off.clone()), "True False ");
    assert_eq!(
        render(HERMES, off),
        "<|im_start|>user\nHi <b><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    );
}

#[test]
fn a_template_without_a_system_role_gets_it_in_the_next_user_message() {
    let forgets = "{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content }};\
        {% elif m.role == 'assistant' %}A:{{ m.content }};{% endif %}{% endfor %}";
    assert_eq!(render(forgets, system()), "U:Be kind.\nOne;A:Two;U:Three;");
    let refuses = format!(
        "{{% if messages[0].role == 'system' %}}{{{{ raise_exception('no') }}}}{{% endif %}}{forgets}"
    );
    assert_eq!(render(&refuses, system()), "U:Be kind.\nOne;A:Two;U:Three;");
    let alone = conversation(&[("system", "Be kind.")]);
    assert_eq!(render(forgets, alone), "U:Be kind.;");
}

#[test]
fn a_template_that_wants_parts_gets_parts() {
    let parts = "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}\
        {% endif %}{% endfor %};{% endfor %}";
    assert_eq!(render(parts, turns()), "user:One;assistant:Two;user:Three;");
}

#[test]
fn blocks_are_trimmed_and_generation_marks_are_ignored() {
    let template = "{% for m in messages %}\n  {% if m.role == 'user' %}\n[{{ m.content }}]\n  {% else %}\n\
        {% generation %}\n<{{ m.content }}>\n{% endgeneration %}\n  {% endif %}\n{% endfor %}\nend\n";
    assert_eq!(render(template, turns()), "[One]\n<Two>\n[Three]\nend");
    assert_eq!(render("{% if true %}\r\na\r\n{% endif %}\rb", hello()), "a\nb");
}

#[test]
fn python_is_spoken() {
    let cases = [
        (
            "{{ true }} {{ none }} {{ [1, 'a', none] }} {{ {'k': 1.0} }}",
            "True None [1, 'a', None] {'k': 1.0}",
        ),
        ("{{ none is iterable }} {{ 'a' is sequence }} {{ nothing | length }}", "False True 0"),
        (
            "{{ 'a</think>b'.split('</think>')[-1] }} {{ ' x '.strip() }} {{ 'ab'.startswith('a') }}",
            "b x True",
        ),
        (
            "{{ 'a.b.c'.rsplit('.', 1) }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}",
            "['a.b', 'c'] bc ab",
        ),
        (
            "{{ 'a=b=c'.partition('=')[2] }} {{ 'a=b=c'.rpartition('=')[0] }} {{ 'a'.partition('x')[0] }}",
            "b=c a=b a",
        ),
        ("{{ {'b': 1}.get('a', 2) }} {{ {'b': 1}.items() | list }}", "2 [('b', 1)]"),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
        (
            "{{ strftime_now('%d %b %Y') }} {{ bos_token }}{{ eos_token }} {{ tools is none }}",
            "04 Jul 2024 <s></s> True",
        ),
        ("{% macro f(x, y='d') %}{{ x }}{{ y }}{% endmacro %}{{ f(1) }}{{ f(1, y=2) }}", "1d12"),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template, hello()), expected, "{template}");
    }
}

#[test]
fn tojson_is_json_dumps() {
    let cases = [
        (r#"{{ {"b": [1, 2.0, none, true], "a": {}} | tojson }}"#, r#"{"b": [1, 2.0, null, true], "a": {}}"#),
        (r#"{{ "é<'\n\x01" | tojson }}"#, r#""é<'\n\u0001""#),
        (r#"{{ "é😀" | tojson(ensure_ascii=true) }}"#, r#""\u00e9\ud83d\ude00""#),
        (
            r#"{{ {"b": [1], "a": []} | tojson(indent=2, sort_keys=true) }}"#,
            "{\n  \"a\": [],\n  \"b\": [\n    1\n  ]\n}",
        ),
        (r#"{{ [1, {"a": 2}] | tojson(separators=(",", ":")) }}"#, r#"[1,{"a":2}]"#),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template, hello()), expected, "{template}");
    }
    assert_eq!(failure("\n{{ nothing | tojson }}"), "line 2: a value of type undefined is not JSON");
    assert_eq!(failure("{{ 1 | tojson(indent=99) }}"), "line 1: `indent` must be at most 16, got 99");
}

#[test]
fn thinking_of_earlier_messages_is_reasoning_content() {
    let template =
        "{% for m in messages %}{{ m.reasoning_content }}{{ m.tool_calls is defined }};{% endfor %}";
    assert_eq!(render(template, thinking()), "False;Hm.False;False;");
}

#[test]
fn a_prompt_stands_for_a_message() {
    let values = Values { prompt: "Hi".into(), system: "S".into(), ..conversation(&[]) };
    assert_eq!(
        render("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}", values),
        "system:S;user:Hi;"
    );
}

#[test]
fn a_template_that_does_not_parse_names_the_line() {
    let refusal = |template: &str| Jinja::parse(template).unwrap_err().to_string();
    assert!(refusal("a\n{% if %}").starts_with("line 2: syntax error: "), "{}", refusal("a\n{% if %}"));
    assert_eq!(
        refusal("{{ 1 | nofilter }"),
        "line 1: syntax error: unexpected `}`, expected end of variable block"
    );
    assert_eq!(refusal(&"x".repeat((1 << 20) + 1)), "line 1: more than 1048576 bytes of template");
}

#[test]
fn loops_recursion_and_output_are_bounded() {
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    assert_eq!(failure(loops), "line 1: more than 10000000 steps to render");
    let fills = format!("{{% for a in range(20000) %}}{}{{% endfor %}}", "x".repeat(1000));
    assert_eq!(failure(&fills), "line 1: more than 16777216 bytes of output");
    let doubles = "{% set ns = namespace(x='0123456789') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    assert_eq!(failure(doubles), "line 1: more than 67108864 bytes of text made on the way");
    let recursion = failure("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
    assert!(recursion.contains("recursion limit exceeded"), "{recursion}");
}

#[test]
fn files_cannot_be_included() {
    for statement in ["include '/etc/hostname'", "extends 'x'", "import 'x' as x", "from 'x' import y"] {
        let error = Jinja::parse(&format!("\n{{% {statement} %}}")).unwrap_err();
        assert_eq!(error.to_string(), "line 2: a chat template cannot include, import or extend others");
    }
}

#[test]
fn no_way_of_making_much_out_of_little_fills_the_memory() {
    let loops = "{% for i in range(99999) %}";
    for template in [
        format!("{{% set ns = namespace(x='ab') %}}{loops}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}"),
        format!("{{% set ns = namespace(x=[1]) %}}{loops}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}"),
        format!(
            "{{% set ns = namespace(x=[]) %}}{loops}{{% set ns.x = ns.x + ['a' * 9999] %}}{{% endfor %}}"
        ),
        "{{ ('a' * 99999999) * 99999999 }}".to_owned(),
        "{{ [0] * 99999999 }}".to_owned(),
        "{% set x = 'a' * 999999 %}{{ x|replace('a', x)|length }}".to_owned(),
        "{% set x = 'a' * 999999 %}{{ x.replace('a', x)|length }}".to_owned(),
        "{% set x = 'a' * 99999999 %}{{ x|list|length }}".to_owned(),
        "{% set x = 'a ' * 3999999 %}{{ x.split(' ')|length }}".to_owned(),
        "{% set x = 'a' * 999999 %}{{ ([x] * 9999)|join(x)|length }}".to_owned(),
        "{% set x = 'a' * 999999 %}{{ x.join([x] * 9999)|length }}".to_owned(),
        "{% set x = 'a' * 999999 %}{{ ([x] * 9999)|string|length }}".to_owned(),
        "{% set x = 'a' * 999999 %}{{ (([x] * 9999) ~ '')|length }}".to_owned(),
        format!("{{% set x %}}{loops}{}{{% endfor %}}{{% endset %}}", "x".repeat(99_999)),
        format!("{{% set x = 'a' * 999999 %}}{{% set y %}}{loops}{{{{ x }}}}{{% endfor %}}{{% endset %}}"),
        format!(
            "{{% set x = 'a' * 999999 %}}{{% set ns = namespace(l=[]) %}}{loops}{{% set ns.l = ns.l + [x[1:]] %}}{{% endfor %}}"
        ),
        "{% macro f(x, n) %}{% if n %}{{ f(x ~ x, n - 1) }}{% endif %}{% endmacro %}{{ f('abcd', 90) }}"
            .to_owned(),
        "{% set x = 'a\n' * 1999999 %}{{ x|indent(64)|length }}".to_owned(),
    ] {
        let error = Jinja::parse(&template).unwrap().render(&hello()).unwrap_err().to_string();
        let bounds = ["bytes of text made on the way", "steps to render", "recursion limit"];
        assert!(bounds.iter().any(|bound| error.contains(bound)), "{template:.60}: {error}");
    }
    for (template, text) in [
        ("{{ 'a'|indent(1000) }}", "line 1: `width` must be at most 64, got 1000"),
        ("{{ '{:9999999999}'.format('a') }}", "line 1: `format` is not supported, use `~`"),
    ] {
        assert_eq!(failure(template), text);
    }
}

#[test]
fn operators_do_what_they_do_in_python() {
    let cases = [
        ("{{ 1 + 2 }} {{ 1 + 2.5 }} {{ 3 * 4 }} {{ 2 * 0.5 }} {{ 'a' ~ 1 ~ none }}", "3 3.5 12 1.0 a1None"),
        ("{{ 'a' + 'b' }} {{ 'ab' * 2 }}|{{ 2 * 'ab' }}|{{ 'a' * 0 }}", "ab abab|abab|"),
        ("{{ [1] + [2, 3] }} {{ [0] * 3 }} {{ ([1] + [2])|length }}", "[1, 2, 3] [0, 0, 0] 2"),
        ("{{ loop_index + 1 if loop_index is defined else 1 + 1 }}", "2"),
        ("{{ ['a', 'b']|join(', ') }} {{ ', '.join(['a', 'b']) }} {{ [1, none]|join }}", "a, b a, b 1None"),
        ("{{ [{'n': 'x'}, {'n': 'y'}]|join('-', attribute='n') }}", "x-y"),
        (
            "{{ 'a\nb\n\nc'|indent(2) }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(width=1, blank=true) }}",
            "a\n  b\n\n  c|  a\n  b|a\n \n b",
        ),
        ("{{ 'aXbXc'|replace('X', '--') }} {{ 'aXbXc'.replace('X', '-', 1) }}", "a--b--c a-bXc"),
        (
            "{{ 'abc'|list }} {{ (1, 2)|list }} {{ 12|string + '!' }} {{ [1, 2][::-1] }}",
            "['a', 'b', 'c'] [1, 2] 12! [2, 1]",
        ),
        ("{% for a, b in [[1, 2]] recursive %}{{ a + b }}{% endfor %}", "3"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x ~ 'b' }} {% filter upper %}abc{% endfilter %}", "a1b ABC"),
        (
            "{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m.role] %}{% endfor %}{{ ns.l }}",
            "['user']",
        ),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template, hello()), expected, "{template}");
    }
    let caller = "{% macro f(n) %}<{{ caller(n + 1) }}>{% endmacro %}{% call(x) f(1) %}{{ x }}{% endcall %}";
    assert_eq!(render(caller, hello()), "<2>");
    assert_eq!(
        failure("{{ 'a' + 1 }}"),
        "line 1: tried to use + operator on unsupported types string and number"
    );
}

#[test]
fn a_tool_result_carries_name_and_id() {
    let template = "{% for m in messages %}{% if m.role == 'tool' %}{{ m.name }} {{ m.tool_call_id }}{% endif %}\
        {% for c in m.tool_calls or [] %}{{ c.id }} {{ c.type }} {{ c.function.name }};{% endfor %}{% endfor %}";
    assert_eq!(render(template, tools()), "call_1 function get_weather;get_weather call_1");
    let values = Values { messages: vec![Message::new("tool", "x")], ..conversation(&[]) };
    assert_eq!(render("{{ messages[0].name is defined }}", values), "False");
}
