//! The application's pages for a browser, from where the front end was built to, on loopback.

use anyhow::{Context as _, Result};
use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    thread,
    time::Duration,
};

/// A browser opens connections before it knows what to ask for.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than a browser's request has.
const LONGEST_HEAD: u64 = 64 << 10;

/// Serves the files of `folder` for as long as this program runs; where.
pub(super) fn serve(folder: &Path) -> Result<SocketAddr> {
    let folder = fs::canonicalize(folder)
        .with_context(|| format!("{} is not there; the front end was not built", folder.display()))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let folder = folder.clone();
            thread::spawn(move || {
                // The browser may hang up; it asks again for what it needs.
                let _ = answer(&stream, &folder);
            });
        }
    });
    Ok(address)
}

/// Answers one request and hangs up.
fn answer(mut stream: &TcpStream, folder: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = BufReader::new(stream.take(LONGEST_HEAD)).lines();
    let request = head.next().transpose()?.unwrap_or_default();
    // Hanging up on what was not read would take the answer away from the browser.
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    let found = place(folder, &request).and_then(|place| Some((fs::read(&place).ok()?, kind(&place))));
    let (status, body, kind) = match found {
        Some((body, kind)) => ("200 OK", body, kind),
        None => ("404 Not Found", Vec::new(), "text/plain"),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}

/// The file that `GET /path?query HTTP/1.1` is about, which lies in the folder.
fn place(folder: &Path, request: &str) -> Option<PathBuf> {
    let target = request.strip_prefix("GET /")?.split(' ').next()?;
    let path = Path::new(target.split('?').next()?);
    let within = path.components().all(|part| matches!(part, Component::Normal(_)));
    within.then(|| {
        if path.as_os_str().is_empty() {
            folder.join("index.html")
        } else {
            folder.join(path)
        }
    })
}

fn kind(place: &Path) -> &'static str {
    match place.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_lead_to_files_of_the_folder_and_nowhere_else() {
        let folder = Path::new("/pages");
        for (request, file) in [
            ("GET / HTTP/1.1", Some("/pages/index.html")),
            ("GET /?containers=1000 HTTP/1.1", Some("/pages/index.html")),
            ("GET /assets/a.js HTTP/1.1", Some("/pages/assets/a.js")),
            ("GET /../secret HTTP/1.1", None),
            ("GET //etc/passwd HTTP/1.1", None),
            ("POST / HTTP/1.1", None),
            ("", None),
        ] {
            assert_eq!(
                place(folder, request).as_deref(),
                file.map(Path::new),
                "{request}"
            );
        }
        assert_eq!(kind(Path::new("a/b.js")), "text/javascript; charset=utf-8");
    }
}
