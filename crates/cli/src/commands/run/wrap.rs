//! Word wrap for text that arrives in pieces: a word is printed when it is whole.

/// Breaks lines before the word that would cross the edge. Widths are counted in characters.
pub struct Wrapper {
    width: usize,
    column: usize,
    word: String,
}

impl Wrapper {
    pub fn new(width: usize) -> Wrapper {
        Wrapper { width, column: 0, word: String::new() }
    }

    /// What can be printed now that `text` has come.
    pub fn push(&mut self, text: &str) -> String {
        let mut out = String::new();
        for character in text.chars() {
            if !character.is_whitespace() {
                self.word.push(character);
                // A word longer than a line (a link, Chinese text) is let through as it comes.
                if self.word.chars().count() >= self.width {
                    self.end_word(&mut out);
                }
                continue;
            }
            self.end_word(&mut out);
            if character == '\n' {
                self.column = 0;
                out.push('\n');
            } else if self.column < self.width {
                self.column += 1;
                out.push(character);
            }
        }
        out
    }

    /// The word that was held back.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.end_word(&mut out);
        out
    }

    fn end_word(&mut self, out: &mut String) {
        let length = self.word.chars().count();
        if self.column > 0 && self.column + length > self.width {
            out.push('\n');
            self.column = 0;
        }
        self.column += length;
        out.push_str(&self.word);
        self.word.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(width: usize, pieces: &[&str]) -> String {
        let mut wrapper = Wrapper::new(width);
        let mut out: String = pieces.iter().map(|piece| wrapper.push(piece)).collect();
        out.push_str(&wrapper.finish());
        out
    }

    #[test]
    fn a_word_that_crosses_the_edge_goes_to_the_next_line() {
        assert_eq!(wrapped(10, &["the quick brown fox"]), "the quick \nbrown fox");
    }

    #[test]
    fn the_pieces_do_not_matter() {
        assert_eq!(wrapped(10, &["the qu", "ick br", "own", " fox"]), wrapped(10, &["the quick brown fox"]));
    }

    #[test]
    fn newlines_are_kept() {
        assert_eq!(wrapped(10, &["a\n\nb"]), "a\n\nb");
    }

    #[test]
    fn a_word_longer_than_the_line_is_not_lost() {
        assert_eq!(wrapped(4, &["abcdefgh"]).replace('\n', ""), "abcdefgh");
    }
}
