//! Times as the engine writes them: RFC 3339, to the nanosecond.

/// Milliseconds since 1970 of a time such as `2026-03-01T12:00:00.123456789Z` or `…+01:00`.
pub(crate) fn read_ms(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let zone = clock.find(['Z', '+', '-'])?;
    let (clock, zone) = clock.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [hour, minute, second] = numbers(clock, ':')?;
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let minutes = (days(year, month, day) * 24 + hour) * 60 + minute - offset(zone)?;
    Some((minutes * 60 + second) * 1000 + milliseconds(fraction)?)
}

/// Minutes that a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    Some(sign * (number(hours)? * 60 + number(minutes)?))
}

/// The first three digits of a second's fraction.
fn milliseconds(fraction: &str) -> Option<i64> {
    fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(3)
        .try_fold(0, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
        })
}

fn numbers(text: &str, between: char) -> Option<[i64; 3]> {
    let mut parts = text.splitn(3, between).map(number);
    Some([parts.next()??, parts.next()??, parts.next()??])
}

/// At most four digits, so that no sum of them overflows.
fn number(digits: &str) -> Option<i64> {
    if digits.len() > 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Days from 1970 to a day of the Gregorian calendar. Years begin in March here, so that the leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_engines_times_are_read_to_the_millisecond() {
        assert_eq!(read_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(read_ms("2026-03-01T12:00:00.25Z"), Some(1_772_366_400_250));
        assert_eq!(read_ms("2024-02-29T23:59:59.999999999Z"), Some(1_709_251_199_999));
        assert_eq!(
            read_ms("2026-03-01T13:30:00+01:30"),
            read_ms("2026-03-01T12:00:00Z")
        );
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "GET",
            "2026-03-01",
            "2026-13-01T00:00:00Z",
            "2026-03-01T00:00:00.xZ",
        ] {
            assert_eq!(read_ms(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[0-9T:.Z+é-]{0,40}") {
            let _ = read_ms(&text);
        }
    }
}
