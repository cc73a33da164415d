//! The head of a reranker: from the row that stands for a query and a document to a logit.
//!
//! A BERT has a map, a hyperbolic tangent, and a map to one label. A language model that answers yes or no has the rows
//! of those two words. It is a few rows per call, so the host computes it, whoever computes the blocks.

use crate::{
    Error,
    compute::Compute,
    kernels::rows::Rows,
    linear::Linear,
    model::RANKS_NOTHING,
    spec::Spec,
    weights::{Backend, Weights},
};

pub(crate) struct Ranker {
    /// Before the hyperbolic tangent.
    dense: Option<Linear>,
    /// To labels; without it the first value of what is before it counts.
    output: Option<Linear>,
    /// Whether all labels share one certainty, of which the first one's part counts.
    has_rivals: bool,
}

impl Ranker {
    /// `None` for a model that is no reranker.
    pub fn load<B: Backend>(weights: &mut Weights<'_, B>, spec: &Spec) -> Result<Option<Ranker>, Error> {
        if !spec.is_reranker {
            return Ok(None);
        }
        let dense = weights.host_linear("cls", spec.width)?;
        let width = dense.as_ref().map_or(spec.width, Linear::rows);
        let output = weights.host_linear("cls.output", width)?;
        if dense.is_none() && output.is_none() {
            return Err(Error::MissingTensor { name: "cls.output.weight".to_owned() });
        }
        Ok(Some(Ranker { dense, output, has_rivals: spec.is_causal }))
    }

    /// A logit for each of `rows`, [n, width].
    pub fn rank(ranker: Option<&Ranker>, compute: &Compute, rows: &[f32]) -> Result<Vec<f32>, Error> {
        let Ranker { dense, output, has_rivals } = ranker.ok_or(RANKS_NOTHING)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = rows.to_vec();
        let mut labels = 1;
        if let Some(dense) = dense {
            values = apply(compute, dense, &values); // [n, dense]
            values.iter_mut().for_each(|value| *value = value.tanh());
            labels = dense.rows();
        }
        if let Some(output) = output {
            values = apply(compute, output, &values); // [n, labels]
            labels = output.rows();
        }
        let logit = |row: &[f32]| if *has_rivals { against_rivals(row) } else { row[0] };
        let logits: Vec<f32> = values.chunks_exact(labels).map(logit).collect();
        match logits.iter().all(|logit| logit.is_finite()) {
            true => Ok(logits),
            false => {
                Err(Error::NotFinite { what: "what the classification head (`cls`) computed".to_owned() })
            }
        }
    }
}

/// [n, cols] to [n, rows].
fn apply(compute: &Compute, linear: &Linear, values: &[f32]) -> Vec<f32> {
    let cols = linear.cols();
    let mut input = Rows::default();
    let fill = |row: usize, to: &mut [f32]| to.copy_from_slice(&values[row * cols..][..cols]);
    input.fill((&compute.pool, compute.cpu), (values.len() / cols, cols), Linear::forms([linear]), fill);
    let mut out = Vec::new();
    Linear::forward(compute, &input, &mut [(linear, &mut out)]);
    out
}

/// The logit of the first label's part of the softmax over all.
fn against_rivals(row: &[f32]) -> f32 {
    let [first, rivals @ ..] = row else { return 0.0 };
    let largest = rivals.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    match rivals {
        [] => *first,
        _ => first - largest - rivals.iter().map(|rival| (rival - largest).exp()).sum::<f32>().ln(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logit_of_yes_is_how_far_it_is_above_no() {
        assert_eq!(against_rivals(&[3.0, 1.0]), 2.0);
        assert_eq!(against_rivals(&[1.0]), 1.0);
        let [yes, no, maybe] = [0.2f32, 0.3, 0.5];
        let found = against_rivals(&[yes.ln(), no.ln(), maybe.ln()]);
        assert!((found - (yes / (1.0 - yes)).ln()).abs() < 1e-6, "{found}");
    }
}
