//! How positions turn heads: the base, and what stretches it for contexts longer than those of the training.

use std::f32::consts::TAU;

use gguf::{TensorType, Value};

use crate::Error;
use crate::checkpoint::Entries;
use crate::json::Json;
use crate::plan::{Change, Data, Planned};

pub(super) struct Rope {
    pub keys: Entries,
    /// What each frequency is divided by; not written in metadata but as tensors.
    pub factors: Vec<Planned>,
}

/// config.json says it in `rope_theta` and `rope_scaling`, or in `rope_parameters`, which newer libraries write: for all
/// blocks, or once for those with a window and once for the others.
pub(super) fn read(config: &Json, default_base: f32, head: u64) -> Result<Rope, Error> {
    let parameters = config.object("rope_parameters")?;
    let of_kind = |kind: &str| match &parameters {
        Some(parameters) => parameters.object(kind),
        None => Ok(None),
    };
    let (full, local) = (of_kind("full_attention")?, of_kind("sliding_attention")?);
    let global = full.or(parameters);
    let theta = |json: &Option<Json>| json.as_ref().map_or(Ok(None), |json| json.float("rope_theta"));
    let base = theta(&global)?.or(config.float("rope_theta")?).unwrap_or(default_base);
    if base <= 0.0 {
        return Err(config.wrong("rope_theta", &format!("must be above 0, got {base}")));
    }
    let mut keys: Entries = vec![("rope.freq_base".to_owned(), base.into())];
    if let Some(base) = theta(&local)?.or(config.float("rope_local_base_freq")?) {
        keys.push(("rope.freq_base_swa".to_owned(), base.into()));
    }
    let mut rope = Rope { keys, factors: Vec::new() };
    if let Some(scaling) = config.object("rope_scaling")?.or(global) {
        rope.scale(&scaling, base, head)?;
    }
    Ok(rope)
}

// === impl Rope ===

impl Rope {
    fn scale(&mut self, scaling: &Json, base: f32, head: u64) -> Result<(), Error> {
        // The older name is `type`.
        let key = if scaling.get("rope_type").is_some() { "rope_type" } else { "type" };
        match scaling.text(key)?.unwrap_or("default") {
            "default" => {}
            kind @ ("linear" | "yarn") => {
                self.put("type", kind.into());
                self.put("factor", factor(scaling, "factor")?.into());
                if let Some(original) = scaling.count("original_max_position_embeddings")? {
                    self.put("original_context_length", (original as u32).into());
                }
            }
            "llama3" => self.factors.push(factors("rope_freqs", llama3(scaling, base, head)?)),
            other => {
                let problem = format!("must be default, linear, yarn or llama3, got {other:?}");
                return Err(scaling.wrong(key, &problem));
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &str, value: Value) {
        self.keys.push((format!("rope.scaling.{key}"), value));
    }
}

fn factor(scaling: &Json, key: &str) -> Result<f32, Error> {
    match scaling.float(key)? {
        Some(factor) if factor > 0.0 => Ok(factor),
        Some(factor) => Err(scaling.wrong(key, &format!("must be above 0, got {factor}"))),
        None => Err(scaling.missing(key)),
    }
}

/// The same where a part of a head may turn, and frequencies have factors of their own: one set for texts that are no
/// longer than those of the first training, one for all others. `head` and `positions` are sizes.
pub(super) fn read_long(
    config: &Json,
    default_base: f32,
    (head, positions): (u64, u64),
) -> Result<Rope, Error> {
    let parameters = config.object("rope_parameters")?;
    let scaling = config.object("rope_scaling")?.or(parameters.clone());
    let part =
        match parameters.as_ref().map(|json| json.float("partial_rotary_factor")).transpose()?.flatten() {
            Some(part) => part,
            None => config.float("partial_rotary_factor")?.unwrap_or(1.0),
        };
    let turned = (head as f32 * part) as u64;
    if !(part > 0.0 && part <= 1.0) || turned == 0 || !turned.is_multiple_of(2) {
        let problem = format!("must leave an even part of the head, {head}, got {part}");
        return Err(config.wrong("partial_rotary_factor", &problem));
    }
    let kind = match &scaling {
        Some(scaling) if scaling.get("rope_type").is_some() => scaling.text("rope_type")?,
        Some(scaling) => scaling.text("type")?,
        None => None,
    };
    // The first name is the older one.
    let (Some("su" | "longrope"), Some(scaling)) = (kind, &scaling) else {
        let mut rope = read(config, default_base, head)?;
        rope.keys.push(("rope.dimension_count".to_owned(), (turned as u32).into()));
        return Ok(rope);
    };
    let base = scaling.float("rope_theta")?.or(config.float("rope_theta")?).unwrap_or(default_base);
    if base <= 0.0 {
        return Err(config.wrong("rope_theta", &format!("must be above 0, got {base}")));
    }
    let original = match scaling.count("original_max_position_embeddings")? {
        Some(original) => original,
        None => config.expect_count("original_max_position_embeddings")?,
    };
    let stretch = positions as f32 / original as f32;
    let magnitude = match scaling.float("attention_factor")? {
        Some(magnitude) => magnitude,
        // Attention over more positions is spread thinner; the formula is LongRoPE's.
        None if stretch > 1.0 => (1.0 + stretch.ln() / (original as f32).ln()).sqrt(),
        None => 1.0,
    };
    if !(magnitude > 0.0 && magnitude.is_finite()) {
        let problem =
            format!("must be above 0 and leave a magnitude, it is {magnitude} over {original} positions");
        return Err(scaling.wrong("attention_factor", &problem));
    }
    let keys = [
        ("freq_base", base.into()),
        ("dimension_count", (turned as u32).into()),
        ("scaling.attn_factor", Value::from(magnitude)),
        ("scaling.original_context_length", (original as u32).into()),
    ];
    let set = |key: &str| -> Result<Planned, Error> {
        let values = scaling.array(key)?.ok_or_else(|| scaling.missing(key))?;
        let numbers: Option<Vec<f32>> = values
            .iter()
            .map(|value| value.as_f64().map(|value| value as f32).filter(|value| *value > 0.0))
            .collect();
        let numbers = numbers.filter(|numbers| numbers.len() as u64 == turned / 2);
        let problem = format!("must be a list of {} numbers above 0", turned / 2);
        let name = format!("rope_factors_{}", key.trim_end_matches("_factor"));
        numbers.map(|numbers| factors(&name, numbers)).ok_or_else(|| scaling.wrong(key, &problem))
    };
    Ok(Rope {
        keys: keys.into_iter().map(|(key, value)| (format!("rope.{key}"), value)).collect(),
        factors: vec![set("long_factor")?, set("short_factor")?],
    })
}

/// Slow turns are stretched by the factor, fast ones not, and between them it is blended. The formula is in Meta's
/// reference code for Llama 3.1.
fn llama3(scaling: &Json, base: f32, head: u64) -> Result<Vec<f32>, Error> {
    let (stretch, low) = (factor(scaling, "factor")?, factor(scaling, "low_freq_factor")?);
    let high = factor(scaling, "high_freq_factor")?;
    if high <= low {
        return Err(
            scaling.wrong("high_freq_factor", &format!("must be above `low_freq_factor`, {low}, got {high}"))
        );
    }
    let original = scaling.expect_count("original_max_position_embeddings")? as f32;
    let divisors = (0..head / 2).map(|pair| {
        let turns = original * base.powf(-2.0 * pair as f32 / head as f32) / TAU;
        let fast = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / ((1.0 - fast) / stretch + fast)
    });
    Ok(divisors.collect())
}

fn factors(name: &str, values: Vec<f32>) -> Planned {
    Planned {
        name: format!("{name}.weight"),
        shape: vec![values.len() as u64],
        kind: TensorType::F32,
        data: Data::Values(values),
        is_transposed: false,
        change: Change::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Json {
        Json::parse("config.json", text.as_bytes()).unwrap()
    }

    #[test]
    fn llama_3_stretches_slow_turns_only() {
        let text = r#"{"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
            "high_freq_factor":4.0,"original_max_position_embeddings":8192}}"#;
        let factors = read(&config(text), 10_000.0, 128).unwrap().factors.remove(0);
        let Data::Values(values) = factors.data else { panic!("they are computed") };
        assert_eq!((values.len(), values[0], values[63]), (64, 1.0, 8.0));
        assert!(values.windows(2).all(|pair| pair[0] <= pair[1]));
        // 31 of the 64 are between: the ends of the blend are where a turn takes a quarter of 8192 positions, and all.
        assert!(values[29] > 1.0 && values[28] == 1.0 && values[34] < 8.0 && values[35] == 8.0, "{values:?}");
    }

    #[test]
    fn both_ways_of_writing_it_are_read() {
        let old =
            read(&config(r#"{"rope_theta":5,"rope_scaling":{"type":"linear","factor":2}}"#), 1.0, 8).unwrap();
        let new = r#"{"rope_parameters":{"full_attention":{"rope_theta":5,"rope_type":"linear","factor":2},"sliding_attention":{"rope_theta":3}}}"#;
        let new = read(&config(new), 1.0, 8).unwrap();
        assert_eq!(old.keys[0], new.keys[0]);
        assert_eq!(old.keys[1..], new.keys[2..]);
        assert_eq!(new.keys[1], ("rope.freq_base_swa".to_owned(), 3f32.into()));
    }

    #[test]
    fn what_cannot_be_right_is_refused_by_its_key() {
        let refusal = |text: &str| read(&config(text), 1.0, 8).err().unwrap().to_string();
        assert_eq!(refusal(r#"{"rope_theta":-1}"#), "config.json: `rope_theta` must be above 0, got -1");
        let text = refusal(r#"{"rope_scaling":{"type":"dynamic","factor":2}}"#);
        assert!(text.contains("`rope_scaling.type` must be default, linear, yarn or llama3"), "{text}");
        let text = refusal(r#"{"rope_scaling":{"type":"linear","factor":"2"}}"#);
        assert_eq!(text, "config.json: `rope_scaling.factor` must be a finite number, got \"2\"");
    }

    #[test]
    fn long_texts_have_factors_of_their_own() {
        let text = r#"{"rope_theta":10000.0,"original_max_position_embeddings":4096,"partial_rotary_factor":0.5,
            "rope_scaling":{"type":"longrope","long_factor":[1,2.5],"short_factor":[1,1]}}"#;
        let rope = read_long(&config(text), 1.0, (8, 131_072)).unwrap();
        let value =
            |key: &str| rope.keys.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        assert_eq!(value("rope.dimension_count"), Some(4u32.into()));
        assert_eq!(value("rope.scaling.original_context_length"), Some(4096u32.into()));
        // What Microsoft's code computes for Phi-3-mini-128k.
        let magnitude = value("rope.scaling.attn_factor").and_then(|value| value.as_f32()).unwrap();
        assert!((magnitude - 1.190_238_1).abs() < 1e-6, "{magnitude}");
        assert_eq!(rope.factors[0].name, "rope_factors_long.weight");
        let new = r#"{"rope_parameters":{"rope_type":"longrope","rope_theta":10000.0,"original_max_position_embeddings":4096,
            "partial_rotary_factor":0.5,"long_factor":[1,2.5],"short_factor":[1,1]}}"#;
        assert_eq!(read_long(&config(new), 1.0, (8, 131_072)).unwrap().keys, rope.keys);
        let plain = read_long(&config(r#"{"rope_theta":5}"#), 1.0, (8, 64)).unwrap();
        assert!(
            plain.factors.is_empty()
                && plain.keys.contains(&("rope.dimension_count".to_owned(), 8u32.into()))
        );
    }

    #[test]
    fn factors_that_fit_no_head_are_refused() {
        let refusal = |text: &str| read_long(&config(text), 1.0, (8, 64)).err().unwrap().to_string();
        let scaled = |more: &str| refusal(&format!(r#"{{"rope_scaling":{{"type":"su"{more}}}}}"#));
        for (text, expected) in [
            (refusal(r#"{"partial_rotary_factor":0.4}"#), "must leave an even part of the head, 8, got 0.4"),
            (refusal(r#"{"partial_rotary_factor":1.5}"#), "must leave an even part of the head, 8, got 1.5"),
            (scaled(""), "`original_max_position_embeddings` is missing"),
            (scaled(r#","original_max_position_embeddings":8"#), "`rope_scaling.long_factor` is missing"),
            (
                scaled(r#","original_max_position_embeddings":8,"long_factor":[1,1,1]"#),
                "`rope_scaling.long_factor` must be a list of 4 numbers above 0",
            ),
            (
                scaled(r#","original_max_position_embeddings":8,"long_factor":[1,1,1,0]"#),
                "`rope_scaling.long_factor` must be a list of 4 numbers above 0",
            ),
        ] {
            assert!(text.starts_with("config.json: ") && text.ends_with(expected), "{text}");
        }
    }
}
