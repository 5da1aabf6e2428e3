//! The measurements themselves.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use cove_fs::abi::{self, EntryOut, OpenOut, fopen, op};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

use super::Figures;
use super::subject::Subject;
use crate::driver::fs::FsGuest;

/// The file that is read and written.
const DATA: &str = "data";
const DATA_LEN: u64 = 64 << 20;
/// What Linux reads ahead, and writes at most, unless told otherwise.
const STREAM: u32 = 128 << 10;
/// How often the file is gone through.
const PASSES: u64 = 4;
const PAGE: u32 = 4096;
const RANDOM: u32 = 20_000;

/// The directory that is looked at.
const MANY: &str = "many";
const FILES: u64 = 2000;
/// How often each is asked for.
const REPEATS: u64 = 10;
/// How often the directory is listed.
const LISTINGS: u64 = 10;

/// The directory that is worked in.
const WORK: &str = "work";
const MADE: u64 = 2000;

/// Of an answer, what is looked at: the largest is of CREATE.
const START: u32 = 160;

/// What is served.
pub(super) struct Tree(TempDir);

impl Tree {
    /// Fills `dir`.
    pub(super) fn make(dir: TempDir) -> Result<Self> {
        let path = dir.path();
        fs::write(path.join(DATA), vec![7; usize::try_from(DATA_LEN)?]).context("cannot write the data")?;
        fs::create_dir(path.join(MANY))?;
        fs::create_dir(path.join(WORK))?;
        for file in 0..FILES {
            fs::write(path.join(MANY).join(format!("file-{file}")), "some words")?;
        }
        Ok(Self(dir))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Room that Linux has for any answer but data.
const ROOM: u32 = 4096;

/// One request, with the bytes of data that follow it and those that may follow the answer.
struct Request {
    op: u32,
    node: u64,
    body: Vec<u8>,
    data: (u32, u32),
}

fn request(op: u32, node: u64, body: &[u8]) -> Request {
    Request {
        op,
        node,
        body: body.to_vec(),
        data: (0, ROOM),
    }
}

fn name(kind: &str, number: u64) -> Vec<u8> {
    format!("{kind}-{number}\0").into_bytes()
}

/// Asks everything with up to `depth` requests in flight; the answers' starts in order.
fn ask(
    guest: &mut FsGuest,
    depth: usize,
    requests: impl IntoIterator<Item = Request>,
) -> Result<Vec<Vec<u8>>> {
    let mut requests = requests.into_iter();
    let mut answers = Vec::new();
    let mut first = None;
    loop {
        while guest.in_flight() < depth
            && let Some(Request { op, node, body, data }) = requests.next()
        {
            let number = guest.submit_sized(op, node, &[&body], data)?;
            first.get_or_insert(number);
            answers.push((op, Vec::new()));
        }
        if guest.in_flight() == 0 {
            return Ok(answers.into_iter().map(|(_, answer)| answer).collect());
        }
        let (number, reply) = guest.next_answer_start(START)?;
        let at = first.and_then(|first| number.checked_sub(first));
        let at = usize::try_from(at.context("an answer to an older request")?)?;
        let (op, answer) = answers.get_mut(at).context("an answer to no request")?;
        *answer = reply.map_err(|errno| anyhow!("request {at}, of kind {op}, failed with error {errno}"))?;
    }
}

fn entry(answer: &[u8]) -> Result<EntryOut> {
    let entry = EntryOut::read_from_prefix(answer);
    Ok(entry.map_err(|_| anyhow!("the answer holds no entry"))?.0)
}

fn opened(answer: &[u8]) -> Result<OpenOut> {
    let open = OpenOut::read_from_prefix(answer);
    Ok(open.map_err(|_| anyhow!("the answer holds no handle"))?.0)
}

fn open_in(flags: rustix::fs::OFlags) -> abi::OpenIn {
    abi::OpenIn {
        flags: flags.bits(),
        open_flags: 0,
    }
}

/// Closes files with the requests that Linux makes, each file's in order.
fn close(guest: &mut FsGuest, depth: usize, files: &[(u64, OpenOut)]) -> Result<()> {
    let flushes = files
        .iter()
        .filter(|(_, open)| open.open_flags & fopen::NOFLUSH == 0)
        .map(|(node, open)| {
            let flush = abi::FlushIn {
                fh: open.fh,
                ..abi::FlushIn::default()
            };
            request(op::FLUSH, *node, flush.as_bytes())
        });
    ask(guest, depth, flushes)?;
    let releases = files.iter().map(|(node, open)| {
        let release = abi::ReleaseIn {
            fh: open.fh,
            ..abi::ReleaseIn::default()
        };
        request(op::RELEASE, *node, release.as_bytes())
    });
    ask(guest, depth, releases).map(drop)
}

/// How often something happens in a second, in thousands.
fn rate(count: u64, start: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵²")]
    let count = count as f64;
    count / 1000.0 / start.elapsed().as_secs_f64()
}

/// Measures everything once.
pub(super) fn all(subject: &mut Subject, tree: &Tree, depth: usize) -> Result<Figures> {
    let mut figures = Figures::new();
    // What another run wrote shall not be in this one's way.
    rustix::fs::syncfs(fs::File::open(tree.path())?)?;
    data(subject, depth, &mut figures)?;
    names(subject, depth, &mut figures)?;
    changes(subject, depth, &mut figures)?;
    Ok(figures)
}

fn find(subject: &mut Subject, what: &str) -> Result<u64> {
    let lookup = request(op::LOOKUP, subject.root, format!("{what}\0").as_bytes());
    Ok(entry(&ask(&mut subject.guest, 1, [lookup])?[0])?.node)
}

fn data(subject: &mut Subject, depth: usize, figures: &mut Figures) -> Result<()> {
    let node = find(subject, DATA)?;
    let guest = &mut subject.guest;
    let open = request(op::OPEN, node, open_in(rustix::fs::OFlags::RDWR).as_bytes());
    let open = opened(&ask(guest, 1, [open])?[0])?;
    let read = |offset, size| {
        let body = abi::ReadIn {
            fh: open.fh,
            offset,
            size,
            ..abi::ReadIn::default()
        };
        Request {
            data: (0, size),
            ..request(op::READ, node, body.as_bytes())
        }
    };
    let write = |offset, size| {
        let body = abi::WriteIn {
            fh: open.fh,
            offset,
            size,
            ..abi::WriteIn::default()
        };
        Request {
            data: (size, ROOM),
            ..request(op::WRITE, node, body.as_bytes())
        }
    };
    let stream = || (0..PASSES).flat_map(|_| (0..DATA_LEN).step_by(STREAM as usize));
    // The same places for everybody, by the generator of Knuth's MMIX.
    let random = || {
        std::iter::successors(Some(7u64), |last| {
            Some(
                last.wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407),
            )
        })
        .map(|random| (random >> 20) % (DATA_LEN / u64::from(PAGE)) * u64::from(PAGE))
        .zip(0..RANDOM)
        .map(|(at, _)| at)
    };
    // Once unmeasured: pages of the guest's memory come into being at the first touch.
    ask(guest, 32, stream().take(256).map(|at| read(at, STREAM)))?;
    ask(guest, 32, stream().take(256).map(|at| write(at, STREAM)))?;

    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let mebibytes = ((PASSES * DATA_LEN) >> 20) as f64;
    let start = Instant::now();
    ask(guest, depth, stream().map(|at| read(at, STREAM)))?;
    figures.insert("sequential read", mebibytes / start.elapsed().as_secs_f64());
    let start = Instant::now();
    ask(guest, depth, stream().map(|at| write(at, STREAM)))?;
    figures.insert("sequential write", mebibytes / start.elapsed().as_secs_f64());
    let start = Instant::now();
    ask(guest, depth, random().map(|at| read(at, PAGE)))?;
    figures.insert("random read of 4 KiB", rate(RANDOM.into(), start));
    let start = Instant::now();
    ask(guest, depth, random().map(|at| write(at, PAGE)))?;
    figures.insert("random write of 4 KiB", rate(RANDOM.into(), start));
    close(guest, 1, &[(node, open)])
}

fn names(subject: &mut Subject, depth: usize, figures: &mut Figures) -> Result<()> {
    let many = find(subject, MANY)?;
    let guest = &mut subject.guest;
    let lookups = || (0..FILES).map(|file| request(op::LOOKUP, many, &name("file", file)));
    let start = Instant::now();
    let entries = ask(guest, depth, lookups())?;
    figures.insert("first lookup", rate(FILES, start));
    let nodes = entries
        .iter()
        .map(|answer| Ok(entry(answer)?.node))
        .collect::<Result<Vec<u64>>>()?;
    ensure!(nodes.iter().all(|node| *node != 0), "files are missing");
    let start = Instant::now();
    ask(guest, depth, (0..REPEATS).flat_map(|_| lookups()))?;
    figures.insert("lookup", rate(REPEATS * FILES, start));

    let missing = (0..REPEATS).flat_map(|_| (0..FILES).map(|file| name("none", file)));
    let start = Instant::now();
    miss(guest, depth, many, missing)?;
    figures.insert("lookup of what is not there", rate(REPEATS * FILES, start));

    let getattr = abi::GetattrIn::default();
    let asked = (0..REPEATS).flat_map(|_| nodes.iter());
    let start = Instant::now();
    ask(
        guest,
        depth,
        asked.map(|node| request(op::GETATTR, *node, getattr.as_bytes())),
    )?;
    figures.insert("getattr", rate(REPEATS * FILES, start));

    let flags = open_in(rustix::fs::OFlags::RDONLY);
    let start = Instant::now();
    for nodes in nodes.chunks(200) {
        let opens = nodes
            .iter()
            .map(|node| request(op::OPEN, *node, flags.as_bytes()));
        let opens = ask(guest, depth, opens)?;
        let open = nodes
            .iter()
            .zip(&opens)
            .map(|(node, answer)| Ok((*node, opened(answer)?)))
            .collect::<Result<Vec<_>>>()?;
        close(guest, depth, &open)?;
    }
    figures.insert("open and close", rate(FILES, start));

    for (label, op) in [
        ("readdir, entries", op::READDIR),
        ("readdirplus, entries", op::READDIRPLUS),
    ] {
        let start = Instant::now();
        let mut entries = 0;
        for _ in 0..LISTINGS {
            entries += list(guest, many, op)?;
        }
        ensure!(
            entries == LISTINGS * (FILES + 2),
            "{label}: {entries} were listed"
        );
        figures.insert(label, rate(entries, start));
    }
    Ok(())
}

/// Looks up what is not there. A server says so by an error, or by an entry without a node.
fn miss(guest: &mut FsGuest, depth: usize, dir: u64, mut names: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    loop {
        while guest.in_flight() < depth
            && let Some(name) = names.next()
        {
            guest.submit(op::LOOKUP, dir, &[&name])?;
        }
        if guest.in_flight() == 0 {
            return Ok(());
        }
        match guest.next_answer_start(START)?.1 {
            Ok(answer) => ensure!(entry(&answer)?.node == 0, "a file that nobody made"),
            Err(errno) => ensure!(
                errno == rustix::io::Errno::NOENT.raw_os_error(),
                "failed with error {errno}"
            ),
        }
    }
}

/// Lists a directory from its opening to its closing; how many entries there were. One request follows from another
/// here, so there is never more than one.
fn list(guest: &mut FsGuest, dir: u64, op: u32) -> Result<u64> {
    let flags = open_in(rustix::fs::OFlags::RDONLY);
    let open = opened(&ask(guest, 1, [request(op::OPENDIR, dir, flags.as_bytes())])?[0])?;
    let (mut entries, mut offset) = (0, 0);
    loop {
        let body = abi::ReadIn {
            fh: open.fh,
            offset,
            // What Linux asks for when a program reads with a large buffer.
            size: STREAM / 4,
            ..abi::ReadIn::default()
        };
        guest.submit_sized(op, dir, &[body.as_bytes()], (0, body.size))?;
        let (_, reply) = guest.next_answer()?;
        let listed = reply.map_err(|errno| anyhow!("listing failed with error {errno}"))?;
        if listed.is_empty() {
            break;
        }
        let mut rest = &listed[..];
        while !rest.is_empty() {
            if op == op::READDIRPLUS {
                rest = rest.get(size_of::<EntryOut>()..).context("half an entry")?;
            }
            let (dirent, _) = abi::Dirent::read_from_prefix(rest)
                .ok()
                .context("half an entry")?;
            let len = (size_of::<abi::Dirent>() + dirent.namelen as usize).next_multiple_of(8);
            rest = rest.get(len..).context("half a name")?;
            offset = dirent.off;
            entries += 1;
        }
    }
    let release = abi::ReleaseIn {
        fh: open.fh,
        ..abi::ReleaseIn::default()
    };
    ask(guest, 1, [request(op::RELEASEDIR, dir, release.as_bytes())])?;
    Ok(entries)
}

fn changes(subject: &mut Subject, depth: usize, figures: &mut Figures) -> Result<()> {
    let work = find(subject, WORK)?;
    let guest = &mut subject.guest;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL;
    let create = abi::CreateIn {
        flags: flags.bits(),
        mode: 0o100_644,
        umask: 0o022,
        open_flags: 0,
    };
    let start = Instant::now();
    for first in (0..MADE).step_by(200) {
        let creates = (first..first + 200).map(|file| {
            let body = [create.as_bytes(), &name("new", file)].concat();
            request(op::CREATE, work, &body)
        });
        let made = ask(guest, depth, creates)?;
        let open = made
            .iter()
            .map(|answer| {
                let open = answer.get(size_of::<EntryOut>()..).context("no handle")?;
                Ok((entry(answer)?.node, opened(open)?))
            })
            .collect::<Result<Vec<_>>>()?;
        close(guest, depth, &open)?;
    }
    figures.insert("create and close", rate(MADE, start));

    let start = Instant::now();
    for (from, to) in [("new", "moved"), ("moved", "new")] {
        let renames = (0..MADE).map(|file| {
            let body = abi::RenameIn { new_parent: work };
            let body = [body.as_bytes(), &name(from, file), &name(to, file)].concat();
            request(op::RENAME, work, &body)
        });
        ask(guest, depth, renames)?;
    }
    figures.insert("rename", rate(2 * MADE, start));

    let start = Instant::now();
    let unlinks = (0..MADE).map(|file| request(op::UNLINK, work, &name("new", file)));
    ask(guest, depth, unlinks)?;
    figures.insert("unlink", rate(MADE, start));

    let mkdir = abi::MkdirIn {
        mode: 0o755,
        umask: 0o022,
    };
    let start = Instant::now();
    let mkdirs = (0..MADE).map(|dir| {
        let body = [mkdir.as_bytes(), &name("dir", dir)].concat();
        request(op::MKDIR, work, &body)
    });
    ask(guest, depth, mkdirs)?;
    let rmdirs = (0..MADE).map(|dir| request(op::RMDIR, work, &name("dir", dir)));
    ask(guest, depth, rmdirs)?;
    figures.insert("mkdir and rmdir", rate(MADE, start));
    Ok(())
}
