//! Whether the programs in a tree would start: every ELF file finds its interpreter and its libraries, every
//! script its interpreter.
//!
//! The tree has two C libraries side by side, Alpine's musl and Debian's glibc. A program belongs to the one
//! whose loader it names, and finds its libraries only in that one's directories: a library of the other would
//! be found by name and crash.

use object::LittleEndian;
use object::elf::{
    DT_NEEDED, DT_STRSZ, DT_STRTAB, DynamicTag, EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PT_INTERP,
};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

use crate::error::ImageError;
use crate::tree::{Node, Tree, TreePath};

/// Where musl's loader looks.
const MUSL: &[&str] = &["lib", "usr/local/lib", "usr/lib"];
/// Where Debian's loader looks first. It has no cache in our image.
const GLIBC: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// What an ELF file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wants {
    interpreter: Option<String>,
    libraries: Vec<String>,
}

/// Checks all of `tree`.
pub(crate) fn check(tree: &Tree) -> Result<(), ImageError> {
    let mut missing = Vec::new();
    for (path, node) in tree.iter() {
        let Node::File { mode, content } = node else {
            continue;
        };
        let bytes = content.read()?;
        if bytes.starts_with(b"\x7fELF") {
            match read_elf(&bytes) {
                Ok(Some(wants)) => check_elf(tree, path, &wants, &mut missing),
                Ok(None) => {}
                Err(error) => missing.push(format!("/{path} is not a valid ELF file: {error}")),
            }
        } else if mode & 0o111 != 0
            && let Some(interpreter) = script_interpreter(&bytes)
            && tree.resolve(&interpreter).is_none()
        {
            missing.push(format!("/{path} is a script for {interpreter}"));
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ImageError::Unlinked { missing })
    }
}

/// Whether the ELF program in `bytes` needs neither loader nor library. `None` if it is no program for x86-64.
pub(crate) fn is_static_program(bytes: &[u8]) -> Option<bool> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    if header.e_machine(header.endian().ok()?) != EM_X86_64 {
        return None;
    }
    read_elf(bytes)
        .ok()
        .flatten()
        .map(|wants| wants == Wants::default())
}

fn check_elf(tree: &Tree, path: &TreePath, wants: &Wants, missing: &mut Vec<String>) {
    if let Some(interpreter) = &wants.interpreter
        && tree.resolve(interpreter).is_none()
    {
        missing.push(format!("/{path} needs the loader {interpreter}"));
    }
    let directories = search_path(path, wants);
    for library in &wants.libraries {
        let found = |directory: &&str| tree.resolve(&format!("{directory}/{library}")).is_some();
        if !directories.iter().any(found) {
            missing.push(format!("/{path} needs {library}"));
        }
    }
}

fn search_path(path: &TreePath, wants: &Wants) -> &'static [&'static str] {
    let glibc = match &wants.interpreter {
        Some(interpreter) => interpreter.contains("ld-linux"),
        // A library names no loader; where it lies says whose it is.
        None => path.as_str().contains("/x86_64-linux-gnu/"),
    };
    if glibc { GLIBC } else { MUSL }
}

/// `None` for an object file, such as a kernel module, which nobody runs.
fn read_elf(bytes: &[u8]) -> Result<Option<Wants>, object::Error> {
    let header = FileHeader64::<LittleEndian>::parse(bytes)?;
    let endian = header.endian()?;
    if !matches!(header.e_type(endian), ET_EXEC | ET_DYN) {
        return Ok(None);
    }
    let segments = header.program_headers(endian, bytes)?;
    let mut wants = Wants::default();
    for segment in segments {
        if segment.p_type(endian) == PT_INTERP
            && let Ok(data) = segment.data(endian, bytes)
        {
            let text = data.strip_suffix(b"\0").unwrap_or(data);
            wants.interpreter = Some(String::from_utf8_lossy(text).into_owned());
        }
        let Some(entries) = segment.dynamic(endian, bytes)? else {
            continue;
        };
        let value = |tag: DynamicTag| {
            entries
                .iter()
                .find(|entry| entry.d_tag(endian) == tag)
                .map(|entry| entry.d_val(endian))
        };
        let Some((address, size)) = value(DT_STRTAB).zip(value(DT_STRSZ)) else {
            continue;
        };
        let strings = segments
            .iter()
            .find_map(|segment| segment.data_range(endian, bytes, address, size).ok()?);
        let strings = strings.unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry.d_tag(endian) == DT_NEEDED) {
            let start = usize::try_from(entry.d_val(endian)).unwrap_or(usize::MAX);
            let name = strings
                .get(start..)
                .unwrap_or_default()
                .split(|&byte| byte == 0)
                .next()
                .unwrap_or_default();
            wants.libraries.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(Some(wants))
}

/// The program of a `#!` line.
fn script_interpreter(bytes: &[u8]) -> Option<String> {
    let line = bytes.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let text = str::from_utf8(line).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own_program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    fn tree(files: &[(&str, u32, &[u8])]) -> Tree {
        let mut tree = Tree::default();
        for (path, mode, bytes) in files {
            tree.insert(TreePath::parse(path).unwrap(), Node::file(*mode, bytes.to_vec()))
                .unwrap();
        }
        tree
    }

    #[test]
    fn a_program_without_its_loader_and_libraries_is_reported_with_both() {
        let wants = read_elf(&own_program()).unwrap().unwrap();
        let interpreter = wants.interpreter.clone().unwrap();
        assert!(
            wants.libraries.iter().any(|library| library.starts_with("libc.")),
            "{wants:?}"
        );
        let error = check(&tree(&[("bin/x", 0o755, &own_program())]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&interpreter) && error.contains(&wants.libraries[0]),
            "{error}"
        );
    }

    #[test]
    fn a_program_with_everything_it_needs_passes() {
        let wants = read_elf(&own_program()).unwrap().unwrap();
        let mut tree = tree(&[("bin/x", 0o755, &own_program())]);
        let interpreter = TreePath::parse(wants.interpreter.as_ref().unwrap()).unwrap();
        tree.insert(interpreter, Node::file(0o755, vec![])).unwrap();
        for library in &wants.libraries {
            let path = TreePath::parse(&format!("usr/lib/x86_64-linux-gnu/{library}")).unwrap();
            let _ = tree.insert(path, Node::file(0o644, vec![]));
        }
        check(&tree).unwrap();
    }

    #[test]
    fn a_library_of_the_other_c_library_does_not_count() {
        let wants = Wants {
            interpreter: Some("/lib64/ld-linux-x86-64.so.2".into()),
            libraries: vec!["libz.so.1".into()],
        };
        let mut missing = Vec::new();
        let tree = tree(&[
            ("usr/lib/libz.so.1", 0o755, b""),
            ("lib64/ld-linux-x86-64.so.2", 0o755, b""),
        ]);
        check_elf(&tree, &TreePath::parse("bin/x").unwrap(), &wants, &mut missing);
        assert_eq!(missing, ["/bin/x needs libz.so.1"]);
    }

    #[test]
    fn a_script_without_its_interpreter_is_reported() {
        let error = check(&tree(&[("bin/x", 0o755, b"#! /usr/bin/perl -w\n")]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/bin/x is a script for /usr/bin/perl"), "{error}");
        check(&tree(&[("bin/sh", 0o755, b""), ("bin/x", 0o755, b"#!/bin/sh\n")])).unwrap();
        check(&tree(&[("usr/share/sample", 0o644, b"#!/usr/bin/perl\n")])).unwrap();
    }

    proptest! {
        #[test]
        fn no_damage_makes_the_elf_reader_panic(
            damage in proptest::collection::vec((0usize..1024, any::<u8>()), 1..16),
        ) {
            let mut bytes = own_program();
            bytes.truncate(1 << 16);
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            let _ = read_elf(&bytes);
        }
    }
}
