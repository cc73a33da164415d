//! Readers for the kinds of settings that there are. `None` means that the text is none of that kind. And how a setting is
//! shown to people.

use std::borrow::Cow;

use api::KeepAlive;

/// Any text.
pub fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Decimal digits, no sign.
pub fn uint(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// One of `words`, in any case.
pub fn one_of(words: &'static [&'static str], text: &str) -> Option<&'static str> {
    words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied()
}

/// What Go reads as a bool.
pub fn strict_bool(text: &str) -> Option<bool> {
    api::options::parse_bool(text)
}

/// What Go reads as a bool; Ollama takes any other text for true, `off` and `no` too.
pub fn ollama_bool(text: &str) -> Option<bool> {
    Some(api::options::parse_bool(text).unwrap_or(true))
}

/// A Go duration, or whole seconds; negative is for ever.
pub fn ollama_duration(text: &str) -> Option<KeepAlive> {
    let seconds = || text.parse::<i64>().ok().map(|seconds| KeepAlive::from_seconds(seconds as f64));
    text.parse().ok().or_else(seconds)
}

/// `text` without the user and the password of any URL in it: settings are told in errors and in the log.
pub fn conceal(text: &str) -> Cow<'_, str> {
    // Up to the last sign: a list may hold several of them, and a malformed URL holds the same secret as a whole one.
    let Some(end) = text.rfind('@') else { return text.into() };
    let start = text.find("://").map(|at| at + 3).filter(|start| *start <= end).unwrap_or(0);
    format!("{}***{}", &text[..start], &text[end..]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_somebody_is_to_a_server_is_not_told() {
        for (text, told) in [
            ("http://me:secret@mirror/x", "http://***@mirror/x"),
            ("hf.co=https://me:se/cr@et@mirror", "hf.co=https://***@mirror"),
            ("http://a,http://me:se,cret@b,http://c", "http://***@b,http://c"),
            ("me:secret@mirror", "***@mirror"),
            ("me:secret@http://mirror", "***@http://mirror"),
            ("http://mirror", "http://mirror"),
            ("", ""),
        ] {
            assert_eq!(conceal(text), told, "{text}");
        }
    }

    #[test]
    fn numbers_have_no_sign() {
        for (text, number) in
            [("512", Some(512)), ("0", Some(0)), ("+5", None), ("-1", None), ("5k", None), ("", None)]
        {
            assert_eq!(uint(text), number, "{text:?}");
        }
        assert_eq!(uint("18446744073709551616"), None);
    }

    #[test]
    fn durations_are_those_of_go_or_seconds() {
        let seconds = |seconds| Some(KeepAlive::from_seconds(seconds));
        for (text, duration) in [
            ("5m", seconds(300.0)),
            ("300", seconds(300.0)),
            ("-1", Some(KeepAlive::FOREVER)),
            ("0", seconds(0.0)),
        ] {
            assert_eq!(ollama_duration(text), duration, "{text:?}");
        }
        assert_eq!(ollama_duration("soon"), None);
    }

    #[test]
    fn words_match_in_any_case() {
        assert_eq!(one_of(&["candle", "scripted"], "Candle"), Some("candle"));
        assert_eq!(one_of(&["candle", "scripted"], "candles"), None);
    }
}
