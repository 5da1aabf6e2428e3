//! An answer of the engine, read where reading may wait, such as by a parser that knows no futures.

use crate::failure::{Answer, Refusal};
use cove_engine::Bytes;
use std::io::{self, Read};
use tokio::sync::mpsc;

/// Pieces of an answer that may be under way to who reads it.
pub(crate) const AHEAD: usize = 16;

/// A part of an answer. Its end is said, since one that was cancelled only ceases.
pub(crate) enum Piece {
    Data(bytes::Bytes),
    End,
}

/// Pieces of an answer, read as one.
pub(crate) struct Pieces {
    received: mpsc::Receiver<Piece>,
    rest: bytes::Bytes,
    ended: bool,
}

impl Pieces {
    pub(crate) fn new(received: mpsc::Receiver<Piece>) -> Self {
        Self {
            received,
            rest: bytes::Bytes::new(),
            ended: false,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.received.blocking_recv() {
                Some(Piece::Data(data)) => self.rest = data,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// Hands an answer to `read`, on a thread where it may wait. When this is dropped, what it reads ends with an error.
pub(crate) async fn hand_over<T: Send + 'static>(
    mut bytes: Bytes,
    read: impl FnOnce(Pieces) -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let (pieces, received) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || read(Pieces::new(received)));
    let mut broken = None;
    loop {
        let piece = match bytes.next().await {
            Ok(Some(data)) => Piece::Data(data),
            Ok(None) => Piece::End,
            Err(error) => {
                broken = Some(error);
                break;
            }
        };
        let ended = matches!(piece, Piece::End);
        // Who reads needs no more where they have all that they want, or cannot go on.
        if pieces.send(piece).await.is_err() || ended {
            break;
        }
    }
    drop(pieces);
    let read = reading.await.map_err(|error| Refusal::because(&error, ""))?;
    match (read, broken) {
        (Err(_), Some(error)) => Err(error.into()),
        (read, _) => read,
    }
}
