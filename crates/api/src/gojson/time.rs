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

/// A time before or after jiff's years (-9999 to 9999) is written as the nearest that it has.
fn in_zone(time: SystemTime, zone: TimeZone) -> String {
    let timestamp = Timestamp::try_from(time)
        .unwrap_or_else(|_| if time < SystemTime::UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX });
    let zoned = timestamp.to_zoned(zone);
    let format = if zoned.offset().is_zero() { "%Y-%m-%dT%H:%M:%S%.fZ" } else { "%Y-%m-%dT%H:%M:%S%.f%:z" };
    zoned.strftime(format).to_string()
}
