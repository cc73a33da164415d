//! What Gemma's config.json says beside sizes: windows, caps, and the scale of attention.

use gguf::Value;

use super::Sizes;
use crate::Error;
use crate::checkpoint::Entries;
use crate::json::Json;

/// Which blocks see only a window, and how far.
pub fn gemma3_keys(config: &Json, sizes: &Sizes) -> Result<Entries, Error> {
    const USUAL_PERIOD: u64 = 6;
    check_scale(config, sizes, 62)?;
    for key in ["final_logit_softcapping", "attn_logit_softcapping"] {
        if config.get(key).is_some() {
            return Err(config.wrong(key, "must be null in Gemma 3"));
        }
    }
    let window = config.count("sliding_window")?.unwrap_or(4096);
    let mut keys: Entries = vec![("attention.sliding_window".to_owned(), (window as u32).into())];
    if let Some(pattern) = pattern(config, sizes)? {
        let usual = (0..sizes.blocks).map(|block| !(block + 1).is_multiple_of(USUAL_PERIOD));
        if !pattern.iter().copied().eq(usual) {
            keys.push(("attention.sliding_window_pattern".to_owned(), Value::from(pattern)));
        }
        return Ok(keys);
    }
    let period = config.count("sliding_window_pattern")?.unwrap_or(USUAL_PERIOD);
    if period != USUAL_PERIOD {
        keys.push(("attention.sliding_window_pattern".to_owned(), (period as u32).into()));
    }
    Ok(keys)
}

/// Every other block has a window, beginning with the first; a GGUF cannot say anything else.
pub fn gemma2_keys(config: &Json, sizes: &Sizes) -> Result<Entries, Error> {
    check_scale(config, sizes, 46)?;
    let window = config.count("sliding_window")?.unwrap_or(4096);
    let mut keys: Entries = vec![("attention.sliding_window".to_owned(), (window as u32).into())];
    for (key, gguf, usual) in [
        ("attn_logit_softcapping", "attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", "final_logit_softcapping", 30.0),
    ] {
        let cap = config.float(key)?;
        // Absent, it is the usual one; null means none, which a GGUF has no word for.
        if config.map.contains_key(key) && cap.is_none_or(|cap| cap <= 0.0) {
            return Err(config.wrong(key, "must be above 0 in Gemma 2"));
        }
        keys.push((gguf.to_owned(), cap.unwrap_or(usual).into()));
    }
    let usual = (0..sizes.blocks).map(|block| block.is_multiple_of(2));
    match pattern(config, sizes)? {
        Some(pattern) if !pattern.iter().copied().eq(usual) => {
            Err(config
                .wrong("layer_types", "must have a window in every other layer, beginning with the first"))
        }
        _ => Ok(keys),
    }
}

/// For each block whether it sees only a window, where it is listed.
fn pattern(config: &Json, sizes: &Sizes) -> Result<Option<Vec<bool>>, Error> {
    let Some(listed) = config.array("layer_types")? else { return Ok(None) };
    if (listed.len() as u64) < sizes.blocks {
        let problem =
            format!("must have an entry for each of the {} layers, got {}", sizes.blocks, listed.len());
        return Err(config.wrong("layer_types", &problem));
    }
    let is_local = |value: &serde_json::Value| match value.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(config.wrong("layer_types", "must have \"sliding_attention\" and \"full_attention\" only")),
    };
    listed.iter().take(sizes.blocks as usize).map(is_local).collect::<Result<_, _>>().map(Some)
}

/// Queries are divided by the root of this, which no GGUF says: whoever runs it takes the length of a head, and in the
/// largest model, of so many blocks, the width for each head.
fn check_scale(config: &Json, sizes: &Sizes, largest: u64) -> Result<(), Error> {
    const USUAL: f32 = 256.0;
    let found = config.float("query_pre_attn_scalar")?.unwrap_or(USUAL);
    let expected = if sizes.blocks == largest { sizes.width / sizes.heads } else { sizes.head };
    match found == expected as f32 {
        true => Ok(()),
        false => {
            let problem = format!("must be {expected} in a model of this shape, got {found}");
            Err(config.wrong("query_pre_attn_scalar", &problem))
        }
    }
}
