//! `options`: what a request or a Modelfile may set, with Ollama's names, defaults and texts.
//!
//! One table knows every option; defaults, merging and Modelfile parameters follow from it.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::gojson::quote;

/// Defaults below, then the Modelfile's parameters, then the request's options: [`Options::merge`] in that order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub load: LoadOptions,
    pub run: RunOptions,
}

/// What shapes a loaded replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Zero is automatic: `OLLAMA_CONTEXT_LENGTH`, then what memory allows.
    pub num_ctx: i64,
    pub num_batch: i64,
    /// How many blocks go to the GPU; -1 is automatic, 0 is none.
    pub num_gpu: i64,
    pub main_gpu: Option<i64>,
    pub use_mmap: Option<bool>,
    /// Zero is automatic.
    pub num_thread: i64,
    pub draft_num_predict: i64,
}

/// What one sequence may choose for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOptions {
    /// How many tokens at the start of the prompt survive a context shift.
    pub num_keep: i64,
    /// -1 draws one.
    pub seed: i64,
    /// Negative is without a bound of its own.
    pub num_predict: i64,
    pub top_k: i64,
    pub top_p: f32,
    pub min_p: f32,
    pub typical_p: f32,
    /// Zero switches the penalties off, -1 looks at the whole context.
    pub repeat_last_n: i64,
    pub temperature: f32,
    pub repeat_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub stop: Vec<String>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            num_ctx: 0,
            num_batch: 512,
            num_gpu: -1,
            main_gpu: None,
            use_mmap: None,
            num_thread: 0,
            draft_num_predict: 4,
        }
    }
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions {
            num_keep: 4,
            seed: -1,
            num_predict: -1,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_last_n: 64,
            temperature: 0.8,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            stop: Vec::new(),
        }
    }
}

/// Where an option lives, which is also its type.
enum Field {
    Int(fn(&mut Options) -> &mut i64),
    OptionalInt(fn(&mut Options) -> &mut Option<i64>),
    OptionalBool(fn(&mut Options) -> &mut Option<bool>),
    Float(fn(&mut Options) -> &mut f32),
    Texts(fn(&mut Options) -> &mut Vec<String>),
}

const TABLE: [(&str, Field); 20] = [
    ("num_ctx", Field::Int(|options| &mut options.load.num_ctx)),
    ("num_batch", Field::Int(|options| &mut options.load.num_batch)),
    ("num_gpu", Field::Int(|options| &mut options.load.num_gpu)),
    ("main_gpu", Field::OptionalInt(|options| &mut options.load.main_gpu)),
    ("use_mmap", Field::OptionalBool(|options| &mut options.load.use_mmap)),
    ("num_thread", Field::Int(|options| &mut options.load.num_thread)),
    ("draft_num_predict", Field::Int(|options| &mut options.load.draft_num_predict)),
    ("num_keep", Field::Int(|options| &mut options.run.num_keep)),
    ("seed", Field::Int(|options| &mut options.run.seed)),
    ("num_predict", Field::Int(|options| &mut options.run.num_predict)),
    ("top_k", Field::Int(|options| &mut options.run.top_k)),
    ("top_p", Field::Float(|options| &mut options.run.top_p)),
    ("min_p", Field::Float(|options| &mut options.run.min_p)),
    ("typical_p", Field::Float(|options| &mut options.run.typical_p)),
    ("repeat_last_n", Field::Int(|options| &mut options.run.repeat_last_n)),
    ("temperature", Field::Float(|options| &mut options.run.temperature)),
    ("repeat_penalty", Field::Float(|options| &mut options.run.repeat_penalty)),
    ("presence_penalty", Field::Float(|options| &mut options.run.presence_penalty)),
    ("frequency_penalty", Field::Float(|options| &mut options.run.frequency_penalty)),
    ("stop", Field::Texts(|options| &mut options.run.stop)),
];

/// `PARAMETER` keys of older Modelfiles, dropped with `warning: parameter X is deprecated`.
pub const DEPRECATED: [&str; 9] = [
    "penalize_newline",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mlock",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
];

// === impl Options ===

impl Options {
    /// Lays `map` over what is there and returns the keys that mean nothing here, to be logged: clients still send
    /// options that Ollama has removed. A `null` leaves an option as it is.
    pub fn merge(&mut self, map: &Map<String, Value>) -> Result<Vec<String>> {
        let mut unknown = Vec::new();
        for (key, value) in map {
            match field(key) {
                Some(field) if !value.is_null() => field.set(self, key, value)?,
                Some(_) => {}
                None => unknown.push(key.clone()),
            }
        }
        Ok(unknown)
    }
}

impl Field {
    fn set(&self, options: &mut Options, key: &str, value: &Value) -> Result<()> {
        let wrong = |kind: &str| Error::invalid(format!("option {} must be of {kind}", quote(key)));
        match self {
            Field::Int(at) => *at(options) = integer(value).ok_or_else(|| wrong("type integer"))?,
            Field::OptionalInt(at) => {
                *at(options) = Some(integer(value).ok_or_else(|| wrong("type integer"))?);
            }
            Field::OptionalBool(at) => {
                *at(options) = Some(value.as_bool().ok_or_else(|| wrong("type boolean"))?);
            }
            Field::Float(at) => {
                *at(options) = value.as_f64().ok_or_else(|| wrong("type float32"))? as f32;
            }
            Field::Texts(at) => {
                let items = value.as_array().ok_or_else(|| wrong("type array"))?;
                let texts = items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>();
                *at(options) = texts.ok_or_else(|| wrong("an array of strings"))?;
            }
        }
        Ok(())
    }

    /// The value of a Modelfile's `PARAMETER`; Ollama reads the first text, except for lists.
    fn parse(&self, values: &[String]) -> Result<Value> {
        let first = values.first().map_or("", String::as_str);
        let invalid = |kind: &str| Error::invalid(format!("invalid {kind} value [{}]", values.join(" ")));
        match self {
            Field::Int(_) | Field::OptionalInt(_) => {
                first.parse::<i64>().map(Value::from).map_err(|_| invalid("int"))
            }
            Field::OptionalBool(_) => parse_bool(first).map(Value::from).ok_or_else(|| invalid("bool")),
            Field::Float(_) => {
                let number = first.parse::<f64>().ok().filter(|number| (*number as f32).is_finite());
                number.map(Value::from).ok_or_else(|| invalid("float"))
            }
            Field::Texts(_) => Ok(Value::from(values)),
        }
    }
}

/// Turns the texts of a Modelfile's `PARAMETER key` into the JSON that a `create` carries. A key of
/// [`DEPRECATED`] is the caller's to drop; here it is unknown like any other.
pub fn parse_parameter(key: &str, values: &[String]) -> Result<Value> {
    field(key).ok_or_else(|| Error::invalid(format!("unknown parameter '{key}'")))?.parse(values)
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The names of all options.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

fn field(key: &str) -> Option<&'static Field> {
    TABLE.iter().find(|(name, _)| *name == key).map(|(_, field)| field)
}

/// JSON has one kind of number, and clients send `40.0`: a fraction is cut, a number out of range ends at its bound.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().map(|number| number as i64))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn merged(map: Value) -> Result<(Options, Vec<String>)> {
        let mut options = Options::default();
        let unknown = options.merge(map.as_object().unwrap())?;
        Ok((options, unknown))
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn later_options_win_and_null_leaves_them() {
        let mut options = merged(json!({"temperature": 0.5, "num_ctx": 2048, "stop": ["a", "b"]})).unwrap().0;
        options
            .merge(json!({"temperature": null, "num_ctx": 4096, "stop": []}).as_object().unwrap())
            .unwrap();
        assert_eq!(options.run.temperature, 0.5);
        assert_eq!(options.load.num_ctx, 4096);
        assert_eq!(options.run.stop, Vec::<String>::new());
        assert_eq!(options.run.top_k, 40);
    }

    #[test]
    fn every_option_reaches_its_own_field() {
        let all = json!({
            "num_ctx": 1, "num_batch": 2, "num_gpu": 3, "main_gpu": 4, "use_mmap": false, "num_thread": 5,
            "draft_num_predict": 6, "num_keep": 7, "seed": 8, "num_predict": 9, "top_k": 10, "top_p": 0.11,
            "min_p": 0.12, "typical_p": 0.13, "repeat_last_n": 14, "temperature": 0.15, "repeat_penalty": 0.16,
            "presence_penalty": 0.17, "frequency_penalty": 0.18, "stop": ["19"]
        });
        let (options, unknown) = merged(all).unwrap();
        let load = LoadOptions {
            num_ctx: 1,
            num_batch: 2,
            num_gpu: 3,
            main_gpu: Some(4),
            use_mmap: Some(false),
            num_thread: 5,
            draft_num_predict: 6,
        };
        let run = RunOptions {
            num_keep: 7,
            seed: 8,
            num_predict: 9,
            top_k: 10,
            top_p: 0.11,
            min_p: 0.12,
            typical_p: 0.13,
            repeat_last_n: 14,
            temperature: 0.15,
            repeat_penalty: 0.16,
            presence_penalty: 0.17,
            frequency_penalty: 0.18,
            stop: texts(&["19"]),
        };
        assert_eq!((options, unknown), (Options { load, run }, Vec::new()));
    }

    #[test]
    fn integers_are_cut_from_fractions_and_end_at_their_bounds() {
        let options = merged(json!({"num_ctx": 4096.9, "seed": 1e300, "num_keep": -1.5})).unwrap().0;
        assert_eq!((options.load.num_ctx, options.run.seed, options.run.num_keep), (4096, i64::MAX, -1));
    }

    #[test]
    fn what_ollama_has_removed_or_never_had_is_told_not_refused() {
        let (options, unknown) =
            merged(json!({"mirostat": 1, "numCtx": 2, "useMLock": true, "tfs_z": 1})).unwrap();
        assert_eq!(options, Options::default());
        assert_eq!(unknown, ["mirostat", "numCtx", "useMLock", "tfs_z"]);
    }

    #[test]
    fn a_wrong_type_names_the_option_and_the_type() {
        for (map, message) in [
            (json!({"num_ctx": "4096"}), r#"option "num_ctx" must be of type integer"#),
            (json!({"main_gpu": true}), r#"option "main_gpu" must be of type integer"#),
            (json!({"use_mmap": 1}), r#"option "use_mmap" must be of type boolean"#),
            (json!({"temperature": "hot"}), r#"option "temperature" must be of type float32"#),
            (json!({"stop": "x"}), r#"option "stop" must be of type array"#),
            (json!({"stop": ["x", 1]}), r#"option "stop" must be of an array of strings"#),
        ] {
            assert_eq!(merged(map).unwrap_err(), Error::invalid(message));
        }
    }

    #[test]
    fn parameters_of_a_modelfile_become_json() {
        for (key, values, value) in [
            ("num_ctx", &["4096"][..], json!(4096)),
            ("temperature", &["0.7"], json!(0.7)),
            ("use_mmap", &["T"], json!(true)),
            ("main_gpu", &["1"], json!(1)),
            ("stop", &["<a>", "<b>"], json!(["<a>", "<b>"])),
            // Of several values for one key Ollama keeps the first.
            ("seed", &["1", "2"], json!(1)),
        ] {
            let value_read = parse_parameter(key, &texts(values)).unwrap();
            assert_eq!(value_read, value);
            merged(json!({ key: value_read })).unwrap();
        }
    }

    #[test]
    fn a_wrong_parameter_is_refused_in_words_of_ollama() {
        for (key, values, message) in [
            ("num_gqa", &["1"][..], "unknown parameter 'num_gqa'"),
            ("num_ctx", &["4k"], "invalid int value [4k]"),
            ("top_p", &["a", "b"], "invalid float value [a b]"),
            ("top_p", &["nan"], "invalid float value [nan]"),
            ("use_mmap", &["yes"], "invalid bool value [yes]"),
            ("seed", &[], "invalid int value []"),
        ] {
            assert_eq!(parse_parameter(key, &texts(values)).unwrap_err(), Error::invalid(message));
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| vec(inner, 0..4).prop_map(Value::from))
    }

    fn any_key() -> impl Strategy<Value = String> {
        prop_oneof![(0..TABLE.len()).prop_map(|at| TABLE[at].0.to_owned()), "[a-z_]{0,12}"]
    }

    proptest! {
        #[test]
        fn no_options_make_the_merge_panic(map in btree_map(any_key(), any_json(), 0..6)) {
            let _ = Options::default().merge(&map.into_iter().collect());
        }

        #[test]
        fn what_a_parameter_parses_to_merges(key in any_key(), values in vec("[-+0-9.eftrunai]{0,8}", 0..3)) {
            if let Ok(value) = parse_parameter(&key, &values) {
                let map = Map::from_iter([(key, value)]);
                prop_assert_eq!(Options::default().merge(&map), Ok(Vec::new()));
            }
        }
    }
}
