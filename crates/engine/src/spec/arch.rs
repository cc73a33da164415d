//! The arch table: what a GGUF file cannot say about its architecture. A new architecture is a row here.

use crate::{Error, kernels::activation::Activation, kernels::rope::Pairing};

/// One row: the facts that are neither metadata nor the presence of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arch {
    /// `general.architecture`, and the prefix of the metadata keys.
    pub name: &'static str,
    /// How positions turn heads; `None` = they do not, and are rows of a table that are added to those of the tokens.
    pub pairing: Option<Pairing>,
    pub activation: Activation,
    /// Whether a feed-forward body multiplies by a second map.
    pub is_gated: bool,
    pub norm: NormKind,
    pub layout: Layout,
    /// An embedder has no language head.
    pub has_head: bool,
    /// What a mixture of experts is like; `None` = there is none.
    pub experts: Option<ExpertsRow>,
    /// Token rows are multiplied by the square root of the width.
    pub scaled_embedding: bool,
    pub window: Option<WindowRow>,
    /// Attention and output soft-caps where the file names none.
    pub soft_caps: Option<(f32, f32)>,
    /// The one size, told by its number of blocks, whose queries are scaled by width / heads, not by the head.
    pub wide_head_blocks: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    RootMeanSquare,
    /// Also takes the mean away; may have biases.
    Layer,
}

/// Where the norms of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Before each of its two branches.
    Before,
    /// The same; but in a block without a norm before its feed-forward branch, that one takes in what attention
    /// takes in: the two are parallel.
    BeforeOrShared,
    /// After each branch, of the stream that it has added to; the embedding has one, too.
    After,
}

/// What no key says about experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ExpertsRow {
    /// The weights of the chosen experts are made to sum to one.
    pub is_normalised: bool,
    /// Files without experts are models of the same architecture.
    pub is_optional: bool,
}

/// How sliding-window attention is spread over the blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct WindowRow {
    /// The last block of each period sees everything, the others their window.
    pub period: usize,
    /// The window where the file names none; `None` = then there is no window.
    pub default_tokens: Option<usize>,
    /// The rope base of blocks with a window where the file names none; `None` = as everywhere, scaling included.
    pub local_base: Option<f32>,
}

const LLAMA: Arch = Arch {
    name: "llama",
    pairing: Some(Pairing::Neighbours),
    activation: Activation::Silu,
    is_gated: true,
    norm: NormKind::RootMeanSquare,
    layout: Layout::Before,
    has_head: true,
    experts: Some(ExpertsRow { is_normalised: true, is_optional: true }),
    scaled_embedding: false,
    window: None,
    soft_caps: None,
    wide_head_blocks: None,
};
const QWEN: Arch = Arch { name: "qwen2", pairing: Some(Pairing::Halves), experts: None, ..LLAMA };
const STABLELM: Arch =
    Arch { name: "stablelm", norm: NormKind::Layer, layout: Layout::BeforeOrShared, ..QWEN };
const BERT: Arch = Arch {
    name: "bert",
    pairing: None,
    activation: Activation::ExactGelu,
    is_gated: false,
    norm: NormKind::Layer,
    layout: Layout::After,
    has_head: false,
    ..QWEN
};
const GEMMA: Arch = Arch { name: "gemma", activation: Activation::Gelu, scaled_embedding: true, ..QWEN };

pub(crate) const TABLE: &[Arch] = &[
    LLAMA,
    QWEN,
    Arch { name: "qwen3", ..QWEN },
    Arch { name: "qwen2moe", experts: Some(ExpertsRow { is_normalised: false, is_optional: false }), ..QWEN },
    Arch { name: "qwen3moe", experts: Some(ExpertsRow { is_normalised: true, is_optional: false }), ..QWEN },
    // Phi-3 files name a window, but their models were trained to see everything within their context.
    Arch { name: "phi3", ..QWEN },
    Arch { name: "phi2", activation: Activation::Gelu, is_gated: false, ..STABLELM },
    STABLELM,
    BERT,
    Arch {
        name: "nomic-bert",
        pairing: Some(Pairing::Halves),
        activation: Activation::Silu,
        is_gated: true,
        ..BERT
    },
    GEMMA,
    Arch {
        name: "gemma2",
        window: Some(WindowRow { period: 2, default_tokens: Some(4096), local_base: None }),
        soft_caps: Some((50.0, 30.0)),
        wide_head_blocks: Some(46),
        ..GEMMA
    },
    Arch {
        name: "gemma3",
        window: Some(WindowRow { period: 6, default_tokens: None, local_base: Some(10_000.0) }),
        wide_head_blocks: Some(62),
        ..GEMMA
    },
];

/// Whether a model of this architecture can be loaded.
pub fn is_supported(architecture: &str) -> bool {
    TABLE.iter().any(|row| row.name == architecture)
}

pub(crate) fn row(architecture: &str) -> Result<&'static Arch, Error> {
    TABLE.iter().find(|row| row.name == architecture).ok_or_else(|| Error::UnsupportedArchitecture {
        name: architecture.to_owned(),
        supported: TABLE.iter().map(|row| row.name).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_has_one_row() {
        for (at, arch) in TABLE.iter().enumerate() {
            assert!(is_supported(arch.name));
            assert!(TABLE[..at].iter().all(|other| other.name != arch.name), "{} twice", arch.name);
        }
        assert!(!is_supported("mamba"));
    }

    #[test]
    fn an_unsupported_architecture_is_named_beside_the_supported_ones() {
        let text = row("mamba").unwrap_err().to_string();
        assert_eq!(
            text,
            "unsupported architecture \"mamba\"; supported: llama, qwen2, qwen3, qwen2moe, qwen3moe, phi3, phi2, stablelm, bert, nomic-bert, gemma, gemma2, gemma3"
        );
    }
}
