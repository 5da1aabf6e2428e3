//! Says what inotify says of a directory, a line for each event.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::{io::Write as _, mem::MaybeUninit, path::Path};

/// Prints `watching`, then `KIND NAME` for what happens in `directory`, until it is killed.
pub fn watch(directory: &Path) -> std::io::Result<()> {
    let events = inotify::init(CreateFlags::CLOEXEC)?;
    let wanted =
        WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::DELETE | WatchFlags::MOVE;
    inotify::add_watch(&events, directory, wanted)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "watching")?;
    out.flush()?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&events, &mut buffer);
    loop {
        let event = reader.next()?;
        let kind = match event.events() {
            kind if kind.contains(ReadFlags::CREATE) => "create",
            kind if kind.contains(ReadFlags::MODIFY) => "modify",
            kind if kind.contains(ReadFlags::ATTRIB) => "attrib",
            kind if kind.contains(ReadFlags::DELETE) => "delete",
            kind if kind.contains(ReadFlags::MOVED_FROM) => "from",
            kind if kind.contains(ReadFlags::MOVED_TO) => "to",
            kind if kind.contains(ReadFlags::QUEUE_OVERFLOW) => "overflow",
            _ => continue,
        };
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
        writeln!(out, "{kind} {}", name.unwrap_or_default())?;
        out.flush()?;
    }
}
