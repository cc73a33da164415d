//! `POST /api/generate`.

use protocol::v1::generate_request::Input;
use protocol::v1::{Done, GenerateChunk, done::Reason};
use serde_json::json;

use crate::fake::{self, Machine, text};
use crate::rig::{Rig, Setup, said};

fn prompt(more: serde_json::Value) -> serde_json::Value {
    let mut request = json!({ "model": "m", "prompt": "why", "options": { "seed": 3 } });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn an_answer_streams_line_by_line() {
    let rig = Rig::start().await;
    let reply = rig.post("/api/generate", prompt(json!({}))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    assert_eq!(reply.header("x-caravan-worker"), "w0");
    assert!(reply.header("x-caravan-load-ms").parse::<u64>().is_ok());
    assert_eq!(reply.header("x-caravan-cached-tokens"), "4");
    let lines = reply.lines();
    assert_eq!(lines.len(), 6);
    assert_eq!(said(&lines), text(3, 5));
    for line in &lines {
        assert_eq!(line["model"], "m");
        assert!(line["created_at"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!((&lines[0]["done"], lines[0].get("eval_count")), (&json!(false), None));
    let last = &lines[5];
    assert_eq!(
        (&last["done"], &last["done_reason"], &last["response"]),
        (&json!(true), &json!("stop"), &json!(""))
    );
    assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(7), &json!(5)));
    assert_eq!((&last["prompt_eval_duration"], &last["eval_duration"]), (&json!(11), &json!(13)));
    assert_eq!(last["context"], json!([1, 2, 3]));
    assert!(last["total_duration"].as_u64() > Some(0) && last["load_duration"].as_u64() > Some(0));
}

#[tokio::test]
async fn without_streaming_the_answer_is_the_last_line_with_all_the_text() {
    let rig = Rig::start().await;
    let reply = rig.post("/api/generate", prompt(json!({ "stream": false }))).await;
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    assert!(!reply.text().ends_with('\n'));
    assert_eq!(reply.header("x-caravan-cached-tokens"), "4");
    let answer = reply.json();
    assert_eq!(answer["prompt_eval_count"], 7, "cached tokens count as evaluated");
    assert_eq!(answer["response"], text(3, 5));
    assert_eq!((&answer["done"], &answer["eval_count"]), (&json!(true), &json!(5)));
}

#[tokio::test]
async fn names_are_echoed_as_given_and_found_in_any_case() {
    let rig = Rig::start().await;
    for name in ["m", "M", "m:latest", "library/m", " m ", "m:local", "registry.ollama.ai/library/M:LATEST"] {
        let reply = rig.post("/api/generate", json!({ "model": name, "prompt": "x", "stream": false })).await;
        assert_eq!(reply.json()["model"], name, "{reply:?}");
    }
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let rig = Rig::start().await;
    for (name, status, text) in [
        ("nobody", 404, "model 'nobody' not found"),
        ("", 404, "model '' not found"),
        ("a/b/c/d/e", 400, "invalid model name"),
        ("m:cloud", 403, "ollama cloud is disabled: remote model is unavailable"),
        ("m:local:cloud", 400, "use either :local or :cloud, not both: \"m:local:cloud\""),
    ] {
        let reply = rig.post("/api/generate", json!({ "model": name, "prompt": "x" })).await;
        assert_eq!(reply.refused(status), text);
    }
}

#[tokio::test]
async fn options_come_from_the_modelfile_and_the_request_wins() {
    let rig = Rig::start().await;
    rig.create("tuned", json!({ "parameters": { "temperature": 0.1, "top_k": 7, "stop": ["a"] } })).await;
    let options = json!({ "top_k": 9.7, "stop": ["b", "c"], "useMLock": true, "num_predict": null });
    rig.post("/api/generate", json!({ "model": "tuned", "prompt": "x", "options": options })).await;
    let sent = rig.worker().seen().generate[0].options.clone().unwrap();
    assert_eq!((sent.temperature, sent.top_k, sent.stop), (0.1, 9, vec!["b".to_owned(), "c".to_owned()]));
    assert_eq!((sent.top_p, sent.repeat_penalty, sent.num_predict), (0.9, 1.0, -1));
    let wrong = rig.post("/api/generate", prompt(json!({ "options": { "top_k": "many" } }))).await;
    assert_eq!(wrong.refused(400), "option \"top_k\" must be of type integer");
}

#[tokio::test]
async fn a_seed_is_drawn_when_the_request_has_none() {
    let rig = Rig::start().await;
    for options in [json!({}), json!({ "seed": -1 })] {
        rig.post("/api/generate", json!({ "model": "m", "prompt": "x", "options": options })).await;
    }
    rig.post("/api/generate", json!({ "model": "m", "prompt": "x", "options": { "seed": 42 } })).await;
    let seeds: Vec<u64> =
        rig.worker().seen().generate.iter().map(|one| one.options.clone().unwrap().seed).collect();
    assert_ne!(seeds[0], seeds[1], "two draws of 64 bits");
    assert_eq!(seeds[2], 42);
}

#[tokio::test]
async fn a_prompt_becomes_a_conversation_with_the_modelfiles_messages() {
    let rig = Rig::start().await;
    let history = json!([{ "role": "user", "content": "q" }, { "role": "assistant", "content": "a" }]);
    rig.create("primed", json!({ "system": "be brief", "template": "{{ .Prompt }}", "messages": history }))
        .await;
    rig.post("/api/generate", json!({ "model": "primed", "prompt": "x" })).await;
    rig.post(
        "/api/generate",
        json!({ "model": "primed", "prompt": "x", "system": "be long", "context": [5] }),
    )
    .await;
    rig.post("/api/generate", json!({ "model": "primed", "prompt": "x", "template": "T{{ .Prompt }}" }))
        .await;
    let seen = rig.worker().seen().generate;
    let contents = |index: usize| match &seen[index].input {
        Some(Input::Conversation(turns)) => {
            turns.messages.iter().map(|one| one.content.clone()).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(contents(0), ["be brief", "q", "a", "x"]);
    assert_eq!((contents(1), seen[1].context.clone()), (vec!["be long".to_owned(), "x".to_owned()], vec![5]));
    assert_eq!((seen[0].template.as_str(), seen[0].template_from_request), ("{{ .Prompt }}", false));
    assert_eq!((seen[2].template.as_str(), seen[2].template_from_request), ("T{{ .Prompt }}", true));
}

#[tokio::test]
async fn a_raw_prompt_goes_as_it_is_and_takes_nothing_else() {
    let rig = Rig::start().await;
    rig.post("/api/generate", prompt(json!({ "raw": true }))).await;
    assert_eq!(rig.worker().seen().generate[0].input, Some(Input::Raw("why".into())));
    for more in [json!({ "template": "x" }), json!({ "system": "x" }), json!({ "context": [1] })] {
        let mut request = prompt(json!({ "raw": true }));
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = rig.post("/api/generate", request).await;
        assert_eq!(reply.refused(400), "raw mode does not support template, system, or context");
    }
}

#[tokio::test]
async fn a_suffix_needs_a_model_that_can_insert() {
    let rig = Rig::start().await;
    let refused = rig.post("/api/generate", prompt(json!({ "suffix": "end" }))).await;
    assert_eq!(refused.refused(400), "registry.ollama.ai/library/m:latest does not support insert");
    rig.create("filler", json!({ "template": "{{ .Prompt }}<mid>{{ .Suffix }}" })).await;
    rig.post("/api/generate", json!({ "model": "filler", "prompt": "a", "suffix": "b" })).await;
    let Some(Input::Infill(infill)) = rig.worker().seen().generate[0].input.clone() else {
        panic!("no infill")
    };
    assert_eq!((infill.prefix.as_str(), infill.suffix.as_str()), ("a", "b"));
}

#[tokio::test]
async fn an_empty_prompt_loads_and_with_keep_alive_zero_unloads() {
    let rig = Rig::with_slots(&[1, 1]).await;
    let loaded = rig.post("/api/generate", json!({ "model": "m", "stream": true })).await;
    assert_eq!(loaded.header("content-type"), "application/json; charset=utf-8");
    let answer = loaded.json();
    assert_eq!(
        (&answer["done_reason"], &answer["response"], &answer["done"]),
        (&json!("load"), &json!(""), &json!(true))
    );
    assert_eq!(rig.workers.iter().map(|worker| worker.loaded().len()).sum::<usize>(), 1);
    let unloaded = rig.post("/api/generate", json!({ "model": "m", "keep_alive": 0 })).await;
    assert_eq!(unloaded.json()["done_reason"], "unload");
    assert!(rig.workers.iter().all(|worker| worker.loaded().is_empty()));
    let again = rig.post("/api/generate", json!({ "model": "m", "keep_alive": "0s" })).await;
    assert_eq!(again.json()["done_reason"], "unload", "what is not loaded can be unloaded");
    assert!(rig.workers.iter().all(|worker| worker.seen().generate.is_empty()));
}

#[tokio::test]
async fn keep_alive_travels_with_the_request() {
    let rig = Rig::start().await;
    rig.post("/api/generate", prompt(json!({ "keep_alive": -1 }))).await;
    rig.post("/api/generate", prompt(json!({ "keep_alive": "10m" }))).await;
    rig.post("/api/generate", prompt(json!({}))).await;
    let sent: Vec<_> = rig.worker().seen().generate.iter().map(|one| one.keep_alive_ns).collect();
    assert_eq!(sent, [Some(-1), Some(600_000_000_000), None]);
    assert_eq!(rig.worker().seen().load[0].keep_alive_ns, Some(-1));
    let wrong = rig.post("/api/generate", prompt(json!({ "keep_alive": "60" }))).await;
    assert_eq!(wrong.refused(400), "time: missing unit in duration \"60\"");
}

#[tokio::test]
async fn log_probabilities_are_bounded_and_told() {
    let rig = Rig::start().await;
    for count in [-1, 21] {
        let reply =
            rig.post("/api/generate", prompt(json!({ "logprobs": true, "top_logprobs": count }))).await;
        assert_eq!(reply.refused(400), "top_logprobs must be between 0 and 20");
    }
    let request = prompt(json!({ "logprobs": true, "top_logprobs": 20, "stream": false }));
    let answer = rig.post("/api/generate", request).await.json();
    assert_eq!(answer["logprobs"].as_array().unwrap().len(), 5);
    assert_eq!(answer["logprobs"][0]["logprob"], -0.5);
}

#[tokio::test]
async fn thinking_is_told_apart_and_asked_only_of_models_that_can() {
    let rig = Rig::start().await;
    let refused = rig.post("/api/generate", prompt(json!({ "think": true }))).await;
    assert_eq!(refused.refused(400), "\"m\" does not support thinking");
    assert_eq!(rig.post("/api/generate", prompt(json!({ "think": false }))).await.status, 200);
    let template = "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Prompt }}";
    let messages = "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}{{ end }}";
    rig.create("thinker", json!({ "template": format!("{template}{messages}") })).await;
    rig.worker().script(|_| {
        let thought = GenerateChunk { thinking: "hm".into(), ..GenerateChunk::default() };
        vec![Ok(thought.clone()), Ok(thought), Ok(fake::said("so")), Ok(fake::ended())]
    });
    let reply =
        rig.post("/api/generate", json!({ "model": "thinker", "prompt": "x", "stream": false })).await;
    assert_eq!((&reply.json()["thinking"], &reply.json()["response"]), (&json!("hmhm"), &json!("so")));
    let sent = rig.worker().seen().generate.last().unwrap().think.clone().unwrap();
    assert!(sent.on, "a model that can think does, unless told not to");
}

#[tokio::test]
async fn a_prompt_can_be_rendered_without_running_it() {
    let rig = Rig::start().await;
    rig.worker().script(|request| {
        assert!(request.render_only);
        let done = Done { reason: Reason::Rendered as i32, rendered: "<user>why".into(), ..Done::default() };
        vec![Ok(GenerateChunk { done: Some(done), ..GenerateChunk::default() })]
    });
    let reply = rig.post("/api/generate", prompt(json!({ "_debug_render_only": true }))).await;
    assert_eq!(reply.json()["_debug_info"], json!({ "rendered_template": "<user>why" }));
}

#[tokio::test]
async fn images_are_refused_by_a_model_without_eyes() {
    let rig = Rig::start().await;
    let reply = rig.post("/api/generate", prompt(json!({ "images": ["aGk="] }))).await;
    assert_eq!(reply.refused(400), "registry.ollama.ai/library/m:latest does not support vision");
    let empty = rig.post("/api/generate", prompt(json!({ "images": [] }))).await;
    assert_eq!(empty.status, 200);
}

#[tokio::test]
async fn chunks_without_text_make_no_lines() {
    let rig = Rig::start().await;
    rig.worker().script(|_| {
        vec![
            Ok(GenerateChunk::default()),
            Ok(fake::said("a")),
            Ok(GenerateChunk::default()),
            Ok(fake::ended()),
        ]
    });
    let lines = rig.post("/api/generate", prompt(json!({}))).await.lines();
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn a_worker_with_the_scripted_engine_serves_any_name() {
    let machine = Machine { device: "scripted", ..Machine::default() };
    let rig = Rig::with(Setup { machine, ..Setup::default() }).await;
    let reply =
        rig.post("/api/generate", json!({ "model": "no/such:thing", "prompt": "x", "stream": false })).await;
    assert_eq!((&reply.json()["model"], &reply.json()["done"]), (&json!("no/such:thing"), &json!(true)));
    assert_eq!(rig.post("/api/show", json!({ "model": "no/such:thing" })).await.status, 404);
}
