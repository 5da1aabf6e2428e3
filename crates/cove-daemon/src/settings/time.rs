//! Times as people write them in settings: `10 s`, `1.5 min`.

use cove_api::size;
use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000)];

/// The time in a text such as `10 s`; a number without its unit is none.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start();
    let (_, millis) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    size::scale(number, *millis).map(Duration::from_millis)
}

/// The shortest exact way to write a time of whole milliseconds.
pub(crate) fn show(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    for (unit, scale) in UNITS.iter().rev() {
        if millis >= *scale && millis.is_multiple_of(*scale) {
            return format!("{} {unit}", millis / scale);
        }
    }
    format!("{millis} ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(parse("10 s"), Some(Duration::from_secs(10)));
        assert_eq!(parse("1.5min"), Some(Duration::from_secs(90)));
        assert_eq!(parse("10"), None);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_exactly(millis in 0_u64..1 << 40) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(parse(&show(time)), Some(time));
        }

        #[test]
        fn any_text_is_a_time_or_none(text in ".{0,24}") {
            let _ = parse(&text);
        }
    }
}
