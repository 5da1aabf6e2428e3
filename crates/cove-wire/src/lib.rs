//! The protocol between the host and the agent in the guest: ports, frames, message types, version.
//!
//! This crate does no I/O. It turns values into frames and frames into values ([`Codec`] plugs into
//! `tokio_util`'s `Framed`, [`encode`] and [`decode`] serve everything else), and it refuses whatever is
//! malformed, oversized or spoken by another version with a [`WireError`]. Each side treats the other as
//! hostile: the guest may be compromised, and the host may be older or newer than the image.
//!
//! ```text
//!  host (daemon)                                      guest (agent)
//!      │ connect vsock port CONTROL ──────────────────▶ │
//!      │ Hello ───────────────────────────────────────▶ │   both compare versions
//!      │ ◀─────────────────────────────────────── Hello │
//!      │ Request{id, Call} ───────────────────────────▶ │   any number in flight
//!      │ ◀──────────────── Response{id, Reply | Fault}  │
//!      │ ◀──────────────────────────────────── Event …  │   after Call::Subscribe
//!
//!      │ connect vsock port STREAM ───────────────────▶ │
//!      │ Open (one frame) ────────────────────────────▶ │   bytes may follow at once
//!      │ ◀───────────────────────── Opened (one frame)  │
//!      │ ◀══ raw bytes, chunks, or exec packets ══════▶ │   half-close means end of input
//! ```

mod accounts;
mod causes;
mod changes;
mod chunks;
mod control;
pub mod dns;
pub mod etc;
mod exec;
mod files;
mod folders;
mod frame;
mod hangup;
mod look;
pub mod network;
mod publish;
mod stream;

pub use accounts::{
    ACCOUNTS_ARGUMENT, ACCOUNTS_HELPER, ACCOUNTS_VARIABLE, CLIENTS_CONFIG, HelperAnswer, HelperCall,
    HelperVerb, Lending, MAX_HELPER_INPUT,
};
pub use causes::with_causes;
pub use changes::{Answered, Change, Changed, Entry, FileName, REPEATER_UID, Repeater, Told};
pub use chunks::{CHUNK_HEADER_LEN, Chunks, chunk_header};
pub use control::{
    BootConfig, Call, CpuTime, EngineConfig, EngineState, Event, Fault, FaultCode, FromGuest, FromHost,
    GuestStatus, Hello, LogSource, Memory, Reply, Stage, VersionMismatch,
};
pub use exec::{ExecCodec, ExecPacket, MAX_EXEC_DATA};
pub use files::{
    AGENT_PROGRAM, FILES_ARGUMENT, FileEntry, FileKind, FileLink, FilesAnswer, FilesCall, FilesQuestion,
    FilesRoot, InMount, MAX_ENTRIES, MAX_MOUNTS, MAX_MOUNTS_LENGTH,
};
pub use folders::guest_folder;
pub use frame::{Codec, HEADER_LEN, MAX_FRAME, WireError, body_len, decode, encode};
pub use hangup::{HANGUP_ARGUMENT, HELD};
pub use look::{Attempt, Look, MAX_ADDRESSES, MAX_LISTENERS, NameSource, Seen, Sight, listeners};
pub use publish::{Protocol, Publish, Published};
pub use stream::{Dial, Exec, LogRequest, Open, Opened, Terminal};

/// Version of everything in this crate. Both ends send it in their [`Hello`]; the image's manifest records it too.
/// Raise it with every change that an older peer would misunderstand.
pub const PROTOCOL_VERSION: u32 = 8;

/// The vsock ports, the one table of them.
pub mod port {
    /// Guest listens: length-delimited [`FromHost`](crate::FromHost) and [`FromGuest`](crate::FromGuest) frames.
    pub const CONTROL: u32 = 1024;
    /// Guest listens: one [`Open`](crate::Open) frame, one [`Opened`](crate::Opened) frame, then the stream itself.
    pub const STREAM: u32 = 1025;
    /// Host listens: one [`Publish`](crate::Publish) frame, one [`Published`](crate::Published) frame, and then
    /// nothing: the connection is the lease of the port.
    pub const HOST: u32 = 1026;
    /// Host listens: questions for names and their answers, in any order; see [`dns`](crate::dns).
    pub const NAMES: u32 = 1027;
    /// Host listens: one [`Repeater`](crate::Repeater) frame, then [`Told`](crate::Told) frames to the guest, an
    /// [`Answered`](crate::Answered) frame to each from it.
    pub const CHANGES: u32 = 1028;
}

/// What the guest mounts to see the host's folders: the tag of its file system device, at whose root each share has
/// an entry.
pub const SHARES_TAG: &str = "cove";

/// Where Docker clients in the guest reach the engine by way of the host: see [`Open::Client`].
pub const CLIENTS_SOCKET: &str = "/run/cove-docker.sock";

/// Context id of the guest on its vsock. Each machine has a bus of its own, so that one number serves all.
pub const GUEST_CID: u32 = 3;
