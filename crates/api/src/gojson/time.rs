//! Points in time as Go's JSON writes them: RFC 3339, up to nine digits of a second, zeros at the end cut.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2024-06-19T15:22:45.123Z`, as `created_at` is written.
pub fn timestamp_utc(time: SystemTime) -> String {
    in_zone(time, TimeZone::UTC)
}

/// `2024-06-19T17:22:45.123+02:00`, as `modified_at` and `expires_at` are: with the offset of this machine.
pub fn timestamp_local(time: SystemTime) -> String {
    in_zone(time, TimeZone::system())
}

/// Seconds since 1970 of a time that was written so.
pub fn unix_seconds(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// A time before or after jiff's years (-9999 to 9999) is written as the nearest that it has.
fn in_zone(time: SystemTime, zone: TimeZone) -> String {
    let timestamp = Timestamp::try_from(time)
        .unwrap_or_else(|_| if time < SystemTime::UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX });
    let zoned = timestamp.to_zoned(zone);
    let format = if zoned.offset().is_zero() { "%Y-%m-%dT%H:%M:%S%.fZ" } else { "%Y-%m-%dT%H:%M:%S%.f%:z" };
    zoned.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn zeros_behind_the_last_digit_of_a_second_are_cut() {
        let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_718_810_565);
        assert_eq!(timestamp_utc(second), "2024-06-19T15:22:45Z");
        assert_eq!(timestamp_utc(second + Duration::from_millis(120)), "2024-06-19T15:22:45.12Z");
        assert_eq!(timestamp_utc(second + Duration::from_nanos(1)), "2024-06-19T15:22:45.000000001Z");
    }

    #[test]
    fn an_offset_is_written_and_none_is_z() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(in_zone(time, TimeZone::fixed(jiff::tz::offset(-7))), "1969-12-31T17:00:01.5-07:00");
        assert_eq!(in_zone(time, TimeZone::fixed(jiff::tz::offset(0))), "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn local_time_is_the_same_instant() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_718_810_565);
        let local: Timestamp = timestamp_local(time).parse().unwrap();
        assert_eq!(SystemTime::from(local), time);
    }

    #[test]
    fn what_is_written_is_read_in_seconds() {
        let second = SystemTime::UNIX_EPOCH + Duration::from_millis(1_718_810_565_900);
        assert_eq!(unix_seconds(&timestamp_utc(second)), Some(1_718_810_565));
        assert_eq!((unix_seconds(""), unix_seconds("soon")), (None, None));
    }

    #[test]
    fn a_time_beyond_the_calendar_is_its_last_day() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
        assert!(timestamp_utc(far).starts_with("9999-12-"), "{}", timestamp_utc(far));
    }
}
