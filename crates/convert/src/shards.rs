//! GGUF files as a source: one, or all parts of a split model, which must fit together exactly.

use std::collections::HashSet;

use gguf::{Metadata, Shard, Value};

use crate::Error;
use crate::job::Input;
use crate::plan::{Change, Data, Plan, Planned};
use crate::source::Source;

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// What the files hold together. The metadata is that of the first part, without what it says about parts.
pub(crate) fn read(files: &[Input]) -> Result<Plan, Error> {
    let ordered = in_order(files)?;
    let mut plan = Plan::default();
    let mut names = HashSet::new();
    let mut expected = None;
    for (at, input) in ordered.iter().enumerate() {
        let wrong = |source| Error::Gguf { file: input.name.clone(), source };
        let header = gguf::File::open(&input.path).map_err(wrong)?.header().clone();
        let source = Source::open(&input.name, &input.path)?;
        if ordered.len() > 1 {
            check_split(&input.name, &header.metadata, at, ordered.len())?;
        }
        if at == 0 {
            let kept = header.metadata.iter().filter(|(key, _)| !key.starts_with("split."));
            plan.metadata = kept.map(|(key, value)| (key.to_owned(), value.clone())).collect();
            expected = header.metadata.get(TENSORS).and_then(Value::as_u64);
        }
        for tensor in &header.tensors {
            if !names.insert(tensor.name.clone()) {
                return Err(Error::tensor(
                    &tensor.name,
                    format!("is in {} and in a part before it", input.name),
                ));
            }
            let span = header.data_offset.checked_add(tensor.offset);
            let span = span.and_then(|start| source.span(start, tensor.bytes));
            let missing = || Error::tensor(&tensor.name, format!("is not wholly in {}", input.name));
            plan.tensors.push(Planned {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                kind: tensor.kind,
                data: Data::Stored(span.ok_or_else(missing)?),
                is_transposed: false,
                change: Change::Nothing,
            });
        }
    }
    match expected {
        Some(expected) if ordered.len() > 1 && expected != names.len() as u64 => {
            let problem = format!("`{TENSORS}` is {expected}, the parts have {}", names.len());
            Err(Error::file(&ordered[0].name, problem))
        }
        _ => Ok(plan),
    }
}

/// By their numbers. All parts of one model must be there, each once.
fn in_order(files: &[Input]) -> Result<Vec<&Input>, Error> {
    let [first, others @ ..] = files else { return Err(Error::NoFiles) };
    if others.is_empty() {
        return match Shard::of(&first.name) {
            Some(shard) if shard.count > 1 => Err(Error::file(
                &first.name,
                format!("it is one of {} parts, the others are missing", shard.count),
            )),
            _ => Ok(vec![first]),
        };
    }
    let mut ordered = Vec::with_capacity(files.len());
    let whole =
        |input: &Input| Error::file(&input.name, "it is no part of the same model as the other files");
    let base = Shard::of(&first.name).ok_or_else(|| whole(first))?;
    for input in files {
        let shard = Shard::of(&input.name).ok_or_else(|| whole(input))?;
        if shard.base != base.base || shard.count != base.count {
            return Err(whole(input));
        }
        ordered.push((shard.number, input));
    }
    ordered.sort_by_key(|(number, _)| *number);
    let is_complete = ordered.iter().map(|(number, _)| *number).eq(1..=base.count);
    if !is_complete {
        let problem = format!("the model has {} parts, {} of them are there", base.count, ordered.len());
        return Err(Error::file(&first.name, problem));
    }
    Ok(ordered.into_iter().map(|(_, input)| input).collect())
}

fn check_split(name: &str, metadata: &Metadata, at: usize, count: usize) -> Result<(), Error> {
    for (key, expected) in [(NUMBER, at as u64), (COUNT, count as u64)] {
        let found = metadata.get(key).and_then(Value::as_u64);
        if found != Some(expected) {
            let found = found.map_or_else(|| "nothing".to_owned(), |found| found.to_string());
            return Err(Error::file(
                name,
                format!("`{key}` must be {expected} by the file's name, got {found}"),
            ));
        }
    }
    Ok(())
}
