//! `posix compare NATIVE SHARED`: says what differs between two directories, and fails where that is not known.
//! `posix ping SOCKET`: asks the Docker engine at a unix socket whether it is there.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::{path::Path, process::ExitCode};

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
        ["ping", socket] => match ping(Path::new(socket)) {
            Ok(answer) => {
                println!("{answer}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("asking the engine at {socket} failed: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: posix compare NATIVE SHARED | posix ping SOCKET");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn ping(socket: &std::path::Path) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};

    let mut engine = std::os::unix::net::UnixStream::connect(socket)?;
    engine.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    engine.read_to_string(&mut answer)?;
    let body = answer.rsplit("\r\n").find(|line| !line.is_empty());
    Ok(body.unwrap_or_default().to_owned())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("posix runs in containers, which are Linux");
}
