//! `manifest.json`: what an image is made of, and what a machine checks before it starts one.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ImageError, ResultExt as _};

/// The manifest format that this crate writes and reads.
pub const FORMAT: u32 = 1;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

/// A manifest longer than this is not read: a real one has some 20 kB.
const MAX_MANIFEST: u64 = 4 << 20;

/// The part that a file plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The kernel, an ELF file.
    Kernel,
    /// The initial RAM file system, a cpio archive.
    Initramfs,
    /// The root file system, EROFS.
    Rootfs,
    /// The starter image, a tar archive for `docker load`.
    Starter,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Kernel, Self::Initramfs, Self::Rootfs, Self::Starter];

    /// The name under which the builder writes the file.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Rootfs => "rootfs.erofs",
            Self::Starter => "starter.tar",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Rootfs => "root file system",
            Self::Starter => "starter image",
        })
    }
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the image's directory.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// The files of an image, one for each [`Role`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The kernel.
    pub kernel: FileEntry,
    /// The initial RAM file system.
    pub initramfs: FileEntry,
    /// The root file system.
    pub rootfs: FileEntry,
    /// The starter image.
    pub starter: FileEntry,
}

/// One package whose files are in the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, in its distribution's notation.
    pub version: String,
    /// The distribution and how the package was authenticated, such as `debian trixie, signed index`.
    pub origin: String,
    /// The architecture it is for, in its distribution's notation.
    pub arch: String,
    /// The digest of the file that it came in. An Alpine package came in the base, which has one digest.
    pub sha256: Digest,
    /// Its licence, where the package says so in a machine-readable way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// What the image is a function of, apart from the packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The builder's revision: another one may make other bytes of the same inputs.
    pub builder: String,
    /// The recipe.
    pub recipe: Digest,
    /// The agent.
    pub agent: Digest,
    /// The program that wrote the root file system.
    pub mkfs: Digest,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The host-guest protocol that the image's agent speaks.
    pub protocol: u32,
    /// The processor architecture, as in `std::env::consts::ARCH`.
    pub architecture: String,
    /// Digest over protocol, architecture, inputs and packages: equal for equal inputs, whoever built.
    pub fingerprint: Digest,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel_version: String,
    /// Docker Engine's version, as its package gives it.
    pub engine_version: String,
    /// What the image is a function of.
    pub inputs: Inputs,
    /// The files.
    pub files: Files,
    /// Every package, sorted by origin and name.
    pub packages: Vec<Package>,
    /// The image's directory: not in the file, but known to whoever loaded it.
    #[serde(skip)]
    pub(crate) dir: PathBuf,
}

impl Manifest {
    /// Reads the manifest of the image in `dir` and checks that it is whole and meant for this program:
    /// format, protocol, architecture, fingerprint, file names. It does not read the files: that is what
    /// [`verify`](crate::verify) and [`verify_quick`](crate::verify_quick) are for.
    pub fn load(dir: &Path) -> Result<Self, ImageError> {
        let path = dir.join(MANIFEST);
        let length = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ImageError::Missing { dir: dir.to_owned() });
            }
            Err(error) => return Err(error).at("read", &path),
        };
        if length > MAX_MANIFEST {
            return Err(ImageError::ManifestAltered {
                path,
                reason: format!("it has {length} bytes"),
            });
        }
        let bytes = std::fs::read(&path).at("read", &path)?;
        let mut manifest = Self::parse(&bytes, dir)?;
        dir.clone_into(&mut manifest.dir);
        Ok(manifest)
    }

    /// Where the file of this role is.
    pub fn file(&self, role: Role) -> PathBuf {
        self.dir.join(&self.entry(role).name)
    }

    /// Name, size and digest of the file of this role.
    pub const fn entry(&self, role: Role) -> &FileEntry {
        match role {
            Role::Kernel => &self.files.kernel,
            Role::Initramfs => &self.files.initramfs,
            Role::Rootfs => &self.files.rootfs,
            Role::Starter => &self.files.starter,
        }
    }

    /// The manifest of a new image for this program and this machine's architecture.
    #[cfg(any(target_os = "linux", test))]
    pub(crate) fn new(
        inputs: Inputs,
        packages: Vec<Package>,
        files: Files,
        kernel_version: String,
        engine_version: String,
    ) -> Self {
        Self {
            format: FORMAT,
            protocol: cove_wire::PROTOCOL_VERSION,
            architecture: std::env::consts::ARCH.into(),
            fingerprint: Self::fingerprint_of(&inputs, &packages),
            kernel_version,
            engine_version,
            inputs,
            files,
            packages,
            dir: PathBuf::new(),
        }
    }

    /// The fingerprint that an image of these inputs has when this program builds it.
    pub fn fingerprint_of(inputs: &Inputs, packages: &[Package]) -> Digest {
        let Inputs {
            builder,
            recipe,
            agent,
            mkfs,
        } = inputs;
        let (protocol, arch) = (cove_wire::PROTOCOL_VERSION, std::env::consts::ARCH);
        let mut text = format!("{FORMAT}\n{protocol}\n{arch}\n{builder:?}\n{recipe}\n{agent}\n{mkfs}\n");
        for Package {
            name,
            version,
            origin,
            arch,
            sha256,
            licence,
        } in packages
        {
            // Quoted, so that no two lists have one text.
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name:?} {version:?} {origin:?} {arch:?} {sha256} {licence:?}"
            );
        }
        Digest::of(text.as_bytes())
    }

    fn parse(bytes: &[u8], dir: &Path) -> Result<Self, ImageError> {
        /// The fields that every format has, so that another format is recognised before the rest is read.
        #[derive(Deserialize)]
        struct Header {
            format: u32,
            protocol: u32,
        }
        let path = || dir.join(MANIFEST);
        let unreadable = |source| ImageError::ManifestUnreadable { path: path(), source };
        let altered = |reason| ImageError::ManifestAltered { path: path(), reason };

        let header: Header = serde_json::from_slice(bytes).map_err(unreadable)?;
        if header.format != FORMAT {
            return Err(ImageError::Format {
                dir: dir.to_owned(),
                found: header.format,
                supported: FORMAT,
            });
        }
        if header.protocol != cove_wire::PROTOCOL_VERSION {
            return Err(ImageError::Protocol {
                dir: dir.to_owned(),
                image: header.protocol,
                cove: cove_wire::PROTOCOL_VERSION,
            });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        if manifest.architecture != std::env::consts::ARCH {
            return Err(ImageError::Architecture {
                dir: dir.to_owned(),
                image: manifest.architecture,
                host: std::env::consts::ARCH.into(),
            });
        }
        for role in Role::ALL {
            let name = &manifest.entry(role).name;
            if name != role.file_name() {
                return Err(altered(format!("it names {name:?} as the {role}")));
            }
        }
        // Format, protocol and architecture are this program's own, as was just checked.
        if Self::fingerprint_of(&manifest.inputs, &manifest.packages) != manifest.fingerprint {
            return Err(altered("its fingerprint is not that of its contents".into()));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A whole image of tiny files in `dir`.
    pub(crate) fn write_image(dir: &Path) -> Manifest {
        let entry = |role: Role| {
            let bytes = format!("contents of the {role}");
            std::fs::write(dir.join(role.file_name()), &bytes).unwrap();
            FileEntry {
                name: role.file_name().into(),
                size: bytes.len() as u64,
                sha256: Digest::of(bytes.as_bytes()),
            }
        };
        let inputs = Inputs {
            builder: "revision".into(),
            recipe: Digest::of(b"r"),
            agent: Digest::of(b"a"),
            mkfs: Digest::of(b"m"),
        };
        let files = Files {
            kernel: entry(Role::Kernel),
            initramfs: entry(Role::Initramfs),
            rootfs: entry(Role::Rootfs),
            starter: entry(Role::Starter),
        };
        let packages = vec![Package {
            name: "musl".into(),
            version: "1.2.5-r23".into(),
            origin: "alpine".into(),
            arch: "x86_64".into(),
            sha256: Digest::of(b"base"),
            licence: Some("MIT".into()),
        }];
        let mut manifest = Manifest::new(inputs, packages, files, "6.18.0-0-virt".into(), "26.1.5".into());
        dir.clone_into(&mut manifest.dir);
        write(&manifest);
        manifest
    }

    pub(crate) fn write(manifest: &Manifest) {
        std::fs::write(
            manifest.dir.join(MANIFEST),
            serde_json::to_vec_pretty(manifest).unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn a_manifest_loads_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let written = write_image(dir.path());
        let loaded = Manifest::load(dir.path()).unwrap();
        assert_eq!(loaded, written);
        assert_eq!(loaded.file(Role::Rootfs), dir.path().join("rootfs.erofs"));
    }

    #[test]
    fn a_directory_without_a_manifest_holds_no_image() {
        let dir = tempfile::tempdir().unwrap();
        let error = Manifest::load(dir.path()).unwrap_err();
        assert!(matches!(error, ImageError::Missing { .. }));
        assert!(error.hint().unwrap().contains("cove image build"));
    }

    #[test]
    fn another_protocol_version_is_refused_and_says_which_side_is_older() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = write_image(dir.path());
        manifest.protocol = cove_wire::PROTOCOL_VERSION - 1;
        write(&manifest);
        let message = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with("the image is older"), "{message}");
        manifest.protocol = cove_wire::PROTOCOL_VERSION + 1;
        write(&manifest);
        let message = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with("the program is older"), "{message}");
    }

    #[test]
    fn a_changed_package_list_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = write_image(dir.path());
        manifest.packages[0].version = "9.9".into();
        write(&manifest);
        assert!(matches!(
            Manifest::load(dir.path()),
            Err(ImageError::ManifestAltered { .. })
        ));
    }

    #[test]
    fn a_file_name_that_leaves_the_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = write_image(dir.path());
        manifest.files.kernel.name = "../../etc/passwd".into();
        write(&manifest);
        assert!(matches!(
            Manifest::load(dir.path()),
            Err(ImageError::ManifestAltered { .. })
        ));
    }

    #[test]
    fn an_unknown_format_is_named_before_anything_else_is_read() {
        let error =
            Manifest::parse(br#"{"format": 7, "protocol": 1, "novel": true}"#, Path::new("/i")).unwrap_err();
        assert!(matches!(error, ImageError::Format { found: 7, .. }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            assert!(Manifest::parse(&bytes, Path::new("/image")).is_err());
        }
    }
}
