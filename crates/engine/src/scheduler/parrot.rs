//! The other model: after a token it says what came after that token's last occurrence in its sequence, else the
//! token's successor. It reads its sequence back from its pages, so that a wrong page table is a wrong word.

use crate::{
    Error,
    model::{Batch, Logits, Model},
    pages::{PAGE_TOKENS, PageId},
};

/// The bytes, and the two tokens that `Tokenizer::bytes` adds.
pub const VOCAB_SIZE: usize = 258;

/// What it likes best scores this much; everything else stays below 3.
const BEST: f32 = 9.0;

#[derive(Default)]
pub struct Parrot {
    /// Of each page, (token, position) of its places.
    pages: Vec<[Option<(u32, u32)>; PAGE_TOKENS]>,
    /// Of each step, how many tokens each span had.
    pub steps: Vec<Vec<usize>>,
    /// A token that it chokes on.
    pub poison: Option<u32>,
}

impl Parrot {
    /// What it says after `sequence`: the scheduler's work without a scheduler.
    pub fn next(sequence: &[u32]) -> u32 {
        let (&last, before) = sequence.split_last().expect("a sequence is never empty");
        match before.iter().rposition(|&token| token == last) {
            Some(at) => sequence[at + 1],
            None => (last + 1) % 251,
        }
    }

    /// Scores: what it says next stands out, the rest is noise that depends on the whole sequence.
    fn scores(sequence: &[u32], scores: &mut [f32]) {
        let sum = sequence.iter().fold(7u32, |sum, &token| sum.wrapping_mul(31).wrapping_add(token));
        for (token, score) in scores.iter_mut().enumerate() {
            *score = (sum.wrapping_mul(2 * token as u32 + 1) >> 16 & 255) as f32 / 100.0;
        }
        scores[Parrot::next(sequence) as usize] = BEST;
    }

    fn store(&mut self, page: PageId, token: u32, position: u32) {
        let page = page as usize;
        self.pages.resize(self.pages.len().max(page + 1), [None; PAGE_TOKENS]);
        self.pages[page][position as usize % PAGE_TOKENS] = Some((token, position));
    }

    /// The tokens at positions 0..=`last`, as the pages hold them.
    fn recall(&self, pages: &[PageId], last: u32) -> Vec<u32> {
        let at = |position: u32| {
            let page = pages[position as usize / PAGE_TOKENS] as usize;
            let (token, stored) =
                self.pages[page][position as usize % PAGE_TOKENS].expect("a stored position");
            assert_eq!(stored, position, "page {page} holds another position");
            token
        };
        (0..=last).map(at).collect()
    }
}

impl Model for Parrot {
    fn vocab_size(&self) -> usize {
        VOCAB_SIZE
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut Logits) -> Result<(), Error> {
        self.steps.push(batch.spans.iter().map(|span| span.rows.len()).collect());
        logits.reset(VOCAB_SIZE, batch.wanted().len(), batch.spans.len());
        let mut wanted = 0;
        for (at, span) in batch.spans.iter().enumerate() {
            for row in span.rows.clone() {
                let (token, position) = (batch.tokens[row], batch.positions[row]);
                self.store(span.pages[position as usize / PAGE_TOKENS], token, position);
                if Some(token) == self.poison {
                    logits.faults[at] = Some(Error::NotFinite { what: "what block 3 computed".to_owned() });
                }
            }
            for row in span.wanted() {
                let sequence = self.recall(span.pages, batch.positions[row]);
                Parrot::scores(&sequence, &mut logits.values[wanted * VOCAB_SIZE..][..VOCAB_SIZE]);
                wanted += 1;
            }
        }
        Ok(())
    }
}
