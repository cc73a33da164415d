//! A request's options as the engine wants them. Values that Ollama gives a meaning of their own (negative, zero) are
//! resolved here.

use api::Error;
use engine::{Sampling, Sequence};
use protocol::v1::{GenerateRequest, Options};

use crate::format::Format;

/// Ollama ends an answer after this many contexts, whatever `num_predict` says: with a shifting context a model that
/// never stops would otherwise run for ever.
const MAX_CONTEXTS: usize = 10;

/// No known model needs more or longer stop strings; each token is compared with all of them.
const MAX_STOPS: usize = 256;
const MAX_STOP_BYTES: usize = 4096;

const MAX_TOP_LOGPROBS: u32 = 20;

/// What is checked before a slot is taken.
pub fn check(request: &GenerateRequest) -> Result<(), Error> {
    Format::parse(&request.format)?;
    if request.top_logprobs > MAX_TOP_LOGPROBS {
        return Err(Error::invalid(format!("top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}")));
    }
    let stops = request.options.as_ref().map_or(&[][..], |options| &options.stop);
    if stops.len() > MAX_STOPS {
        let text = format!("`stop` must hold at most {MAX_STOPS} strings, got {}", stops.len());
        return Err(Error::invalid(text));
    }
    if let Some(stop) = stops.iter().find(|stop| stop.len() > MAX_STOP_BYTES) {
        let text = format!("a string of `stop` must have at most {MAX_STOP_BYTES} bytes, got {}", stop.len());
        return Err(Error::invalid(text));
    }
    Ok(())
}

/// How many tokens the whole answer may have. Zero Ollama leaves out where it has made the prompt itself, which means
/// no bound, and sends on where a Jinja template makes it, which means none.
fn max_tokens(options: &Options, context_length: usize, is_jinja: bool) -> usize {
    let bound = context_length.saturating_mul(MAX_CONTEXTS);
    usize::try_from(options.num_predict)
        .ok()
        .filter(|tokens| *tokens > 0 || is_jinja)
        .map_or(bound, |tokens| tokens.min(bound))
}

/// What an answer follows.
#[derive(Clone, Debug)]
pub struct Given {
    /// Ends with the tokens that another worker has emitted.
    pub tokens: Vec<u32>,
    /// Whether a Jinja template has made it.
    pub is_jinja: bool,
}

/// The sequence of a prompt. `context_length` is what it may use of its slot.
pub fn sequence(request: &GenerateRequest, given: Given, context_length: usize) -> Sequence {
    let Given { tokens: prompt, is_jinja } = given;
    let options = request.options.clone().unwrap_or_default();
    let emitted = request.resume.as_ref().map_or(0, |resume| resume.emitted_ids.len());
    let asked = prompt.len() - emitted;
    // Each shift computes what it leaves anew. One that keeps nearly everything would do so at every token.
    let keep = usize::try_from(options.num_keep).unwrap_or(asked).min(context_length - context_length / 4);
    Sequence {
        // The runner chooses it.
        id: 0,
        prompt,
        sampling: sampling(&options),
        max_tokens: Some(max_tokens(&options, context_length, is_jinja).saturating_sub(emitted)),
        resume_at: emitted,
        context_length: Some(context_length),
        logprobs: request.logprobs.then(|| u8::try_from(request.top_logprobs).unwrap_or(u8::MAX)),
        shift: request.shift,
        keep,
        ignore_eos: false,
        grammar: None,
    }
}

fn sampling(options: &Options) -> Sampling {
    Sampling {
        temperature: options.temperature.max(0.0),
        top_k: usize::try_from(options.top_k).unwrap_or(0),
        top_p: options.top_p,
        min_p: options.min_p,
        typical_p: options.typical_p,
        repeat_last_n: usize::try_from(options.repeat_last_n).unwrap_or(usize::MAX),
        repeat_penalty: options.repeat_penalty,
        presence_penalty: options.presence_penalty,
        frequency_penalty: options.frequency_penalty,
        seed: options.seed,
    }
}

#[cfg(test)]
mod tests {
    use protocol::v1::Resume;

    use super::*;

    fn request(options: Options) -> GenerateRequest {
        GenerateRequest { options: Some(options), ..GenerateRequest::default() }
    }

    #[test]
    fn no_bound_and_an_absurd_one_are_ten_contexts() {
        for num_predict in [-1, -2, 0, 41, i64::MAX] {
            assert_eq!(
                max_tokens(&Options { num_predict, ..Options::default() }, 4, false),
                40,
                "{num_predict}"
            );
        }
        assert_eq!(max_tokens(&Options { num_predict: 7, ..Options::default() }, 4, false), 7);
    }

    #[test]
    fn zero_tokens_are_none_behind_a_jinja_template() {
        for (num_predict, tokens) in [(-1, 40), (0, 0), (7, 7), (41, 40)] {
            let options = Options { num_predict, ..Options::default() };
            assert_eq!(max_tokens(&options, 4, true), tokens, "{num_predict}");
        }
    }

    fn given(tokens: Vec<u32>) -> Given {
        Given { tokens, is_jinja: false }
    }

    #[test]
    fn a_resumed_sequence_emits_only_what_is_missing() {
        let resume = Some(Resume { emitted_ids: vec![5, 6], delivered: 0 });
        let options = Options { num_predict: 10, ..Options::default() };
        let sequence = sequence(&GenerateRequest { resume, ..request(options) }, given(vec![1, 5, 6]), 100);
        assert_eq!((sequence.max_tokens, sequence.resume_at), (Some(8), 2));
    }

    #[test]
    fn a_shift_always_has_a_quarter_of_the_context_to_work_with() {
        let keep = |num_keep: i64, tokens: usize| {
            let request = request(Options { num_keep, ..Options::default() });
            sequence(&request, given(vec![1; tokens]), 100).keep
        };
        assert_eq!((keep(5, 10), keep(-1, 10), keep(-1, 99), keep(i64::MAX, 10)), (5, 10, 75, 75));
    }

    #[test]
    fn negative_options_are_those_that_mean_off_or_all() {
        let options = Options { top_k: -1, repeat_last_n: -1, temperature: -1.0, ..Options::default() };
        let sampling = sampling(&options);
        assert_eq!((sampling.top_k, sampling.repeat_last_n, sampling.temperature), (0, usize::MAX, 0.0));
    }

    #[test]
    fn too_many_or_too_long_stop_strings_are_refused_with_the_bound() {
        let many = request(Options { stop: vec!["a".into(); 257], ..Options::default() });
        assert!(check(&many).unwrap_err().message.contains("at most 256 strings, got 257"));
        let long = request(Options { stop: vec!["a".repeat(4097)], ..Options::default() });
        assert!(check(&long).unwrap_err().message.contains("at most 4096 bytes, got 4097"));
        check(&request(Options { stop: vec!["a".repeat(4096); 256], ..Options::default() })).unwrap();
    }

    #[test]
    fn more_than_twenty_candidates_are_refused() {
        let request = GenerateRequest { top_logprobs: 21, ..GenerateRequest::default() };
        assert_eq!(check(&request).unwrap_err().message, "top_logprobs must be between 0 and 20");
    }
}
