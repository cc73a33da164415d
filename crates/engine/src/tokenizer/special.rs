//! Tokens with a role: where a sequence begins and ends, and how text is filled in. A file gives some by key; others
//! can only be told by how they are written, as llama.cpp does.

use std::collections::{HashMap, HashSet};

use gguf::Metadata;

use super::vocab::Kind;
use crate::Error;

/// Tokens that end a generation, by how they are written.
const END_OF_GENERATION: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// The keys of tokens that end a generation, and how such a token is written where the key is missing.
const ENDING_ROLES: &[(&str, &[&str])] = &[
    ("tokenizer.ggml.eot_token_id", &[]),
    ("tokenizer.ggml.eom_token_id", &[]),
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (
        "tokenizer.ggml.fim_rep_token_id",
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    ),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// The same for the three tokens around a gap; the second key of each is an older name.
const FIM_ROLES: [([&str; 2], &[&str]); 3] = [
    (
        ["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        ["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        ["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
];

/// Channel marks of gpt-oss: control tokens that a reader of the reply must see.
const VISIBLE: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// The tokens around a gap that the model is to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fim {
    pub prefix: u32,
    pub suffix: u32,
    pub middle: u32,
}

/// What an encoder takes for granted when a file does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub add_bos: bool,
    pub add_eos: bool,
    pub add_separator: bool,
    pub add_space_prefix: bool,
}

/// The roles of one vocabulary.
#[derive(Clone, Debug)]
pub(super) struct Special {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub fim: Option<Fim>,
    pub eog: HashSet<u32>,
    pub add_bos: bool,
    pub add_eos: bool,
    /// Between a query and a document, after the end of the query.
    pub separator: Option<u32>,
    pub add_separator: bool,
    pub add_space_prefix: bool,
}

/// Where roles are looked for: the keys of the file, and the tokens by how they are written.
pub(super) struct Finder<'a> {
    pub metadata: &'a Metadata,
    pub ids: &'a HashMap<&'a [u8], u32>,
    /// How many tokens there are.
    pub tokens: usize,
}

// === impl Finder ===

impl Finder<'_> {
    /// Finds the roles. Tokens that prove to be control tokens by their role become so in `kinds`.
    pub fn find(&self, defaults: Defaults, kinds: &mut [Kind]) -> Result<Special, Error> {
        let eos = self.keyed("tokenizer.ggml.eos_token_id", defaults.eos)?;
        let mut special = Special {
            bos: self.keyed("tokenizer.ggml.bos_token_id", defaults.bos)?,
            eos,
            // The first files spelled it so, and all later ones.
            separator: self.keyed("tokenizer.ggml.seperator_token_id", eos)?,
            add_separator: self.flag("tokenizer.ggml.add_sep_token", defaults.add_separator)?,
            unknown: self.keyed("tokenizer.ggml.unknown_token_id", defaults.unknown)?,
            fim: self.fim(kinds)?,
            eog: HashSet::new(),
            add_bos: self.flag("tokenizer.ggml.add_bos_token", defaults.add_bos)?,
            add_eos: self.flag("tokenizer.ggml.add_eos_token", defaults.add_eos)?,
            add_space_prefix: self.flag("tokenizer.ggml.add_space_prefix", defaults.add_space_prefix)?,
        };
        special.eog = self.end_of_generation(special.eos, kinds)?;
        let wanted = [(special.add_bos, special.bos, "bos"), (special.add_eos, special.eos, "eos")];
        for (add, token, name) in wanted {
            if add && token.is_none() {
                return Err(Error::InvalidKey {
                    key: format!("tokenizer.ggml.add_{name}_token"),
                    problem: format!("it is true, but there is no `tokenizer.ggml.{name}_token_id`"),
                });
            }
        }
        Ok(special)
    }

    fn fim(&self, kinds: &mut [Kind]) -> Result<Option<Fim>, Error> {
        let mut found = [None; 3];
        for (token, ([key, older], texts)) in found.iter_mut().zip(FIM_ROLES) {
            *token = self.keyed(older, None)?;
            *token = self.keyed(key, *token)?;
            *token = token.or_else(|| self.written(texts, kinds));
        }
        let [Some(prefix), Some(suffix), Some(middle)] = found else { return Ok(None) };
        Ok(Some(Fim { prefix, suffix, middle }))
    }

    fn end_of_generation(&self, eos: Option<u32>, kinds: &mut [Kind]) -> Result<HashSet<u32>, Error> {
        let mut eog: HashSet<u32> = eos.into_iter().collect();
        for (key, texts) in ENDING_ROLES {
            let keyed = self.keyed(key, None)?;
            eog.extend(keyed.or_else(|| self.written(texts, kinds)));
        }
        for text in END_OF_GENERATION {
            eog.extend(self.written(&[text], kinds));
        }
        // To most vocabularies it is the end of a sequence, but to Gemma an HTML tag, and then not a control token.
        eog.extend(self.id("</s>").filter(|&id| kinds[id as usize] == Kind::Control));
        for text in VISIBLE {
            self.mark(text, Kind::UserDefined, kinds);
        }
        // Harmony's <|end|> ends one message of several; what ends a reply are the others.
        let has = |text: &str| self.id(text).is_some_and(|id| eog.contains(&id));
        let is_harmony = has("<|return|>") && has("<|call|>");
        let is_solar = (has("<|call|>") || has("<|calls|>")) && has("<|flush|>");
        if (is_harmony || is_solar)
            && let Some(end) = self.mark("<|end|>", Kind::UserDefined, kinds)
        {
            eog.remove(&end);
        }
        Ok(eog)
    }

    /// The token that a key names. An id outside the vocabulary is ignored with a warning, as in llama.cpp.
    fn keyed(&self, key: &str, default: Option<u32>) -> Result<Option<u32>, Error> {
        let default = default.filter(|&id| (id as usize) < self.tokens);
        let Some(id) = self.metadata.u64(key)? else { return Ok(default) };
        match u32::try_from(id).ok().filter(|&id| (id as usize) < self.tokens) {
            Some(id) => Ok(Some(id)),
            None => {
                tracing::warn!(
                    key,
                    id,
                    tokens = self.tokens,
                    "the model names a token that it does not have"
                );
                Ok(default)
            }
        }
    }

    /// The first token that is written like one of `texts`; it becomes a control token.
    fn written(&self, texts: &[&str], kinds: &mut [Kind]) -> Option<u32> {
        texts.iter().find_map(|text| self.mark(text, Kind::Control, kinds))
    }

    fn mark(&self, text: &str, kind: Kind, kinds: &mut [Kind]) -> Option<u32> {
        let id = self.id(text)?;
        kinds[id as usize] = kind;
        Some(id)
    }

    fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text.as_bytes()).copied()
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        Ok(self.metadata.bool(key)?.unwrap_or(default))
    }
}
