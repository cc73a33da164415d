//! Which template makes the prompt, what is cut from it, and what it tells about the answer. A token per byte.

use engine::Pooling;
use protocol::v1::{Conversation, Infill, Message, Model, Options, Think};

use super::*;

const CHATML: &str = "{{ range .Messages }}<{{ .Role }}>{{ .Content }}\n{{ end }}<assistant>";
const THINKER: &str =
    "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}{{ end }}";
const JINJA: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]";

fn prompts(context_length: usize, chat_template: Option<&str>) -> Prompts {
    let tokenizer = Arc::new(Tokenizer::bytes());
    let info = Info {
        architecture: "bytes".into(),
        slots: 1,
        context_length,
        train_context_length: context_length,
        embedding_length: 1,
        vocab_size: tokenizer.vocab_size(),
        size_bytes: 0,
        pooling: None::<Pooling>,
        reranker: None,
        chat_template: chat_template.map(String::from),
        add_bos: false,
        bos: "<s>".into(),
        eos: "</s>".into(),
    };
    Prompts::new(info, tokenizer)
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into(), ..Message::default() }
}

fn chat(messages: Vec<Message>) -> GenerateRequest {
    GenerateRequest {
        model: Some(Model { name: "llama:1b".into(), ..Model::default() }),
        input: Some(Input::Conversation(Conversation { messages, tools: Vec::new() })),
        options: Some(Options { num_keep: 2, seed: 7, ..Options::default() }),
        truncate: true,
        shift: true,
        ..GenerateRequest::default()
    }
}

fn hello() -> GenerateRequest {
    chat(vec![message("user", "hi")])
}

fn with_tool(request: GenerateRequest) -> GenerateRequest {
    let Some(Input::Conversation(conversation)) = request.input else { panic!("a conversation") };
    let tool = r#"{"type":"function","function":{"name":"get","description":"","parameters":{}}}"#;
    let conversation = Conversation { tools: vec![tool.into()], ..conversation };
    GenerateRequest { input: Some(Input::Conversation(conversation)), ..request }
}

fn today() -> Date {
    jiff::civil::date(2026, 1, 2)
}

fn text(prompts: &Prompts, request: &GenerateRequest) -> String {
    prompts.build(request, prompts.info.context_length, today()).unwrap().text
}

fn refusal(prompts: &Prompts, request: &GenerateRequest) -> Error {
    prompts.build(request, prompts.info.context_length, today()).unwrap_err()
}

#[test]
fn the_go_template_of_the_model_makes_the_prompt() {
    let request = GenerateRequest { template: CHATML.into(), ..hello() };
    let prompt = prompts(100, Some(JINJA)).build(&request, 100, today()).unwrap();
    assert_eq!(prompt.text, "<user>hi\n<assistant>");
    assert_eq!(prompt.tokens.len(), prompt.text.len());
}

#[test]
fn without_a_go_template_the_one_in_the_file_does() {
    assert_eq!(text(&prompts(100, Some(JINJA)), &hello()), "[user]hi[assistant]");
}

#[test]
fn without_any_template_the_prompt_is_the_bare_text() {
    assert_eq!(text(&prompts(100, None), &hello()), "hi");
}

#[test]
fn the_template_of_the_request_wins() {
    let template = "{{ .System }}|{{ .Prompt }}".to_owned();
    let request = GenerateRequest { template, template_from_request: true, ..hello() };
    assert_eq!(text(&prompts(100, Some(JINJA)), &request), "|hi");
}

#[test]
fn raw_text_is_taken_as_it_is() {
    let request =
        GenerateRequest { input: Some(Input::Raw("<user>é".into())), template: CHATML.into(), ..hello() };
    assert_eq!(text(&prompts(100, None), &request), "<user>é");
}

#[test]
fn infill_needs_a_template_that_says_where_the_middle_goes() {
    let infill = Infill { prefix: "fn a() {".into(), suffix: "}".into() };
    let request = GenerateRequest {
        input: Some(Input::Infill(infill)),
        template: "<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>".into(),
        ..hello()
    };
    assert_eq!(text(&prompts(100, None), &request), "<PRE>fn a() {<SUF>}<MID>");
    let without = GenerateRequest { template: CHATML.into(), ..request };
    assert_eq!(refusal(&prompts(100, None), &without), Error::invalid("llama:1b does not support insert"));
}

#[test]
fn tokens_of_an_earlier_answer_go_before_the_prompt() {
    let request = GenerateRequest { context: vec![256, 97, 98], ..hello() };
    let prompt = prompts(100, None).build(&request, 100, today()).unwrap();
    assert_eq!(prompt.tokens, [256, 97, 98, 104, 105]);
    assert_eq!(prompt.text, "<s>abhi");
}

#[test]
fn tokens_that_the_model_does_not_have_are_refused_with_the_bound() {
    let error = refusal(&prompts(100, None), &GenerateRequest { context: vec![258], ..hello() });
    assert_eq!(error, Error::invalid("`context` must hold tokens below 258, got 258"));
}

#[test]
fn the_oldest_messages_go_first_when_it_is_too_long() {
    let messages = vec![message("system", "s"), message("user", "aaaaaaaa"), message("user", "b")];
    let request = GenerateRequest { template: CHATML.into(), ..chat(messages) };
    let short = text(&prompts(36, None), &request);
    assert_eq!(short, "<system>s\n<user>b\n<assistant>");
}

#[test]
fn the_middle_of_the_last_message_goes_when_nothing_else_can() {
    let prompt =
        prompts(10, None).build(&chat(vec![message("user", "0123456789abcdef")]), 10, today()).unwrap();
    assert_eq!(prompt.tokens, "01cdef".bytes().map(u32::from).collect::<Vec<_>>());
    assert_eq!(prompt.text, "0123456789abcdef");
}

#[test]
fn a_prompt_that_may_not_be_cut_is_refused() {
    let request = chat(vec![message("user", "0123456789")]);
    for request in
        [GenerateRequest { shift: false, ..request.clone() }, GenerateRequest { truncate: false, ..request }]
    {
        assert_eq!(refusal(&prompts(10, None), &request).message, window::TOO_LONG);
    }
}

#[test]
fn images_are_refused() {
    let image = Message { images: vec![vec![1]], ..message("user", "what is it?") };
    let error = refusal(&prompts(100, None), &chat(vec![image]));
    assert_eq!(error, Error::invalid("llama:1b does not support vision"));
}

#[test]
fn a_conversation_without_messages_is_refused() {
    let error = refusal(&prompts(100, None), &chat(Vec::new()));
    assert_eq!(error, Error::invalid("`messages` must not be empty"));
}

#[test]
fn thinking_is_told_apart_only_when_it_is_wanted() {
    let thinking = |think: Option<Think>| {
        let request = GenerateRequest { template: THINKER.into(), think, ..hello() };
        prompts(100, None).build(&request, 100, today()).unwrap().reply.thinking
    };
    let tags = Tags { open: "<think>".into(), close: "</think>".into(), inside: false };
    assert_eq!(thinking(Some(Think { on: true, level: String::new() })), Some(tags));
    assert_eq!(thinking(Some(Think::default())), None);
    assert_eq!(thinking(None), None);
}

#[test]
fn a_prompt_that_opens_the_thinking_is_seen() {
    let template = format!("{JINJA}{{# <think></think> #}}<think>\n");
    let think = Some(Think { on: true, level: String::new() });
    let request = GenerateRequest { think, ..hello() };
    let reply = prompts(100, Some(&template)).build(&request, 100, today()).unwrap().reply;
    assert!(reply.thinking.is_some_and(|tags| tags.inside));
}

#[test]
fn a_template_that_only_cuts_thoughts_off_is_one_of_a_model_that_thinks() {
    let cuts = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}>";
    let think = Some(Think { on: true, level: String::new() });
    let request = GenerateRequest { think, ..hello() };
    let thinking =
        |template: &str| prompts(100, Some(template)).build(&request, 100, today()).unwrap().reply.thinking;
    let tags = Tags { open: "<think>".into(), close: "</think>".into(), inside: false };
    assert_eq!(thinking(cuts), Some(tags.clone()));
    assert_eq!(thinking(&format!("{cuts}<think>\n")), Some(Tags { inside: true, ..tags }));
    // One that is shown earlier thoughts as such is no sign of tags.
    assert_eq!(thinking(&format!("{cuts}{{# reasoning_content #}}")), None);
}

#[test]
fn what_the_assistant_has_begun_is_continued_and_no_thought() {
    let template = format!("{JINJA}{{# <think></think> #}}<think>");
    let think = Some(Think { on: true, level: String::new() });
    let begun = chat(vec![message("user", "hi"), message("assistant", "We")]);
    let prompt =
        prompts(100, Some(&template)).build(&GenerateRequest { think, ..begun }, 100, today()).unwrap();
    assert_eq!(prompt.text, "[user]hi[assistant]<think>\n</think>\n\nWe");
    assert!(prompt.is_jinja && prompt.reply.thinking.is_some_and(|tags| !tags.inside));
}

#[test]
fn tools_reach_the_template_and_the_reader_of_the_answer() {
    let template = "{{ range .Tools }}{{ .Function.Name }}{{ end }}{{ range .Messages }}{{ .Content }}\
                    {{ if .ToolCalls }}<tool_call>{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}{{ end }}{{ end }}";
    let request = GenerateRequest { template: template.into(), ..with_tool(hello()) };
    let prompt = prompts(100, None).build(&request, 100, today()).unwrap();
    assert_eq!(prompt.text, "gethi");
    let tools = prompt.reply.tools.unwrap();
    let names: Vec<&str> = tools.offers.iter().map(|offer| offer.name.as_str()).collect();
    assert_eq!((&tools.dress, &names[..]), (&reply::Dress::tagged("<tool_call>"), &["get"][..]));
}

#[test]
fn how_calls_are_written_is_read_off_the_template() {
    let dress = |prompts: Prompts, template: &str| {
        let request = GenerateRequest { template: template.into(), ..with_tool(hello()) };
        prompts.build(&request, prompts.info.context_length, today()).unwrap().reply.tools.unwrap().dress
    };
    let jinja = |source: &str| {
        let template =
            format!("{{{{ tools }}}}{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}{source}");
        dress(prompts(1000, Some(&template)), "")
    };
    let llama = reply::Dress { tags: vec!["<|python_tag|>".into()], ..reply::Dress::tagged("{") };
    assert_eq!(jinja("<|python_tag|>"), llama);
    assert_eq!(jinja(""), llama);
    for tag in ["<tool_call>", "[TOOL_CALLS]", "<|tool_call|>", "<toolcall>", "functools["] {
        assert_eq!(jinja(tag), reply::Dress::tagged(tag));
    }
    assert_eq!(jinja("<|tool|>"), reply::Dress::tagged("<|tool_call|>"));
    assert_eq!(jinja("<tool_call> <function=x> <parameter=y>"), reply::Dress::coder());
    assert_eq!(jinja("<start_function_call>call:"), reply::Dress::gemma());
    let go = |calls: &str| {
        dress(
            prompts(1000, None),
            &format!("{{{{ range .Messages }}}}{{{{ if .ToolCalls }}}}{calls}{{{{ end }}}}{{{{ end }}}}"),
        )
    };
    assert_eq!(go("[{{ range .ToolCalls }}{{ end }}"), reply::Dress::tagged("["));
    assert_eq!(go("<tool_call>{}"), reply::Dress::tagged("<tool_call>"));
    assert_eq!(go(""), llama);
    assert_eq!(go("<tool_call><function=x><parameter=y>"), reply::Dress::coder());
}

#[test]
fn a_parser_that_the_config_names_reads_the_answer_whatever_the_template_shows() {
    let reply = |parser: &str, source: &str, template: &str| {
        let (think, parser) = (Some(Think { on: true, level: String::new() }), parser.to_owned());
        let request = GenerateRequest { think, parser, template: template.into(), ..with_tool(hello()) };
        let reply = prompts(1000, Some(source)).build(&request, 1000, today()).unwrap().reply;
        (reply.tools.map(|tools| tools.dress), reply.thinking.map(|tags| tags.inside))
    };
    for (parser, dress, inside) in [
        ("qwen3", Some(reply::Dress::tagged("<tool_call>")), None),
        ("qwen3-thinking", Some(reply::Dress::tagged("<tool_call>")), Some(true)),
        ("qwen3-coder", Some(reply::Dress::coder()), None),
        ("functiongemma", Some(reply::Dress::gemma()), None),
        ("passthrough", None, None),
        ("nobodys", Some(reply::Dress::tagged("[TOOL_CALLS]")), None),
    ] {
        let jinja = format!("{JINJA}{{{{ tools }}}}[TOOL_CALLS]");
        assert_eq!(reply(parser, &jinja, ""), (dress, inside), "{parser}");
    }
    // The template that the model came with makes the prompts, though the file's own can do more.
    let request = GenerateRequest { parser: "qwen3".into(), template: CHATML.into(), ..with_tool(hello()) };
    let jinja = format!("{JINJA}{{{{ tools }}}}");
    assert_eq!(text(&prompts(1000, Some(&jinja)), &request), "<user>hi\n<assistant>");
}

#[test]
fn ids_of_calls_follow_the_seed_and_the_prompt() {
    let id_seed = |request: GenerateRequest| {
        prompts(100, None).build(&with_tool(request), 100, today()).unwrap().reply.tools.unwrap().id_seed
    };
    let seed = |seed| Some(Options { seed, ..Options::default() });
    assert_eq!(id_seed(hello()), id_seed(hello()));
    assert_ne!(id_seed(hello()), id_seed(GenerateRequest { options: seed(8), ..hello() }));
    assert_ne!(id_seed(hello()), id_seed(chat(vec![message("user", "ho")])));
}

#[test]
fn tools_and_calls_that_are_no_json_are_refused_by_name() {
    let conversation = Conversation { messages: vec![message("user", "hi")], tools: vec!["{".into()] };
    let request = GenerateRequest { input: Some(Input::Conversation(conversation)), ..hello() };
    assert!(refusal(&prompts(100, None), &request).message.starts_with("`tools[0]` is no JSON: "));
    let call = protocol::v1::ToolCall { name: "get".into(), arguments: "[]".into(), ..Default::default() };
    let request = chat(vec![Message { tool_calls: vec![call], ..message("assistant", "") }]);
    let error = refusal(&prompts(100, None), &request);
    assert!(error.message.starts_with("`arguments` of the call of `get` must be a JSON object: "), "{error}");
}

#[test]
fn a_template_that_does_not_work_is_an_error_that_says_where() {
    for (template, from_request) in [("{{ .Messages", true), ("{{ .Prompt.Nothing }}", false)] {
        let request =
            GenerateRequest { template: template.into(), template_from_request: from_request, ..hello() };
        let error = refusal(&prompts(100, None), &request);
        assert_eq!(error.code, api::Code::Template);
        assert!(error.message.starts_with("template error: line 1: "), "{error}");
    }
}

#[test]
fn a_broken_template_in_the_file_matters_only_to_those_who_need_it() {
    let prompts = prompts(100, Some("{% if %}"));
    assert!(refusal(&prompts, &hello()).message.starts_with("template error: "));
    let request = GenerateRequest { template: CHATML.into(), ..hello() };
    assert_eq!(text(&prompts, &request), "<user>hi\n<assistant>");
}

#[test]
fn parsed_templates_are_kept_within_a_bound() {
    let prompts = prompts(100, None);
    for round in 0..3 {
        for at in 0..20 {
            let request = GenerateRequest { template: format!("{at}{{{{ .Prompt }}}}"), ..hello() };
            assert_eq!(text(&prompts, &request), format!("{at}hi"), "round {round}");
        }
    }
}
