//! Sizes and durations as people write them: `2 GiB`, `1.5 GiB`, `512 MiB`, `10 s`, `2 min`.

use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000)];

/// Bytes in a text such as `2 GiB`; a number alone says too little and is refused.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    scaled(text, &SIZE_UNITS)
}

/// The shortest exact way to write so many bytes, in binary units.
pub(crate) fn show_size(bytes: u64) -> String {
    for (unit, scale) in SIZE_UNITS[..4].iter().rev() {
        if bytes >= *scale && bytes.is_multiple_of(*scale) {
            return format!("{} {unit}", bytes / scale);
        }
    }
    format!("{bytes} B")
}

/// About so many bytes, for people.
pub(crate) fn show_about(bytes: u64) -> String {
    for (unit, scale) in SIZE_UNITS[..4].iter().rev() {
        if bytes >= *scale {
            let tenths = bytes / (scale / 10).max(1);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// The time in a text such as `10 s`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    scaled(text, &TIME_UNITS).map(Duration::from_millis)
}

/// The shortest exact way to write a time of whole milliseconds.
pub(crate) fn show_duration(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    for (unit, scale) in TIME_UNITS.iter().rev() {
        if millis >= *scale && millis.is_multiple_of(*scale) {
            return format!("{} {unit}", millis / scale);
        }
    }
    format!("{millis} ms")
}

/// A decimal number and one of `units`, in the units' base; nothing when it is not one or not finite in 64 bits.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start();
    let (_, scale) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let bytes = whole.parse::<u64>().ok()?.checked_mul(*scale)?;
    if fraction.is_empty() {
        return (!number.ends_with('.')).then_some(bytes);
    }
    // More digits than these say nothing at the scale of a unit.
    let digits = fraction.get(..fraction.len().min(9))?;
    let part = u128::from(digits.parse::<u64>().ok()?) * u128::from(*scale)
        / 10_u128.pow(u32::try_from(digits.len()).ok()?);
    bytes.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("2 GiB", Some(2 << 30)),
            ("2gib", Some(2 << 30)),
            ("1.5 GiB", Some(3 << 29)),
            ("512MiB", Some(512 << 20)),
            ("64 GB", Some(64_000_000_000)),
            ("2", None),
            ("2.", None),
            ("GiB", None),
            ("-1 GiB", None),
            ("1.2.3 GiB", None),
            ("99999999999999 TiB", None),
            ("2 apples", None),
            ("", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("10 s"), Some(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5min"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("10"), None);
    }

    #[test]
    fn about_says_one_digit_after_the_point() {
        assert_eq!(show_about((3 << 30) + (1 << 29)), "3.5 GiB");
        assert_eq!(show_about(7), "7 B");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_exactly(bytes in any::<u64>(), millis in 0_u64..1 << 40) {
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
            let time = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(time)), Some(time));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = parse_size(&text);
            let _ = parse_duration(&text);
        }
    }
}
