//! The guest image: recipe, builder, manifest and verification.
//!
//! An image is a directory of five files. Four are what a machine is made of, the fifth says what they are:
//!
//! | file | what it is |
//! | --- | --- |
//! | `kernel` | Alpine's `linux-virt`, unpacked to an ELF for direct boot (it carries a PVH note) |
//! | `initramfs` | the agent as `/init` and the modules that reach the root file system and the host |
//! | `rootfs.erofs` | Alpine's userland, the agent, Docker Engine and what it reaches for; read-only |
//! | `starter.tar` | an `alpine` image to load into a new engine, so that the first `run` needs no registry |
//! | `manifest.json` | sizes and hashes of the four, every package with its origin, the protocol version |
//!
//! [`build`] makes such a directory from authenticated sources without root (on Linux), [`verify`] and
//! [`verify_quick`] say whether one may be started (everywhere).
//!
//! ```text
//!  recipe.toml ─┬─▶ pip ──▶ wheel (pinned hash) ─▶ qcow2 ─▶ ext4 ─▶ checked against apk's database ─┐
//!               └─▶ apt ──▶ .deb  (signed index) ─▶ unpacked in memory, kept files only ────────────┤
//!                                                                                                 Tree
//!  manifest.json ◀── rename ◀── temporary directory ◀── kernel, initramfs, mkfs.erofs, starter ◀──┘
//! ```
//!
//! Invariants: no byte enters an image unverified; an archive can write nowhere but into the tree
//! held by the builder, which has no notion of a path outside itself; the same inputs give the same bytes;
//! a build that fails or is killed leaves the image that was there before.

mod build;
mod digest;
mod error;
mod manifest;
mod progress;
mod tools;
mod verify;

#[cfg(target_os = "linux")]
mod alpine;
#[cfg(target_os = "linux")]
mod apkdb;
#[cfg(target_os = "linux")]
mod assemble;
#[cfg(target_os = "linux")]
mod cpio;
#[cfg(target_os = "linux")]
mod debian;
#[cfg(target_os = "linux")]
mod initramfs;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod linkage;
#[cfg(target_os = "linux")]
mod modules;
#[cfg(target_os = "linux")]
mod pattern;
#[cfg(target_os = "linux")]
mod qcow2;
#[cfg(target_os = "linux")]
mod recipe;
#[cfg(target_os = "linux")]
mod rootfs;
#[cfg(target_os = "linux")]
mod source;
#[cfg(target_os = "linux")]
mod starter;
#[cfg(target_os = "linux")]
mod tree;
#[cfg(target_os = "linux")]
mod workshop;

pub use build::{BuildOptions, Outcome, build};
#[cfg(target_os = "linux")]
pub use cpio::Cpio;
pub use digest::Digest;
pub use error::ImageError;
pub use manifest::{FORMAT, FileEntry, Files, Inputs, MANIFEST, Manifest, Package, Role};
pub use progress::{Progress, Stage};
pub use tools::{Tool, missing_tools, required_tools};
pub use verify::{verify, verify_quick};
