//! How positions turn heads: the base, and what stretches it for contexts longer than those of the training.

use std::f32::consts::TAU;

use gguf::{TensorType, Value};

use crate::Error;
use crate::checkpoint::Entries;
use crate::json::Json;
use crate::plan::{Change, Data, Planned};

pub(super) struct Rope {
    pub keys: Entries,
    /// What Llama 3 divides each frequency by; not written in metadata but as a tensor.
    pub factors: Option<Planned>,
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
    let mut rope = Rope { keys, factors: None };
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
            "llama3" => self.factors = Some(llama3(scaling, base, head)?),
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

/// Slow turns are stretched by the factor, fast ones not, and between them it is blended. The formula is in Meta's
/// reference code for Llama 3.1.
fn llama3(scaling: &Json, base: f32, head: u64) -> Result<Planned, Error> {
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
    Ok(Planned {
        name: "rope_freqs.weight".to_owned(),
        shape: vec![head / 2],
        kind: TensorType::F32,
        data: Data::Values(divisors.collect()),
        is_transposed: false,
        change: Change::Nothing,
    })
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
        let factors = read(&config(text), 10_000.0, 128).unwrap().factors.unwrap();
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
}
