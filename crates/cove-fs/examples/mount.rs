//! Mounts folders in this machine's kernel, to try the server by hand: `mount MOUNTPOINT FOLDER...`, as root.
//!
//! With `COVE_FS_UID` set, the server runs as that user, as it does in production. Unmounts and ends when its
//! standard input ends. Changes of the host are printed as they are seen.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a tool for trying things out"
)]

#[path = "../tests/kernel/mod.rs"]
mod kernel;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cove_fs::{Config, Server, ShareOptions};
use rustix::fs::{Gid, Uid};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().expect("usage: mount MOUNTPOINT FOLDER...");
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut mount = kernel::Mount::prepare(Path::new(&target));
    let user = std::env::var("COVE_FS_UID").map(|uid| uid.parse().unwrap());
    if let Ok(user) = user {
        become_user(user, user);
    }
    let server = Arc::new(Server::new(Config::default()).unwrap());
    for folder in arguments {
        let path = Path::new(&folder);
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        server
            .add_share(
                path,
                ShareOptions {
                    name,
                    read_only: false,
                },
            )
            .unwrap();
    }
    mount.serve(&server, 2);
    let weak = Arc::downgrade(&server);
    std::thread::spawn(move || {
        while let Some(server) = weak.upgrade() {
            for change in server.take_changes(64, Duration::from_millis(200)) {
                println!("{change:?}");
                server.finish_change(change.id);
            }
        }
    });
    let mut line = Vec::new();
    std::io::stdin().read_to_end(&mut line).unwrap();
    println!("{:?}", server.health());
    become_user(0, 0);
}

/// Changes this thread, and those it starts from now on; root stays within reach as the saved user.
fn become_user(uid: u32, gid: u32) {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if uid.is_root() {
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    } else {
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, Gid::ROOT).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, Uid::ROOT).unwrap();
    }
}
