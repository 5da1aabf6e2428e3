//! An error in words, as answers, messages and logs have it. It stands here because whoever tells another of an error
//! depends on this crate already.

use std::error::Error;

/// What an error says and what each of its causes says, with colons between them. Where an error ends with the words
/// of its cause already, they are not said again.
///
/// The text has whatever the errors quote, which may be the guest's: whoever shows that cleans it.
pub fn with_causes(error: &dyn Error) -> String {
    std::iter::successors(error.source(), |cause| (**cause).source()).fold(
        error.to_string(),
        |text, cause| {
            let words = cause.to_string();
            if text.ends_with(&words) {
                text
            } else {
                format!("{text}: {words}")
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("cannot start")]
        Start(#[source] Box<Failure>),
        #[error("cannot read the disk: {0}")]
        Read(#[source] io::Error),
    }

    #[test]
    fn every_cause_is_told_once() {
        let read = Failure::Read(io::Error::other("no luck"));
        assert_eq!(with_causes(&read), "cannot read the disk: no luck");
        assert_eq!(
            with_causes(&Failure::Start(Box::new(read))),
            "cannot start: cannot read the disk: no luck"
        );
        assert_eq!(with_causes(&io::Error::other("no luck")), "no luck");
    }
}
