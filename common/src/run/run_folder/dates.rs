//! UTC dates as text.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-11-23T14:25:01Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = civil(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `2026-11-23-142501`, UTC: the name of a folder.
#[must_use]
pub fn folder_time(time: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = civil(time);
    format!("{year:04}-{month:02}-{day:02}-{hour:02}{minute:02}{second:02}")
}

/// Nanoseconds since 1970 of an RFC 3339 time such as
/// `2026-11-23T14:25:01.25Z` or `2026-11-23T15:25:01+01:00`, from 1970 on;
/// `None` for anything else.
#[must_use]
pub fn unix_nanos(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let (nanos, zone) = fraction(rest)?;
    let valid = (1970..2500).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !valid {
        return None;
    }
    let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let seconds = i64::try_from(seconds).ok()? - offset(zone)?;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)
}

/// Three numbers of fixed width.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        let fits = part.len() == digits && part.bytes().all(|b| b.is_ascii_digit());
        *number = part.parse().ok().filter(|_| fits)?;
    }
    parts.next().is_none().then_some(found)
}

/// Nanoseconds after the point, if there is one, and what follows.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let digits = rest.get(..end.min(9)).filter(|d| !d.is_empty())?;
    let nanos = format!("{digits:0<9}").parse().ok()?;
    Some((nanos, &rest[end..]))
}

/// Seconds that a time zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let fits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    (fits(hours) && fits(minutes)).then_some(sign * seconds)
}

/// Days from 1970-01-01; H. Hinnant's `days_from_civil`, for years from 1970 on.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month, day, hour, minute, second, UTC. Days to dates as in H. Hinnant,
/// "chrono-compatible low-level date algorithms" (`civil_from_days`), for times
/// from 1970 on.
fn civil(time: SystemTime) -> [u64; 6] {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    [year, month, day, rest / 3600, rest / 60 % 60, rest % 60]
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
