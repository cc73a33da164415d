//! A checkpoint as Hugging Face's libraries save one: config.json, tensors in safetensors files, and a tokenizer.

use std::collections::BTreeMap;

use gguf::Value as Entry;
use serde_json::Value;

use crate::job::Input;
use crate::json::Json;
use crate::plan::Plan;
use crate::safetensors::{self, Stored};
use crate::{Error, architecture, tokenizer};

pub(crate) const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
/// Real ones have some kilobytes.
pub(crate) const MAX_CONFIG: u64 = 4 << 20;
/// The index of the largest published model has nine megabytes.
const MAX_INDEX: u64 = 16 << 20;

/// What was uploaded, with the headers of the tensor files read.
pub(crate) struct Checkpoint<'a> {
    files: &'a [Input],
    pub config: Json,
    pub tensors: BTreeMap<String, Stored>,
}

/// From the files to what is to be written.
pub(crate) fn read(files: &[Input]) -> Result<Plan, Error> {
    let checkpoint = Checkpoint::open(files)?;
    let model = architecture::read(&checkpoint)?;
    let mut plan = Plan::default();
    plan.put("general.architecture", model.architecture);
    plan.put("general.type", "model");
    for (key, value) in model.keys {
        plan.put(format!("{}.{key}", model.architecture), value);
    }
    for (key, value) in tokenizer::read(&checkpoint, model.vocab)? {
        plan.put(format!("tokenizer.{key}"), value);
    }
    for (key, value) in model.tokenizer_keys {
        plan.replace(&format!("tokenizer.{key}"), value);
    }
    plan.tensors = model.tensors;
    Ok(plan)
}

/// Keys and values of a GGUF, without what all of them begin with.
pub(crate) type Entries = Vec<(String, Entry)>;

// === impl Checkpoint ===

impl<'a> Checkpoint<'a> {
    fn open(files: &'a [Input]) -> Result<Checkpoint<'a>, Error> {
        let config = find(files, CONFIG).ok_or(Error::MissingFile(CONFIG))?;
        let config = Json::read(CONFIG, &config.path, MAX_CONFIG)?;
        let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
        let mut origins: BTreeMap<String, &str> = BTreeMap::new();
        for input in files.iter().filter(|input| is_weights(&input.name)) {
            for (name, stored) in safetensors::read(&input.name, &input.path)? {
                if let Some(first) = origins.insert(name.clone(), &input.name) {
                    return Err(Error::tensor(&name, format!("is in both {first} and {}", input.name)));
                }
                tensors.insert(name, stored);
            }
        }
        if let Some(index) = find(files, INDEX) {
            check_index(&Json::read(INDEX, &index.path, MAX_INDEX)?, &origins)?;
        }
        Ok(Checkpoint { files, config, tensors })
    }

    /// A file beside the weights, read as JSON.
    pub fn json(&self, name: &'static str, bound: u64) -> Result<Option<Json>, Error> {
        self.file(name).map(|input| Json::read(name, &input.path, bound)).transpose()
    }

    pub fn file(&self, name: &str) -> Option<&'a Input> {
        find(self.files, name)
    }
}

pub(crate) fn find<'a>(files: &'a [Input], name: &str) -> Option<&'a Input> {
    files.iter().find(|input| input.name == name)
}

/// Only what lies at the top: folders below have other models, such as those that sentence-transformers adds.
pub(crate) fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains('/')
}

/// The index says which tensor is in which file. A part that was forgotten is missed here, by its name.
fn check_index(index: &Json, origins: &BTreeMap<String, &str>) -> Result<(), Error> {
    let map = index.object("weight_map")?.ok_or_else(|| index.missing("weight_map"))?;
    for (tensor, file) in &map.map {
        let file = file.as_str().unwrap_or_default();
        match origins.get(tensor) {
            Some(found) if *found == file => {}
            Some(found) => {
                return Err(Error::tensor(tensor, format!("is in {found}, the index says in {file:?}")));
            }
            None if origins.values().any(|found| *found == file) => {
                return Err(Error::tensor(
                    tensor,
                    format!("is not in {file}, where the index says that it is"),
                ));
            }
            None => return Err(Error::file(INDEX, format!("it names the file {file:?}, which is missing"))),
        }
    }
    Ok(())
}

/// What `architectures` says first.
pub(crate) fn class(config: &Json) -> Result<&str, Error> {
    let classes = config.array("architectures")?.ok_or(Error::NoArchitecture)?;
    classes.first().and_then(Value::as_str).ok_or(Error::NoArchitecture)
}
