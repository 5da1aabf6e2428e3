//! What host and agent say to each other, read by either end, and the messages and files that tell what names mean.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use cove_wire::dns::{self, Query};
use cove_wire::{
    Answered, Call, Change, Changed, Codec, Dial, Entry, ExecCodec, ExecPacket, FileName, FilesAnswer,
    FilesCall, FilesQuestion, FilesRoot, FromGuest, FromHost, HEADER_LEN, Hello, Open, Opened, Protocol,
    Publish, Published, Seen, Told, WireError, decode, encode, etc, listeners,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{Decoder, Encoder};

use super::Seeds;
use super::watch::watched;

/// Reads the input as what its first byte says.
pub fn fuzz(input: &[u8]) {
    watched("wire", input, || play(input));
}

fn play(input: &[u8]) -> Result<()> {
    let Some((what, bytes)) = input.split_first() else {
        return Ok(());
    };
    match what % 14 {
        0 => frames::<FromHost>(bytes).map(drop),
        1 => frames::<FromGuest>(bytes).and_then(again),
        2 => frames::<Open>(bytes).and_then(again),
        3 => frames::<Opened>(bytes).and_then(again),
        4 => frames::<Publish>(bytes).and_then(again),
        5 => frames::<Published>(bytes).and_then(again),
        6 => frames::<Told>(bytes).and_then(again),
        7 => frames::<Answered>(bytes).and_then(again),
        8 => frames::<Seen>(bytes).and_then(again),
        9 => frames::<FilesQuestion>(bytes).and_then(again),
        10 => frames::<FilesAnswer>(bytes).and_then(again),
        11 => packets(bytes),
        12 => names(bytes),
        _ => texts(bytes),
    }
}

/// The messages that a stream of frames holds, up to the first mistake. The same ones come of it whole and in pieces,
/// and each of them can be said again.
fn frames<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) -> Result<Vec<T>> {
    let (messages, failed) = read(Codec::<T, T>::default(), bytes, usize::MAX);
    let in_pieces = read(Codec::<T, T>::default(), bytes, 3);
    ensure!(
        in_pieces == (messages, failed),
        "a stream in pieces says something else than whole"
    );
    let (messages, _) = in_pieces;
    for message in &messages {
        let frame = encode(message)?;
        decode::<T>(&frame[HEADER_LEN..]).context("a message cannot be read again")?;
    }
    Ok(messages)
}

/// That what was read means the same when it is said again. Not for what holds numbers of a person's, which JSON has
/// with more places than it is read with.
fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(messages: Vec<T>) -> Result<()> {
    for message in messages {
        let frame = encode(&message)?;
        let read: T = decode(&frame[HEADER_LEN..])?;
        ensure!(read == message, "{message:?} became {read:?}");
    }
    Ok(())
}

/// All that `codec` makes of `bytes` in pieces of that length, and whether it ended with a mistake.
fn read<D: Decoder<Error = WireError>>(mut codec: D, bytes: &[u8], piece: usize) -> (Vec<D::Item>, bool) {
    let mut buffer = BytesMut::new();
    let mut items = Vec::new();
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(_) => return (items, true),
            }
        }
    }
    let failed = codec.decode_eof(&mut buffer).is_err();
    (items, failed)
}

fn packets(bytes: &[u8]) -> Result<()> {
    let (packets, failed) = read(ExecCodec, bytes, usize::MAX);
    ensure!(
        read(ExecCodec, bytes, 3) == (packets.clone(), failed),
        "a stream in pieces says something else than whole"
    );
    let mut said = BytesMut::new();
    for packet in &packets {
        ExecCodec.encode(packet.clone(), &mut said)?;
    }
    ensure!(
        bytes.starts_with(&said),
        "packets are other bytes when they are said again"
    );
    Ok(())
}

/// A message as a question and as an answer.
fn names(bytes: &[u8]) -> Result<()> {
    if let Ok(query) = Query::parse(bytes) {
        let addresses = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ];
        let answer = query.answer(&addresses, 60);
        ensure!(
            query.is_answered_by(&answer),
            "{query:?} is not answered by its answer"
        );
        let anew = query.anew(query.id());
        let asked =
            Query::parse(&anew).map_err(|error| anyhow::anyhow!("{query:?} cannot be asked: {error}"))?;
        ensure!(
            asked.key() == query.key() && asked.name == query.name && asked.is_answered_by(&answer),
            "{query:?} is asked of others as {asked:?}"
        );
        let found = dns::addresses(&answer);
        ensure!(
            !query.asks_for_address() || found.len() == 1,
            "{query:?} was answered with {found:?}"
        );
        let mut kept = answer.clone();
        dns::set_id(&mut kept, 0);
        query.adopt(&mut kept);
        ensure!(kept == answer, "an answer that was kept is another one");
        ensure!(
            query.fit_datagram(answer).len() <= 65_535,
            "an answer does not fit"
        );
        ensure!(
            query.is_answered_by(&query.failure(dns::Code::NoSuchName)),
            "a failure is no answer"
        );
        let named = query.answer_name("a.test", 60).context("a name cannot be told")?;
        ensure!(
            query.is_answered_by(&named) && dns::lifetime(&named) == Some(60),
            "{query:?} is not answered by a name"
        );
        let alias = query.answer_alias("a.test", &addresses, 60);
        let alias = alias.context("an alias cannot be told")?;
        ensure!(
            query.is_answered_by(&alias) && dns::addresses(&alias) == found,
            "{query:?} is not answered by an alias"
        );
        let _ = (query.key(), query.id(), query.asks_for_name());
    }
    let refusal = dns::refuse(bytes, dns::Code::FormatError);
    ensure!(refusal.len() == 12, "a refusal has {} bytes", refusal.len());
    let _ = (
        dns::addresses(bytes),
        dns::id(bytes),
        dns::is_truncated(bytes),
        dns::is_conclusive(bytes),
        dns::is_negative(bytes),
    );
    let mut older = bytes.to_vec();
    dns::age(&mut older, 5);
    ensure!(
        older.len() == bytes.len(),
        "an answer has another length when it is older"
    );
    let _ = (dns::lifetime(bytes), dns::lifetime(&older));
    Ok(())
}

fn texts(bytes: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().count();
    ensure!(etc::hosts(&text).count() <= lines, "more hosts than lines");
    ensure!(
        etc::hosts(&text).all(|(_, names)| names.count() <= text.len()),
        "more names than text"
    );
    ensure!(
        etc::name_servers(&text, |_| None).count() <= 3,
        "too many name servers"
    );
    ensure!(etc::search_domains(&text).count() <= 6, "too many search domains");
    ensure!(listeners(&text).count() <= lines, "more sockets than lines");
    Ok(())
}

/// A message of each kind, some of them two and a half, and what they are easily mistaken for.
pub fn seeds() -> Seeds {
    let change = Told::Change(Change {
        id: 7,
        share: FileName(b"share".to_vec()),
        directory: FileName(vec![0xff, 0xfe]),
        what: Changed::Created {
            name: FileName(b"new".to_vec()),
            entry: Entry::File,
        },
    });
    let waiting = Told::Waiting {
        tasks: vec![1, u32::MAX],
    };
    let interrupted = Answered::Interrupted {
        tasks: vec![u32::MAX],
    };
    let question = FilesQuestion {
        root: FilesRoot::Layers(vec!["/a".to_owned(), "/b".to_owned()]),
        call: FilesCall::Look {
            path: "/".to_owned(),
            mounts: vec!["/data".to_owned()],
        },
    };
    let dial = Dial {
        address: (Ipv4Addr::new(172, 17, 0, 2), 80).into(),
        namespace: None,
    };
    let hello = Hello {
        version: 1,
        build: "seed".to_owned(),
    };
    let publish = Publish {
        protocol: Protocol::Tcp,
        host: (Ipv4Addr::LOCALHOST, 80).into(),
        container: (Ipv4Addr::new(172, 17, 0, 2), 80).into(),
        patient: false,
    };
    let request = FromHost::Request {
        id: 1,
        call: Call::Status,
    };
    let mut exec = BytesMut::new();
    for packet in [
        ExecPacket::Stdin(b"in".to_vec().into()),
        ExecPacket::StdinEnd,
        ExecPacket::Resize {
            columns: 80,
            rows: 25,
        },
        ExecPacket::Signal(15),
        ExecPacket::Exit(-1),
    ] {
        // Each of them is short enough.
        let _ = ExecCodec.encode(packet, &mut exec);
    }
    let name = dns::question(5, "Example.cove.localhost", dns::A).unwrap_or_default();
    let answer = Query::parse(&name)
        .map(|query| query.answer(&[IpAddr::from(Ipv4Addr::LOCALHOST)], 60))
        .unwrap_or_default();
    let hosts =
        b"127.0.0.1 localhost a b # c\nfe80::1%eth0 d\nnameserver 10.0.0.1\n  0: 0100007F:1F90 0:0 0A\n";
    vec![
        ("from-host", one(0, &FromHost::Hello(hello.clone()))),
        ("from-host-request", one(0, &request)),
        ("from-guest", one(1, &FromGuest::Hello(hello))),
        ("open-engine", one(2, &Open::Engine)),
        ("open-dial", one(2, &Open::Dial(dial))),
        ("opened", one(3, &Opened { result: Ok(()) })),
        ("publish", one(4, &publish)),
        ("published", one(5, &Published { result: Ok(()) })),
        ("change", one(6, &change)),
        ("waiting", one(6, &waiting)),
        ("repeated", one(7, &Answered::Repeated { id: u64::MAX })),
        ("interrupted", one(7, &interrupted)),
        (
            "seen",
            one(8, &Seen::Listeners(vec![(Ipv6Addr::LOCALHOST, 53).into()])),
        ),
        ("files-question", one(9, &question)),
        ("files-answer", one(10, &FilesAnswer::Refused("no".to_owned()))),
        ("packets", behind(11, &exec)),
        ("name-question", behind(12, &name)),
        ("name-answer", behind(12, &answer)),
        ("texts", behind(13, hosts)),
        ("deep", behind(0, &framed(&[b'['; 400]))),
        ("too-long", behind(1, &[0xff; 8])),
    ]
}

/// Twice the same message, and the first bytes of it.
fn one<T: Serialize>(what: u8, message: &T) -> Vec<u8> {
    let frame = encode(message).unwrap_or_default();
    behind(
        what,
        &[&frame[..], &frame[..], &frame[..frame.len() / 2]].concat(),
    )
}

fn framed(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], body].concat()
}

fn behind(what: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what][..], bytes].concat()
}
