//! Splits an answer into thinking and content at the model's two tags.

use super::overlap;

/// The tags of a model, and where its answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    /// Neither is empty.
    pub open: String,
    pub close: String,
    /// The prompt already ends with the opening tag, so the answer begins inside.
    pub inside: bool,
}

/// What one push released. Thinking always comes before content.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    pub thinking: String,
    pub content: String,
}

#[derive(Debug)]
pub struct Thinking {
    open: String,
    close: String,
    state: State,
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Only white space and a part of the opening tag were seen.
    Opening,
    /// White space after the opening tag is dropped, and the tag itself, which some models say once more.
    AfterOpening,
    AfterSecondOpening,
    Inside,
    /// White space before the content is dropped.
    AfterClosing,
    /// Content; a tag in it is plain text.
    Content,
}

impl Thinking {
    pub fn new(tags: Tags) -> Thinking {
        let state = if tags.inside { State::AfterOpening } else { State::Opening };
        Thinking { open: tags.open, close: tags.close, state, held: String::new() }
    }

    pub fn push(&mut self, text: &str) -> Split {
        self.held.push_str(text);
        let mut split = Split::default();
        // Each turn moves the state forward, so there are at most five.
        while self.advance(&mut split) {}
        split
    }

    /// The end of the answer: half a tag is text after all.
    pub fn finish(&mut self) -> Split {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Inside => Split { thinking: held, ..Split::default() },
            State::AfterOpening => Split { thinking: held.trim_start().to_owned(), ..Split::default() },
            State::Opening | State::Content => Split { content: held, ..Split::default() },
            // What is held here is white space.
            State::AfterSecondOpening | State::AfterClosing => Split::default(),
        }
    }

    /// True when the state has changed and what is held must be looked at again.
    fn advance(&mut self, split: &mut Split) -> bool {
        match self.state {
            State::Opening => self.look_for_opening(),
            State::AfterOpening => self.skip_second_opening(),
            State::AfterSecondOpening => self.skip_white_space(State::Inside),
            State::Inside => self.look_for_closing(split),
            State::AfterClosing => self.skip_white_space(State::Content),
            State::Content => {
                split.content.push_str(&std::mem::take(&mut self.held));
                false
            }
        }
    }

    fn look_for_opening(&mut self) -> bool {
        let trimmed = self.held.trim_start();
        if let Some(rest) = trimmed.strip_prefix(self.open.as_str()) {
            self.held = rest.to_owned();
            self.state = State::AfterOpening;
            return true;
        }
        if self.open.starts_with(trimmed) {
            return false;
        }
        self.state = State::Content;
        true
    }

    fn skip_second_opening(&mut self) -> bool {
        let trimmed = self.held.trim_start();
        if self.open.starts_with(trimmed) && trimmed.len() < self.open.len() {
            return false;
        }
        (self.state, self.held) = match trimmed.strip_prefix(self.open.as_str()) {
            Some(rest) => (State::AfterSecondOpening, rest.to_owned()),
            None => (State::Inside, trimmed.to_owned()),
        };
        true
    }

    fn skip_white_space(&mut self, next: State) -> bool {
        self.held = self.held.trim_start().to_owned();
        if self.held.is_empty() {
            return false;
        }
        self.state = next;
        true
    }

    fn look_for_closing(&mut self, split: &mut Split) -> bool {
        if let Some(at) = self.held.find(&self.close) {
            split.thinking.push_str(&self.held[..at]);
            self.held.drain(..at + self.close.len());
            self.state = State::AfterClosing;
            return true;
        }
        let kept = self.held.split_off(self.held.len() - overlap(&self.held, &self.close));
        split.thinking.push_str(&std::mem::replace(&mut self.held, kept));
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags(inside: bool) -> Tags {
        Tags { open: "<think>".into(), close: "</think>".into(), inside }
    }

    /// Thinking and content of the whole answer.
    fn split<'a>(tags: Tags, pieces: impl IntoIterator<Item = &'a str>) -> (String, String) {
        let mut thinking = Thinking::new(tags);
        let mut whole = Split::default();
        for piece in pieces {
            add(&mut whole, thinking.push(piece));
        }
        add(&mut whole, thinking.finish());
        (whole.thinking, whole.content)
    }

    fn add(whole: &mut Split, split: Split) {
        whole.thinking.push_str(&split.thinking);
        whole.content.push_str(&split.content);
    }

    fn both(thinking: &str, content: &str) -> (String, String) {
        (thinking.into(), content.into())
    }

    #[test]
    fn thinking_is_split_from_content_and_white_space_around_the_tags_is_dropped() {
        let answer = "\n<think>\nhm, 2 and 2 \n</think>\n\n4.";
        assert_eq!(split(tags(false), [answer]), both("hm, 2 and 2 \n", "4."));
    }

    #[test]
    fn an_answer_without_an_opening_tag_is_content_as_it_is() {
        assert_eq!(split(tags(false), ["  plain <think>x</think>"]), both("", "  plain <think>x</think>"));
    }

    #[test]
    fn a_prompt_that_ends_with_the_opening_tag_begins_inside() {
        assert_eq!(split(tags(true), ["\nhm</think>yes"]), both("hm", "yes"));
    }

    #[test]
    fn an_opening_tag_that_is_said_twice_is_no_thinking() {
        assert_eq!(split(tags(true), ["<think>\nhm</think>yes"]), both("hm", "yes"));
        assert_eq!(split(tags(false), ["<think> <think>", " <think>hm"]), both("<think>hm", ""));
        assert_eq!(split(tags(true), [" <thi"]), both("<thi", ""));
    }

    #[test]
    fn an_answer_without_a_closing_tag_is_all_thinking() {
        assert_eq!(split(tags(false), ["<think>hm </thi"]), both("hm </thi", ""));
    }

    #[test]
    fn a_tag_in_pieces_is_found_and_never_shown() {
        let mut thinking = Thinking::new(tags(false));
        assert_eq!(thinking.push("<th"), Split::default());
        assert_eq!(thinking.push("ink>a<"), Split { thinking: "a".into(), content: String::new() });
        assert_eq!(thinking.push("/think> b"), Split { thinking: String::new(), content: "b".into() });
        assert_eq!(thinking.push("</think>").content, "</think>");
    }

    #[test]
    fn half_an_opening_tag_at_the_end_is_content() {
        assert_eq!(split(tags(false), [" <thi"]), both("", " <thi"));
    }

    proptest! {
        #[test]
        fn the_split_does_not_depend_on_how_the_text_was_cut(
            parts in proptest::collection::vec(
                prop_oneof![Just("<think>"), Just("</think>"), Just("<th"), Just(" \n"), Just("é"), Just("a<")],
                0..8,
            ),
            inside: bool,
            cuts in proptest::collection::vec(0usize..48, 0..6),
        ) {
            let text = parts.concat();
            let pieces = crate::reply::cut(&text, &cuts);
            prop_assert_eq!(split(tags(inside), pieces), split(tags(inside), [text.as_str()]));
        }
    }
}
