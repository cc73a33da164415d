//! Durations as Go writes them (`1h30m`, `5m0s`), and `keep_alive`, which is one of them or a number of seconds.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// How long an idle model stays loaded, in nanoseconds; never negative, [`KeepAlive::FOREVER`] is no end at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeepAlive(i64);

/// A text that is no Go duration. The wording is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    #[error("time: unknown unit {} in duration {}", quote(unit), quote(text))]
    UnknownUnit { unit: String, text: String },
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// What Go calls the units; two spellings of micro, U+00B5 and U+03BC, are both in use.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The magnitude of the smallest `i64`: Go's parser lets a negative duration reach it.
const MAGNITUDE_MAX: u64 = 1 << 63;

// === impl KeepAlive ===

impl KeepAlive {
    pub const FOREVER: KeepAlive = KeepAlive(i64::MAX);
    /// Unload as soon as the last request has ended.
    pub const ZERO: KeepAlive = KeepAlive(0);
    /// Ollama's default, five minutes.
    pub const DEFAULT: KeepAlive = KeepAlive(300 * NANOS_PER_SECOND);

    /// A negative number of nanoseconds means for ever.
    pub fn from_nanos(nanos: i64) -> KeepAlive {
        if nanos < 0 { KeepAlive::FOREVER } else { KeepAlive(nanos) }
    }

    /// Seconds with a fraction, as in a JSON number; beyond 292 years is for ever as well.
    pub fn from_seconds(seconds: f64) -> KeepAlive {
        // `as` saturates, so a huge number ends at `FOREVER` and NaN at zero.
        if seconds < 0.0 { KeepAlive::FOREVER } else { KeepAlive((seconds * NANOS_PER_SECOND as f64) as i64) }
    }

    pub fn nanos(self) -> i64 {
        self.0
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `None` means for ever.
    pub fn duration(self) -> Option<Duration> {
        (self != KeepAlive::FOREVER).then(|| Duration::from_nanos(self.0.unsigned_abs()))
    }
}

impl From<Duration> for KeepAlive {
    fn from(duration: Duration) -> KeepAlive {
        KeepAlive(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl std::str::FromStr for KeepAlive {
    type Err = Error;

    fn from_str(text: &str) -> Result<KeepAlive, Error> {
        parse(text).map(KeepAlive::from_nanos)
    }
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format(self.0))
    }
}

impl Serialize for KeepAlive {
    /// For ever travels as `-1`, which Ollama reads; anything else as a Go duration.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            &KeepAlive::FOREVER => serializer.serialize_i64(-1),
            finite => serializer.collect_str(finite),
        }
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeepAlive, D::Error> {
        deserializer.deserialize_any(KeepAliveVisitor)
    }
}

struct KeepAliveVisitor;

impl<'de> Visitor<'de> for KeepAliveVisitor {
    type Value = KeepAlive;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of seconds or a duration")
    }

    fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<KeepAlive, E> {
        Ok(KeepAlive::from_seconds(seconds as f64))
    }

    fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<KeepAlive, E> {
        Ok(KeepAlive::from_seconds(seconds as f64))
    }

    fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<KeepAlive, E> {
        Ok(KeepAlive::from_seconds(seconds))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<KeepAlive, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<KeepAlive, E> {
        Err(E::custom("Unsupported type: 'bool'"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<KeepAlive, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Err(A::Error::custom("Unsupported type: '[]interface {}'"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeepAlive, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Err(A::Error::custom("Unsupported type: 'map[string]interface {}'"))
    }
}

/// Go's `time` has quotes of its own: byte by byte, and plainer than those of `%q`.
fn quote(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        0..0x20 | 0x80.. => format!("\\x{byte:02x}"),
        _ => char::from(byte).to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

// === parse and format ===

/// Reads Go's duration syntax: a sign, then numbers with a unit each; `0` alone needs none. Nanoseconds.
pub fn parse(text: &str) -> Result<i64, Error> {
    let invalid = || Error::Invalid(text.to_owned());
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let part;
        (part, rest) = parse_part(rest, text)?;
        total = total.checked_add(part).filter(|total| *total <= MAGNITUDE_MAX).ok_or_else(invalid)?;
    }
    match (negative, i64::try_from(total)) {
        (false, Ok(nanos)) => Ok(nanos),
        (true, Ok(nanos)) => Ok(-nanos),
        (true, Err(_)) => Ok(i64::MIN),
        (false, Err(_)) => Err(invalid()),
    }
}

/// One number with its unit, in nanoseconds, and what follows it.
fn parse_part<'a>(part: &'a str, text: &str) -> Result<(u64, &'a str), Error> {
    let invalid = || Error::Invalid(text.to_owned());
    let (whole, rest) = split_digits(part);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    if whole > MAGNITUDE_MAX {
        return Err(invalid());
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    if name.is_empty() {
        return Err(Error::MissingUnit(text.to_owned()));
    }
    let Some(&(_, unit)) = UNITS.iter().find(|(unit, _)| *unit == name) else {
        return Err(Error::UnknownUnit { unit: name.to_owned(), text: text.to_owned() });
    };
    let nanos = whole.checked_mul(unit).and_then(|nanos| nanos.checked_add(fraction_of(fraction, unit)));
    nanos.filter(|nanos| *nanos <= MAGNITUDE_MAX).map(|nanos| (nanos, rest)).ok_or_else(invalid)
}

/// `fraction` are the digits after the point. Those beyond nanosecond precision add nothing, so 18 always do.
fn fraction_of(fraction: &str, unit: u64) -> u64 {
    let mut nanos: u128 = 0;
    let mut scale: u128 = 1;
    for digit in fraction.bytes().take(18) {
        nanos = nanos * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    // At most `unit`, since the fraction is below one.
    u64::try_from(nanos * u128::from(unit) / scale).unwrap_or(unit)
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Writes nanoseconds as Go's `Duration.String` does: `5m0s`, `1.5s`, `300ms`, `0s`.
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let second = NANOS_PER_SECOND.unsigned_abs();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (hours, minutes) = (nanos / (3600 * second), nanos / (60 * second) % 60);
            let seconds = decimal(nanos % (60 * second), second);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, _) => format!("{sign}{minutes}m{seconds}s"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` in decimals without trailing zeros; `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("5m", 300 * NANOS_PER_SECOND),
            ("1h30m", 5400 * NANOS_PER_SECOND),
            ("300ms", 300_000_000),
            ("-1m", -60 * NANOS_PER_SECOND),
            ("+1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", NANOS_PER_SECOND),
            ("1µs2ns", 1_002),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_in_words_of_go() {
        for (text, message) in [
            ("60", "time: missing unit in duration \"60\""),
            ("-1", "time: missing unit in duration \"-1\""),
            ("", "time: invalid duration \"\""),
            (".s", "time: invalid duration \".s\""),
            ("x", "time: invalid duration \"x\""),
            ("é\n\"\\", r#"time: invalid duration "\xc3\xa9\x0a\"\\""#),
            ("5 m", "time: unknown unit \" m\" in duration \"5 m\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
            ("99999999999999999999h", "time: invalid duration \"99999999999999999999h\""),
            ("99999999999999999999", "time: invalid duration \"99999999999999999999\""),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (300 * NANOS_PER_SECOND, "5m0s"),
            (245_001_000_000, "4m5.001s"),
            (3600 * NANOS_PER_SECOND, "1h0m0s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(format(nanos), text);
        }
    }

    #[test]
    fn keep_alive_is_seconds_or_a_duration_and_negative_is_for_ever() {
        let read = |value| serde_json::from_value::<KeepAlive>(value).unwrap();
        assert_eq!(read(json!(42.5)).nanos(), 42_500_000_000);
        assert_eq!(read(json!(300)), KeepAlive::DEFAULT);
        assert_eq!(read(json!(0)), KeepAlive::ZERO);
        assert_eq!(read(json!(-0.5)), KeepAlive::FOREVER);
        assert_eq!(read(json!("-1m")), KeepAlive::FOREVER);
        assert_eq!(read(json!("0")), KeepAlive::ZERO);
        assert_eq!(read(json!(1e300)), KeepAlive::FOREVER);
        assert_eq!(KeepAlive::FOREVER.duration(), None);
        assert_eq!(read(json!("5m")).duration(), Some(Duration::from_secs(300)));
    }

    #[test]
    fn keep_alive_of_another_type_names_the_type_of_go() {
        for (value, kind) in [
            (json!(true), "bool"),
            (json!([1]), "[]interface {}"),
            (json!({"a": 1}), "map[string]interface {}"),
        ] {
            let error = serde_json::from_value::<KeepAlive>(value).unwrap_err();
            assert_eq!(error.to_string(), format!("Unsupported type: '{kind}'"));
        }
    }

    #[test]
    fn keep_alive_survives_the_wire() {
        assert_eq!(serde_json::to_value(KeepAlive::FOREVER).unwrap(), json!(-1));
        assert_eq!(serde_json::to_value(KeepAlive::DEFAULT).unwrap(), json!("5m0s"));
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(nanos: i64) {
            prop_assert_eq!(parse(&format(nanos)), Ok(nanos));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*|[-+0-9.a-zµ]{0,40}") {
            let _ = parse(&text);
        }
    }
}
