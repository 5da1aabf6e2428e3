//! The entry for fuzzers: any bytes as a conversation with a server.

use vm_memory::VolatileSlice;

use crate::abi::{InHeader, InitExtIn, InitIn, MAJOR, MINOR, op};
use crate::dispatch::Answer;
use crate::server::Server;
use zerocopy::IntoBytes;

/// Plays `bytes` to `server` as a sequence of requests, each led by its length (2 bytes, little endian) and the room
/// for its answer (2 bytes). Whatever the bytes, it returns, and nothing outside of the shares is touched. Returns all
/// that was answered, one answer after another.
pub fn fuzz_one(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut answers = greet(server);
    let mut rest = bytes;
    while let Some((lengths, after)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_le_bytes([lengths[0], lengths[1]])).min(after.len());
        let room = usize::from(u16::from_le_bytes([lengths[2], lengths[3]]));
        let (request, after) = after.split_at(len);
        rest = after;
        answers.extend(exchange(server, request, room));
    }
    answers
}

const INIT_LEN: u32 = 104;
const _: () =
    assert!(INIT_LEN as usize == size_of::<InHeader>() + size_of::<InitIn>() + size_of::<InitExtIn>());

fn greet(server: &Server) -> Vec<u8> {
    let init = InitIn {
        major: MAJOR,
        minor: MINOR,
        max_readahead: 1 << 17,
        flags: u32::MAX,
    };
    let extension = InitExtIn {
        flags2: u32::MAX,
        unused: [0; 11],
    };
    let header = InHeader {
        len: INIT_LEN,
        opcode: op::INIT,
        unique: 1,
        ..InHeader::default()
    };
    exchange(
        server,
        &[header.as_bytes(), init.as_bytes(), extension.as_bytes()].concat(),
        256,
    )
}

fn exchange(server: &Server, request: &[u8], room: usize) -> Vec<u8> {
    let mut request = request.to_vec();
    let mut reply = vec![0; room];
    // Cut in two, as a guest may.
    let middle = request.len() / 2;
    let (front, back) = request.split_at_mut(middle);
    let readable = [VolatileSlice::from(front), VolatileSlice::from(back)];
    let (front, back) = reply.split_at_mut(room / 3);
    let writable = [VolatileSlice::from(front), VolatileSlice::from(back)];
    let answer = server.serve(&readable, &writable);
    let written = match answer {
        Answer::Written(len) => len,
        Answer::Nothing | Answer::Later(_) => 0,
    };
    reply.truncate(written);
    reply
}
