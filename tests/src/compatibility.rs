//! `docs/compatibility.md` as data, and what of the sources it has to speak of: routes, fields, variables, tests.
//!
//! The sources are read as text. That needs no code in them for the sake of a page, and what it asks of their form is
//! what rustfmt gives them anyway.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// One row of one of the page's tables.
#[derive(Clone, Debug)]
pub struct Row {
    /// In the page, from one.
    pub line: usize,
    /// The headings above, joined: `OpenAI / Models`.
    pub section: String,
    /// What the table is about, as the head of its first column says: `route`, `field`, ...
    pub kind: String,
    /// What stands in backticks in the first column.
    pub names: Vec<String>,
    /// All cells.
    pub cells: Vec<String>,
}

/// A section that speaks of types of `crates/api`.
#[derive(Clone, Debug)]
pub struct Types {
    pub section: String,
    /// `ollama/ChatRequest`: the module and the type.
    pub names: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Page {
    pub rows: Vec<Row>,
    pub types: Vec<Types>,
}

// === impl Row ===

impl Row {
    pub fn status(&self) -> &str {
        &self.cells[self.cells.len() - 2]
    }

    pub fn is_not_yet(&self) -> bool {
        self.status() == "not yet"
    }

    /// The names of the tests in the last column.
    pub fn tests(&self) -> Vec<String> {
        quoted(&self.cells[self.cells.len() - 1])
    }
}

// === impl Page ===

impl Page {
    /// # Errors
    /// The page is not there, or a table is not one.
    pub fn read() -> Result<Page> {
        let path = root().join("docs/compatibility.md");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Page::parse(&text)
    }

    fn parse(text: &str) -> Result<Page> {
        let (mut page, mut chapter, mut section, mut kind) = (Page::default(), "", String::new(), None);
        for (number, line) in text.lines().enumerate() {
            if let Some(heading) = line.strip_prefix("## ") {
                (chapter, section) = (heading, heading.to_owned());
            } else if let Some(heading) = line.strip_prefix("### ") {
                section = format!("{chapter} / {heading}");
            } else if let Some(types) = line.strip_prefix("<!-- types: ") {
                let names = types.trim_end_matches("-->").split_whitespace().map(str::to_owned).collect();
                page.types.push(Types { section: section.clone(), names });
            }
            let Some(cells) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
                kind = None;
                continue;
            };
            let cells: Vec<String> = cells.split('|').map(|cell| cell.trim().to_owned()).collect();
            let Some(kind) = &kind else {
                kind = Some(cells[0].clone());
                continue;
            };
            if cells[0].starts_with("---") || chapter.is_empty() {
                continue;
            }
            ensure!(cells.len() >= 3, "line {}: a row needs a name, a status and tests", number + 1);
            let names = quoted(&cells[0]);
            let row = Row { line: number + 1, section: section.clone(), kind: kind.clone(), names, cells };
            page.rows.push(row);
        }
        Ok(page)
    }

    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }

    /// The names of all rows of a kind.
    pub fn names<'a>(&'a self, kind: &'a str) -> BTreeSet<&'a str> {
        self.of_kind(kind).flat_map(|row| row.names.iter().map(String::as_str)).collect()
    }
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live in the workspace").to_owned()
}

/// Every source file below a folder of the workspace, with its text.
pub fn sources(folder: &str) -> Result<Vec<(PathBuf, String)>> {
    let (mut folders, mut files) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path)?;
                files.push((path, text));
            }
        }
    }
    ensure!(!files.is_empty(), "no sources in {folder}");
    Ok(files)
}

/// The paths of the gateway's router.
pub fn routes() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (_, text) in sources("crates/gateway/src")? {
        for call in text.split(".route(").skip(1) {
            if let Some(path) = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                found.insert(path.to_owned());
            }
        }
    }
    Ok(found)
}

/// The functions that are tests.
pub fn test_functions() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (_, text) in sources("crates")?.into_iter().chain(sources("tests")?) {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0].starts_with("#[") && pair[0].contains("test")) {
            let name = pair[1].trim_start_matches("async ").strip_prefix("fn ");
            found.extend(name.and_then(|rest| rest.split('(').next()).map(str::to_owned));
        }
    }
    Ok(found)
}

/// The variables of the environment that the code names: texts that begin with `OLLAMA_` or `CARAVAN_`. Those by which
/// a test talks to itself are nobody's business.
pub fn variables() -> Result<BTreeSet<String>> {
    let is_name = |text: &&str| {
        let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let is_ours = text.starts_with("OLLAMA_") || text.starts_with("CARAVAN_");
        is_ours && !text.starts_with("CARAVAN_TEST_") && !text.ends_with('_') && text.bytes().all(is_part)
    };
    let mut found = BTreeSet::new();
    for (_, text) in sources("crates")? {
        found.extend(text.split('"').filter(is_name).map(str::to_owned));
    }
    Ok(found)
}

/// The fields, as they are on the wire, of every type of `crates/api` that is read from JSON or written as JSON, by
/// `module/Type`.
pub fn fields() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let folder = root().join("crates/api/src");
    let mut types = BTreeMap::new();
    for (path, text) in sources("crates/api/src")? {
        let module = path.strip_prefix(&folder)?.components().next().context("a file has a name")?;
        let module =
            Path::new(&module).file_stem().context("a file has a name")?.to_string_lossy().into_owned();
        let mut attributes = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("#[") {
                attributes.push_str(line);
            } else if let Some(name) = line.strip_prefix("pub struct ").filter(|line| line.ends_with('{')) {
                let name = name.split(['<', ' ']).next().unwrap_or_default();
                let is_wire = attributes.contains("Serialize") || attributes.contains("Deserialize");
                let found = struct_fields(&mut lines);
                if is_wire && !found.is_empty() {
                    types.insert(format!("{module}/{name}"), found);
                }
                attributes.clear();
            } else if !line.starts_with("//") {
                attributes.clear();
            }
        }
    }
    Ok(types)
}

/// The fields of the struct whose first line was read, up to its last line.
fn struct_fields<'a>(lines: &mut impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let (mut found, mut attributes) = (BTreeSet::new(), String::new());
    for line in lines.take_while(|line| *line != "}") {
        let line = line.trim();
        if line.starts_with("//") {
            continue;
        }
        let field = line.trim_start_matches("pub ").split(": ").next().filter(|_| line.contains(": "));
        let Some(field) = field.filter(|_| !line.starts_with("#[")) else {
            attributes.push_str(line);
            continue;
        };
        let renamed = attributes.split("rename = \"").nth(1).and_then(|rest| rest.split('"').next());
        let is_wire = !attributes.contains("flatten") && !attributes.contains("serde(skip)");
        if is_wire {
            found.insert(renamed.unwrap_or(field.trim_start_matches("r#")).to_owned());
        }
        attributes.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_rows_under_headings() {
        let page = Page::parse(
            "| it says | it means |\n| --- | --- |\n| yes | as it is |\n## A\n### B\n<!-- types: m/T m/U -->\n\n\
             | field | status | tests |\n| --- | --- | --- |\n| `a`, `b.c` | yes | `01: d, e` |\n",
        )
        .unwrap();
        let [row] = &page.rows[..] else { panic!("{:?}", page.rows) };
        assert_eq!((row.section.as_str(), row.kind.as_str(), row.status()), ("A / B", "field", "yes"));
        assert_eq!(
            (row.names.clone(), row.tests()),
            (vec!["a".into(), "b.c".into()], vec!["01: d, e".into()])
        );
        assert_eq!(page.types[0].names, ["m/T", "m/U"]);
        assert!(Page::parse("## A\n| field |\n| --- |\n| `a` |").is_err());
    }

    #[test]
    fn the_sources_are_understood() {
        let fields = fields().unwrap();
        assert!(fields["ollama/GenerateRequest"].contains("_debug_render_only"));
        assert!(!fields["ollama/GenerateResponse"].contains("metrics"), "flattened");
        assert!(fields["openai/ToolCall"].contains("type"), "renamed");
        assert!(routes().unwrap().contains("/api/blobs/{digest}"));
        assert!(variables().unwrap().contains("OLLAMA_HOST"));
        assert!(test_functions().unwrap().contains("the_sources_are_understood"));
    }
}
