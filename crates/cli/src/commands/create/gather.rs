//! The files that a `FROM` or `ADAPTER` means: one, or those of a folder that make a model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A file, and its path relative to what was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    pub name: String,
    pub path: PathBuf,
}

/// What the weights may be, best first: where some of one kind are there, the others are not looked at.
const WEIGHTS: [fn(&str) -> bool; 6] = [
    |name| name.starts_with("model") && name.ends_with(".safetensors"),
    |name| name.starts_with("consolidated") && name.ends_with(".safetensors"),
    |name| name.starts_with("pytorch_model") && name.ends_with(".bin"),
    |name| name.starts_with("consolidated") && name.ends_with(".pth"),
    |name| name.ends_with(".gguf"),
    |name| name.ends_with(".bin"),
];
/// An adapter's are called otherwise.
const ADAPTERS: [fn(&str) -> bool; 1] =
    [|name| name.starts_with("adapter") && name.ends_with(".safetensors")];

/// `path` as files. Nothing outside of a folder is taken, whatever links lead there.
pub fn gather(path: &Path) -> Result<Vec<Component>> {
    let root = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
    if !root.is_dir() {
        // By the name that it was given, not that of what a link leads to.
        let name = path.file_name().context("the path names a file")?.to_string_lossy().into_owned();
        return Ok(vec![Component { name, path: root }]);
    }
    let found = names(&root)?;
    let of = |is_weights: &fn(&str) -> bool| -> Vec<String> {
        found.iter().filter(|name| is_weights(file_name(name))).cloned().collect()
    };
    let weights = WEIGHTS.iter().chain(&ADAPTERS).map(of).find(|weights| !weights.is_empty());
    let Some(mut chosen) = weights else { bail!("no Modelfile or safetensors files found") };
    let is_beside = |name: &&String| {
        name.ends_with(".json") || matches!(name.as_str(), "chat_template.jinja" | "tokenizer.model")
    };
    chosen.extend(found.iter().filter(is_beside).cloned());
    chosen.iter().map(|name| within(&root, name)).collect()
}

/// The files of a folder and of those in it, by their relative paths, in order.
fn names(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let list = |folder: &Path, before: &str, names: &mut Vec<String>| -> Result<Vec<String>> {
        let mut folders = Vec::new();
        let entries = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", folder.display()))?;
            let name = format!("{before}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => folders.push(name),
                false => names.push(name),
            }
        }
        Ok(folders)
    };
    for folder in list(root, "", &mut names)? {
        list(&root.join(&folder), &format!("{folder}/"), &mut names)?;
    }
    names.sort();
    Ok(names)
}

fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A link may lead elsewhere in the folder, not out of it: a model from a stranger could name anybody's files.
fn within(root: &Path, name: &str) -> Result<Component> {
    let path = root.join(name).canonicalize().with_context(|| format!("find {name}"))?;
    if !path.starts_with(root) {
        bail!("insecure path: {name}");
    }
    Ok(Component { name: name.to_owned(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        folder
    }

    fn gathered(files: &[&str]) -> Vec<String> {
        gather(folder(files).path()).unwrap().into_iter().map(|component| component.name).collect()
    }

    #[test]
    fn the_best_kind_of_weights_is_taken_with_what_describes_it() {
        let all = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "config.json",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.jinja",
            "1_Pooling/config.json",
            "a/b/deep.json",
            "README.md",
        ];
        assert_eq!(
            gathered(&all),
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "1_Pooling/config.json",
                "chat_template.jinja",
                "config.json",
                "tokenizer.json",
                "tokenizer.model"
            ]
        );
        assert_eq!(gathered(&["b.gguf", "a.gguf", "x.bin"]), ["a.gguf", "b.gguf"]);
        assert_eq!(gathered(&["consolidated.00.pth", "params.json"]), ["consolidated.00.pth", "params.json"]);
        assert_eq!(
            gathered(&["adapter_model.safetensors", "adapter_config.json"])[0],
            "adapter_model.safetensors"
        );
    }

    #[test]
    fn a_folder_without_a_model_says_so() {
        let error = gather(folder(&["notes.txt", "config.json"]).path()).unwrap_err();
        assert_eq!(error.to_string(), "no Modelfile or safetensors files found");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leaves_the_folder_is_refused() {
        let secret = folder(&["secret.json"]);
        let model = folder(&["model.safetensors", "real.json"]);
        std::os::unix::fs::symlink(model.path().join("real.json"), model.path().join("config.json")).unwrap();
        assert_eq!(gather(model.path()).unwrap().len(), 3, "within the folder, links are fine");
        let out = model.path().join("tokenizer.json");
        std::os::unix::fs::symlink(secret.path().join("secret.json"), out).unwrap();
        assert_eq!(gather(model.path()).unwrap_err().to_string(), "insecure path: tokenizer.json");
    }

    #[test]
    fn a_file_is_itself() {
        let folder = folder(&["m.gguf"]);
        let found = gather(&folder.path().join("m.gguf")).unwrap();
        assert_eq!((found.len(), found[0].name.as_str()), (1, "m.gguf"));
    }
}
