//! Fuzz targets: whatever a guest says, nothing panics, hangs, or touches what is not the guest's.
//!
//! ```text
//!  input ──▶ script: a mode and steps ──▶ driver ──▶ registers ──▶ device ◀── host
//!                                           │                        ▲
//!                                           └───── guest memory ─────┘
//! ```
//!
//! A target is a function of bytes. `cargo fuzz` calls it with inputs that it evolves, by the programs in `fuzz/` at
//! the root; the suite `fuzz` calls the same function with every file of `fuzz/corpus` and with a bounded number of
//! inputs that [`mutate`] makes of them. A fault ends the process with its input in hexadecimal (`watch`).
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`balloon`], [`block`], [`fs`], [`net`], [`rng`], [`vsock`] | a target for each device |
//! | [`registers`] | the bus of devices, and the transport behind it |
//! | [`ports`] | the console and the other I/O ports |
//! | [`requests`] | the file server's requests, as fast as they go |
//! | [`wire`] | what host and agent say to each other, both ways, and names |
//! | [`archive`] | archives that the engine sends |
//! | `script`, `driver`, `subject`, `device`, `seeds` | what the targets of devices have in common |
//! | `trap` | a shared folder with every way out of it |

pub mod archive;
pub mod balloon;
pub mod block;
mod device;
mod driver;
pub mod fs;
mod input;
pub mod mutate;
pub mod net;
pub mod ports;
mod register;
pub mod registers;
pub mod requests;
pub mod rng;
mod script;
mod seeds;
mod subject;
mod trap;
pub mod vsock;
mod watch;
pub mod wire;

/// Inputs to begin with, each with a name that is a file's in the corpus.
pub type Seeds = Vec<(&'static str, Vec<u8>)>;

/// Something to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which the program and the corpus have, too.
    pub name: &'static str,
    /// Plays an input.
    pub fuzz: fn(&[u8]),
    /// Makes the inputs to begin with.
    pub seeds: fn() -> Seeds,
    /// How many inputs the suite makes: what takes a few seconds.
    pub inputs: u32,
}

/// All of them.
pub static TARGETS: [Target; 11] = [
    target("archive", archive::fuzz, archive::seeds, 10_000),
    target("balloon", balloon::fuzz, balloon::seeds, 200),
    target("block", block::fuzz, block::seeds, 300),
    target("fs", fs::fuzz, fs::seeds, 200),
    target("net", net::fuzz, net::seeds, 200),
    target("ports", ports::fuzz, ports::seeds, 1000),
    target("registers", registers::fuzz, registers::seeds, 500),
    target("requests", requests::fuzz, requests::seeds, 750),
    target("rng", rng::fuzz, rng::seeds, 200),
    target("vsock", vsock::fuzz, vsock::seeds, 200),
    target("wire", wire::fuzz, wire::seeds, 20_000),
];

const fn target(name: &'static str, fuzz: fn(&[u8]), seeds: fn() -> Seeds, inputs: u32) -> Target {
    Target {
        name,
        fuzz,
        seeds,
        inputs,
    }
}
