//! Modelfiles: the syntax, the printer, the request.

use proptest::prelude::*;
use serde_json::{Value, json};
use store::modelfile::{Command, Error, Instruction, Source};
use store::{Digest, Modelfile};

fn parse(text: &str) -> Vec<Command> {
    Modelfile::parse(text).unwrap().commands
}

fn from(text: &str) -> Command {
    Command::From(text.to_owned())
}

fn system(text: &str) -> Command {
    Command::System(text.to_owned())
}

fn parameter(name: &str, value: &str) -> Command {
    Command::Parameter { name: name.to_owned(), value: value.to_owned() }
}

#[test]
fn every_instruction_is_read() {
    let text = "\
# A comment.
FROM llama3
  from ./projector.gguf
adapter lora.gguf
Draft small
TEMPLATE {{ .Prompt }}
SYSTEM You are kind.
LICENSE MIT
LICENSE Apache
renderer r
PARSER p
REQUIRES 0.14.0
PARAMETER stop <|end|>
parameter num_ctx 4096
MESSAGE user Hi there
";
    assert_eq!(
        parse(text),
        [
            from("llama3"),
            from("./projector.gguf"),
            Command::Adapter("lora.gguf".to_owned()),
            Command::Draft("small".to_owned()),
            Command::Template("{{ .Prompt }}".to_owned()),
            system("You are kind."),
            Command::License("MIT".to_owned()),
            Command::License("Apache".to_owned()),
            Command::Renderer("r".to_owned()),
            Command::Parser("p".to_owned()),
            Command::Requires("0.14.0".to_owned()),
            parameter("stop", "<|end|>"),
            parameter("num_ctx", "4096"),
            Command::Message { role: "user".to_owned(), content: "Hi there".to_owned() },
        ]
    );
}

#[test]
fn values_follow_the_rules_of_quoting() {
    for (value, expected) in [
        ("plain text", "plain text"),
        ("  blanks around \t ", "blanks around"),
        (r#""quoted""#, "quoted"),
        (r#"" blanks inside ""#, " blanks inside "),
        (r#""""#, ""),
        (r#""""""""#, ""),
        ("\"two\nlines\"", "two\nlines"),
        ("\"\"\"\nthree\n\"quoted\" lines\n\"\"\"", "\nthree\n\"quoted\" lines\n"),
        (
            "\"\"\"keeps # what looks like a comment\n# here\"\"\"",
            "keeps # what looks like a comment\n# here",
        ),
        (r#""""a "quote" at the end"""""#, r#"a "quote" at the end""#),
        (r#"inner "quotes" stay"#, r#"inner "quotes" stay"#),
        (r#""a" and "b""#, r#"a" and "b"#),
        ("'single quotes are letters'", "'single quotes are letters'"),
        (r"\n is no escape", r"\n is no escape"),
        ("# is no comment here", "# is no comment here"),
        ("bell\u{7} and escape\u{1b}[0m are dropped", "bell and escape[0m are dropped"),
        ("ünï 日本 🦙", "ünï 日本 🦙"),
        ("\"crlf\r\ninside\"", "crlf\r\ninside"),
    ] {
        assert_eq!(
            parse(&format!("FROM m\nSYSTEM {value}\nLICENSE end")),
            [from("m"), system(expected), Command::License("end".to_owned())],
            "{value:?}"
        );
        assert_eq!(
            parse(&format!("FROM m\r\nSYSTEM {value}")),
            [from("m"), system(expected)],
            "{value:?} at the end"
        );
    }
}

#[test]
fn errors_have_ollamas_texts() {
    let command = "command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", \"draft\", \
                   \"renderer\", \"parser\", \"parameter\", \"message\", or \"requires\"";
    let role = "message role must be one of \"system\", \"user\", or \"assistant\"";
    for (text, expected) in [
        ("", "no FROM line".to_owned()),
        ("# FROM m", "no FROM line".to_owned()),
        ("SYSTEM s", "no FROM line".to_owned()),
        ("FRO m", format!("(line 1): {command}")),
        ("FROM m\n\n# c\nBAD x", format!("(line 4): {command}")),
        ("FROM m\r\nBAD x", format!("(line 2): {command}")),
        ("FROM m\nSYSTEM \"\"\"a\nb\"\"\"\nBAD x", format!("(line 4): {command}")),
        ("FROM: m", format!("(line 1): {command}")),
        ("日本 m", format!("(line 1): {command}")),
        ("FROM", "unexpected EOF".to_owned()),
        ("FROM\n", "unexpected EOF".to_owned()),
        ("FROM \n", "unexpected EOF".to_owned()),
        ("FROM m\nPARAMETER stop\n", "unexpected EOF".to_owned()),
        ("FROM m\nPARAMETER\n", "unexpected EOF".to_owned()),
        ("FROM m\nPARAMETER sto-p x", "unexpected EOF".to_owned()),
        ("FROM m\nSYSTEM \"open", "unexpected EOF".to_owned()),
        ("FROM m\nSYSTEM \"\"\"open\n\"\"", "unexpected EOF".to_owned()),
        ("FROM m\nSYSTEM \"", "unexpected EOF".to_owned()),
        ("FROM m\nMESSAGE tool x", format!("(line 2): {role}")),
        ("FROM m\nMESSAGE User x", format!("(line 2): {role}")),
        ("FROM m\nMESSAGE user", "unexpected EOF".to_owned()),
    ] {
        assert_eq!(Modelfile::parse(text).unwrap_err().to_string(), expected, "{text:?}");
    }
}

#[test]
fn files_in_utf16_are_read_by_their_mark() {
    let text = "FROM m\nSYSTEM ünï 🦙\n";
    let expected = Modelfile::parse(text).unwrap();
    let little: Vec<u8> =
        [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    assert_eq!(Modelfile::parse_bytes(&little).unwrap(), expected);
    assert_eq!(Modelfile::parse_bytes(&big).unwrap(), expected);
    assert_eq!(Modelfile::parse_bytes(format!("\u{feff}{text}").as_bytes()).unwrap(), expected);
    assert_eq!(Modelfile::parse_bytes(text.as_bytes()).unwrap(), expected);
    assert_eq!(
        Modelfile::parse_bytes(&little[..little.len() - 1]),
        Err(Error::Encoding { encoding: "UTF-16" })
    );
    assert_eq!(Modelfile::parse_bytes(b"FROM \xff"), Err(Error::Encoding { encoding: "UTF-8" }));
}

#[test]
fn a_value_is_quoted_only_when_it_must_be() {
    for (value, expected) in [
        ("plain", "SYSTEM plain"),
        ("with \"quotes\"", "SYSTEM with \"quotes\""),
        (" blank", "SYSTEM \" blank\""),
        ("two\nlines", "SYSTEM \"two\nlines\""),
        ("two\n\"quoted\" lines", "SYSTEM \"\"\"two\n\"quoted\" lines\"\"\""),
        ("\"quote first", "SYSTEM \"\"\"\"quote first\"\"\""),
        ("", "SYSTEM \"\""),
    ] {
        assert_eq!(system(value).to_string(), expected);
    }
}

fn resolve(instruction: Instruction, value: &str) -> Result<Source, Error> {
    let file = |name: &str| Source::Files(vec![(name.to_owned(), Digest::of(name.as_bytes()))]);
    Ok(match (instruction, value) {
        (_, path) if path.starts_with("./") => file(&path[2..]),
        (_, name) => Source::Model(name.to_owned()),
    })
}

fn request(text: &str) -> Result<Value, String> {
    let modelfile = Modelfile::parse(text).map_err(|error| error.to_string())?;
    let prepared = modelfile.into_create_request("me", resolve).map_err(|error| error.to_string())?;
    assert!(prepared.warnings.is_empty());
    Ok(serde_json::to_value(prepared.request).unwrap())
}

#[test]
fn a_modelfile_becomes_a_create_request() {
    let text = "FROM base\nSYSTEM old\nSYSTEM new\nTEMPLATE t\nLICENSE a\nLICENSE b\nPARAMETER stop x\nPARAMETER stop y\n\
                PARAMETER temperature 0.3\nPARAMETER num_ctx 1\nPARAMETER num_ctx 2\nPARAMETER use_mmap false\n\
                MESSAGE user hi\nMESSAGE assistant ho\nREQUIRES 0.1.0\nRENDERER r\nPARSER p\n";
    assert_eq!(
        request(text).unwrap(),
        json!({
            "model": "me", "from": "base", "system": "new", "template": "t", "license": ["a", "b"],
            "parameters": {"stop": ["x", "y"], "temperature": 0.3, "num_ctx": 2, "use_mmap": false},
            "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
            "requires": "0.1.0", "renderer": "r", "parser": "p",
        })
    );
    let digest = |name: &str| Digest::of(name.as_bytes()).to_string();
    assert_eq!(
        request("FROM ./m.gguf\nFROM ./p.gguf\nADAPTER ./l.gguf\nDRAFT ./d.gguf").unwrap(),
        json!({
            "model": "me",
            "files": {"m.gguf": digest("m.gguf"), "p.gguf": digest("p.gguf")},
            "adapters": {"l.gguf": digest("l.gguf")},
            "draft_files": {"d.gguf": digest("d.gguf")},
        })
    );
}

#[test]
fn a_request_that_cannot_be_made_says_why() {
    for (text, expected) in [
        ("FROM m\nPARAMETER nonsense 1", "unknown parameter 'nonsense'"),
        ("FROM m\nPARAMETER num_ctx big", "invalid int value [big]"),
        ("FROM m\nPARAMETER temperature hot", "invalid float value [hot]"),
        ("FROM m\nPARAMETER use_mmap maybe", "invalid bool value [maybe]"),
        ("FROM m\nADAPTER nowhere", "an adapter that is no file is not supported yet"),
        ("FROM m\nDRAFT nowhere", "a draft that is no file is not supported yet"),
        ("FROM m\nREQUIRES soon", "requires must be a valid semver (e.g. 0.14.0), got \"soon\""),
    ] {
        assert_eq!(request(text).unwrap_err(), expected);
    }
}

#[test]
fn deprecated_parameters_are_dropped_with_a_warning() {
    let modelfile = Modelfile::parse("FROM m\nPARAMETER mirostat 1\nPARAMETER top_k 3").unwrap();
    let prepared = modelfile.into_create_request("me", resolve).unwrap();
    assert_eq!(prepared.warnings, ["warning: parameter mirostat is deprecated"]);
    assert_eq!(Value::Object(prepared.request.parameters.unwrap()), json!({"top_k": 3}));
}

#[test]
fn the_paths_to_look_for_are_told_in_order() {
    let modelfile = Modelfile::parse("FROM a\nADAPTER b\nSYSTEM s\nFROM c").unwrap();
    let expected = [(Instruction::From, "a"), (Instruction::Adapter, "b"), (Instruction::From, "c")];
    assert_eq!(modelfile.references(), expected);
}

/// Texts that the syntax can express: it has no way to write a line that ends with three quotes.
fn expressible() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("\"".to_owned()),
        Just(" ".to_owned()),
        Just("#".to_owned()),
        "[a-zA-Z0-9{}.<|>é日🦙\t-]{1,6}",
    ];
    prop::collection::vec(piece, 0..12)
        .prop_map(|pieces| pieces.concat())
        .prop_filter("three quotes at a line end", |text| {
            !text.split(['\n', '\r']).any(|line| line.trim().ends_with("\"\"\""))
        })
}

fn command() -> impl Strategy<Value = Command> {
    let role = prop_oneof![Just("system"), Just("user"), Just("assistant")];
    prop_oneof![
        expressible().prop_map(Command::Adapter),
        expressible().prop_map(Command::Template),
        expressible().prop_map(Command::System),
        expressible().prop_map(Command::License),
        ("[a-z_0-9]{1,9}", expressible()).prop_map(|(name, value)| Command::Parameter { name, value }),
        (role, expressible()).prop_map(|(role, content)| Command::Message { role: role.to_owned(), content }),
    ]
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(commands in prop::collection::vec(command(), 0..6), model in "[a-z./]{1,9}") {
        let mut modelfile = Modelfile { commands };
        modelfile.commands.push(Command::From(model));
        prop_assert_eq!(Modelfile::parse(&modelfile.to_string()).unwrap(), modelfile);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in any::<Vec<u8>>(), text in "(FROM|SYSTEM|MESSAGE user|\"|\"\"\"|[a-z \t\r\n#]){0,12}") {
        let _ = Modelfile::parse_bytes(&bytes);
        let _ = Modelfile::parse(&text);
        let _ = Modelfile::parse_bytes(&[&[0xff, 0xfe], bytes.as_slice()].concat());
    }
}
