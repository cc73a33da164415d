//! Gives up a model that says one thing again and again, which none ever stops to do by itself.

/// Ollama's number. What repeats on purpose (rules, tables) is longer than a token in most vocabularies.
const MAX_REPEATS: u32 = 30;

/// The pieces of one answer, as far as they are alike.
#[derive(Debug, Default)]
pub struct Repeats {
    /// Without the white space around it: a text of nothing but line ends repeats, too.
    last: String,
    count: u32,
}

impl Repeats {
    /// Takes the text that one token released, and tells whether that is once too often the same.
    pub fn is_stuck(&mut self, piece: &str) -> bool {
        // Half a character is no piece yet.
        if piece.is_empty() {
            return false;
        }
        let piece = piece.trim();
        if piece == self.last {
            self.count += 1;
        } else {
            self.last.clear();
            self.last.push_str(piece);
            self.count = 0;
        }
        self.count > MAX_REPEATS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many pieces it is too much.
    fn stuck<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Option<usize> {
        let mut repeats = Repeats::default();
        pieces.into_iter().position(|piece| repeats.is_stuck(piece)).map(|at| at + 1)
    }

    #[test]
    fn the_same_piece_may_come_so_often_and_not_once_more() {
        assert_eq!(stuck(std::iter::repeat_n("ha", 31)), None);
        assert_eq!(stuck(std::iter::repeat_n("ha", 40)), Some(32));
        assert_eq!(stuck([" ha", "ha", "\nha ", ""].into_iter().cycle().take(80)), Some(42));
    }

    #[test]
    fn white_space_is_all_alike() {
        // Before anything was said, one less: so it is in Ollama.
        assert_eq!(stuck([" ", "\n", "\t\t"].into_iter().cycle().take(60)), Some(31));
        assert_eq!(stuck(["{"].into_iter().chain(std::iter::repeat_n("\n", 60))), Some(33));
    }

    #[test]
    fn what_comes_between_begins_the_count_anew() {
        let thirty = || std::iter::repeat_n("-", 31);
        assert_eq!(stuck(thirty().chain(["+"]).chain(thirty()).chain(["+"]).chain(thirty())), None);
        assert_eq!(stuck(["a", "b"].into_iter().cycle().take(1000)), None);
    }
}
