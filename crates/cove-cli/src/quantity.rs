//! Sizes and times as people write and read them.

use std::time::Duration;

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// `1536` becomes `1.5 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut unit = 0;
    let mut rest = count;
    let mut tenths = 0;
    while rest >= 1024 && unit + 1 < UNITS.len() {
        tenths = rest % 1024 * 10 / 1024;
        rest /= 1024;
        unit += 1;
    }
    if tenths == 0 || rest >= 100 {
        format!("{rest} {}", UNITS[unit])
    } else {
        format!("{rest}.{tenths} {}", UNITS[unit])
    }
}

/// Digits after the point that are read; the ninth is less than a byte of a GiB.
const FRACTION_DIGITS: usize = 9;

/// `2 GiB`, `1.5g`, `512m`: units of 1024. A number without its unit is refused: it could mean bytes, or MiB, or GiB.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write it with its unit, like 2GiB, 1.5GiB or 512MiB");
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let shift = match text[end..].trim().to_ascii_lowercase().as_str() {
        "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = text[..end].split_once('.').unwrap_or((&text[..end], "0"));
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let part: u64 = fraction.parse().map_err(|_| wrong())?;
    let parts = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
    let part = (u128::from(part) << shift) / parts;
    whole
        .checked_mul(1 << shift)
        .and_then(|bytes| bytes.checked_add(u64::try_from(part).ok()?))
        .ok_or_else(wrong)
}

/// `850 ms`, `9.8 s`, `3 min 20 s`, `5 h 2 min`, `3 d 4 h`: two figures that matter.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.subsec_millis()),
        1..60 => format!("{seconds}.{} s", time.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 30), "64 GiB");
        assert_eq!(bytes((157 << 20) + 600_000), "157 MiB");
        assert_eq!(bytes(u64::MAX), "16777215 TiB");
    }

    #[test]
    fn sizes_are_understood_with_a_point_and_never_without_a_unit() {
        assert_eq!(parse_bytes("2 GiB"), Ok(2 << 30));
        assert_eq!(parse_bytes("512m"), Ok(512 << 20));
        assert_eq!(parse_bytes("4096b"), Ok(4096));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("0.000000001g"), Ok(1));
        for wrong in [
            "",
            "GiB",
            "-1",
            "2048",
            "1.GiB",
            ".5GiB",
            "1.2.3g",
            "1 parsec",
            "99999999999TiB",
        ] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_read_well() {
        assert_eq!(duration(Duration::from_millis(850)), "850 ms");
        assert_eq!(duration(Duration::from_millis(9876)), "9.8 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_mins(302)), "5 h 2 min");
        assert_eq!(duration(Duration::from_hours(76)), "3 d 4 h");
    }

    proptest! {
        #[test]
        fn any_text_is_a_size_or_an_error(text in ".{0,24}") {
            let _ = parse_bytes(&text);
        }
    }
}
