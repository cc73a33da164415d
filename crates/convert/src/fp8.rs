//! Weights of eight bits, as DeepSeek and others after it publish theirs: numbers of a sign, four bits of exponent and
//! three of fraction (E4M3), and beside them what all of them, a row of them or a block of them is multiplied with.
//!
//! Format: <https://arxiv.org/abs/2209.05433>.

use std::sync::Arc;

use engine::quantize::widen;

use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::safetensors::Stored;
use crate::source::Span;

pub(crate) const DTYPE: &str = "F8_E4M3";
/// How the names of scales end, behind the name of the weights.
pub(crate) const SCALES: [&str; 2] = ["_scale_inv", "_scale"];
/// Where config.json does not say: rows and columns that have one scale.
const USUAL_BLOCK: (u64, u64) = (128, 128);

/// A matrix of them.
#[derive(Clone, Debug)]
pub(crate) struct Fp8 {
    span: Span,
    cols: u64,
    scales: Arc<[f32]>,
    block: (u64, u64),
}

/// Rows and columns of a block.
pub(crate) fn block(checkpoint: &Checkpoint<'_>) -> Result<(u64, u64), Error> {
    const KEY: &str = "weight_block_size";
    let Some(config) = checkpoint.config.object("quantization_config")? else { return Ok(USUAL_BLOCK) };
    let Some(sizes) = config.array(KEY)? else { return Ok(USUAL_BLOCK) };
    let sizes: Vec<u64> = sizes.iter().filter_map(|size| size.as_u64().filter(|size| *size > 0)).collect();
    match sizes[..] {
        [rows, cols] => Ok((rows, cols)),
        _ => Err(config.wrong(KEY, "must be two integers above 0")),
    }
}

// === impl Fp8 ===

impl Fp8 {
    /// `block` is the usual one of the checkpoint; the scales' own shape tells whether it is meant.
    pub fn new(
        name: &str,
        stored: &Stored,
        scales: Option<&Stored>,
        block: (u64, u64),
    ) -> Result<Fp8, Error> {
        let &[rows, cols] = stored.shape.as_slice() else {
            return Err(Error::tensor(name, format!("of {DTYPE} must be a matrix, got {:?}", stored.shape)));
        };
        let [first, second] = SCALES;
        let missing =
            || Error::tensor(name, format!("needs its scales, `{name}{first}` or `{name}{second}`"));
        let scales = scales.ok_or_else(missing)?;
        let of_blocks = [rows.div_ceil(block.0), cols.div_ceil(block.1)];
        let block = match scales.shape.as_slice() {
            [] | [1] => (rows, cols),
            shape if *shape == [rows] || *shape == [rows, 1] => (1, cols),
            shape if *shape == of_blocks => block,
            shape => {
                let problem =
                    format!("has scales of shape {shape:?}, they must be one, {rows} or {of_blocks:?}");
                return Err(Error::tensor(name, problem));
            }
        };
        let mut values = Vec::new();
        widen(scales.kind, &scales.span.all()?, &mut values).ok_or_else(|| {
            Error::tensor(name, format!("has scales of {}, they must be floats", scales.kind))
        })?;
        // An empty matrix has no block; a row of it is never asked for.
        Ok(Fp8 {
            span: stored.span.clone(),
            cols,
            scales: values.into(),
            block: (block.0.max(1), block.1.max(1)),
        })
    }

    /// Adds rows as numbers.
    pub fn rows(&self, first: u64, rows: u64, into: &mut Vec<f32>) -> Result<(), Error> {
        let mut bytes = vec![0; (rows * self.cols) as usize];
        self.span.read(first * self.cols, &mut bytes)?;
        let table: [f32; 256] = std::array::from_fn(|byte| number(byte as u8));
        let across = self.cols.div_ceil(self.block.1);
        for (row, bytes) in (first..).zip(bytes.chunks_exact(self.cols as usize)) {
            let scales = &self.scales[(row / self.block.0 * across) as usize..];
            let parts = bytes.chunks(self.block.1 as usize).zip(scales);
            for (part, scale) in parts {
                into.extend(part.iter().map(|byte| table[usize::from(*byte)] * scale));
            }
        }
        Ok(())
    }
}

/// What a byte stands for. There are no infinities, and one NaN of each sign.
fn number(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2f32.powi(-6),
        _ => (1.0 + fraction) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stand_for_the_numbers_of_the_paper() {
        for (byte, expected) in [(0x00, 0.0), (0x01, 1.0 / 512.0), (0x07, 7.0 / 512.0), (0x08, 1.0 / 64.0)] {
            assert_eq!(number(byte), expected);
        }
        assert_eq!([0x38, 0x3c, 0x7e, 0xb8, 0xfe].map(number), [1.0, 1.5, 448.0, -1.0, -448.0]);
        assert!(number(0x7f).is_nan() && number(0xff).is_nan());
    }
}
