//! Stop strings: ends an answer at the first of them and never shows a part of one.

use super::overlap;

/// Passes text on until a stop string is complete.
///
/// The stop string whose *end* comes first wins, and of those that end together the longest: that is what a reader of
/// single characters would see, so the result does not depend on how the text was cut into pieces.
#[derive(Debug, Default)]
pub struct Stop {
    stops: Vec<String>,
    /// The end of the text so far, as long as it may be the beginning of a stop string.
    held: String,
}

/// What one push let through.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    pub text: String,
    /// A stop string was found: nothing comes after `text`.
    pub stopped: bool,
}

impl Stop {
    /// An empty stop string is ignored: it would end every answer before it began.
    pub fn new(stops: Vec<String>) -> Stop {
        Stop { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    pub fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        if let Some(start) = self.find() {
            self.held.truncate(start);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let kept = self.held.split_off(self.held.len() - keep);
        Passed { text: std::mem::replace(&mut self.held, kept), stopped: false }
    }

    /// The end of the answer: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the first complete stop string begins.
    fn find(&self) -> Option<usize> {
        let matches = self.stops.iter().filter_map(|stop| Some((self.held.find(stop)?, stop.len())));
        matches.min_by_key(|(start, len)| (start + len, *start)).map(|(start, _)| start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stop(stops: &[&str]) -> Stop {
        Stop::new(stops.iter().map(|stop| stop.to_string()).collect())
    }

    /// Everything that comes through when `pieces` are pushed in turn, and whether a stop string ended it.
    fn pass<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, bool) {
        let mut stop = stop(stops);
        let mut text = String::new();
        for piece in pieces {
            let passed = stop.push(piece);
            text.push_str(&passed.text);
            if passed.stopped {
                return (text, true);
            }
        }
        text.push_str(&stop.finish());
        (text, false)
    }

    #[test]
    fn text_before_a_stop_string_is_delivered_and_nothing_after_it() {
        assert_eq!(pass(&["</s>"], ["one two</s> three"]), ("one two".into(), true));
    }

    #[test]
    fn a_stop_string_in_pieces_is_found() {
        assert_eq!(pass(&["User:"], ["Fine.\nUs", "er", ": hello"]), ("Fine.\n".into(), true));
    }

    #[test]
    fn a_possible_beginning_is_held_back_and_given_when_it_turns_out_to_be_text() {
        let mut stop = stop(&["<|end|>"]);
        assert_eq!(stop.push("a <|e").text, "a ");
        assert_eq!(stop.push("asy").text, "<|easy");
    }

    #[test]
    fn the_end_of_the_answer_gives_what_was_held_back() {
        assert_eq!(pass(&["<|end|>"], ["a <|en"]), ("a <|en".into(), false));
    }

    #[test]
    fn the_stop_string_that_is_complete_first_wins() {
        assert_eq!(pass(&["abc", "b"], ["xabcx"]), ("xa".into(), true));
        assert_eq!(pass(&["abc", "b"], ["x", "a", "b", "c"]), ("xa".into(), true));
    }

    #[test]
    fn of_stop_strings_that_end_together_the_longest_wins() {
        assert_eq!(pass(&["c", "abc"], ["xab", "c"]), ("x".into(), true));
    }

    #[test]
    fn an_empty_stop_string_is_ignored() {
        assert_eq!(pass(&[""], ["text"]), ("text".into(), false));
    }

    #[test]
    fn without_stop_strings_nothing_is_held_back() {
        assert_eq!(stop(&[]).push("<").text, "<");
    }

    proptest! {
        /// A small alphabet, so that stop strings overlap the text and one another often.
        #[test]
        fn what_comes_through_does_not_depend_on_how_the_text_was_cut(
            text in "[abé]{0,24}",
            stops in proptest::collection::vec("[abé]{0,4}", 0..4),
            cuts in proptest::collection::vec(0usize..24, 0..6),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = pass(&stops, [text.as_str()]);
            let pieces = crate::reply::cut(&text, &cuts);
            prop_assert_eq!(pass(&stops, pieces), whole.clone());
            prop_assert!(stops.iter().all(|stop| stop.is_empty() || !whole.0.contains(stop)));
        }
    }
}
