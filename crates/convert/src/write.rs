//! Writes a plan: rows are read, widened, changed and quantized in pieces, on a few threads, and leave in order.

use std::io::Write;
use std::ops::ControlFlow;

use engine::quantize::{is_plain, quantize, widen};
use gguf::{TensorType, Writer};

use crate::Error;
use crate::plan::{Change, Data, Plan, Planned};
use crate::source::Span;

/// Numbers that a thread takes at once: as floats, some megabytes.
const PIECE: u64 = 1 << 20;

/// Says how many bytes of the source are done; a break ends the work.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// `types` has for each tensor the type that it gets.
pub(crate) fn write(
    plan: &Plan,
    types: &[TensorType],
    threads: usize,
    out: &mut dyn Write,
    tell: Tell<'_>,
) -> Result<(), Error> {
    let mut writer = Writer::new();
    for (key, value) in &plan.metadata {
        writer.metadata(key.clone(), value.clone())?;
    }
    for (tensor, &kind) in plan.tensors.iter().zip(types) {
        writer.declare(tensor.name.clone(), &tensor.shape, kind)?;
    }
    let mut done = 0;
    writer.write_with(out, |at, out| {
        let tensor = &plan.tensors[at];
        let mut progress = |bytes| {
            done += bytes;
            match tell(done) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Canceled),
            }
        };
        write_tensor(tensor, types[at], threads, out, &mut progress)
    })
}

fn write_tensor(
    tensor: &Planned,
    kind: TensorType,
    threads: usize,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let pieces = pieces(tensor);
    for round in pieces.chunks(threads.max(1)) {
        let made: Vec<Result<Vec<u8>, Error>> = match round {
            [piece] => vec![piece.make(tensor, kind)],
            _ => std::thread::scope(|scope| {
                let threads: Vec<_> =
                    round.iter().map(|piece| scope.spawn(|| piece.make(tensor, kind))).collect();
                let lost = || Err(Error::tensor(&tensor.name, "cannot be converted: a thread has died"));
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
            }),
        };
        for (made, piece) in made.into_iter().zip(round) {
            out.write_all(&made?).map_err(gguf::Error::Write)?;
            progress(piece.source_bytes(tensor))?;
        }
    }
    Ok(())
}

/// Some rows.
struct Piece {
    first: u64,
    rows: u64,
}

/// As many rows at once as make [`PIECE`] numbers; rows that change places stay together.
fn pieces(tensor: &Planned) -> Vec<Piece> {
    if tensor.is_transposed {
        // A row of it lies all over the file. Only adapters have such, and theirs are narrow.
        return vec![Piece { first: 0, rows: tensor.rows() }];
    }
    let group = match tensor.change {
        Change::Interleave { head_rows } => head_rows,
        Change::Nothing | Change::AddOne => 1,
    };
    let (rows, cols) = match tensor.change {
        // The heads of a bias are parts of its only row.
        Change::Interleave { .. } if tensor.shape.len() == 1 => (tensor.cols(), 1),
        _ => (tensor.rows(), tensor.cols()),
    };
    let at_once = (PIECE / (cols * group).max(1)).max(1) * group;
    let starts = (0..rows).step_by(usize::try_from(at_once).unwrap_or(usize::MAX));
    starts.map(|first| Piece { first, rows: at_once.min(rows - first) }).collect()
}

// === impl Piece ===

impl Piece {
    fn cols(tensor: &Planned) -> u64 {
        if matches!(tensor.change, Change::Interleave { .. }) && tensor.shape.len() == 1 {
            1
        } else {
            tensor.cols()
        }
    }

    fn source_bytes(&self, tensor: &Planned) -> u64 {
        self.bytes(tensor, self.rows)
    }

    fn bytes(&self, tensor: &Planned, rows: u64) -> u64 {
        rows * Piece::cols(tensor) / tensor.kind.block_elements() * tensor.kind.block_bytes()
    }

    fn make(&self, tensor: &Planned, kind: TensorType) -> Result<Vec<u8>, Error> {
        if !is_plain(tensor.kind) {
            // Quantized already, and only ever copied.
            let Data::Stored(span) = &tensor.data else {
                return Err(Error::tensor(&tensor.name, "has no bytes in a file"));
            };
            return self.read(tensor, span);
        }
        let count = (self.rows * Piece::cols(tensor)) as usize;
        let mut values = Vec::with_capacity(count);
        self.numbers(tensor, &tensor.data, &mut values)?;
        if tensor.is_transposed {
            values = transpose(&values, self.rows as usize);
        }
        match tensor.change {
            Change::Nothing => {}
            Change::AddOne => values.iter_mut().for_each(|value| *value += 1.0),
            Change::Interleave { head_rows } => {
                values = interleave(&values, head_rows as usize, Piece::cols(tensor) as usize);
            }
        }
        let mut made = Vec::new();
        quantize(kind, &values, &mut made)
            .map_err(|source| Error::Quantize { tensor: tensor.name.clone(), source })?;
        Ok(made)
    }

    /// Adds the rows of `data`, which is the tensor's or a part of it.
    fn numbers(&self, tensor: &Planned, data: &Data, values: &mut Vec<f32>) -> Result<(), Error> {
        match data {
            Data::Stored(span) => {
                let bytes = self.read(tensor, span)?;
                let wrong = || Error::tensor(&tensor.name, format!("cannot be read as {}", tensor.kind));
                widen(tensor.kind, &bytes, values).ok_or_else(wrong)?;
            }
            Data::Fp8(fp8) => fp8.rows(self.first, self.rows, values)?,
            Data::Joined { parts, rows } => {
                let (mut at, end) = (self.first, self.first + self.rows);
                while at < end {
                    let (part, first) = (at / rows, at % rows);
                    let piece = Piece { first, rows: (rows - first).min(end - at) };
                    piece.numbers(tensor, &parts[part as usize], values)?;
                    at += piece.rows;
                }
            }
            Data::Values(all) => {
                let cols = Piece::cols(tensor);
                values.extend_from_slice(&all[(self.first * cols) as usize..][..(self.rows * cols) as usize]);
            }
        }
        Ok(())
    }

    fn read(&self, tensor: &Planned, span: &Span) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.bytes(tensor, self.rows) as usize];
        span.read(self.bytes(tensor, self.first), &mut bytes)?;
        Ok(bytes)
    }
}

/// Columns of so many numbers, as rows.
fn transpose(values: &[f32], rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|row| values.iter().skip(row).step_by(rows).copied()).collect()
}

/// Whole heads, of which the rows of both halves take turns.
fn interleave(values: &[f32], head_rows: usize, cols: usize) -> Vec<f32> {
    let mut changed = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_rows * cols) {
        for pair in 0..head_rows / 2 {
            changed.extend_from_slice(&head[pair * cols..][..cols]);
            changed.extend_from_slice(&head[(head_rows / 2 + pair) * cols..][..cols]);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        // Stored as three rows of two.
        assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    }

    #[test]
    fn halves_take_turns_within_a_head() {
        // Two heads of four rows of two.
        let rows: Vec<f32> = (0..8).flat_map(|row| [row as f32, row as f32 + 0.5]).collect();
        let changed = interleave(&rows, 4, 2);
        let firsts: Vec<f32> = changed.iter().step_by(2).copied().collect();
        assert_eq!(firsts, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(changed[3], 2.5);
    }
}
