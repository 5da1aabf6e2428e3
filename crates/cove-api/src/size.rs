//! Sizes as people write and read them, the same in settings and on the command line.

/// A unit, how many bytes it is, and how else it may be written.
struct Unit {
    name: &'static str,
    bytes: u64,
    short: &'static str,
}

const fn unit(name: &'static str, bytes: u64, short: &'static str) -> Unit {
    Unit { name, bytes, short }
}

/// Those in which sizes are shown.
const BINARY: [Unit; 5] = [
    unit("B", 1, "B"),
    unit("KiB", 1 << 10, "k"),
    unit("MiB", 1 << 20, "m"),
    unit("GiB", 1 << 30, "g"),
    unit("TiB", 1 << 40, "t"),
];

/// Those that are understood besides.
const DECIMAL: [Unit; 4] = [
    unit("kB", 1_000, "kB"),
    unit("MB", 1_000_000, "MB"),
    unit("GB", 1_000_000_000, "GB"),
    unit("TB", 1_000_000_000_000, "TB"),
];

/// Digits after the point that are read; the ninth is about a byte of a GiB.
const FRACTION_DIGITS: usize = 9;

/// Bytes in a text such as `2 GiB`, `1.5gib`, `512m` or `64 GB`, whatever its case.
///
/// KiB, MiB, GiB and TiB are powers of 1024, as are Docker's single letters; kB, MB, GB and TB are powers of 1000. A
/// number without its unit is no size, since it could mean bytes as well as MiB or GiB; nor is what exceeds 64 bits.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    scale(number, bytes_in(unit.trim_start())?)
}

/// A decimal number such as `2` or `1.5`, times `scale`; what is less than one is dropped.
pub fn scale(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let digits = fraction.get(..fraction.len().min(FRACTION_DIGITS))?;
    let part = u128::from(digits.parse::<u64>().ok()?) * u128::from(scale)
        / 10_u128.pow(u32::try_from(digits.len()).ok()?);
    whole.checked_add(u64::try_from(part).ok()?)
}

fn bytes_in(unit: &str) -> Option<u64> {
    BINARY
        .iter()
        .chain(&DECIMAL)
        .find(|known| known.name.eq_ignore_ascii_case(unit) || known.short.eq_ignore_ascii_case(unit))
        .map(|known| known.bytes)
}

/// The shortest exact way to write so many bytes, in binary units: `2 GiB`, `1536 KiB`.
pub fn exact(bytes: u64) -> String {
    let fits = |unit: &&Unit| bytes >= unit.bytes && bytes.is_multiple_of(unit.bytes);
    let unit = BINARY.iter().rev().find(fits).unwrap_or(&BINARY[0]);
    format!("{} {}", bytes / unit.bytes, unit.name)
}

/// About so many bytes, in binary units with up to one digit after the point: `1.5 KiB`, `64 GiB`.
pub fn about(bytes: u64) -> String {
    let unit = BINARY
        .iter()
        .rev()
        .find(|unit| bytes >= unit.bytes)
        .unwrap_or(&BINARY[0]);
    let whole = bytes / unit.bytes;
    // The rest is below a unit, so that ten times it fits.
    match bytes % unit.bytes * 10 / unit.bytes {
        tenths if tenths == 0 || whole >= 100 => format!("{whole} {}", unit.name),
        tenths => format!("{whole}.{tenths} {}", unit.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_understood_with_a_point_and_never_without_a_unit() {
        for (text, bytes) in [
            ("2 GiB", 2 << 30),
            ("2gib", 2 << 30),
            ("1.5 GiB", 3 << 29),
            ("512m", 512 << 20),
            ("4096b", 4096),
            ("64 GB", 64_000_000_000),
            ("0.000000001g", 1),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text:?}");
        }
        for wrong in [
            "",
            "2",
            "2.",
            "GiB",
            "1.GiB",
            ".5GiB",
            "-1 GiB",
            "1.2.3 GiB",
            "99999999999999 TiB",
            "2 apples",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn about_says_up_to_one_digit_after_the_point() {
        assert_eq!(about(0), "0 B");
        assert_eq!(about(1536), "1.5 KiB");
        assert_eq!(about(64 << 30), "64 GiB");
        assert_eq!(about((157 << 20) + 600_000), "157 MiB");
        assert_eq!(about(u64::MAX), "16777215 TiB");
    }

    proptest! {
        #[test]
        fn what_is_written_exactly_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(parse(&exact(bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_a_size_or_none(text in ".{0,24}") {
            let _ = parse(&text);
        }
    }
}
