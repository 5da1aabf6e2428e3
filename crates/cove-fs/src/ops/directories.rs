//! Reading directories.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::abi::{self, Dirent, EntryOut, OpenOut, ROOT_ID, fopen};
use crate::body::Body;
use crate::handle::Open;
use crate::memory::Sink;
use crate::node::Node;
use crate::tree::{STATUS, Tree, open_dir};

/// Most bytes of one answer; a larger buffer is filled over several.
const MAX_ANSWER: usize = 64 << 10;
/// Bytes of host entries read at a time.
const BATCH: usize = 16 << 10;
/// Room for the host's entry with the longest name.
const LONGEST: usize = 320;

impl Tree {
    pub(crate) fn opendir(&self, node: u64, sink: Sink<'_>) -> Result<usize, Errno> {
        if node == ROOT_ID {
            let place = self.open_budget.reserve()?;
            let fh = self.handles.insert(Open::Root { _place: place });
            return sink.value(&OpenOut {
                fh,
                open_flags: 0,
                padding: 0,
            });
        }
        let node = self.node(node)?;
        if !node.is_dir() {
            return Err(Errno::NOTDIR);
        }
        let dir = self.dir(&node)?;
        self.ensure_watched(&node, &dir);
        let place = self.open_budget.reserve()?;
        // The pin is of this very directory, so that there is nothing to compare.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open_dir(&dir, flags)?;
        // The guest's kernel drops the listing when the directory's time of change moves, which it learns of in time
        // where the directory is watched.
        let open_flags = if self.is_told(&node) {
            fopen::CACHE_DIR | fopen::KEEP_CACHE
        } else {
            0
        };
        let fh = self.handles.insert(Open::Dir {
            node,
            fd: place.hold(fd),
            reading: Mutex::default(),
        });
        sink.value(&OpenOut {
            fh,
            open_flags,
            padding: 0,
        })
    }

    pub(crate) fn releasedir(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::ReleaseIn = body.take()?;
        self.handles.remove(request.fh, node)?;
        sink.done()
    }

    pub(crate) fn readdir(
        &self,
        node: u64,
        mut body: Body<'_>,
        plus: bool,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let request: abi::ReadIn = body.take()?;
        let handle = self.handles.get(request.fh, node)?;
        let mut listing = Listing::new(sink.room().min(request.size as usize).min(MAX_ANSWER), plus);
        match &handle.open {
            Open::Root { .. } => self.list_shares(request.offset, &mut listing),
            Open::Dir { node, fd, reading } => {
                if node.share.is_removed() {
                    return Err(Errno::STALE);
                }
                let _reading = reading.lock();
                self.list(node, fd, request.offset, &mut listing)?;
            }
            _ => return Err(Errno::NOTDIR),
        }
        sink.bytes(&listing.bytes)
    }

    fn list(
        &self,
        node: &Arc<Node>,
        fd: &crate::descriptor::Descriptor,
        offset: u64,
        listing: &mut Listing,
    ) -> Result<(), Errno> {
        let pin = if listing.plus { Some(self.dir(node)?) } else { None };
        let prefix = self.device_prefix(node.identified.identity.device);
        rustix::fs::seek(fd, SeekFrom::Start(offset))?;
        let mut buffer = [MaybeUninit::uninit(); BATCH];
        loop {
            // What is read of the host's entries and does not fit has to be read again by the next request, so no
            // more is read than fits even if the names are short.
            let room = listing.limit - listing.bytes.len();
            let batch = if listing.plus { room / 6 } else { room * 3 / 4 };
            if batch < LONGEST && !listing.bytes.is_empty() {
                return Ok(());
            }
            let mut entries = RawDir::new(fd, &mut buffer[..batch.clamp(LONGEST, BATCH)]);
            loop {
                let entry = match entries.next() {
                    Some(Ok(entry)) => entry,
                    // What was read before the failure is still good.
                    Some(Err(errno)) if listing.bytes.is_empty() => return Err(errno),
                    _ => return Ok(()),
                };
                let name = entry.file_name();
                if !listing.fits(name) {
                    return if listing.bytes.is_empty() {
                        Err(Errno::INVAL)
                    } else {
                        Ok(())
                    };
                }
                let shown = Dirent {
                    ino: entry.ino() ^ prefix,
                    off: entry.next_entry_cookie(),
                    namelen: 0,
                    kind: dirent_kind(entry.file_type()),
                };
                let found = match &pin {
                    Some(pin) if name != c"." && name != c".." => {
                        match rustix::fs::statx(pin, name, AtFlags::SYMLINK_NOFOLLOW, STATUS) {
                            // Where the guest knows too many files, it gets the bare name.
                            Ok(stat) => self.enter(node, name, &stat).unwrap_or_default(),
                            // So it does of what is gone meanwhile, or is not to be looked at.
                            Err(_) => EntryOut::default(),
                        }
                    }
                    _ => EntryOut::default(),
                };
                listing.push(name, shown, &found);
                if entries.is_buffer_empty() {
                    break;
                }
            }
        }
    }

    fn list_shares(&self, offset: u64, listing: &mut Listing) {
        let shares: Vec<_> = self
            .shares
            .read()
            .iter()
            .map(|(share, root)| (Arc::clone(share), Arc::clone(root)))
            .collect();
        let fixed = [(1, ROOT_ID, c".".to_owned()), (2, ROOT_ID, c"..".to_owned())];
        let roots = shares.iter().map(|(share, root)| {
            // Numbers of shares only grow, so a position survives additions and removals.
            (
                u64::from(share.index) + 3,
                root.identified.identity.ino,
                share.name.clone(),
            )
        });
        for (position, ino, name) in fixed.into_iter().chain(roots) {
            if position <= offset {
                continue;
            }
            if !listing.fits(&name) {
                break;
            }
            let found = if listing.plus && position > 2 {
                self.look_up(ROOT_ID, &name).unwrap_or_default()
            } else {
                EntryOut::default()
            };
            listing.push(
                &name,
                Dirent {
                    ino,
                    off: position,
                    namelen: 0,
                    kind: DIRECTORY,
                },
                &found,
            );
        }
    }
}

const DIRECTORY: u32 = 4;

fn dirent_kind(kind: FileType) -> u32 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => DIRECTORY,
        FileType::BlockDevice => 6,
        // A device node may hide behind a regular file; only a look at the file tells.
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}

/// The answer being put together.
struct Listing {
    bytes: Vec<u8>,
    limit: usize,
    plus: bool,
}

impl Listing {
    fn new(limit: usize, plus: bool) -> Self {
        Self {
            bytes: Vec::with_capacity(limit),
            limit,
            plus,
        }
    }

    fn size(&self, name: &CStr) -> usize {
        let fixed = size_of::<Dirent>() + if self.plus { size_of::<EntryOut>() } else { 0 };
        (fixed + name.count_bytes()).next_multiple_of(8)
    }

    fn fits(&self, name: &CStr) -> bool {
        self.bytes.len() + self.size(name) <= self.limit
    }

    fn push(&mut self, name: &CStr, mut dirent: Dirent, entry: &EntryOut) {
        let end = self.bytes.len() + self.size(name);
        if self.plus {
            self.bytes.extend_from_slice(entry.as_bytes());
        }
        // The kernel bounds names to 255 bytes.
        dirent.namelen = u32::try_from(name.count_bytes()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(name.to_bytes());
        self.bytes.resize(end, 0);
    }
}
