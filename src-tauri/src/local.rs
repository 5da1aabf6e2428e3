//! Files of this computer that a person chose: asked for by dialogs that this program opens, written whole or not at
//! all, read while they are sent.

use crate::{
    failure::{Answer, Refusal},
    task::Report,
};
use cove_engine::{Bytes, EngineError};
use cove_view::TaskStep;
use futures_util::{Stream, stream};
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tauri::AppHandle;
use tauri_plugin_dialog::{DialogExt as _, FilePath};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncWriteExt as _, ReadBuf},
};

/// Asks where to write a file that is proposed to be called `name`; nothing if the person said nothing.
pub(crate) async fn place_for(app: &AppHandle, name: &str) -> Answer<Option<PathBuf>> {
    let dialog = app.dialog().file().set_file_name(file_name(name));
    path(blocking(move || dialog.blocking_save_file()).await?)
}

/// Asks for a file to read; nothing if the person said nothing.
pub(crate) async fn existing(app: &AppHandle) -> Answer<Option<PathBuf>> {
    let dialog = app.dialog().file();
    path(blocking(move || dialog.blocking_pick_file()).await?)
}

/// Asks for files to read; none if the person said nothing.
pub(crate) async fn several(app: &AppHandle) -> Answer<Vec<PathBuf>> {
    let dialog = app.dialog().file();
    let chosen = blocking(move || dialog.blocking_pick_files()).await?;
    let paths = chosen
        .into_iter()
        .flatten()
        .map(|one| path(Some(one)).transpose());
    paths.flatten().collect()
}

/// Asks for a folder; nothing if the person said nothing.
pub(crate) async fn folder(app: &AppHandle) -> Answer<Option<PathBuf>> {
    let dialog = app.dialog().file();
    path(blocking(move || dialog.blocking_pick_folder()).await?)
}

fn path(chosen: Option<FilePath>) -> Answer<Option<PathBuf>> {
    let path = chosen.map(FilePath::into_path).transpose();
    path.map_err(|error| Refusal::because(&error, "Choose a file of this computer."))
}

/// Runs what waits for a person or a disk where it holds up nothing else.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
    tokio::task::spawn_blocking(run)
        .await
        .map_err(|error| Refusal::because(&error, "Try again."))
}

/// The name of a thing as the name of a file: without what means something in a path.
fn file_name(name: &str) -> String {
    let plain = name.chars().map(|letter| match letter {
        '/' | '\\' | ':' | '\0'..='\x1f' => '-',
        letter => letter,
    });
    plain
        .take(200)
        .collect::<String>()
        .trim_start_matches('.')
        .to_owned()
}

/// Writes what comes beside its place and then into it, so that what breaks off or is cancelled leaves nothing.
pub(crate) async fn save(mut bytes: Bytes, to: &Path, report: &Report) -> Answer<()> {
    let cannot = |error| cannot_write(to, &error);
    let (file, beside) = new_file_beside(to).map_err(cannot)?.into_parts();
    let mut file = File::from_std(file);
    let mut written = 0;
    while let Some(data) = bytes.next().await? {
        file.write_all(&data).await.map_err(cannot)?;
        written += data.len() as u64;
        report.tell(come(written, None));
    }
    file.flush().await.map_err(cannot)?;
    // A backup that is said to be there is there after a power cut, too.
    file.sync_all().await.map_err(cannot)?;
    beside.persist(to).map_err(|error| cannot(error.error))
}

/// Writes a text beside its place and then into it.
pub(crate) fn write_text(to: &Path, text: &str) -> Answer<()> {
    let cannot = |error| cannot_write(to, &error);
    let mut beside = new_file_beside(to).map_err(cannot)?;
    beside.write_all(text.as_bytes()).map_err(cannot)?;
    beside.persist(to).map_err(|error| cannot(error.error))?;
    Ok(())
}

/// Why a file could not be written where a person wanted it.
pub(crate) fn cannot_write(to: &Path, error: &io::Error) -> Refusal {
    Refusal::new(
        format!("cannot write {}: {error}", to.display()),
        "Choose a folder that you may write to, with enough space.",
    )
}

/// A file that is to become `to`, with the permissions of any new file: what is temporary has fewer.
pub(crate) fn new_file_beside(to: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};
        builder.permissions(Permissions::from_mode(0o666));
    }
    builder.tempfile_in(to.parent().unwrap_or(Path::new(".")))
}

/// A file, read while it is sent, which tells how far that is.
pub(crate) async fn open(path: &Path, report: &Report) -> Answer<Told<File>> {
    let cannot = |error: io::Error| {
        Refusal::new(
            format!("cannot read {}: {error}", path.display()),
            "Choose a tar file that you may read.",
        )
    };
    let file = File::open(path).await.map_err(cannot)?;
    let found = file.metadata().await.map_err(cannot)?;
    if !found.is_file() {
        return Err(cannot(io::ErrorKind::IsADirectory.into()));
    }
    Ok(Told::new(file, Some(found.len()), report))
}

/// Something that is read, and tells how far that is.
pub(crate) struct Told<R> {
    from: R,
    come: u64,
    all: Option<u64>,
    report: Report,
}

impl<R> Told<R> {
    pub(crate) fn new(from: R, all: Option<u64>, report: &Report) -> Self {
        Self {
            from,
            come: 0,
            all,
            report: report.clone(),
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Told<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.from).poll_read(context, buffer))?;
        self.come += (buffer.filled().len() - before) as u64;
        self.report.tell(come(self.come, self.all));
        Poll::Ready(Ok(()))
    }
}

/// So many bytes have come.
pub(crate) fn come(bytes: u64, all: Option<u64>) -> TaskStep {
    TaskStep::Whole {
        message: format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20),
        fraction: all.map(|all| TaskStep::fraction(bytes, all)),
    }
}

/// An answer of the engine, to be sent to it again.
pub(crate) fn again(bytes: Bytes) -> impl Stream<Item = io::Result<bytes::Bytes>> + Send + 'static {
    stream::try_unfold(bytes, |mut bytes| async {
        let next = bytes
            .next()
            .await
            .map_err(|error: EngineError| io::Error::other(error))?;
        Ok(next.map(|data| (data, bytes)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[test]
    fn a_things_name_cannot_lead_to_another_folder() {
        for (name, file) in [
            ("shop/api:dev.tar", "shop-api-dev.tar"),
            ("../../etc/passwd", "-..-etc-passwd"),
            ("a\nb", "a-b"),
        ] {
            assert_eq!(file_name(name), file);
        }
    }

    #[test]
    fn a_text_takes_the_place_of_what_was_there_and_says_where_it_cannot_be() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("web.log");
        for text in ["a longer text", "short\n"] {
            write_text(&to, text).unwrap();
            assert_eq!(std::fs::read_to_string(&to).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let refusal = write_text(&directory.path().join("nowhere/web.log"), "x").unwrap_err();
        assert!(
            refusal.0.message.contains("nowhere/web.log"),
            "{}",
            refusal.0.message
        );
    }

    #[tokio::test]
    async fn what_is_read_is_told() {
        let report = Report::default();
        let mut told = Told::new(&b"0123456789"[..], Some(20), &report);
        told.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(
            matches!(&report.take()[..], [TaskStep::Whole { fraction: Some(half), .. }] if (half - 0.5).abs() < 0.01)
        );
    }
}
