//! Console lines as plain text: a guest may write anything, and a person's terminal must not act on it.

/// Longest line that is kept, in characters.
const MAX_LINE: usize = 400;

/// The text of a console line, without terminal sequences and control characters.
pub(crate) fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::new();
    let mut characters = text.chars().peekable();
    let mut kept = 0;
    while let Some(character) = characters.next() {
        match character {
            // A control sequence: parameters, then one final character.
            '\u{1b}' if characters.next_if_eq(&'[').is_some() => {
                while characters.next_if(|c| ('\u{20}'..'\u{40}').contains(c)).is_some() {}
                characters.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
            }
            '\t' => plain.push(' '),
            character if character.is_control() => continue,
            character => plain.push(character),
        }
        kept += 1;
        if kept == MAX_LINE {
            break;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn colours_and_carriage_returns_go() {
        assert_eq!(plain(b"\x1b[1;32mok\x1b[0m\tdone\r"), "ok done");
        assert_eq!(plain(b"\x1b[2J\x1b]0;title\x07x"), "]0;titlex");
        assert_eq!(plain(b"\x1b["), "");
    }

    proptest! {
        #[test]
        fn no_line_holds_control_characters_or_is_long(line in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let plain = plain(&line);
            prop_assert!(!plain.chars().any(char::is_control));
            prop_assert!(plain.chars().count() <= MAX_LINE);
        }
    }
}
