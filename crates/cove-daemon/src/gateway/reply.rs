//! What the gateway says itself, in the shape in which Docker clients expect errors: `{"message": "…"}`.

use super::{Unavailable, framing::FramingError, head::HeadError};

/// An answer of the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    message: String,
}

impl Reply {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The bytes of the answer. `last` announces the end of the connection; `headless` is the answer to a HEAD, which
    /// has no body.
    pub(super) fn encode(&self, last: bool, to_head: bool) -> Vec<u8> {
        let body = serde_json::json!({ "message": self.message }).to_string() + "\n";
        let connection = if last { "Connection: close\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{connection}\r\n",
            self.status,
            reason(self.status),
            body.len(),
        );
        if to_head { head } else { head + &body }.into_bytes()
    }
}

impl From<Unavailable> for Reply {
    fn from(Unavailable { message, hint }: Unavailable) -> Self {
        let hint = if hint.is_empty() {
            hint
        } else {
            format!(". {}", capitalised(&hint))
        };
        Self::new(503, message + &hint)
    }
}

impl From<HeadError> for Reply {
    fn from(error: HeadError) -> Self {
        Self::new(
            error.status(),
            format!("Cove cannot pass this request on: {error}"),
        )
    }
}

impl From<FramingError> for Reply {
    fn from(error: FramingError) -> Self {
        Self::new(400, format!("Cove cannot pass this request on: {error}"))
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_shape_that_docker_clients_read() {
        let reply = Reply::from(Unavailable::new(
            "machine `default` is stopped",
            "start it with: cove start",
        ));
        let text = String::from_utf8(reply.encode(true, false)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        assert!(head.contains("Connection: close"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            body["message"],
            "machine `default` is stopped. Start it with: cove start"
        );
    }

    #[test]
    fn the_answer_to_a_head_request_has_no_body() {
        let bytes = Reply::new(503, "x").encode(false, true);
        assert!(bytes.ends_with(b"\r\n\r\n"));
    }
}
