//! Times as people read them.

use std::time::Duration;

/// `850 ms`, `9.8 s`, `3 min 20 s`, `5 h 2 min`, `3 d 4 h`: two figures that matter.
pub(crate) fn words(time: Duration) -> String {
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

    #[test]
    fn times_read_well() {
        assert_eq!(words(Duration::from_millis(850)), "850 ms");
        assert_eq!(words(Duration::from_millis(9876)), "9.8 s");
        assert_eq!(words(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(words(Duration::from_mins(302)), "5 h 2 min");
        assert_eq!(words(Duration::from_hours(76)), "3 d 4 h");
    }
}
