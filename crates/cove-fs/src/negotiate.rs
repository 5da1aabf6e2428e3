//! What guest and server agree on in INIT.
//!
//! Deliberately not asked for: the write-back cache (data would reach the host late, and a host's own write could be
//! overwritten by older pages), shared mappings of files that are read past the cache, which are those that have taken
//! another one's name (`fopen::DIRECT_IO`; the kernel writes a mapping's pages through whichever handle of the name it
//! finds, which may be that of the file before), exports by handle, security labels, ACLs (see `ops::xattrs`),
//! submounts (a share's inner mounts appear as ordinary directories, with inode numbers that cannot collide).

use rustix::io::Errno;

use crate::abi::{InitExtIn, InitIn, InitOut, MAJOR, MINOR, init};

/// Largest READ or WRITE in pages of 4 KiB, the most that kernels grant without a setting.
const MAX_PAGES: u16 = 256;
const PAGE: u32 = 4096;
/// Oldest minor version whose structures are the ones in `abi`: Linux 4.20.
const OLDEST: u32 = 28;

const WANTED: u64 = init::ASYNC_READ
    | init::POSIX_LOCKS
    | init::FLOCK_LOCKS
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::AUTO_INVAL_DATA
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::CACHE_SYMLINKS
    | init::HANDLE_KILLPRIV_V2
    | init::SETXATTR_EXT
    | init::INIT_EXT;

/// Bits that the server cannot do without, as structures depend on them.
const NEEDED: u64 = init::SETXATTR_EXT;

/// The answer to INIT. `PROTO` for a guest that is too old.
pub(crate) fn reply(request: &InitIn, extension: &InitExtIn) -> Result<InitOut, Errno> {
    if request.major > MAJOR {
        // The guest is to ask again in our version.
        return Ok(InitOut {
            major: MAJOR,
            minor: MINOR,
            ..InitOut::default()
        });
    }
    if request.major < MAJOR || request.minor < OLDEST {
        return Err(Errno::PROTO);
    }
    let mut offered = u64::from(request.flags);
    if offered & init::INIT_EXT != 0 {
        offered |= u64::from(extension.flags2) << 32;
    }
    if offered & NEEDED != NEEDED {
        return Err(Errno::PROTO);
    }
    let agreed = offered & WANTED;
    Ok(InitOut {
        major: MAJOR,
        minor: MINOR,
        max_readahead: request.max_readahead,
        flags: (agreed & 0xffff_ffff) as u32,
        max_background: 64,
        congestion_threshold: 48,
        max_write: u32::from(MAX_PAGES) * PAGE,
        time_gran: 1,
        max_pages: MAX_PAGES,
        flags2: (agreed >> 32) as u32,
        ..InitOut::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(major: u32, minor: u32, flags: u64) -> Result<InitOut, Errno> {
        let request = InitIn {
            major,
            minor,
            max_readahead: 1 << 17,
            flags: (flags & 0xffff_ffff) as u32,
        };
        let extension = InitExtIn {
            flags2: (flags >> 32) as u32,
            unused: [0; 11],
        };
        reply(&request, &extension)
    }

    #[test]
    fn only_what_was_offered_is_agreed() {
        let reply = ask(
            7,
            41,
            init::SETXATTR_EXT | init::WRITEBACK_CACHE | init::POSIX_LOCKS,
        )
        .unwrap();
        assert_eq!(u64::from(reply.flags), init::SETXATTR_EXT | init::POSIX_LOCKS);
        assert_eq!((reply.flags2, reply.max_write), (0, 1 << 20));
    }

    #[test]
    fn a_newer_major_is_asked_to_come_down_and_an_old_guest_is_refused() {
        assert_eq!(ask(8, 0, 0).unwrap().major, 7);
        assert_eq!(ask(7, 27, init::SETXATTR_EXT).unwrap_err(), Errno::PROTO);
        assert_eq!(ask(7, 41, 0).unwrap_err(), Errno::PROTO);
    }
}
