//! From rows to one vector per input: which inputs share a pass, and how the rows of each become one.

use crate::{
    Error, Pooling,
    model::{Batch, Hidden, Model, Output},
    pages::{PAGE_TOKENS, PageId, pages_for},
};

/// How much goes through the model at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// Tokens. A longer input has passes of its own.
    pub tokens: usize,
    /// Of the KV cache.
    pub pages: usize,
}

/// The rows of one input, taken together as they come.
struct Pooled {
    pooling: Pooling,
    row: Vec<f32>,
    rows: usize,
}

// === impl Pass ===

impl Pass {
    /// How many of the first `inputs` share a pass: at least one.
    pub fn fitting(self, inputs: &[Vec<u32>]) -> usize {
        let (mut tokens, mut pages) = (0, 0);
        let fits = |input: &&Vec<u32>| {
            tokens += input.len();
            pages += pages_for(input.len());
            tokens <= self.tokens && pages <= self.pages
        };
        inputs.iter().take_while(fits).count().max(1)
    }

    /// The pooled row of each of `inputs`, which fit. `pages` are as many as they need.
    pub fn run(
        self,
        model: &mut dyn Model,
        (inputs, mut pages): (&[Vec<u32>], &[PageId]),
        pooling: Pooling,
    ) -> Result<Vec<Vec<f32>>, Error> {
        if let [long] = inputs {
            return Ok(vec![self.run_long(model, (long, pages), pooling)?]);
        }
        let mut batch = Batch::default();
        for input in inputs {
            let own;
            (own, pages) = pages.split_at(pages_for(input.len()));
            batch.push(input, 0, own, Output::All);
        }
        let rows = hidden(model, &batch)?; // [n, width]
        let width = rows.len() / batch.tokens.len();
        let pool = |rows: &[f32]| {
            let mut pooled = Pooled::new(pooling);
            pooled.add(rows, width);
            pooled.finish()
        };
        let spans = batch.spans.iter().map(|span| &span.rows);
        Ok(spans.map(|span| pool(&rows[span.start * width..span.end * width])).collect())
    }

    /// One input, chunk by chunk.
    fn run_long(
        self,
        model: &mut dyn Model,
        (input, pages): (&[u32], &[PageId]),
        pooling: Pooling,
    ) -> Result<Vec<f32>, Error> {
        let mut pooled = Pooled::new(pooling);
        for (at, tokens) in input.chunks(self.tokens).enumerate() {
            let mut batch = Batch::default();
            batch.push(tokens, at * self.tokens, pages, Output::All);
            let rows = hidden(model, &batch)?; // [n, width]
            pooled.add(&rows, rows.len() / tokens.len());
        }
        Ok(pooled.finish())
    }
}

/// Positions that `inputs` take in pages of their own.
pub(crate) fn positions(inputs: &[Vec<u32>]) -> usize {
    inputs.iter().map(|input| pages_for(input.len()) * PAGE_TOKENS).sum()
}

fn hidden(model: &mut dyn Model, batch: &Batch<'_>) -> Result<Vec<f32>, Error> {
    let Hidden { rows, faults } = model.hidden(batch)?;
    match faults.into_iter().flatten().next() {
        Some(error) => Err(error),
        None => Ok(rows),
    }
}

// === impl Pooled ===

impl Pooled {
    fn new(pooling: Pooling) -> Pooled {
        Pooled { pooling, row: Vec::new(), rows: 0 }
    }

    /// `rows`: [n, width].
    fn add(&mut self, rows: &[f32], width: usize) {
        for row in rows.chunks_exact(width) {
            match self.pooling {
                _ if self.rows == 0 => self.row = row.to_vec(),
                Pooling::Cls => {}
                Pooling::Last => self.row.copy_from_slice(row),
                Pooling::Mean => self.row.iter_mut().zip(row).for_each(|(sum, value)| *sum += value),
            }
            self.rows += 1;
        }
    }

    fn finish(mut self) -> Vec<f32> {
        if self.pooling == Pooling::Mean {
            let rows = self.rows as f32;
            self.row.iter_mut().for_each(|value| *value /= rows);
        }
        self.row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_share_a_pass_as_far_as_tokens_and_pages_go() {
        let inputs: Vec<Vec<u32>> = [5, 60, 30, 8, 200].map(|len| vec![1; len]).into();
        let fitting = |tokens, pages| Pass { tokens, pages }.fitting(&inputs);
        assert_eq!([fitting(64, 9), fitting(65, 9), fitting(95, 9), fitting(103, 9)], [1, 2, 3, 4]);
        assert_eq!([fitting(103, 2), fitting(103, 3), fitting(103, 4)], [1, 2, 3]);
        assert_eq!(
            Pass { tokens: 64, pages: 1 }.fitting(&inputs[4..]),
            1,
            "a long one has passes of its own"
        );
        assert_eq!(positions(&inputs), 32 + 64 + 32 + 32 + 224);
    }

    #[test]
    fn rows_become_one_in_each_way() {
        let pool = |pooling| {
            let mut pooled = Pooled::new(pooling);
            pooled.add(&[1.0, 2.0, 3.0, 6.0], 2);
            pooled.add(&[5.0, 1.0], 2);
            pooled.finish()
        };
        assert_eq!(pool(Pooling::Mean), [3.0, 3.0]);
        assert_eq!(pool(Pooling::Cls), [1.0, 2.0]);
        assert_eq!(pool(Pooling::Last), [5.0, 1.0]);
    }
}
