//! A set of tokens, one bit each.

/// The tokens that may come next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask(Vec<u32>);

impl Mask {
    /// Token `i` is bit `i % 32` of word `i / 32`.
    pub fn from_words(words: Vec<u32>) -> Mask {
        Mask(words)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn allows(&self, token: u32) -> bool {
        self.0.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// All of them, in order.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.0).flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                // Takes the lowest one away; of none nothing is taken.
                rest &= rest.wrapping_sub(1);
                (bit < 32).then_some(32 * at + bit)
            })
        })
    }
}

impl FromIterator<u32> for Mask {
    fn from_iter<I: IntoIterator<Item = u32>>(tokens: I) -> Mask {
        let mut words = Vec::new();
        for token in tokens {
            let at = token as usize / 32;
            words.resize(words.len().max(at + 1), 0);
            words[at] |= 1 << (token % 32);
        }
        Mask(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_the_tokens_that_were_put_in() {
        let tokens = [0, 5, 31, 32, 63, 64, 1000];
        let mask: Mask = tokens.into_iter().rev().collect();
        assert_eq!(mask.tokens().collect::<Vec<_>>(), tokens);
        assert!(!mask.is_empty() && (0..2000).all(|token| mask.allows(token) == tokens.contains(&token)));
        assert!(Mask::default().is_empty() && Mask::from_words(vec![0; 9]).is_empty());
        assert_eq!(Mask::default().tokens().count(), 0);
    }
}
