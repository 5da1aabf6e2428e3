//! Text from the guest, made fit for people: it may be long, and it may carry a terminal's control sequences.

/// Longest text that is passed on, in characters.
const MAX: usize = 2000;

/// The text with its control characters as spaces and its end cut off; line breaks stay.
pub(crate) fn clean(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(MAX)
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect();
    if text.chars().nth(MAX).is_some() {
        out.push('…');
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_send_escape_sequences_or_endless_text_to_a_terminal() {
        assert_eq!(clean("a\x1b[31mred\x07\r\nb"), "a [31mred  \nb");
        assert_eq!(clean(&"x".repeat(5000)).chars().count(), MAX + 1);
    }
}
