//! A FUSE client without a kernel: builds requests, hostile ones included, and takes answers apart.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::path::Path;

use cove_fs::abi::{self, EntryOut, InHeader, InitExtIn, InitIn, OpenOut, OutHeader, op};
use cove_fs::{Answer, Config, Pending, Server, ShareOptions};
use rustix::io::Errno;
use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The task that asks, unless another is set.
pub(crate) const TASK: NonZeroU32 = NonZeroU32::new(7).unwrap();

/// What came back.
pub(crate) type Reply = Result<Vec<u8>, Errno>;

/// See the module's header.
pub(crate) struct Client {
    pub(crate) server: Server,
    pub(crate) uid: Cell<u32>,
    pub(crate) task: Cell<NonZeroU32>,
    unique: Cell<u64>,
}

impl Client {
    /// A server that shares `folders`, greeted.
    pub(crate) fn new(config: Config, folders: &[(&str, &Path, bool)]) -> Self {
        let server = Server::new(config).unwrap();
        for (name, path, read_only) in folders {
            let options = ShareOptions {
                name: (*name).to_owned(),
                read_only: *read_only,
            };
            server.add_share(path, options).unwrap();
        }
        let uid = rustix::process::geteuid().as_raw();
        let client = Self {
            server,
            uid: Cell::new(uid),
            task: Cell::new(TASK),
            unique: Cell::new(0),
        };
        client.greet().unwrap();
        client
    }

    /// INIT.
    pub(crate) fn greet(&self) -> Reply {
        let init = InitIn {
            major: 7,
            minor: 41,
            max_readahead: 1 << 17,
            flags: u32::MAX,
        };
        let extension = InitExtIn {
            flags2: u32::MAX,
            unused: [0; 11],
        };
        self.ask(op::INIT, 0, &[init.as_bytes(), extension.as_bytes()])
    }

    /// Sends a request; the answer's data, or its failure.
    pub(crate) fn ask(&self, opcode: u32, node: u64, body: &[&[u8]]) -> Reply {
        match self.send(opcode, node, body, 1 << 17) {
            (Answer::Written(len), reply) => take_apart(&reply[..len]),
            (Answer::Nothing, _) => Ok(Vec::new()),
            (Answer::Later(_), _) => panic!("waits for a lock"),
        }
    }

    /// Sends a lock request that has to wait.
    pub(crate) fn ask_waiting(&self, opcode: u32, node: u64, body: &[&[u8]]) -> (u64, Pending) {
        match self.send(opcode, node, body, 1 << 12) {
            (Answer::Later(pending), _) => (self.unique.get(), pending),
            (other, reply) => panic!("did not wait: {other:?} {:?}", take_apart(&reply[..16])),
        }
    }

    /// Sends a request with `room` bytes for the answer.
    pub(crate) fn send(&self, opcode: u32, node: u64, body: &[&[u8]], room: usize) -> (Answer, Vec<u8>) {
        self.unique.set(self.unique.get() + 1);
        let mut body = body.concat();
        let header = InHeader {
            len: u32::try_from(size_of::<InHeader>() + body.len()).unwrap(),
            opcode,
            unique: self.unique.get(),
            node,
            uid: self.uid.get(),
            gid: self.uid.get(),
            pid: self.task.get().get(),
            ..InHeader::default()
        };
        let mut head = header.as_bytes().to_vec();
        let mut reply = vec![0; room];
        let readable = [
            VolatileSlice::from(&mut head[..]),
            VolatileSlice::from(&mut body[..]),
        ];
        let (front, back) = reply.split_at_mut(room.min(20));
        let writable = [VolatileSlice::from(front), VolatileSlice::from(back)];
        let answer = self.server.serve(&readable, &writable);
        (answer, reply)
    }

    pub(crate) fn lookup(&self, parent: u64, name: &str) -> Result<EntryOut, Errno> {
        let entry: EntryOut = parse(&self.ask(op::LOOKUP, parent, &[&c(name)])?);
        if entry.node == 0 {
            Err(Errno::NOENT)
        } else {
            Ok(entry)
        }
    }

    /// The node at a path from the virtual root.
    pub(crate) fn walk(&self, path: &str) -> Result<u64, Errno> {
        path.split('/')
            .try_fold(abi::ROOT_ID, |node, name| Ok(self.lookup(node, name)?.node))
    }

    pub(crate) fn open(&self, node: u64, flags: u32) -> Result<u64, Errno> {
        let open: OpenOut =
            parse(&self.ask(op::OPEN, node, &[abi::OpenIn { flags, open_flags: 0 }.as_bytes()])?);
        Ok(open.fh)
    }

    pub(crate) fn release(&self, node: u64, fh: u64) -> Reply {
        self.ask(
            op::RELEASE,
            node,
            &[abi::ReleaseIn {
                fh,
                ..Default::default()
            }
            .as_bytes()],
        )
    }

    pub(crate) fn create(&self, parent: u64, name: &str, mode: u32) -> Result<(EntryOut, u64), Errno> {
        let request = abi::CreateIn {
            flags: 0o102,
            mode: 0o100_000 | mode,
            umask: 0,
            open_flags: 0,
        };
        let reply = self.ask(op::CREATE, parent, &[request.as_bytes(), &c(name)])?;
        let (entry, rest) = reply.split_at(size_of::<EntryOut>());
        Ok((parse(entry), parse::<OpenOut>(rest).fh))
    }

    pub(crate) fn read(&self, node: u64, fh: u64, offset: u64, size: u32) -> Reply {
        self.ask(
            op::READ,
            node,
            &[abi::ReadIn {
                fh,
                offset,
                size,
                ..Default::default()
            }
            .as_bytes()],
        )
    }

    pub(crate) fn write(&self, node: u64, fh: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let size = u32::try_from(data.len()).unwrap();
        let request = abi::WriteIn {
            fh,
            offset,
            size,
            ..Default::default()
        };
        Ok(parse::<abi::WriteOut>(&self.ask(op::WRITE, node, &[request.as_bytes(), data])?).size)
    }

    pub(crate) fn attr(&self, node: u64) -> Result<abi::Attr, Errno> {
        let reply = self.ask(op::GETATTR, node, &[abi::GetattrIn::default().as_bytes()])?;
        Ok(parse::<abi::AttrOut>(&reply).attr)
    }

    pub(crate) fn forget(&self, node: u64, lookups: u64) {
        self.ask(op::FORGET, node, &[abi::ForgetIn { lookups }.as_bytes()])
            .unwrap();
    }
}

/// A C string.
pub(crate) fn c(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// A structure from the front of an answer.
pub(crate) fn parse<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> T {
    T::read_from_prefix(bytes).unwrap().0
}

fn take_apart(reply: &[u8]) -> Reply {
    let header: OutHeader = parse(reply);
    assert_eq!(header.len as usize, reply.len());
    match header.error {
        0 => Ok(reply[size_of::<OutHeader>()..].to_vec()),
        error => {
            assert_eq!(reply.len(), size_of::<OutHeader>());
            Err(Errno::from_raw_os_error(-error))
        }
    }
}
