//! The loop that byte-pair encoding and SentencePiece share: merge the best pair of neighbours until none is left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Longest run of bytes that is merged as one word. Merging needs about fifty bytes of memory per byte, so a text
/// without any boundary must not decide how much; no word that a model was trained on comes near.
pub(super) const MAX_WORD_BYTES: usize = 1 << 20;

const NONE: u32 = u32::MAX;

/// A run of bytes that is one token so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pub id: u32,
    pub start: u32,
    /// 0 = merged into its left neighbour.
    pub len: u32,
    previous: u32,
    next: u32,
}

/// The symbols of one word and the queue of pairs that could be merged; reused from word to word.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

/// Ordered by cost, then from left to right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    cost: u32,
    left: u32,
    right: u32,
    /// The token that the pair becomes.
    merged: u32,
    /// The lengths that the pair had when it was queued: a symbol that has grown since is another symbol.
    left_len: u32,
    right_len: u32,
}

// === impl Symbol ===

impl Symbol {
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

// === impl Merger ===

impl Merger {
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Adds the next symbol of the word, `len` > 0 bytes long.
    pub fn push(&mut self, id: u32, len: usize) {
        let at = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |last| last.start + last.len);
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let previous = at.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { id, start, len: len as u32, previous, next: NONE });
    }

    /// Merges until `pair` answers `None` for all neighbours; it gives the cost of a merge, the lowest of which is
    /// done first, and the token that comes of it. O(n log n) in the number of symbols.
    pub fn run(&mut self, mut pair: impl FnMut(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for right in 1..self.symbols.len() as u32 {
            self.offer(right - 1, right, &mut pair);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            let (left, right) = (self.symbols[best.left as usize], self.symbols[best.right as usize]);
            if left.len != best.left_len || right.len != best.right_len {
                continue;
            }
            self.symbols[best.right as usize].len = 0;
            let grown = &mut self.symbols[best.left as usize];
            (grown.id, grown.len, grown.next) = (best.merged, left.len + right.len, right.next);
            if right.next != NONE {
                self.symbols[right.next as usize].previous = best.left;
            }
            self.offer(left.previous, best.left, &mut pair);
            self.offer(best.left, right.next, &mut pair);
        }
    }

    /// What is left, from left to right.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn offer(
        &mut self,
        left: u32,
        right: u32,
        pair: &mut impl FnMut(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((cost, merged)) = pair(a, b) {
            let (left_len, right_len) = (a.len, b.len);
            self.queue.push(Reverse(Candidate { cost, left, right, merged, left_len, right_len }));
        }
    }
}
