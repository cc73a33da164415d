//! Files named in a prompt: pictures and sounds are taken out of the text and sent along.

use std::{fs::File, io::Read, path::Path, sync::LazyLock};

use anyhow::{Context, Result, bail, ensure};
use api::ollama::Image;
use fancy_regex::Regex;

use crate::output::remark;

/// As much as Ollama's own client takes.
const MAX_BYTES: u64 = 100 << 20;

/// A path, maybe of a Windows drive, whose spaces may have a backslash before them, up to the end of a known name.
static PATH: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:[a-zA-Z]:)?(?:\./|/|\\)[\S\\ ]+?\.(?i:jpg|jpeg|png|webp|wav)\b")
        .expect("the pattern is a constant that a test uses")
});

/// A prompt without the names of its files, and their content.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attached {
    pub text: String,
    pub images: Vec<Image>,
}

/// Takes the files out of `prompt`. A name without a file stays text.
///
/// # Errors
/// A file that cannot be read, is too large, or is something else than its name says.
pub fn attach(prompt: &str) -> Result<Attached> {
    let mut attached = Attached { text: prompt.to_owned(), images: Vec::new() };
    for written in names(prompt) {
        let path = unescape(written);
        if !Path::new(&path).exists() {
            continue;
        }
        let (kind, content) = read(&path).with_context(|| format!("couldn't process '{path}'"))?;
        remark(format_args!("Added {kind} '{path}'"));
        let text = &attached.text;
        let text = text.replace(&format!("'{path}'"), "").replace(&format!("'{written}'"), "");
        attached.text = text.replace(written, "");
        attached.images.push(Image(content));
    }
    attached.text = attached.text.trim().to_owned();
    Ok(attached)
}

/// Whether a text that begins with a slash begins with the name of a file, so that it is no command.
pub fn begins_with_a_file(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    names(text).any(|written| written.starts_with(first) && Path::new(&unescape(written)).exists())
}

/// What reads as the name of a picture or a sound.
fn names(prompt: &str) -> impl Iterator<Item = &str> {
    PATH.find_iter(prompt).filter_map(|found| Some(found.ok()?.as_str()))
}

/// What a shell or a drag puts a backslash before is meant as it is.
fn unescape(written: &str) -> String {
    let mut path = String::with_capacity(written.len());
    let mut characters = written.chars().peekable();
    while let Some(character) = characters.next() {
        let is_special = |next: &char| " ()[]{}$&;'\\*?~`\"".contains(*next);
        match (character, characters.peek()) {
            ('\\', Some(next)) if is_special(next) => path.extend(characters.next()),
            _ => path.push(character),
        }
    }
    path
}

/// The content, and whether it is to be seen or to be heard.
fn read(path: &str) -> Result<(&'static str, Vec<u8>)> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    ensure!(content.len() as u64 <= MAX_BYTES, "the file must have at most {} MB", MAX_BYTES >> 20);
    let kind = match content.as_slice() {
        [0xff, 0xd8, 0xff, ..] | [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "image",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => "audio",
        _ => bail!("the content must be JPEG, PNG, WebP or WAVE, and is none of them"),
    };
    Ok((kind, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

    #[test]
    fn names_are_found_in_a_prompt() {
        for (prompt, found) in [
            ("what is in ./a.png", vec!["./a.png"]),
            ("/tmp/one.jpg and /tmp/two.JPEG?", vec!["/tmp/one.jpg", "/tmp/two.JPEG"]),
            (r"/tmp/my\ picture.webp", vec![r"/tmp/my\ picture.webp"]),
            (r"C:\pictures\a.png", vec![r"C:\pictures\a.png"]),
            ("/tmp/talk.wav", vec!["/tmp/talk.wav"]),
            ("a.png has no folder, ./a.pngx no such ending, /etc/passwd none", vec![]),
        ] {
            assert_eq!(names(prompt).collect::<Vec<_>>(), found, "{prompt}");
        }
    }

    #[test]
    fn a_file_goes_out_of_the_text_and_along_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my (first) picture.png");
        std::fs::write(&path, PNG).unwrap();
        let escaped = path.to_str().unwrap().replace(' ', r"\ ").replace('(', r"\(").replace(')', r"\)");
        let expected = Attached { text: "What is in it?".to_owned(), images: vec![Image(PNG.to_vec())] };
        assert_eq!(attach(&format!("What is in it? {escaped}")).unwrap(), expected);
        assert_eq!(attach(&format!("'{}' What is in it?", path.display())).unwrap(), expected);
        assert!(begins_with_a_file(&format!("{escaped} what is it")));
    }

    #[test]
    fn what_is_no_file_stays_text() {
        let prompt = "draw /nowhere/a.png";
        assert_eq!(attach(prompt).unwrap(), Attached { text: prompt.to_owned(), images: Vec::new() });
        assert!(!begins_with_a_file("/nowhere/a.png"));
    }

    #[test]
    fn a_file_that_is_not_what_its_name_says_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, "text").unwrap();
        let error = format!("{:#}", attach(path.to_str().unwrap()).unwrap_err());
        assert!(
            error.contains("a.png")
                && error.ends_with("must be JPEG, PNG, WebP or WAVE, and is none of them")
        );
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let error = format!("{:#}", attach(path.to_str().unwrap()).unwrap_err());
        assert!(error.ends_with("the file must have at most 100 MB"), "{error}");
    }
}
