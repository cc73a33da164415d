//! Checkpoints that lie, or lack something. Each text names the file and the key or the tensor; nothing panics.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::encoder::bert;
use crate::experts::mixtures;
use crate::fixture::{Checkpoint, WIDTH, random};
use crate::lora::Lora;
use crate::phi;
use crate::reference::decoders;

fn llama() -> Checkpoint {
    decoders()[0].checkpoint()
}

fn with_config(key: &str, value: Value) -> String {
    let mut checkpoint = llama();
    checkpoint.config[key] = value;
    checkpoint.refused()
}

#[test]
fn an_architecture_must_be_known() {
    assert_eq!(
        with_config("architectures", json!(["MambaForCausalLM"])),
        "unsupported architecture \"MambaForCausalLM\""
    );
    assert_eq!(with_config("architectures", json!([])), "unknown architecture");
    assert_eq!(with_config("architectures", json!(null)), "unknown architecture");
    assert_eq!(with_config("architectures", json!([7])), "unknown architecture");
    assert_eq!(
        with_config("architectures", json!("LlamaForCausalLM")),
        "config.json: `architectures` must be an array, got \"LlamaForCausalLM\""
    );
}

#[test]
fn a_size_must_be_there_and_a_size() {
    let cases = [
        ("hidden_size", json!(null), "`hidden_size` is missing"),
        ("hidden_size", json!("32"), "`hidden_size` must be an integer between 1 and 4294967295, got \"32\""),
        ("hidden_size", json!(0), "between 1 and 4294967295, got 0"),
        ("hidden_size", json!(-4), "between 1 and 4294967295, got -4"),
        ("hidden_size", json!(1e30), "between 1 and 4294967295"),
        (
            "num_hidden_layers",
            json!([3]),
            "`num_hidden_layers` must be an integer between 1 and 4294967295, got an array",
        ),
        ("num_key_value_heads", json!(3), "`num_key_value_heads` must divide the 4 heads, got 3"),
        ("head_dim", json!(7), "`head_dim` must be even, got 7"),
        ("rms_norm_eps", json!("small"), "`rms_norm_eps` must be a finite number, got \"small\""),
        ("rope_theta", json!(0), "`rope_theta` must be above 0, got 0"),
        ("rope_scaling", json!([]), "`rope_scaling` must be an object, got an array"),
        ("hidden_act", json!("relu"), "`hidden_act` must be \"silu\", got \"relu\""),
        ("tie_word_embeddings", json!("no"), "`tie_word_embeddings` must be true or false, got \"no\""),
    ];
    for (key, value, expected) in cases {
        let text = with_config(key, value);
        assert!(text.starts_with("config.json: ") && text.contains(expected), "{text}");
    }
    let mut checkpoint = llama();
    checkpoint.put("tokenizer_config.json", json!({}));
    checkpoint.config["eos_token_id"] = json!(999_999);
    assert_eq!(checkpoint.refused(), "config.json: `eos_token_id` must be an id below 264, got 999999");
    let mut checkpoint = llama();
    checkpoint.config.as_object_mut().unwrap().remove("head_dim");
    checkpoint.config["num_attention_heads"] = json!(5);
    assert!(checkpoint.refused().contains("must divide the width 32 where there is no `head_dim`, got 5"));
}

#[test]
fn what_a_file_cannot_say_of_gemma_is_refused() {
    let refused = |class: &str, key: &str, value: Value| {
        let decoder = decoders().into_iter().find(|decoder| decoder.class == class).unwrap();
        let mut checkpoint = decoder.checkpoint();
        checkpoint.config[key] = value;
        checkpoint.refused()
    };
    let layers = |kinds: [&str; 3]| json!(kinds.map(|kind| format!("{kind}_attention")));
    for (class, key, value, expected) in [
        (
            "Gemma3ForCausalLM",
            "query_pre_attn_scalar",
            json!(32),
            "must be 16 in a model of this shape, got 32",
        ),
        (
            "Gemma2ForCausalLM",
            "query_pre_attn_scalar",
            json!(null),
            "must be 16 in a model of this shape, got 256",
        ),
        ("Gemma2ForCausalLM", "attn_logit_softcapping", json!(null), "must be above 0 in Gemma 2"),
        ("Gemma2ForCausalLM", "final_logit_softcapping", json!(-1), "must be above 0 in Gemma 2"),
        ("Gemma3ForCausalLM", "final_logit_softcapping", json!(30), "must be null in Gemma 3"),
        ("Gemma2ForCausalLM", "layer_types", layers(["full", "sliding", "full"]), "beginning with the first"),
        ("Gemma2ForCausalLM", "layer_types", json!(["full_attention"]), "for each of the 3 layers, got 1"),
        ("Gemma3ForCausalLM", "layer_types", layers(["full", "half", "full"]), "\"full_attention\" only"),
        (
            "GemmaForCausalLM",
            "hidden_activation",
            json!("gelu"),
            "must be \"gelu_pytorch_tanh\", got \"gelu\"",
        ),
    ] {
        let text = refused(class, key, value);
        assert!(
            text.starts_with(&format!("config.json: `{key}` must")) && text.ends_with(expected),
            "{text}"
        );
    }
}

#[test]
fn a_window_that_is_listed_as_usual_is_the_usual_one() {
    let decoder = decoders().into_iter().find(|decoder| decoder.class == "Gemma2ForCausalLM").unwrap();
    let mut checkpoint = decoder.checkpoint();
    let before = checkpoint.convert(None).unwrap().open().header().metadata.clone();
    checkpoint.config["layer_types"] = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    assert_eq!(checkpoint.convert(None).unwrap().open().header().metadata, before);
    let config = checkpoint.config.as_object_mut().unwrap();
    config.remove("attn_logit_softcapping");
    config.remove("final_logit_softcapping");
    let usual = checkpoint.convert(None).unwrap().open().header().metadata.clone();
    let caps = ["attn", "final"].map(|kind| usual.get(&format!("gemma2.{kind}_logit_softcapping")).cloned());
    assert_eq!(caps, [Some(50f32.into()), Some(30f32.into())]);
}

#[test]
fn sizes_that_no_file_backs_cost_nothing() {
    for key in [
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "vocab_size",
        "num_attention_heads",
        "head_dim",
    ] {
        let text = with_config(key, json!(u32::MAX - 1));
        assert!(
            text.contains("must have shape") || text.contains("is missing") || text.contains("must divide"),
            "{key}: {text}"
        );
    }
}

#[test]
fn tensors_must_be_those_of_the_config() {
    let edited = |edit: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = llama();
        edit(&mut checkpoint);
        checkpoint.refused()
    };
    let remove =
        |name: &'static str| move |checkpoint: &mut Checkpoint| drop(checkpoint.tensors.remove(name));
    assert_eq!(
        edited(&remove("model.layers.1.mlp.up_proj.weight")),
        "tensor `model.layers.1.mlp.up_proj.weight` is missing"
    );
    assert_eq!(edited(&remove("model.embed_tokens.weight")), "tensor `model.embed_tokens.weight` is missing");
    assert_eq!(edited(&remove("lm_head.weight")), "tensor `lm_head.weight` is missing");
    let strange = |checkpoint: &mut Checkpoint| {
        checkpoint.tensors.insert("model.layers.0.mlp.secret.weight".to_owned(), random("s", &[4], 1.0));
    };
    assert!(edited(&strange).starts_with("tensor `model.layers.0.mlp.secret.weight` is unknown"));
    let shape = |checkpoint: &mut Checkpoint| {
        let name = "model.layers.2.self_attn.k_proj.weight";
        checkpoint.tensors.insert(name.to_owned(), random(name, &[WIDTH, 8], 1.0));
    };
    assert_eq!(
        edited(&shape),
        "tensor `model.layers.2.self_attn.k_proj.weight` must have shape [16, 32] by config.json, got [32, 8]"
    );
    let not_finite = |checkpoint: &mut Checkpoint| {
        checkpoint.tensors.get_mut("model.norm.weight").unwrap().values[3] = f32::NAN;
    };
    assert_eq!(
        edited(&not_finite),
        "tensor `output_norm.weight` has the value NaN, which is not a finite number"
    );
}

#[test]
fn files_must_be_all_there() {
    let refused = |edit: &dyn Fn(&mut Vec<convert::Input>)| {
        let folder = tempfile::tempdir().unwrap();
        let mut files = llama().write(folder.path(), 3);
        edit(&mut files);
        crate::fixture::run(files, None, &folder.path().join("made")).unwrap_err().to_string()
    };
    let without =
        |name: &'static str| move |files: &mut Vec<convert::Input>| files.retain(|input| input.name != name);
    assert_eq!(refused(&without("config.json")), "file `config.json` is missing, a checkpoint needs it");
    assert!(refused(&without("tokenizer.json")).contains("neither is there"));
    assert_eq!(
        refused(&without("model-00002-of-00003.safetensors")),
        "model.safetensors.index.json: it names the file \"model-00002-of-00003.safetensors\", which is missing"
    );
    let twice = |files: &mut Vec<convert::Input>| {
        let again = files.iter().find(|input| input.name.starts_with("model-00001")).unwrap().clone();
        files.push(convert::Input { name: "other.safetensors".to_owned(), ..again });
    };
    assert!(refused(&twice).contains("is in both"));
    let cut = |files: &mut Vec<convert::Input>| {
        let input = files.iter().find(|input| input.name.starts_with("model-00003")).unwrap();
        let bytes = std::fs::read(&input.path).unwrap();
        std::fs::write(&input.path, &bytes[..bytes.len() - 10]).unwrap();
    };
    assert!(refused(&cut).contains("of model-00003-of-00003.safetensors: it ends at byte"));
}

#[test]
fn tokenizers_that_nobody_could_cut_with_are_refused() {
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut checkpoint = llama();
        let mut tokenizer: Value = serde_json::from_slice(&checkpoint.files["tokenizer.json"]).unwrap();
        edit(&mut tokenizer);
        checkpoint.put("tokenizer.json", tokenizer);
        checkpoint.refused()
    };
    let set = |path: &'static str, value: Value| {
        with(&move |json| *json.pointer_mut(path).unwrap() = value.clone())
    };
    let cases = [
        (set("/model", json!(1)), "`model` must be an object, got 1"),
        (set("/model/type", json!("Unigram")), "`model.type` must be BPE or WordPiece, got \"Unigram\""),
        (set("/model/vocab", json!([])), "`model.vocab` must be an object"),
        (set("/model/vocab/he", json!(-1)), "`model.vocab.he` must be an id below 264"),
        (set("/model/vocab/he", json!(4_000_000_000u64)), "`model.vocab.he` must be an id below 264"),
        (set("/model/vocab/he", json!(257)), "has the id 257, which"),
        (set("/model/merges", json!(["one"])), "`model.merges` must be pairs of tokens, got \"one\""),
        (set("/model/merges", json!([["a"]])), "`model.merges` must be pairs of tokens"),
        (set("/model/merges", json!(null)), "`model.merges` is missing"),
        (
            set("/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("x+")),
            "cuts texts as no known vocabulary does",
        ),
        (set("/pre_tokenizer/pretokenizers/0/type", json!("Whitespace")), "has the step \"Whitespace\""),
        (set("/pre_tokenizer", json!({"type": "Sequence"})), "`pre_tokenizer.pretokenizers` is missing"),
        (set("/pre_tokenizer", json!({"type": "ByteLevel"})), "must not add a space before a text"),
        (set("/normalizer", json!({"type": "Lowercase"})), "must be NFC or none, got \"Lowercase\""),
        (set("/added_tokens/0", json!({"id": "x"})), "`added_tokens` must have objects"),
    ];
    for (text, expected) in cases {
        assert!(text.starts_with("tokenizer.json: ") && text.contains(expected), "{text}: {expected}");
    }
    let mut checkpoint = llama();
    checkpoint.files.insert("chat_template.jinja".to_owned(), vec![0xff, 0xfe]);
    assert_eq!(checkpoint.refused(), "chat_template.jinja: it is not UTF-8");
    let mut checkpoint = llama();
    checkpoint.put("tokenizer_config.json", json!({"chat_template": 7}));
    assert!(checkpoint.refused().starts_with("tokenizer_config.json: `chat_template` must be a text"));
}

/// Every place of a JSON value, as pointers.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter().take(20) {
                places(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().take(4).enumerate() {
                places(value, format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
    all.push(at);
}

/// Puts junk in one of its places.
fn spoil(json: &mut Value, place: prop::sample::Index, junk: Value) {
    let mut all = Vec::new();
    places(json, String::new(), &mut all);
    *json.pointer_mut(&all[place.index(all.len())]).unwrap() = junk;
}

/// One checkpoint of each kind.
fn kinds() -> Vec<Checkpoint> {
    let decoders = decoders().into_iter().map(|decoder| decoder.checkpoint());
    let mixtures = mixtures().into_iter().map(|(_, checkpoint)| checkpoint);
    decoders.chain(mixtures).chain([phi::checkpoints().1, bert()]).collect()
}

fn junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[1]]])),
        Just(json!({"type": "Sequence", "normalizers": [{}], "pretokenizers": [1]})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever stands anywhere in a JSON file: an answer or a refusal, and soon.
    #[test]
    fn no_json_makes_it_panic(kind in any::<prop::sample::Index>(), which in 0usize..3, place in any::<prop::sample::Index>(), junk in junk()) {
        let mut all = kinds();
        let mut checkpoint = all.swap_remove(kind.index(all.len()));
        let name = ["config.json", "tokenizer.json", "tokenizer_config.json"][which];
        let mut json = match name {
            "config.json" => checkpoint.config.clone(),
            name => serde_json::from_slice(&checkpoint.files[name]).unwrap(),
        };
        spoil(&mut json, place, junk);
        match name {
            "config.json" => checkpoint.config = json,
            name => checkpoint.put(name, json),
        }
        let _ = checkpoint.convert(None);
    }

    #[test]
    fn no_adapter_makes_it_panic(place in any::<prop::sample::Index>(), junk in junk(), at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..30)) {
        let checkpoint = llama();
        let base = checkpoint.convert(None).unwrap();
        for mut files in [Lora::of(&checkpoint).peft(), Lora::of(&checkpoint).mlx()] {
            spoil(&mut files.config, place, junk.clone());
            let _ = files.convert_changed(&base, |name, content| {
                let start = at.index(content.len().min(3000));
                let end = if name.ends_with("safetensors") { bytes.len() } else { 0 };
                for (old, new) in content.iter_mut().skip(start).zip(&bytes[..end]) {
                    *old = *new;
                }
            });
        }
    }

    #[test]
    fn no_bytes_in_a_file_make_it_panic(which in 0usize..4, at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..30)) {
        let folder = tempfile::tempdir().unwrap();
        let files = llama().write(folder.path(), 2);
        let input = &files[which.min(files.len() - 1)];
        let mut content = std::fs::read(&input.path).unwrap();
        let start = at.index(content.len().min(5000));
        for (old, new) in content.iter_mut().skip(start).zip(&bytes) {
            *old = *new;
        }
        std::fs::write(&input.path, content).unwrap();
        let _ = crate::fixture::run(files, None, &folder.path().join("made"));
    }
}
