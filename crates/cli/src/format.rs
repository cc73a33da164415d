//! Numbers, times and tables as people read them, in the forms that `ollama` prints.

use jiff::{SignedDuration, Timestamp};
use unicode_width::UnicodeWidthStr;

/// A time farther away than this is shown as `Forever`.
const FOREVER: SignedDuration = SignedDuration::from_hours(21 * 365 * 24);
/// The zero of Go's clock, 0001-01-01.
const ZERO: Timestamp = Timestamp::constant(-62_135_596_800, 0);
/// Spaces between two columns.
const GAP: usize = 4;

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

/// How many of something: `7B`, `7.2B`, `494.03M`, `15K`, `999`.
pub fn number(count: u64) -> String {
    let whole = |size: u64| count.is_multiple_of(size);
    match count {
        1_000_000_000.. if whole(1_000_000_000) => format!("{}B", count / 1_000_000_000),
        1_000_000_000.. => format!("{:.1}B", count as f64 / 1e9),
        1_000_000.. if whole(1_000_000) => format!("{}M", count / 1_000_000),
        1_000_000.. => format!("{:.2}M", count as f64 / 1e6),
        1_000.. => format!("{:.0}K", count as f64 / 1e3),
        _ => count.to_string(),
    }
}

/// `2 weeks ago`, `4 minutes from now`; `zero` where there is no time, which Go writes as the year 1.
pub fn relative(time: &str, now: Timestamp, zero: &str) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return zero.to_owned() };
    let distance = time.duration_since(now);
    if time == ZERO {
        zero.to_owned()
    } else if distance > FOREVER {
        "Forever".to_owned()
    } else if distance.is_positive() {
        format!("{} from now", span(distance))
    } else {
        format!("{} ago", span(-distance))
    }
}

/// The coarse length of a time span: `About an hour`, `13 days`. Hours are rounded, what is larger is cut.
pub fn span(length: SignedDuration) -> String {
    let (seconds, minutes) = (length.as_secs(), length.as_mins());
    let hours = (length.as_secs_f64() / 3600.0).round() as i64;
    match (seconds, minutes, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Left-aligned columns, four spaces apart, without borders; a row may be shorter than others.
pub fn columns(rows: &[Vec<String>]) -> impl Iterator<Item = String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    rows.iter().map(move |row| {
        let pad = |(cell, width): (&String, &usize)| cell.clone() + &" ".repeat(width - cell.width() + GAP);
        row.iter().zip(&widths).map(pad).collect()
    })
}

/// [`columns`] below a header.
pub fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let header = [header.map(str::to_owned).to_vec()];
    let rows: Vec<_> = header.into_iter().chain(rows.into_iter().map(Vec::from)).collect();
    columns(&rows).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_decimal_and_cut() {
        for (count, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (999, "999 B"),
            (1000, "1 KB"),
            (1500, "1.5 KB"),
            (10_999, "10 KB"),
            (999_999, "999 KB"),
            (98_000_000, "98 MB"),
            (4_700_000_000, "4.7 GB"),
            (4_000_000_000, "4 GB"),
            (9_960_000_000, "10.0 GB"),
            (42_900_000_000, "42 GB"),
            (1_200_000_000_000, "1.2 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn numbers_have_a_unit_and_few_digits() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1K"),
            (15_400, "15K"),
            (1_000_000, "1M"),
            (134_515_008, "134.52M"),
            (494_032_768, "494.03M"),
            (1_000_000_000, "1B"),
            (7_000_000_000, "7B"),
            (7_241_732_096, "7.2B"),
        ] {
            assert_eq!(number(count), text);
        }
    }

    #[test]
    fn spans_are_coarse() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (2, "2 seconds"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_599, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1_799, "About an hour"),
            (HOUR + 1_800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
            (3 * 365 * DAY, "3 years"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn times_are_told_from_now() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        for (time, text) in [
            ("2026-01-02T03:08:06+00:00", "4 minutes from now"),
            ("2026-01-01T03:04:05Z", "24 hours ago"),
            ("2026-01-01T22:04:04.5-05:00", "Less than a second ago"),
            ("2318-01-01T00:00:00Z", "Forever"),
            ("0001-01-01T00:00:00Z", "Never"),
            ("", "Never"),
        ] {
            assert_eq!(relative(time, now, "Never"), text, "{time}");
        }
    }

    #[test]
    fn tables_have_four_spaces_between_columns() {
        let rows = vec![["a", "long cell"], ["模型", ""]];
        let rows = rows.into_iter().map(|row| row.map(str::to_owned)).collect();
        let expected = "NAME    ID           \na       long cell    \n模型                 \n";
        assert_eq!(table(["NAME", "ID"], rows), expected);
    }
}
