//! What of a prompt is left when it is longer than the context: first the oldest messages go, then the middle of
//! the tokens.

use api::Error;
use protocol::v1::GenerateRequest;
use template::{Message, Values};

use super::Rendered;

/// Ollama's text, byte for byte.
pub const TOO_LONG: &str = "the prompt is longer than the context length currently available to the model; shorten \
                            the prompt, adjust the context length in settings, or use a model with a longer context \
                            length";

/// The context that a prompt must fit, and what may be done to make it fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub context_length: usize,
    pub truncate: bool,
    pub shift: bool,
    /// How many of the first tokens a cut leaves in place; negative = all that leave room for something else.
    pub num_keep: i64,
}

// === impl Window ===

impl Window {
    pub fn new(context_length: usize, request: &GenerateRequest) -> Window {
        let num_keep = request.options.as_ref().map_or(0, |options| options.num_keep);
        Window { context_length, truncate: request.truncate, shift: request.shift, num_keep }
    }

    /// Drops as few of the oldest messages as possible. System messages and the last message always stay.
    ///
    /// The number of tokens is taken to fall with every message dropped, so the place is found by halving, not by
    /// rendering a long conversation once per message.
    pub fn fit_messages(
        &self,
        messages: Vec<Message>,
        values: &mut Values,
        render: impl Fn(&Values) -> Result<Rendered, Error>,
    ) -> Result<Rendered, Error> {
        let mut from = |start: usize| {
            values.messages = kept(&messages, start);
            render(values)
        };
        let whole = from(0)?;
        let fits = |rendered: &Rendered| rendered.tokens.len() <= self.context_length;
        let last = messages.len() - 1;
        if !self.truncate || last == 0 || fits(&whole) {
            return Ok(whole);
        }
        let mut best = from(last)?;
        // Everything before `low` is too long; `high` is what `best` shows.
        let (mut low, mut high) = (1, last);
        while low < high {
            let middle = low + (high - low) / 2;
            let rendered = from(middle)?;
            if fits(&rendered) {
                (high, best) = (middle, rendered);
            } else {
                low = middle + 1;
            }
        }
        Ok(best)
    }

    /// Cuts the middle out: the first `num_keep` tokens (and the beginning of sequence) stay, and so many of the
    /// newest as leave half of the rest free for the answer.
    pub fn fit_tokens(&self, mut tokens: Vec<u32>, bos: usize) -> Result<Vec<u32>, Error> {
        if tokens.len() < self.context_length {
            return Ok(tokens);
        }
        if !self.truncate || !self.shift {
            return Err(Error::invalid(TOO_LONG));
        }
        let keep = self.keep(bos);
        let newest = ((self.context_length - keep) / 2).max(1);
        tokens.drain(keep..tokens.len() - newest);
        Ok(tokens)
    }

    /// How many of the first tokens stay; never so many that nothing else has room.
    pub fn keep(&self, bos: usize) -> usize {
        let wanted = usize::try_from(self.num_keep).unwrap_or(usize::MAX);
        wanted.saturating_add(bos).min(self.context_length.saturating_sub(2))
    }
}

/// The messages from `start` on, after the system messages before it.
fn kept(messages: &[Message], start: usize) -> Vec<Message> {
    let (before, rest) = messages.split_at(start);
    before.iter().filter(|message| message.role == "system").chain(rest).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { context_length: 10, truncate: true, shift: true, num_keep: 2 };

    /// One token per byte of content, and one more per message.
    fn render(values: &Values) -> Result<Rendered, Error> {
        let text: String = values.messages.iter().map(|message| format!("{}|", message.content)).collect();
        Ok(Rendered { tokens: vec![0; text.len()], text })
    }

    fn fit(window: Window, messages: &[(&str, &str)]) -> String {
        let messages = messages.iter().map(|(role, content)| Message::new(*role, *content)).collect();
        window.fit_messages(messages, &mut Values::default(), render).unwrap().text
    }

    #[test]
    fn a_conversation_that_fits_is_left_alone() {
        assert_eq!(fit(WINDOW, &[("user", "aaa"), ("assistant", "b"), ("user", "cc")]), "aaa|b|cc|");
    }

    #[test]
    fn as_few_of_the_oldest_messages_as_possible_are_dropped() {
        let messages = [("user", "aaaa"), ("assistant", "bbb"), ("user", "ccc"), ("user", "d")];
        assert_eq!(fit(WINDOW, &messages), "bbb|ccc|d|");
    }

    #[test]
    fn halving_finds_the_same_place_as_dropping_one_by_one() {
        for count in 1..24 {
            let messages: Vec<_> = (0..count).map(|_| ("user", "a")).collect();
            assert_eq!(fit(WINDOW, &messages).len(), 2 * count.min(5), "{count} messages");
        }
    }

    #[test]
    fn system_messages_and_the_last_message_stay_even_when_too_long() {
        let messages = [("system", "rule"), ("user", "aa"), ("system", "more"), ("user", "last one is long")];
        assert_eq!(fit(WINDOW, &messages), "rule|more|last one is long|");
    }

    #[test]
    fn nothing_is_dropped_when_the_request_forbids_it() {
        let window = Window { truncate: false, ..WINDOW };
        assert_eq!(fit(window, &[("user", "aaaaaaaaaa"), ("user", "b")]), "aaaaaaaaaa|b|");
    }

    #[test]
    fn the_middle_of_too_many_tokens_is_cut_out() {
        let cut = WINDOW.fit_tokens((0..20).collect(), 0).unwrap();
        assert_eq!(cut, [0, 1, 16, 17, 18, 19]);
        let cut = WINDOW.fit_tokens((0..20).collect(), 1).unwrap();
        assert_eq!(cut, [0, 1, 2, 17, 18, 19]);
    }

    #[test]
    fn a_prompt_must_leave_room_for_one_token() {
        assert_eq!(WINDOW.fit_tokens((0..9).collect(), 0).unwrap().len(), 9);
        assert_eq!(WINDOW.fit_tokens((0..10).collect(), 0).unwrap().len(), 6);
    }

    #[test]
    fn too_many_tokens_are_refused_in_ollamas_words_when_nothing_may_be_cut() {
        for window in [Window { shift: false, ..WINDOW }, Window { truncate: false, ..WINDOW }] {
            let error = window.fit_tokens((0..10).collect(), 0).unwrap_err();
            assert_eq!(error, Error::invalid(TOO_LONG));
        }
    }

    #[test]
    fn keeping_everything_still_leaves_room() {
        for num_keep in [-1, 9, i64::MAX] {
            let cut = Window { num_keep, ..WINDOW }.fit_tokens((0..20).collect(), 1).unwrap();
            assert_eq!(cut, [0, 1, 2, 3, 4, 5, 6, 7, 19], "num_keep {num_keep}");
        }
    }
}
