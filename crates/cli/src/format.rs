//! Numbers, times and tables as people read them, in the forms that `ollama` prints.

use jiff::{SignedDuration, Timestamp};

/// Decimal units: `999 B`, `4.7 GB`, `42 GB` (whole numbers from ten on, cut and not rounded).
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, f64); 4] = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    let Some((unit, size)) = UNITS.into_iter().find(|(_, size)| count as f64 >= *size) else {
        return format!("{count} B");
    };
    let value = count as f64 / size;
    if value >= 10.0 || value.fract() == 0.0 {
        format!("{} {unit}", value.trunc())
    } else {
        format!("{value:.1} {unit}")
    }
}

/// `2 weeks ago`, `4 minutes from now`; `zero` where there is no time.
pub fn relative(time: &str, now: Timestamp, zero: &str) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return zero.to_owned() };
    let distance = time.duration_since(now);
    if distance.is_positive() {
        format!("{} from now", span(distance))
    } else {
        format!("{} ago", span(-distance))
    }
}

/// The coarse length of a time span: `About an hour`, `13 days`.
pub fn span(length: SignedDuration) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let seconds = length.as_secs();
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        HOUR..7200 => "About an hour".to_owned(),
        7200..172_800 => format!("{} hours", seconds / HOUR),
        172_800..1_209_600 => format!("{} days", seconds / DAY),
        1_209_600..5_184_000 => format!("{} weeks", seconds / (7 * DAY)),
        5_184_000..63_072_000 => format!("{} months", seconds / (30 * DAY)),
        _ => format!("{} years", seconds / (365 * DAY)),
    }
}

/// A Go-like duration for people: `1.234s`, `45.6ms`.
pub fn nanoseconds(count: u64) -> String {
    match count {
        0..1_000 => format!("{count}ns"),
        1_000..1_000_000 => format!("{:.3}µs", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.3}ms", count as f64 / 1e6),
        1_000_000_000..60_000_000_000 => format!("{:.3}s", count as f64 / 1e9),
        _ => format!("{}m{:.1}s", count / 60_000_000_000, (count % 60_000_000_000) as f64 / 1e9),
    }
}

/// Left-aligned columns, four spaces apart, without borders.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max().unwrap_or(0)
    });
    let line = |cells: [&str; N]| -> String {
        cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}    ")).collect::<String>() + "\n"
    };
    let body = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(header)).chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_decimal_and_cut() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 KB"),
            (4_700_000_000, "4.7 GB"),
            (42_900_000_000, "42 GB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn spans_are_coarse() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3_600, "About an hour"),
            (47 * 3_600, "47 hours"),
            (13 * 86_400, "13 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (3 * 365 * 86_400, "3 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_are_told_from_now() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(relative("2026-01-02T03:08:06+00:00", now, "Never"), "4 minutes from now");
        assert_eq!(relative("2026-01-01T03:04:05Z", now, "Never"), "24 hours ago");
        assert_eq!(relative("", now, "Never"), "Never");
    }

    #[test]
    fn tables_have_four_spaces_between_columns() {
        let rows = [["a".to_owned(), "long cell".to_owned()]];
        assert_eq!(table(["NAME", "ID"], &rows), "NAME    ID           \na       long cell    \n");
    }
}
