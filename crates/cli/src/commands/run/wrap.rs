//! Word wrap for text that arrives in pieces: a word is printed when it is whole.

use unicode_width::UnicodeWidthChar;

/// Terminals stop at every eighth cell.
const TAB: usize = 8;

/// Breaks lines before the word that would cross the edge. Widths are counted in cells of the terminal.
#[derive(Debug, Default)]
pub struct Wrapper {
    /// Cells of the line that are taken.
    column: usize,
    word: String,
    word_width: usize,
}

impl Wrapper {
    /// What can be printed on a terminal of `width` cells now that `text` has come.
    pub fn push(&mut self, text: &str, width: usize) -> String {
        let mut out = String::new();
        for character in text.chars() {
            let cells = character.width().unwrap_or(0);
            if character == '\n' {
                self.end_word(&mut out, width);
                self.column = 0;
                out.push('\n');
            } else if character.is_whitespace() {
                self.end_word(&mut out, width);
                let cells = if character == '\t' { TAB - self.column % TAB } else { cells };
                // What does not fit is the end of the line, which needs no mark.
                if self.column + cells <= width {
                    self.column += cells;
                    out.push(character);
                } else {
                    self.column = width;
                }
            } else {
                // Chinese, Japanese and the like have no spaces between words: a line may end at any sign.
                if cells > 1 {
                    self.end_word(&mut out, width);
                }
                self.word.push(character);
                self.word_width += cells;
                // A word longer than a line (a link) is let through as it comes.
                if cells > 1 || self.word_width >= width {
                    self.end_word(&mut out, width);
                }
            }
        }
        out
    }

    /// The word that was held back.
    pub fn finish(&mut self, width: usize) -> String {
        let mut out = String::new();
        self.end_word(&mut out, width);
        out
    }

    fn end_word(&mut self, out: &mut String, width: usize) {
        if self.column > 0 && self.column + self.word_width > width {
            out.push('\n');
            self.column = 0;
        }
        self.column += self.word_width;
        out.push_str(&self.word);
        self.word.clear();
        self.word_width = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(width: usize, pieces: &[&str]) -> String {
        let mut wrapper = Wrapper::default();
        let mut out: String = pieces.iter().map(|piece| wrapper.push(piece, width)).collect();
        out.push_str(&wrapper.finish(width));
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

    #[test]
    fn wide_signs_take_two_cells_and_a_line_may_end_between_them() {
        assert_eq!(wrapped(6, &["一二三四"]), "一二三\n四");
        assert_eq!(wrapped(6, &["ab一二三"]), "ab一二\n三");
        // The accent takes no cell.
        assert_eq!(wrapped(6, &["abcde\u{301}f ghi"]), "abcde\u{301}f\nghi");
    }

    #[test]
    fn a_tab_takes_the_cells_up_to_the_next_stop() {
        assert_eq!(wrapped(12, &["ab\tcdef"]), "ab\tcdef");
        assert_eq!(wrapped(12, &["ab\tcdefg"]), "ab\t\ncdefg");
        assert_eq!(wrapped(12, &["12345678\tb"]), "12345678\nb", "a tab without room ends the line");
    }

    #[test]
    fn a_wide_sign_is_shown_when_it_comes() {
        assert_eq!(Wrapper::default().push("一", 80), "一");
        assert_eq!(Wrapper::default().push("one", 80), "");
    }

    #[test]
    fn a_terminal_that_has_become_narrower_is_wrapped_for() {
        let mut wrapper = Wrapper::default();
        assert_eq!(wrapper.push("one two ", 80), "one two ");
        assert_eq!(wrapper.push("three ", 10), "\nthree ");
    }
}
