//! UTC dates as text.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `2026-11-23T14:25:01Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let time = utc(time);
    let (hour, minute, second) = time.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", time.date())
}

/// `2026-11-23-142501`, UTC: the name of a folder.
#[must_use]
pub fn folder_time(time: SystemTime) -> String {
    let time = utc(time);
    let (hour, minute, second) = time.to_hms();
    format!("{}-{hour:02}{minute:02}{second:02}", time.date())
}

/// Nanoseconds since 1970 of an RFC 3339 time such as
/// `2026-11-23T14:25:01.25Z` or `2026-11-23T15:25:01+01:00`, from 1970 on;
/// `None` for anything else.
#[must_use]
pub fn unix_nanos(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    time.unix_timestamp_nanos().try_into().ok()
}

/// 1970 for times that are earlier, or later than the year 9999.
fn utc(time: SystemTime) -> OffsetDateTime {
    let seconds = time.duration_since(UNIX_EPOCH).ok();
    let seconds = seconds.and_then(|since| i64::try_from(since.as_secs()).ok());
    let time = seconds.and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    time.unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_are_those_of_date_1() {
        // `date -u -d @N +%Y-%m-%dT%H:%M:%SZ`
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_443_901, "2026-11-23T14:25:01Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(at(seconds)), expected);
        }
        for seconds in (0..4_200_000_000_u64).step_by(7_654_321) {
            let text = rfc3339(at(seconds));
            assert_eq!(unix_nanos(&text), Some(seconds * 1_000_000_000), "{text}");
        }
        assert_eq!(folder_time(at(1_795_443_901)), "2026-11-23-142501");
        assert_eq!(rfc3339(at(1 << 62)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn times_of_other_programs_are_read_and_nonsense_is_not() {
        let base = 1_795_443_901_000_000_000;
        for (text, expected) in [
            ("2026-11-23T14:25:01Z", Some(base)),
            ("2026-11-23 14:25:01.5Z", Some(base + 500_000_000)),
            (
                "2026-11-23T14:25:01.123456789012Z",
                Some(base + 123_456_789),
            ),
            ("2026-11-23T15:55:01+01:30", Some(base)),
            ("2026-11-23T13:25:01-01:00", Some(base)),
            ("2026-11-23T14:25:01", None),
            ("2026-11-23T14:25:01.Z", None),
            ("2026-13-23T14:25:01Z", None),
            ("2026-02-29T14:25:01Z", None),
            ("2026-11-23T14:25Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("yesterday", None),
            ("2026-11-23T14:25:0é", None),
            ("", None),
        ] {
            assert_eq!(unix_nanos(text), expected, "{text}");
        }
    }
}
