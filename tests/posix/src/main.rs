//! `posix compare NATIVE SHARED`: says what differs between two directories, and fails where that is not known.
//! `posix watch DIRECTORY`: says what inotify says of it.
//! `posix lock flock|posix|ofd FILE`: waits for a file's lock, prints `locked` and keeps it until it is killed.
//! `posix try flock|posix|ofd FILE`: says whether that lock is `free` or `taken`.
//! `posix disturb flock|posix|ofd FILE first|second thread|process fail|restart|kill`: waits for that lock in the first
//! or the second of two threads, sends itself a signal, and says what came of the wait.
//! `posix write DIRECTORY NUMBER OF SECONDS MILLISECONDS`: is one of so many that write there at once and read what the
//! others write, for so long, with a rest after each version.
//! `posix summary DIRECTORY`: says what is in it, in lines that are the same wherever the same is in one.
//! `posix unwritten FILE`: says how many of its pages the kernel has yet to write to the disk.
//! `posix ask SOCKET PATH`: says what the Docker engine at a unix socket answers to `GET PATH`, byte by byte.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::{path::Path, process::ExitCode, time::Duration};

    // The first is the program's name.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["compare", native, shared] => {
            let found = cove_posix::compare(Path::new(native), Path::new(shared));
            for known in &found.known {
                println!("known: {}: {}: {}", known.scenario, known.label, known.why);
            }
            for unknown in &found.unknown {
                println!("unknown: {unknown}");
            }
            println!("{} lines are the same", found.same);
            if found.unknown.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        ["lock", kind, file] => match locks(kind).and_then(|lock| lock.keep(Path::new(file))) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("locking {file} failed: {error}");
                ExitCode::FAILURE
            }
        },
        ["try", kind, file] => match locks(kind).and_then(|lock| lock.is_free(Path::new(file))) {
            Ok(is_free) => {
                println!("{}", if is_free { "free" } else { "taken" });
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("trying the lock of {file} failed: {error}");
                ExitCode::FAILURE
            }
        },
        ["disturb", kind, file, waiter, to, effect] => {
            let disturbed = disturbance(waiter, to, effect).and_then(|disturbance| {
                let lock = locks(kind)?;
                lock.disturb(Path::new(file), disturbance)
            });
            match disturbed {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("waiting for the lock of {file} failed: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        ["write", directory, number, of, seconds, rest] => {
            let (Ok(number), Ok(of)) = (number.parse(), of.parse()) else {
                eprintln!("{number} and {of} are not both numbers");
                return ExitCode::FAILURE;
            };
            let (Ok(seconds), Ok(rest)) = (seconds.parse(), rest.parse()) else {
                eprintln!("{seconds} and {rest} are not both times");
                return ExitCode::FAILURE;
            };
            let (time, rest) = (Duration::from_secs(seconds), Duration::from_millis(rest));
            let faults = cove_posix::write_and_read(Path::new(directory), number, of, time, rest);
            for fault in &faults {
                println!("{fault}");
            }
            if faults.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        ["summary", directory] => {
            print!("{}", cove_posix::summary(Path::new(directory)));
            ExitCode::SUCCESS
        }
        ["unwritten", file] => match cove_posix::unwritten(Path::new(file)) {
            Ok(pages) => {
                println!("{pages}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("the kernel does not say what of {file} is to be written: {error}");
                ExitCode::FAILURE
            }
        },
        ["watch", directory] => match cove_posix::watch(Path::new(directory)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("watching {directory} failed: {error}");
                ExitCode::FAILURE
            }
        },
        ["ask", socket, path] => match ask(Path::new(socket), path) {
            Ok(answer) => {
                print!("{answer}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("asking the engine at {socket} failed: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: posix compare NATIVE SHARED | watch DIRECTORY | lock flock|posix|ofd FILE");
            eprintln!("     | try flock|posix|ofd FILE | write DIRECTORY NUMBER OF SECONDS MILLISECONDS");
            eprintln!("     | disturb flock|posix|ofd FILE first|second thread|process fail|restart|kill");
            eprintln!("     | summary DIRECTORY | unwritten FILE | ask SOCKET PATH");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn locks(kind: &str) -> std::io::Result<cove_posix::Lock> {
    cove_posix::Lock::named(kind).ok_or_else(|| std::io::Error::other("no lock is called so"))
}

#[cfg(target_os = "linux")]
fn disturbance(waiter: &str, to: &str, effect: &str) -> std::io::Result<cove_posix::Disturbance> {
    use cove_posix::{Disturbance, Effect};

    let unknown = || std::io::Error::other("nothing can be disturbed so");
    Ok(Disturbance {
        first_waits: match waiter {
            "first" => true,
            "second" => false,
            _ => return Err(unknown()),
        },
        to_thread: match to {
            "thread" => true,
            "process" => false,
            _ => return Err(unknown()),
        },
        effect: match effect {
            "fail" => Effect::Fail,
            "restart" => Effect::Restart,
            "kill" => Effect::Kill,
            _ => return Err(unknown()),
        },
    })
}

#[cfg(target_os = "linux")]
fn ask(socket: &std::path::Path, path: &str) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};

    let mut engine = std::os::unix::net::UnixStream::connect(socket)?;
    write!(
        engine,
        "GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    engine.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("posix runs in containers, which are Linux");
}
