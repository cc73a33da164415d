//! The mixtures: which tensor of a model gets which type when the file as a whole is to be Q4_K_M and the like.
//!
//! The rules are llama.cpp's, fact by fact (its `llama-quant.cpp`), for the architectures that the engine runs, because
//! the names promise them: a file that calls itself Q4_K_M is as large and as good as everybody's. A test holds the
//! types to what llama.cpp itself chooses.

use gguf::{Quantization, TensorType};

/// The shape of a tensor, and what it is called in a GGUF.
#[derive(Clone, Copy, Debug)]
pub struct Outline<'a> {
    pub name: &'a str,
    /// ggml's: the contiguous dimension first.
    pub shape: &'a [u64],
}

/// What the choice depends on beside the tensors.
#[derive(Clone, Debug)]
pub struct Mix<'a> {
    pub quantization: Quantization,
    pub architecture: &'a str,
    pub blocks: u64,
    pub experts: u64,
    /// Fewer heads of keys than of queries.
    pub shares_heads: bool,
}

/// Tensors with one of these in their names are small, or spoil everything when they lose precision.
const KEPT: [&str; 5] =
    ["_norm.weight", "ffn_gate_inp.weight", ".position_embd", ".patch_embd", ".patch_merger"];
/// These, by their whole names.
const KEPT_TABLES: [&str; 2] = ["position_embd.weight", "token_types.weight"];

/// What a matrix is for, as far as the mixtures care.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The language head, or the embedding of a model that has none.
    Head,
    /// Values, alone or fused with queries and keys.
    Values,
    Keys,
    AttentionOutput,
    Down,
    Other,
}

// === impl Mix ===

impl Mix<'_> {
    /// For each tensor the type that it gets, `None` where it stays as it is.
    pub fn types(&self, tensors: &[Outline<'_>]) -> Vec<Option<TensorType>> {
        let has_head = tensors.iter().any(|tensor| tensor.name == "output.weight");
        let roles: Vec<Role> = tensors.iter().map(|tensor| role(tensor.name, has_head)).collect();
        let all_values = roles.iter().filter(|role| matches!(role, Role::Values)).count() as u64;
        // The n-th tensor of a role is told by the order of blocks, whatever the order in the file.
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        order.sort_by_key(|&at| (block(tensors[at].name), tensors[at].name));
        let (mut values, mut downs) = (0, 0);
        let mut types = vec![None; tensors.len()];
        for at in order {
            let tensor = tensors[at];
            if !is_quantized(tensor) {
                continue;
            }
            let place = match roles[at] {
                Role::Values => (values, all_values),
                // Where each block has several, one for all experts and one beside them, they are not counted.
                _ if self.experts > 1 => (block(tensor.name).max(0) as u64, self.blocks),
                _ => (downs, self.blocks),
            };
            values += u64::from(roles[at] == Role::Values);
            downs += u64::from(roles[at] == Role::Down);
            types[at] = Some(self.kind(tensor, roles[at], place));
        }
        types
    }

    /// `place` is the number of this tensor among those of its role, and how many there are.
    fn kind(&self, tensor: Outline<'_>, role: Role, place: (u64, u64)) -> TensorType {
        use TensorType::{BF16, F16, F32, Q8_0};
        let main = self.quantization.main_type();
        if matches!(main, F32 | F16 | BF16) {
            return main;
        }
        let cols = tensor.shape.first().copied().unwrap_or(1);
        let kind = match role {
            Role::Head if !cols.is_multiple_of(main.block_elements()) => Q8_0,
            Role::Head if main != Q8_0 => TensorType::Q6K,
            Role::Values => self.values(main, place),
            Role::Keys if self.experts == 8 => Q8_0,
            Role::Down => self.down(main, place),
            Role::AttentionOutput if self.experts == 8 && main == TensorType::Q4K => TensorType::Q5K,
            _ => main,
        };
        fall_back(kind, cols)
    }

    fn values(&self, main: TensorType, (at, all): (u64, u64)) -> TensorType {
        let kind = match self.quantization {
            Quantization::Q4_K_M | Quantization::Q5_K_M if deserves_more(at, all) => TensorType::Q6K,
            Quantization::Q4_K_S if at < 4 => TensorType::Q5K,
            _ => main,
        };
        // One of eight experts' attention is small beside its experts.
        if self.experts == 8 {
            return TensorType::Q8_0;
        }
        // In a model of 70B eight heads share their values, so that these are an eighth of the queries: cheap to do well.
        let is_70b = self.blocks == 80
            && (self.architecture == "qwen2" || self.architecture == "llama" && self.shares_heads);
        if is_70b && kind == TensorType::Q4K { TensorType::Q5K } else { kind }
    }

    fn down(&self, main: TensorType, (at, all): (u64, u64)) -> TensorType {
        use TensorType::{Q5K, Q6K};
        match self.quantization {
            Quantization::Q4_K_M | Quantization::Q5_K_M if deserves_more(at, all) => Q6K,
            Quantization::Q4_K_S if at < all / 8 => Q5K,
            _ => main,
        }
    }
}

fn role(name: &str, has_head: bool) -> Role {
    let is = |part: &str| name.contains(part);
    match name {
        "output.weight" => Role::Head,
        "token_embd.weight" | "per_layer_token_embd.weight" if !has_head => Role::Head,
        "token_embd.weight" | "per_layer_token_embd.weight" => Role::Other,
        _ if is("attn_qkv.weight") || is("attn_v.weight") => Role::Values,
        _ if is("attn_k.weight") => Role::Keys,
        _ if is("attn_q.weight") => Role::Other,
        _ if is("attn_output.weight") => Role::AttentionOutput,
        _ if is("ffn_up") || is("ffn_gate") => Role::Other,
        _ if is("ffn_down") => Role::Down,
        _ => Role::Other,
    }
}

/// The number in `blk.N.`, -1 for what belongs to no block.
fn block(name: &str) -> i64 {
    let number = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    number.and_then(|(number, _)| number.parse().ok()).unwrap_or(-1)
}

/// Matrices whose names do not say that they are delicate.
fn is_quantized(tensor: Outline<'_>) -> bool {
    // Trailing dimensions of one do not count.
    let dimensions = tensor.shape.iter().rposition(|&size| size > 1).map_or(1, |last| last + 1);
    dimensions >= 2
        && tensor.name.ends_with("weight")
        && !KEPT_TABLES.contains(&tensor.name)
        && !KEPT.iter().any(|part| tensor.name.contains(part))
}

/// The first and the last eighth of the blocks, and every third between.
fn deserves_more(at: u64, all: u64) -> bool {
    at < all / 8 || at >= 7 * all / 8 || (at - all / 8) % 3 == 2
}

/// Rows that are no whole number of blocks get the next larger type of smaller blocks.
fn fall_back(kind: TensorType, cols: u64) -> TensorType {
    let fits = |kind: TensorType| cols.is_multiple_of(kind.block_elements());
    let smaller = match kind {
        _ if fits(kind) => return kind,
        TensorType::Q4K => TensorType::Q5_0,
        TensorType::Q5K => TensorType::Q5_1,
        _ => TensorType::Q8_0,
    };
    if fits(smaller) { smaller } else { TensorType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(quantization: Quantization) -> Mix<'static> {
        Mix { quantization, architecture: "llama", blocks: 16, experts: 0, shares_heads: true }
    }

    fn kind_of(mix: &Mix<'_>, name: &str, shape: &[u64]) -> Option<TensorType> {
        mix.types(&[Outline { name, shape }])[0]
    }

    #[test]
    fn vectors_norms_and_tables_stay_as_they_are() {
        let mix = mix(Quantization::Q4_K_M);
        let kept: [(&str, &[u64]); 6] = [
            ("blk.0.attn_q.bias", &[256]),
            ("blk.0.attn_norm.weight", &[256]),
            ("blk.0.ffn_gate_inp.weight", &[256, 8]),
            ("token_types.weight", &[256, 2]),
            ("blk.0.attn_q.weight", &[256, 1, 1]),
            ("rope_freqs.weight", &[32]),
        ];
        for (name, shape) in kept {
            assert_eq!(kind_of(&mix, name, shape), None, "{name}");
        }
        assert_eq!(kind_of(&mix, "blk.0.attn_q.weight", &[256, 256]), Some(TensorType::Q4K));
    }

    #[test]
    fn rows_that_are_no_whole_blocks_fall_back() {
        let cases = [
            (Quantization::Q4_K_M, 96, TensorType::Q5_0),
            (Quantization::Q5_K_M, 96, TensorType::Q5_1),
            (Quantization::Q6_K, 96, TensorType::Q8_0),
            (Quantization::Q4_K_M, 100, TensorType::F16),
            (Quantization::Q8_0, 100, TensorType::F16),
            (Quantization::Q8_0, 96, TensorType::Q8_0),
        ];
        for (quantization, cols, expected) in cases {
            let found = kind_of(&mix(quantization), "blk.0.attn_q.weight", &[cols, 64]);
            assert_eq!(found, Some(expected), "{quantization} of {cols}");
        }
    }

    #[test]
    fn the_order_in_the_file_does_not_matter() {
        let names: Vec<String> = (0..16).map(|block| format!("blk.{block}.ffn_down.weight")).collect();
        let outlines: Vec<Outline<'_>> =
            names.iter().map(|name| Outline { name, shape: &[256, 256] }).collect();
        let forwards = mix(Quantization::Q4_K_M).types(&outlines);
        let mut backwards =
            mix(Quantization::Q4_K_M).types(&outlines.iter().rev().copied().collect::<Vec<_>>());
        backwards.reverse();
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.iter().filter(|kind| **kind == Some(TensorType::Q6K)).count(), 8);
    }
}
