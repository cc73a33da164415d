//! `Generate` and `Embed`: what comes back, slots (C2), cancelling (C5), resuming (C4).

use api::Code;
use futures::{StreamExt, future::join_all};
use protocol::{
    from_status,
    v1::{
        Conversation, EmbedRequest, GenerateChunk, GenerateRequest, Message, Options, Resume, Think,
        done::Reason, generate_request::Input,
    },
};

use crate::ground::{Site, ask, model, next_text, options, say, whole};

fn raw(text: &str) -> GenerateRequest {
    GenerateRequest { input: Some(Input::Raw(text.into())), ..ask("") }
}

fn with_options(request: GenerateRequest, edit: impl FnOnce(&mut Options)) -> GenerateRequest {
    let mut options = options();
    edit(&mut options);
    GenerateRequest { options: Some(options), ..request }
}

#[tokio::test]
async fn an_answer_streams_token_by_token_and_ends_with_its_counts() {
    let site = Site::loaded(1).await;
    let chunks: Vec<GenerateChunk> =
        site.generate(say("hello")).await.unwrap().map(Result::unwrap).collect().await;
    let texts: Vec<&str> = chunks.iter().map(|chunk| chunk.content.as_str()).collect();
    assert_eq!(texts, ["h", "e", "l", "l", "o", ""]);
    let positions: Vec<u64> = chunks.iter().map(|chunk| chunk.position).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5, 5]);
    let done = chunks[5].done.clone().unwrap();
    assert_eq!((done.reason(), done.prompt_tokens, done.eval_tokens), (Reason::Stop, 13, 5));
    assert!(done.prompt_duration_ns > 0 && done.eval_duration_ns > 0, "{done:?}");
    assert_eq!(done.context.len(), 18);
}

#[tokio::test]
async fn a_bounded_answer_ends_at_its_bound() {
    let site = Site::loaded(1).await;
    let (text, done) = site.answer(with_options(ask("hi"), |options| options.num_predict = 9)).await.unwrap();
    assert_eq!((text.len(), done.reason(), done.eval_tokens), (9, Reason::Length, 9));
}

#[tokio::test]
async fn one_token_has_taken_time_as_well() {
    let site = Site::loaded(1).await;
    let (_, done) = site.answer(with_options(ask("hi"), |options| options.num_predict = 1)).await.unwrap();
    assert!(done.eval_tokens == 1 && done.eval_duration_ns > 0, "{done:?}");
}

#[tokio::test]
async fn a_stop_string_is_never_shown() {
    let site = Site::loaded(1).await;
    let request = with_options(say("one two three"), |options| options.stop = vec!["two".into()]);
    let (text, done) = site.answer(request).await.unwrap();
    assert_eq!((text.as_str(), done.reason()), ("one ", Reason::Stop));
}

#[tokio::test]
async fn the_answer_to_a_raw_prompt_has_no_context() {
    let site = Site::loaded(1).await;
    let (text, done) = site.answer(raw("[[say raw]]")).await.unwrap();
    assert_eq!((text.as_str(), done.context.len()), ("raw", 0));
}

#[tokio::test]
async fn thinking_and_tool_calls_are_told_apart() {
    let site = Site::loaded(1).await;
    let template = "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}\
                    {{ if .ToolCalls }}<tool_call>{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}{{ end }}\
                    {{ .Content }}{{ end }}{{ range .Tools }}{{ end }}";
    let request = say("<think>hm</think>Let me see.<tool_call>{\"name\":\"get\",\"arguments\":{\"x\":1}}");
    let Some(Input::Conversation(conversation)) = request.input.clone() else { unreachable!() };
    let tools = vec![r#"{"type":"function","function":{"name":"get","parameters":{}}}"#.to_owned()];
    let request = GenerateRequest {
        input: Some(Input::Conversation(Conversation { tools, ..conversation })),
        think: Some(Think { on: true, level: String::new() }),
        template: template.into(),
        ..request
    };
    let chunks: Vec<GenerateChunk> =
        site.generate(request).await.unwrap().map(Result::unwrap).collect().await;
    let thinking: String = chunks.iter().map(|chunk| chunk.thinking.as_str()).collect();
    let content: String = chunks.iter().map(|chunk| chunk.content.as_str()).collect();
    let calls: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.tool_calls).collect();
    assert_eq!((thinking.as_str(), content.as_str()), ("hm", "Let me see."));
    assert_eq!((calls.len(), calls[0].name.as_str(), calls[0].arguments.as_str()), (1, "get", r#"{"x":1}"#));
    assert!(calls[0].id.starts_with("call_"));
}

#[tokio::test]
async fn log_probabilities_come_with_every_token() {
    let site = Site::loaded(1).await;
    let request = GenerateRequest { logprobs: true, top_logprobs: 2, ..say("hey") };
    let chunks: Vec<GenerateChunk> =
        site.generate(request).await.unwrap().map(Result::unwrap).collect().await;
    let logprobs: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.logprobs).collect();
    let tokens: Vec<&str> = logprobs.iter().map(|logprob| logprob.token.as_str()).collect();
    assert_eq!(tokens, ["h", "e", "y"]);
    assert!(logprobs.iter().all(|logprob| logprob.top.len() == 2 && logprob.logprob <= 0.0));
}

#[tokio::test]
async fn a_prompt_can_be_rendered_without_a_slot() {
    let site = Site::loaded(1).await;
    site.loader.steps.close();
    let _running = site.generate(ask("hi")).await.unwrap();
    let request = GenerateRequest { render_only: true, template: "<{{ .Prompt }}>".into(), ..ask("hi") };
    let (text, done) = site.answer(request).await.unwrap();
    assert_eq!((text.as_str(), done.rendered.as_str(), done.reason()), ("", "<hi>", Reason::Rendered));
    site.loader.steps.open();
}

#[tokio::test]
async fn what_is_not_loaded_is_answered_not_loaded() {
    let site = Site::new().await;
    assert_eq!(site.generate(ask("hi")).await.unwrap_err().code, Code::NotLoaded);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_and_takes_no_slot() {
    let site = Site::loaded(1).await;
    let image = Message { role: "user".into(), images: vec![vec![1]], ..Message::default() };
    let images = Conversation { messages: vec![image], tools: Vec::new() };
    let refused = [
        (GenerateRequest { format: "\"xml\"".into(), ..ask("hi") }, "invalid format: \"xml\""),
        (GenerateRequest { format: "{\"type\":\"x\"}".into(), ..ask("hi") }, "invalid format"),
        (
            GenerateRequest { input: Some(Input::Conversation(images)), ..ask("hi") },
            "does not support vision",
        ),
        (GenerateRequest { input: None, ..ask("hi") }, "`input`"),
        (GenerateRequest { top_logprobs: 21, ..ask("hi") }, "top_logprobs"),
        (GenerateRequest { context: vec![258], ..ask("hi") }, "`context`"),
        (GenerateRequest { truncate: false, ..ask(&"a".repeat(5_000)) }, "longer than the context length"),
        (raw(""), "the prompt is empty"),
    ];
    for (request, text) in refused {
        let error = site.answer(request).await.unwrap_err();
        assert_eq!(error.code, Code::Invalid, "{error}");
        assert!(error.message.contains(text), "{error}");
    }
    site.wait_for_used_slots(0).await;
}

#[tokio::test]
async fn a_request_without_a_free_slot_is_busy_at_once() {
    let site = Site::loaded(2).await;
    site.loader.steps.close();
    let first = site.generate(ask("a")).await.unwrap();
    let _second = site.generate(ask("b")).await.unwrap();
    // No step is made, so whoever waited for one would never be answered.
    assert_eq!(site.generate(ask("c")).await.unwrap_err().code, Code::Busy);
    drop(first);
    site.step_until_used(1).await;
    site.generate(ask("c")).await.unwrap();
    site.loader.steps.open();
}

#[tokio::test]
async fn a_crowd_never_runs_more_sequences_than_there_are_slots() {
    let site = Site::loaded(3).await;
    let rounds = (0..64).map(|at| site.answer(say(&format!("answer {at}"))));
    let answers = join_all(rounds).await;
    let busy =
        answers.iter().filter(|answer| matches!(answer, Err(error) if error.code == Code::Busy)).count();
    for (at, answer) in answers.iter().enumerate() {
        if let Ok((text, _)) = answer {
            assert_eq!(text, &format!("answer {at}"));
        }
    }
    assert!(busy < 64 && answers.iter().filter(|answer| answer.is_ok()).count() == 64 - busy);
    assert!(site.loader.seen.most_running.load(std::sync::atomic::Ordering::SeqCst) <= 3);
    site.wait_for_used_slots(0).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_frees_its_slot() {
    let site = Site::loaded(1).await;
    site.loader.steps.close();
    let mut chunks = site.generate(ask("hi")).await.unwrap();
    site.loader.steps.allow(1);
    next_text(&mut chunks).await;
    drop(chunks);
    site.step_until_used(0).await;
    assert_eq!(site.loader.cancels(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_frees_its_slot() {
    let site = Site::loaded(1).await;
    site.loader.steps.close();
    let chunks = site.generate(ask("hi")).await.unwrap();
    site.wait_for_used_slots(1).await;
    drop(chunks);
    site.step_until_used(0).await;
    assert_eq!(site.loader.cancels(), 1);
}

#[tokio::test]
async fn a_client_that_reads_nothing_stalls_nobody_and_loses_nothing() {
    let site = Site::loaded(2).await;
    let lazy = site.generate(ask("lazy")).await.unwrap();
    let (expected, _) = site.answer(ask("lazy")).await.unwrap();
    site.wait_for_used_slots(0).await;
    assert_eq!(whole(lazy).await.unwrap().0, expected);
}

/// Reads so many chunks of an answer and then goes on at another worker.
async fn resumed(request: &GenerateRequest, first_chunks: usize) -> (String, u64) {
    let first = Site::loaded(1).await;
    let (mut text, mut ids) = (String::new(), Vec::new());
    let mut chunks = first.generate(request.clone()).await.unwrap();
    for _ in 0..first_chunks {
        let chunk = chunks.next().await.unwrap().unwrap();
        text.push_str(&chunk.content);
        ids.extend(chunk.token_ids);
    }
    drop((chunks, first));
    let second = Site::loaded(1).await;
    let resume = Resume { emitted_ids: ids, delivered: text.len() as u64 };
    let request = GenerateRequest { resume: Some(resume), ..request.clone() };
    let (rest, done) = second.answer(request).await.unwrap();
    (text + &rest, done.eval_tokens)
}

#[tokio::test]
async fn an_answer_that_another_worker_began_goes_on_where_it_was() {
    let site = Site::loaded(1).await;
    let request = with_options(ask("Tell me of the caravan."), |options| options.stop = vec!["d c".into()]);
    let (expected, done) = site.answer(request.clone()).await.unwrap();
    for first_chunks in [0, 1, 2, 40] {
        assert_eq!(resumed(&request, first_chunks).await, (expected.clone(), done.eval_tokens));
    }
    let (said, _) = resumed(&say("日本語 é 😀 text"), 3).await;
    assert_eq!(said, "日本語 é 😀 text");
}

#[tokio::test]
async fn a_resumed_answer_counts_as_one() {
    let site = Site::loaded(1).await;
    let request = with_options(ask("hi"), |options| options.num_predict = 20);
    let (_, whole) = site.answer(request.clone()).await.unwrap();
    let ids = whole.context[2..7].to_vec();
    let resume = Some(Resume { emitted_ids: ids, delivered: 5 });
    let (_, rest) = site.answer(GenerateRequest { resume, ..request }).await.unwrap();
    assert_eq!((rest.prompt_tokens, rest.eval_tokens), (whole.prompt_tokens, whole.eval_tokens));
    assert_eq!((rest.reason(), &rest.context), (whole.reason(), &whole.context));
}

#[tokio::test]
async fn a_resume_with_tokens_that_the_model_does_not_have_is_refused() {
    let site = Site::loaded(1).await;
    let resume = Some(Resume { emitted_ids: vec![9_999], delivered: 0 });
    let error = site.answer(GenerateRequest { resume, ..ask("hi") }).await.unwrap_err();
    assert!(error.message.contains("`resume.emitted_ids`"), "{error}");
}

fn embed(inputs: &[&str]) -> EmbedRequest {
    EmbedRequest {
        model: Some(model("model")),
        inputs: inputs.iter().map(|input| input.to_string()).collect(),
        truncate: true,
        normalize: true,
        ..EmbedRequest::default()
    }
}

#[tokio::test]
async fn texts_become_vectors_in_their_order() {
    let site = Site::loaded(1).await;
    let both = site.client.clone().embed(embed(&["one", "two", ""])).await.unwrap().into_inner();
    let two = site.client.clone().embed(embed(&["two"])).await.unwrap().into_inner();
    assert_eq!(both.embeddings.len(), 3);
    assert_eq!(both.embeddings[1], two.embeddings[0]);
    assert_eq!((both.prompt_tokens, two.prompt_tokens), (7, 3));
    let length: f32 = two.embeddings[0].values.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
}

#[tokio::test]
async fn a_text_that_is_too_long_is_cut_or_refused_in_ollamas_words() {
    let site = Site::loaded(1).await;
    let long = "a".repeat(5_000);
    let cut = site.client.clone().embed(embed(&[&long])).await.unwrap().into_inner();
    assert_eq!(cut.prompt_tokens, 4_096);
    // A request may want less than the replica has.
    let short = EmbedRequest { context_length: 100, ..embed(&[&long]) };
    let cut = site.client.clone().embed(short.clone()).await.unwrap().into_inner();
    assert_eq!(cut.prompt_tokens, 100);
    for strict in [embed(&[&long]), EmbedRequest { inputs: vec!["a".repeat(101)], ..short }] {
        let strict = EmbedRequest { truncate: false, ..strict };
        let error = from_status(&site.client.clone().embed(strict).await.unwrap_err());
        assert_eq!(error.message, "the input length exceeds the context length");
    }
    site.wait_for_used_slots(0).await;
}

#[tokio::test]
async fn embedding_needs_a_slot_too() {
    let site = Site::loaded(1).await;
    site.loader.steps.close();
    let _running = site.generate(ask("hi")).await.unwrap();
    let error = from_status(&site.client.clone().embed(embed(&["one"])).await.unwrap_err());
    assert_eq!(error.code, Code::Busy);
    site.loader.steps.open();
}
