//! One request: header, body, operation, answer.

use std::sync::atomic::Ordering;

use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::abi::{self, InHeader, op};
use crate::body::Body;
use crate::handle::Open;
use crate::locks::Pending;
use crate::memory::{Sink, Source};
use crate::negotiate;
use crate::ops::Caller;
use crate::tree::Tree;

/// Requests without data this large or smaller are parsed on the stack.
const SMALL: usize = 512;
/// No request but WRITE is larger: an attribute's value with its name.
const LARGEST: usize = 128 << 10;

/// What became of a request.
#[derive(Debug)]
pub enum Answer {
    /// The answer is in place, so many bytes long. 0 when there was no room even for a failure.
    Written(usize),
    /// There is none, as the protocol has it (FORGET, INTERRUPT).
    Nothing,
    /// It waits for a file lock and is answered later, all but its 16 bytes of header being settled.
    Later(Pending),
}

impl Tree {
    pub(crate) fn answer(&self, source: Source<'_>, slices: &[vm_memory::VolatileSlice<'_>]) -> Answer {
        let Ok(header) = source.read::<InHeader>(0) else {
            // Not even a number to answer to.
            return Answer::Written(0);
        };
        let sink = Sink {
            slices,
            unique: header.unique,
        };
        match self.dispatch(&header, source, sink) {
            Ok(answer) => answer,
            Err(errno) => Answer::Written(sink.error(errno)),
        }
    }

    fn dispatch(&self, header: &InHeader, source: Source<'_>, sink: Sink<'_>) -> Result<Answer, Errno> {
        let len = header.len as usize;
        if len < size_of::<InHeader>() || len > source.len() {
            return Err(Errno::INVAL);
        }
        let ready = self.initialised.load(Ordering::Acquire);
        if !ready && header.opcode != op::INIT {
            return Err(Errno::INVAL);
        }
        if header.opcode == op::WRITE {
            return self.dispatch_write(header, source, sink).map(Answer::Written);
        }
        let len = len - size_of::<InHeader>();
        let mut small = [0; SMALL];
        let mut large = Vec::new();
        let body = if len <= SMALL {
            &mut small[..len]
        } else if len <= LARGEST {
            large.resize(len, 0);
            &mut large[..]
        } else {
            return Err(Errno::INVAL);
        };
        if !source.copy(size_of::<InHeader>(), body) {
            return Err(Errno::INVAL);
        }
        self.operate(header, Body(body), sink)
    }

    fn dispatch_write(&self, header: &InHeader, source: Source<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::WriteIn = source.read(size_of::<InHeader>())?;
        let skip = size_of::<InHeader>() + size_of::<abi::WriteIn>();
        if header.len as usize != skip + request.size as usize {
            return Err(Errno::INVAL);
        }
        if self.is_replay(header)? {
            let handle = self.handles.get(request.fh, header.node)?;
            return match handle.open {
                Open::Replay { .. } => sink.value(&abi::WriteOut {
                    size: request.size,
                    padding: 0,
                }),
                _ => Err(Errno::PERM),
            };
        }
        self.write(header.node, &request, source, skip, sink)
    }

    /// Whether the agent asks, to repeat a change. A container's root can take the reserved uid on, but not the agent's
    /// number: it is refused, lest it use up what the agent needs.
    fn is_replay(&self, header: &InHeader) -> Result<bool, Errno> {
        if header.uid != self.config.replay_uid {
            return Ok(false);
        }
        if header.pid == 0 || header.pid != self.repeater.load(Ordering::Acquire) {
            return Err(Errno::PERM);
        }
        Ok(true)
    }

    fn operate(&self, header: &InHeader, mut body: Body<'_>, sink: Sink<'_>) -> Result<Answer, Errno> {
        let node = header.node;
        let caller = Caller {
            uid: header.uid,
            gid: header.gid,
            pid: header.pid,
            unique: header.unique,
        };
        if self.is_replay(header)?
            && let Some(answer) = self.replayed(header.opcode, node, Body(body.0), sink)
        {
            return answer.map(Answer::Written);
        }
        let written = match header.opcode {
            op::LOOKUP => self.lookup(node, body, sink),
            op::FORGET => {
                self.forget(node, body);
                return Ok(Answer::Nothing);
            }
            op::BATCH_FORGET => {
                self.batch_forget(body);
                return Ok(Answer::Nothing);
            }
            op::GETATTR => self.getattr(node, body, sink),
            op::SETATTR => self.setattr(node, body, sink),
            op::READLINK => self.readlink(node, sink),
            op::SYMLINK => self.symlink(&caller, node, body, sink),
            op::MKNOD => self.mknod(&caller, node, body, sink),
            op::MKDIR => self.mkdir(&caller, node, body, sink),
            op::UNLINK => self.unlink(node, body, sink),
            op::RMDIR => self.rmdir(node, body, sink),
            op::RENAME => self.rename(node, body, false, sink),
            op::RENAME2 => self.rename(node, body, true, sink),
            op::LINK => self.link(node, body, sink),
            op::OPEN => self.open_op(&caller, node, body, sink),
            op::CREATE => self.create(&caller, node, body, sink),
            op::TMPFILE => self.tmpfile(&caller, node, body, sink),
            op::READ => self.read(node, body, sink),
            op::STATFS => self.statfs(node, sink),
            op::RELEASE => self.release(node, body, sink),
            op::FSYNC | op::FSYNCDIR => self.fsync(node, body, sink),
            op::SETXATTR => self.setxattr(node, body, sink),
            op::GETXATTR => self.getxattr(node, body, sink),
            op::LISTXATTR => self.listxattr(node, body, sink),
            op::REMOVEXATTR => self.removexattr(node, body, sink),
            op::FLUSH => self.flush(node, body, sink),
            op::INIT => self.init(body, sink),
            op::OPENDIR => self.opendir(node, sink),
            op::READDIR => self.readdir(node, body, false, sink),
            op::READDIRPLUS => self.readdir(node, body, true, sink),
            op::RELEASEDIR => self.releasedir(node, body, sink),
            op::GETLK => self.getlk(node, body, sink),
            op::SETLK | op::SETLKW => {
                return match self.setlk(&caller, node, body, header.opcode == op::SETLKW, sink)? {
                    crate::ops::Locking::Answered(len) => Ok(Answer::Written(len)),
                    crate::ops::Locking::Waits(pending) => Ok(Answer::Later(pending)),
                };
            }
            op::INTERRUPT => {
                let request: abi::InterruptIn = body.take()?;
                self.locks.interrupt(request.unique);
                return Ok(Answer::Nothing);
            }
            op::DESTROY => {
                self.forget_guest();
                sink.done()
            }
            op::FALLOCATE => self.fallocate(node, body, sink),
            op::LSEEK => self.lseek(node, body, sink),
            op::COPY_FILE_RANGE => self.copy_file_range(node, body, sink),
            op::SYNCFS => self.syncfs(node, sink),
            op::STATX => self.statx(node, body, sink),
            // The files' own drivers are on the other side.
            op::IOCTL => Err(Errno::NOTTY),
            // ACCESS, BMAP, POLL and what is to come: the guest's kernel does without and asks no more.
            _ => Err(Errno::NOSYS),
        };
        written.map(Answer::Written)
    }

    fn init(&self, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::InitIn = body.take()?;
        // Old kernels send no more than the first part.
        let extension = body.take::<abi::InitExtIn>().unwrap_or_default();
        let reply = negotiate::reply(&request, &extension)?;
        if reply.major == abi::MAJOR && request.major == abi::MAJOR {
            // A guest that says INIT has started anew: whatever the one before it held is held no more.
            self.forget_guest();
            self.initialised.store(true, std::sync::atomic::Ordering::Release);
        }
        sink.bytes(reply.as_bytes())
    }
}
