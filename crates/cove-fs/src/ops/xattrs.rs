//! Extended attributes.
//!
//! `user.*` passes through, except the ownership record, which the guest neither sees nor sets. Everything else is
//! `EOPNOTSUPP`: `trusted.*` and `security.*` need privileges that the server does not have, and would mean something
//! else on the host; ACLs would grant on the host what a container meant for itself.

use std::ffi::CStr;

use rustix::fs::{FileType, XattrFlags};
use rustix::io::Errno;

use crate::abi::{self, ROOT_ID};
use crate::body::Body;
use crate::memory::Sink;
use crate::ownership::XATTR;
use crate::tree::{ProcPath, Tree};

/// Largest value and list that Linux has (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX_SIZE: usize = 65_536;

impl Tree {
    pub(crate) fn getxattr(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::GetxattrIn = body.take()?;
        let name = body.string()?;
        // Asked for at each exec and by listings; answered without a look.
        if !is_user(name) {
            return Err(Errno::NOTSUP);
        }
        if is_hidden(name) || node == ROOT_ID {
            return Err(Errno::NODATA);
        }
        let node = self.node(node)?;
        if !carries_attributes(node.kind) {
            return Err(Errno::NODATA);
        }
        let (fd, _) = self.hold(&node)?;
        let path = ProcPath::new(&fd);
        if request.size == 0 {
            let size = rustix::fs::getxattr_query(path.as_c_str(), name)?;
            return sink.value(&abi::GetxattrOut {
                size: clamp(size),
                padding: 0,
            });
        }
        let mut value = vec![0; MAX_SIZE.min(request.size as usize)];
        let len = rustix::fs::getxattr(path.as_c_str(), name, &mut value[..])?;
        sink.bytes(&value[..len])
    }

    pub(crate) fn listxattr(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::GetxattrIn = body.take()?;
        let mut shown = Vec::new();
        if node != ROOT_ID {
            let node = self.node(node)?;
            if carries_attributes(node.kind) {
                let (fd, _) = self.hold(&node)?;
                let mut list = vec![0; MAX_SIZE];
                let len = match rustix::fs::listxattr(ProcPath::new(&fd).as_c_str(), &mut list[..]) {
                    Err(Errno::NOTSUP) => 0,
                    other => other?,
                };
                for name in list[..len].split_inclusive(|byte| *byte == 0) {
                    let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::IO)?;
                    if is_user(name) && !is_hidden(name) {
                        shown.extend_from_slice(name.to_bytes_with_nul());
                    }
                }
            }
        }
        if request.size == 0 {
            return sink.value(&abi::GetxattrOut {
                size: clamp(shown.len()),
                padding: 0,
            });
        }
        if shown.len() > request.size as usize {
            return Err(Errno::RANGE);
        }
        sink.bytes(&shown)
    }

    pub(crate) fn setxattr(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::SetxattrIn = body.take()?;
        let name = body.string()?;
        let value = body.bytes(request.size as usize)?;
        let flags = XattrFlags::from_bits(request.flags).ok_or(Errno::INVAL)?;
        let path = self.changeable(node, name)?;
        rustix::fs::setxattr(path.0.as_c_str(), name, value, flags)?;
        sink.done()
    }

    pub(crate) fn removexattr(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let name = body.string()?;
        let path = self.changeable(node, name)?;
        rustix::fs::removexattr(path.0.as_c_str(), name)?;
        sink.done()
    }

    fn changeable(
        &self,
        node: u64,
        name: &CStr,
    ) -> Result<(ProcPath, std::sync::Arc<crate::descriptor::Descriptor>), Errno> {
        if !is_user(name) {
            return Err(if name == c"user." {
                Errno::INVAL
            } else {
                Errno::NOTSUP
            });
        }
        let node = self.writable(node)?;
        if is_hidden(name) || !carries_attributes(node.kind) {
            return Err(Errno::PERM);
        }
        let (fd, _) = self.hold(&node)?;
        Ok((ProcPath::new(&fd), fd))
    }
}

fn is_user(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"user.") && name.to_bytes().len() > 5
}

fn is_hidden(name: &CStr) -> bool {
    name == XATTR
}

fn carries_attributes(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Directory)
}

fn clamp(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
