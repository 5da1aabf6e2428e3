//! Measures shared folders from within a machine, as its first and only program: `cargo xtask bench fs` boots it beside
//! the image's own initramfs, with `rdinit=/cove-files`.
//!
//! The kernel's command line says in `FOLDERS` which file systems there are: `NAME:DIRECTORY`, comma after comma, where
//! `NAME` is the tag of a virtio-fs device and `DIRECTORY` the place to work in below its root. `ROUNDS` says how often
//! everything is done, on one after the other, after a little of it that is not measured. What was found goes to the
//! console, a line for each: `@files NAME FIGURE: SECONDS`, between `@files began: SECONDS` and `@files done: SECONDS`,
//! which tell the machine's clock; or `@files failed: WHY`. Then the machine powers off.

#[cfg(target_os = "linux")]
mod work;

#[cfg(target_os = "linux")]
fn main() {
    if let Err(error) = machine::measure() {
        println!("{MARK}failed: {error}");
    }
    // Whoever waits for the machine sees that it did not end, if this fails.
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
}

#[cfg(not(target_os = "linux"))]
fn main() {}

/// Begins a line that is meant for the host.
#[cfg(target_os = "linux")]
const MARK: &str = "@files ";

#[cfg(target_os = "linux")]
mod machine {
    use super::{MARK, work};
    use rustix::{
        io::Errno,
        mount::{MountFlags, mount},
    };
    use std::{
        env,
        fs::{self, File},
        io,
        path::{Path, PathBuf},
        thread::sleep,
        time::{Duration, Instant},
    };

    /// In the order in which they need each other, from the image's initramfs.
    const MODULES: [&str; 2] = ["fuse", "virtiofs"];
    /// What is forgotten is told to the server, which shall not be busy with it when the next thing is measured. Longer
    /// than either server has the guest believe what may change any time.
    const PAUSE: Duration = Duration::from_secs(2);

    pub(super) fn measure() -> io::Result<()> {
        let began = Instant::now();
        mount("proc", "/proc", "proc", MountFlags::empty(), c"")?;
        for module in MODULES {
            let file = File::open(format!("/modules/{module}.ko"))?;
            match rustix::system::finit_module(&file, c"", 0) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let folders = variable("FOLDERS")?;
        let rounds: u32 = variable("ROUNDS")?.parse().map_err(io::Error::other)?;
        let folders: Vec<(&str, PathBuf)> = folders
            .split(',')
            .map(|folder| {
                let (name, directory) = folder.split_once(':').unwrap_or((folder, ""));
                let root = Path::new("/run").join(name);
                fs::create_dir(&root)?;
                mount(name, &root, "virtiofs", MountFlags::empty(), c"")?;
                Ok((name, root.join(directory)))
            })
            .collect::<io::Result<_>>()?;
        println!("{MARK}began: {:.3}", began.elapsed().as_secs_f64());
        // An emulated processor translates what it does for the first time, and whoever came first would pay for it.
        for (_, folder) in &folders {
            round(None, folder, work::LITTLE)?;
        }
        for _ in 0..rounds {
            for (name, folder) in &folders {
                round(Some(*name), folder, work::WHOLE)?;
            }
        }
        println!("{MARK}done: {:.3}", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Tells how long everything takes, if it has a name for that. Leaves nothing behind.
    fn round(name: Option<&str>, folder: &Path, scale: work::Scale) -> io::Result<()> {
        let timed = |figure: &str, done: &mut dyn FnMut() -> io::Result<()>| -> io::Result<()> {
            let began = Instant::now();
            done()?;
            if let Some(name) = name {
                println!("{MARK}{name} {figure}: {:.4}", began.elapsed().as_secs_f64());
            }
            Ok(())
        };
        let archive = folder.join("archive");
        timed("unpack", &mut || work::unpack(&archive, scale))?;
        forget()?;
        timed("walk, cold", &mut || work::walk(&archive, scale))?;
        sleep(PAUSE);
        timed("walk, warm", &mut || work::walk(&archive, scale))?;
        timed("remove", &mut || fs::remove_dir_all(&archive))?;
        let project = folder.join("project");
        work::install(&project, scale)?;
        forget()?;
        timed("npm ci", &mut || {
            fs::remove_dir_all(&project)?;
            work::install(&project, scale)?;
            work::load(&project, scale)
        })?;
        fs::remove_dir_all(&project)?;
        sleep(PAUSE);
        Ok(())
    }

    /// Has the kernel forget whatever it could look up again.
    fn forget() -> io::Result<()> {
        rustix::fs::sync();
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        sleep(PAUSE);
        Ok(())
    }

    fn variable(name: &str) -> io::Result<String> {
        env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
    }
}
