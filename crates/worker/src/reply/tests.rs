//! From tokens to chunks: what is in them, that nothing is lost, and that a replay goes on where it was.

use proptest::prelude::*;

use super::*;

fn parser(spec: Spec) -> Parser {
    Parser::new(Arc::new(Tokenizer::bytes()), spec)
}

fn stops(stops: &[&str]) -> Spec {
    Spec { stops: stops.iter().map(|stop| stop.to_string()).collect(), ..Spec::default() }
}

fn everything() -> Spec {
    Spec {
        thinking: Some(Tags { open: "<think>".into(), close: "</think>".into(), inside: false }),
        tools: Some(ToolSpec {
            dress: Dress::tagged("<call>"),
            offers: vec![Offer { name: "get".into(), schema: serde_json::Value::Null }],
            id_seed: 3,
        }),
        ..stops(&["END"])
    }
}

/// A token per byte.
fn tokens(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// Every chunk of an answer, the last one included.
fn chunks(parser: &mut Parser, tokens: &[u32]) -> Vec<GenerateChunk> {
    let mut chunks = Vec::new();
    for token in tokens {
        let step = parser.push(*token, None);
        chunks.extend(step.chunk);
        if step.ended.is_some() {
            break;
        }
    }
    chunks.push(parser.finish());
    chunks
}

/// What a client puts together.
#[derive(Debug, Default, PartialEq)]
struct Whole {
    ids: Vec<u32>,
    thinking: String,
    content: String,
    calls: Vec<String>,
}

impl Whole {
    fn add(&mut self, chunk: &GenerateChunk) {
        self.ids.extend(&chunk.token_ids);
        self.thinking.push_str(&chunk.thinking);
        self.content.push_str(&chunk.content);
        self.calls.extend(
            chunk.tool_calls.iter().map(|call| format!("{} {} {}", call.id, call.index, call.arguments)),
        );
    }

    fn of(chunks: &[GenerateChunk]) -> Whole {
        let mut whole = Whole::default();
        chunks.iter().for_each(|chunk| whole.add(chunk));
        whole
    }

    fn delivered(&self) -> u64 {
        (self.thinking.len() + self.content.len()) as u64
    }
}

#[test]
fn a_token_comes_with_its_text() {
    let chunks = chunks(&mut parser(Spec::default()), &tokens("hi"));
    let said: Vec<_> =
        chunks.iter().map(|chunk| (&chunk.token_ids[..], chunk.content.as_str(), chunk.position)).collect();
    let expected: [(&[u32], &str, u64); 3] = [(&[104], "h", 1), (&[105], "i", 2), (&[], "", 2)];
    assert_eq!(said, expected);
}

#[test]
fn tokens_of_half_a_character_come_with_the_text_that_they_complete() {
    let chunks = chunks(&mut parser(Spec::default()), &tokens("é!"));
    assert_eq!((chunks[0].token_ids.len(), chunks[0].content.as_str()), (2, "é"));
    assert_eq!((chunks[1].token_ids.len(), chunks[1].content.as_str()), (1, "!"));
}

#[test]
fn half_a_character_at_the_end_is_dropped() {
    let whole = Whole::of(&chunks(&mut parser(Spec::default()), &tokens("aé")[..2]));
    assert_eq!((whole.ids.len(), whole.content.as_str()), (2, "a"));
}

#[test]
fn tokens_of_a_possible_stop_string_come_with_the_text_that_they_turn_out_to_be() {
    let chunks = chunks(&mut parser(stops(&["END"])), &tokens("aENd"));
    assert_eq!((chunks[1].token_ids.len(), chunks[1].content.as_str()), (3, "ENd"));
}

#[test]
fn the_text_before_a_stop_string_is_in_the_last_chunk_and_every_token_counts() {
    let mut parser = parser(stops(&["END"]));
    let chunks = chunks(&mut parser, &tokens("abENDc"));
    let whole = Whole::of(&chunks);
    assert_eq!((whole.content.as_str(), whole.ids.len()), ("ab", 5));
    assert_eq!(chunks.last().unwrap().position, 5);
    assert_eq!(parser.tokens().len(), 5);
}

#[test]
fn an_answer_that_goes_round_in_circles_is_cut_where_it_does() {
    let mut stuck = parser(Spec::default());
    let said = format!("Ha: {}", "h".repeat(100));
    let chunks = chunks(&mut stuck, &tokens(&said));
    let whole = Whole::of(&chunks);
    // The piece that is once too many counts and is not shown.
    assert_eq!((whole.content.as_str(), whole.ids.len()), (&said[..4 + 31], 4 + 32));
    let step = parser(Spec::default()).replay(&tokens(&said), 0);
    assert_eq!((step.ended, step.chunk.unwrap().content.len()), (Some(Reason::Length), 4 + 31));
}

#[test]
fn a_replay_counts_what_was_said_before() {
    let mut second = parser(Spec::default());
    assert_eq!(second.replay(&tokens(&"h".repeat(31)), 31), Step::default());
    assert_eq!(second.push(u32::from(b'h'), None).ended, Some(Reason::Length));
}

#[test]
fn stop_strings_are_looked_for_in_thinking_too() {
    let whole = Whole::of(&chunks(&mut parser(everything()), &tokens("<think>hmEND</think>yes")));
    assert_eq!((whole.thinking.as_str(), whole.content.as_str()), ("hm", ""));
}

#[test]
fn thinking_content_and_calls_are_told_apart() {
    let answer = "<think>hm</think> Let me see.<call>{\"name\":\"get\",\"arguments\":{\"x\":1}}";
    let whole = Whole::of(&chunks(&mut parser(everything()), &tokens(answer)));
    assert_eq!((whole.thinking.as_str(), whole.content.as_str()), ("hm", "Let me see."));
    assert_eq!(whole.calls.len(), 1);
    assert!(whole.calls[0].ends_with(" 0 {\"x\":1}"), "{:?}", whole.calls);
    assert_eq!(whole.ids, tokens(answer));
}

#[test]
fn log_probabilities_travel_with_their_tokens_and_leave_the_stop_string_out() {
    let mut parser = parser(stops(&["END"]));
    let logprobs = Logprobs { logprob: -0.5, top: vec![(98, -0.5), (257, -1.5)] };
    let mut given = Vec::new();
    for token in tokens("bEND") {
        given.extend(parser.push(token, Some(&logprobs)).chunk.into_iter().flat_map(|chunk| chunk.logprobs));
    }
    given.extend(parser.finish().logprobs);
    assert_eq!(given.len(), 1);
    assert_eq!((given[0].token.as_str(), &given[0].bytes[..], given[0].logprob), ("b", &b"b"[..], -0.5));
    let top: Vec<_> = given[0].top.iter().map(|top| top.token.as_str()).collect();
    assert_eq!(top, ["b", "</s>"]);
}

#[test]
fn a_tag_that_is_a_control_token_is_seen() {
    let tags = Tags { open: "<s>".into(), close: "</s>".into(), inside: false };
    let mut parser = parser(Spec { thinking: Some(tags), ..Spec::default() });
    let answer = [&[256], &tokens("hm")[..], &[257], &tokens("yes")].concat();
    let whole = Whole::of(&chunks(&mut parser, &answer));
    assert_eq!((whole.thinking.as_str(), whole.content.as_str()), ("hm", "yes"));
}

#[test]
fn a_replay_of_an_answer_that_had_ended_says_so() {
    let mut parser = parser(stops(&["END"]));
    let step = parser.replay(&tokens("abEND"), 1);
    assert_eq!(step.ended, Some(Reason::Stop));
    assert_eq!(step.chunk.unwrap().content, "b");
    assert_eq!(parser.finish().content, "");
}

#[test]
fn text_that_the_client_has_not_got_of_the_tokens_before_is_given_first() {
    let mut parser = parser(Spec::default());
    let chunk = parser.replay(&tokens("abé"), 1).chunk.unwrap();
    assert_eq!((chunk.content.as_str(), chunk.position), ("bé", 4));
    assert!(chunk.token_ids.is_empty());
}

fn answers() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("<think>"),
        Just("</think>"),
        Just("<call>"),
        Just("{\"name\":\"get\",\"arguments\":{}}"),
        Just("E"),
        Just("EN"),
        Just("END"),
        Just("é "),
        Just("日"),
        Just("{"),
        Just(" x"),
    ];
    proptest::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
}

proptest! {
    /// `cut` counts chunks that the first worker got out before it died.
    #[test]
    fn a_replay_gives_exactly_the_rest(answer in answers(), cut in 0usize..64, spec_is_full: bool) {
        let spec = if spec_is_full { everything() } else { stops(&["END"]) };
        let answer = tokens(&answer);
        let all = chunks(&mut parser(spec.clone()), &answer);
        let expected = Whole::of(&all);

        let mut got = Whole::of(&all[..cut.min(all.len() - 1)]);
        let mut second = parser(spec);
        let step = second.replay(&got.ids, got.delivered());
        prop_assert_eq!(&step, &Step::default(), "everything sent was delivered");
        for chunk in chunks(&mut second, &answer[got.ids.len()..]) {
            got.add(&chunk);
            prop_assert_eq!(chunk.position, got.ids.len() as u64);
        }
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn a_client_that_has_less_than_was_sent_gets_the_rest(answer in answers(), cut in 0usize..64, missing in 0u64..8) {
        let answer = tokens(&answer);
        let all = chunks(&mut parser(stops(&["END"])), &answer);
        let expected = Whole::of(&all);

        let sent = Whole::of(&all[..cut.min(all.len() - 1)]);
        let mut delivered = (sent.content.len() as u64).saturating_sub(missing) as usize;
        while !sent.content.is_char_boundary(delivered) {
            delivered -= 1;
        }
        let mut got = sent.content[..delivered].to_owned();
        let mut second = parser(stops(&["END"]));
        got.extend(second.replay(&sent.ids, delivered as u64).chunk.map(|chunk| chunk.content));
        chunks(&mut second, &answer[sent.ids.len()..]).iter().for_each(|chunk| got.push_str(&chunk.content));
        prop_assert_eq!(got, expected.content);
    }

    #[test]
    fn no_bytes_make_it_panic_and_every_token_is_accounted_for(bytes in proptest::collection::vec(0u32..260, 0..64)) {
        let mut parser = parser(everything());
        let chunks = chunks(&mut parser, &bytes);
        let whole = Whole::of(&chunks);
        prop_assert_eq!(&whole.ids, parser.tokens());
        prop_assert!(!whole.content.contains("END"));
    }
}
