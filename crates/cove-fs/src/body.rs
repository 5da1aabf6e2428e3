//! Cuts a request's body, copied out of guest memory, into structures, names and values.

use std::ffi::CStr;

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Longest name of a directory entry, in bytes.
const NAME_MAX: usize = 255;

/// What is left of a body.
pub(crate) struct Body<'a>(pub(crate) &'a [u8]);

impl<'a> Body<'a> {
    /// Takes a structure off the front.
    pub(crate) fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = rest;
        Ok(value)
    }

    /// Takes a NUL-terminated string off the front.
    pub(crate) fn string(&mut self) -> Result<&'a CStr, Errno> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = &self.0[string.to_bytes_with_nul().len()..];
        Ok(string)
    }

    /// Takes the name of a directory entry: one component that is neither `.` nor `..`. With such a name and a
    /// directory's descriptor no call that does not follow symlinks can leave the directory.
    pub(crate) fn name(&mut self) -> Result<&'a CStr, Errno> {
        let name = self.string()?;
        let bytes = name.to_bytes();
        if bytes.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(name)
    }

    /// Takes `len` bytes off the front.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Errno> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in [
            &b"\0"[..],
            b".\0",
            b"..\0",
            b"a/b\0",
            b"/\0",
            b"../x\0",
            b"no end",
        ] {
            assert_eq!(Body(bad).name(), Err(Errno::INVAL), "{bad:?}");
        }
        let mut long = [b'a'; 257];
        long[256] = 0;
        assert_eq!(Body(&long).name(), Err(Errno::NAMETOOLONG));
        long[255] = 0;
        assert_eq!(Body(&long).name().unwrap().count_bytes(), 255);
        assert_eq!(Body(b"...\0").name().unwrap(), c"...");
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_single_component_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(name) = Body(&bytes).name() {
                let name = name.to_bytes();
                prop_assert!(!name.is_empty() && name.len() <= 255 && !name.contains(&b'/'));
                prop_assert!(name != b"." && name != b"..");
            }
        }
    }
}
