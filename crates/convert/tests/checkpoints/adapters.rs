//! What is made of adapters: added to the base here, it is what training the base would have made.

use convert::Error;
use engine::quantize::widen;
use gguf::{File, Quantization, Value as Entry};
use serde_json::{Value, json};

use crate::encoder::bert;
use crate::fixture::{Made, random};
use crate::lora::{ALPHA, Files, Lora, RANK};
use crate::reference::decoders;

fn values(file: &File, name: &str) -> Vec<f32> {
    let tensor = file.header().tensor(name).unwrap_or_else(|| panic!("{name} is missing"));
    let mut values = Vec::new();
    widen(tensor.kind, file.data(tensor), &mut values).unwrap();
    values
}

/// The tensor with what the adapter adds to it, as whoever applies it computes it.
fn applied(base: &File, adapter: &File, name: &str) -> Vec<f32> {
    let mut weight = values(base, name);
    let Some(down) = adapter.header().tensor(&format!("{name}.lora_a")) else { return weight };
    let (cols, rank) = (down.shape[0] as usize, down.shape[1] as usize);
    let alpha = adapter.header().metadata.get("adapter.lora.alpha").and_then(Entry::as_f32).unwrap();
    let (down, up) = (values(adapter, &format!("{name}.lora_a")), values(adapter, &format!("{name}.lora_b")));
    for (row, weights) in weight.chunks_exact_mut(cols).enumerate() {
        for (col, weight) in weights.iter_mut().enumerate() {
            let product = (0..rank).map(|at| up[row * rank + at] * down[at * cols + col]).sum::<f32>();
            *weight += alpha / rank as f32 * product;
        }
    }
    weight
}

#[test]
fn an_adapter_adds_what_its_training_added() {
    for decoder in decoders() {
        let checkpoint = decoder.checkpoint();
        let lora = Lora::of(&checkpoint);
        let base = checkpoint.convert(Some(Quantization::F32)).unwrap();
        let trained = lora.merged(&checkpoint).convert(Some(Quantization::F32)).unwrap().open();
        for files in [lora.peft(), lora.mlx()] {
            let made = files.convert(&base).unwrap();
            assert_eq!(made.statuses, ["converting adapter"]);
            let (base, adapter) = (base.open(), made.open());
            assert_eq!(adapter.header().tensors.len(), 2 * 2 * 6);
            let text =
                |key: &str| adapter.header().metadata.get(key).and_then(Entry::as_str).map(str::to_owned);
            assert_eq!(text("general.type").as_deref(), Some("adapter"));
            assert_eq!(text("adapter.type").as_deref(), Some("lora"));
            assert_eq!(text("general.architecture"), base.header().architecture().ok().map(str::to_owned));
            let mut changed = 0;
            for tensor in &trained.header().tensors {
                let (found, expected) =
                    (applied(&base, &adapter, &tensor.name), values(&trained, &tensor.name));
                let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                assert!(found.len() == expected.len() && off < 1e-5, "{}: {off}", tensor.name);
                changed += usize::from(values(&base, &tensor.name) != expected);
            }
            assert_eq!(changed, 2 * 6, "{}", decoder.class);
        }
    }
}

fn base() -> (Made, Files) {
    let checkpoint = decoders()[0].checkpoint();
    (checkpoint.convert(None).unwrap(), Lora::of(&checkpoint).peft())
}

#[test]
fn what_it_is_multiplied_with_is_found_where_each_library_writes_it() {
    let (base, peft) = base();
    let alpha = |config: Value| {
        let made = Files { config, ..peft.clone() }.convert(&base).unwrap();
        made.open().header().metadata.get("adapter.lora.alpha").and_then(Entry::as_f32).unwrap()
    };
    assert_eq!(alpha(json!({"lora_alpha": 16})), 16.0);
    assert_eq!(alpha(json!({"lora_alpha": 16, "use_rslora": true})), 16.0 * (RANK as f32).sqrt());
    assert_eq!(alpha(json!({"lora_parameters": {"alpha": 5.5, "scale": 1.0}})), 5.5);
    assert_eq!(alpha(json!({"lora_parameters": {"scale": 2.0}})), ALPHA);
}

#[test]
fn an_adapter_that_would_add_something_else_is_refused() {
    let (base, peft) = base();
    let refused = |edit: &dyn Fn(&mut Files)| {
        let mut files = peft.clone();
        edit(&mut files);
        files.convert(&base).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let q = |end: &str| format!("base_model.model.model.layers.0.self_attn.q_proj.{end}.weight");
    let config = |value: Value| move |files: &mut Files| files.config = value.clone();
    let put = |name: &'static str, shape: &'static [usize]| {
        move |files: &mut Files| drop(files.tensors.insert(name.to_owned(), random("x", shape, 1.0)))
    };
    let cases: [(String, &str); 14] = [
        (refused(&config(json!({}))), "adapter_config.json: `lora_alpha` is missing"),
        (refused(&config(json!({"lora_alpha": "x"}))), "`lora_alpha` must be a finite number, got \"x\""),
        (refused(&config(json!({"lora_alpha": 0}))), "`lora_alpha` must be above 0, got 0"),
        (refused(&config(json!({"lora_alpha": 1, "use_dora": true}))), "`use_dora` must be false"),
        (
            refused(&config(json!({"lora_alpha": 1, "fan_in_fan_out": true}))),
            "`fan_in_fan_out` must be false",
        ),
        (
            refused(&config(json!({"fine_tune_type": "full"}))),
            "`fine_tune_type` must be \"lora\", got \"full\"",
        ),
        (refused(&config(json!({"lora_parameters": {}}))), "`lora_parameters.scale` is missing"),
        (refused(&|files| drop(files.tensors.remove(&q("lora_B")))), "has no other half"),
        (refused(&|files| files.tensors.clear()), "no files provided to convert"),
        (
            refused(&put("base_model.model.model.embed_tokens.lora_embedding_A", &[3, 8])),
            "is unknown in an adapter",
        ),
        (
            refused(&put("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", &[32])),
            "is unknown",
        ),
        (
            refused(&|files| {
                files.tensors.insert(q("lora_A"), random("x", &[RANK, 31], 1.0));
            }),
            "must have shape [3, 32] by the base and the rank, got [3, 31]",
        ),
        (
            refused(&|files| {
                files.tensors.insert(q("lora_B"), random("x", &[32, RANK + 1], 1.0));
            }),
            "must have shape [32, 3] by the base and the rank, got [32, 4]",
        ),
        (
            refused(&|files| {
                for (half, shape) in [("lora_A", [RANK, 32]), ("lora_B", [32, RANK])] {
                    let name = q(half).replace("layers.0", "layers.9");
                    files.tensors.insert(name, random("x", &shape, 1.0));
                }
            }),
            "changes `blk.9.attn_q.weight`, which is no matrix of the base",
        ),
    ];
    for (text, expected) in cases {
        assert!(text.contains(expected), "{text:?} does not say {expected:?}");
    }
    let encoder = bert().convert(None).unwrap();
    let error = peft.convert(&encoder).err().unwrap();
    assert!(matches!(&error, Error::Architecture(name) if name == "bert"), "{error}");
}
