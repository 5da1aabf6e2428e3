//! The host folders that the guest may reach.
//!
//! ```text
//!  control socket ── add, remove ──▶ ┌───────┐ ── mount, unmount ──▶ porter
//!                  ◀── list ──────── │ owner │
//!                                    └───────┘ ── add, remove ─────▶ cell, with the file server
//! ```
//!
//! One task owns the list and the slots of the cell's view; [`Folders`] is the way to it. Nothing of it is kept on
//! disk: a daemon that adopts the machine learns the list from the greeting.
//!
//! A folder on a server that is away keeps whoever opens it waiting for as long as it is away. So each is opened once
//! on a thread of its own before the owner hears of it, and the owner waits for no errand longer than [`ERRAND`]: the
//! other folders come and go meanwhile.

use super::{
    cell::{
        client::Handle,
        words::{Ask, Errand, Line, PorterSaid},
    },
    protocol::{self, Reply},
};
use crate::{FolderHealth, Share};
use cove_confine::view::{SLOTS, slot};
use futures_util::{SinkExt, StreamExt};
use rustix::fs::{Mode, OFlags};
use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, spawn_blocking},
    time::timeout,
};

/// Most folders: each holds a descriptor, and the greeting names all of them in one line.
const MAX_SHARES: usize = 256;
const _: () = assert!(MAX_SHARES <= SLOTS);

/// How long a folder may take to be opened. With [`ERRAND`], less than the five seconds that a daemon waits, so that it
/// is told why.
const LOOK: Duration = Duration::from_secs(2);

/// How long the porter may take for an errand.
const ERRAND: Duration = Duration::from_secs(2);

/// The way to the folders. The task ends with the last of them.
#[derive(Debug)]
pub(crate) struct Folders {
    calls: mpsc::Sender<(Call, oneshot::Sender<Result<(), String>>)>,
    list: watch::Receiver<Vec<Share>>,
    cell: Handle,
    owner: AbortHandle,
    looks: Looks,
}

/// The folders that are being opened, each by a thread that may hang. It drops the sender when it is done.
type Looks = Arc<Mutex<HashMap<PathBuf, watch::Receiver<()>>>>;

#[derive(Debug)]
enum Call {
    Add(Share),
    Remove(String),
}

struct Owner {
    /// Each with its slot, where the cell has a view of its own.
    shares: Vec<(Share, Option<usize>)>,
    list: watch::Sender<Vec<Share>>,
    cell: Handle,
    /// The porter, where there is a view to bring folders into.
    porter: Option<Porter>,
}

/// The way to the porter, which does one errand after the other.
struct Porter {
    line: Line,
    /// The errands that it has not answered yet, in order. All but the last were given up.
    owed: VecDeque<Errand>,
}

impl Folders {
    /// No folder yet. `porter` brings them into the view of `cell`, if it has one.
    pub(crate) fn new(cell: Handle, porter: Option<Line>) -> Self {
        let (calls, mut received) = mpsc::channel::<(Call, oneshot::Sender<_>)>(1);
        let (sender, list) = watch::channel(Vec::new());
        let mut owner = Owner {
            shares: Vec::new(),
            list: sender,
            cell: cell.clone(),
            porter: porter.map(Porter::new),
        };
        let task = tokio::spawn(async move {
            while let Some((call, answer)) = received.recv().await {
                let result = match call {
                    Call::Add(share) => owner.add(share).await,
                    Call::Remove(name) => owner.remove(&name).await,
                };
                let shares = owner.shares.iter().map(|(share, _)| share.clone());
                owner.list.send_replace(shares.collect());
                // Whoever asked may have lost interest.
                let _ = answer.send(result);
            }
        });
        Self {
            calls,
            list,
            cell,
            owner: task.abort_handle(),
            looks: Arc::default(),
        }
    }

    /// The folders, in order of their addition.
    pub(crate) fn list(&self) -> Vec<Share> {
        self.list.borrow().clone()
    }

    /// How the file server is doing.
    pub(crate) async fn health(&self) -> Result<FolderHealth, String> {
        match self.cell.ask(Ask::FolderHealth).await? {
            Reply::Folders(health) => Ok(health),
            Reply::Done => Err("it did not say how its folders are".into()),
        }
    }

    /// Adds a folder, unless it is there already.
    pub(crate) async fn add(&self, share: Share) -> Result<(), String> {
        // One that is there was opened already, and stays whatever becomes of its server.
        let is_there = self.list.borrow().contains(&share);
        if !is_there {
            self.look(&share.path).await?;
        }
        self.call(Call::Add(share)).await
    }

    /// Takes a folder away, if it is there.
    pub(crate) async fn remove(&self, name: String) -> Result<(), String> {
        self.call(Call::Remove(name)).await
    }

    /// Waits until the folder at `path` can be opened, or cannot for a reason that porter or cell will meet as well.
    /// Fails when that is not known in time.
    async fn look(&self, path: &Path) -> Result<(), String> {
        let mut looking = self.looking(path);
        // Nothing is ever sent: it fails when the thread is done.
        match timeout(LOOK, looking.changed()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "{} cannot be opened within {} seconds; the server that it lies on may be away",
                path.display(),
                LOOK.as_secs()
            )),
        }
    }

    /// Has a thread open the folder at `path`. One that hangs is enough for a folder, however often it is asked for.
    fn looking(&self, path: &Path) -> watch::Receiver<()> {
        let mut under_way = held(&self.looks);
        if let Some(looking) = under_way.get(path) {
            return looking.clone();
        }
        let (done, looking) = watch::channel(());
        under_way.insert(path.to_owned(), looking.clone());
        let (looks, path) = (Arc::clone(&self.looks), path.to_owned());
        spawn_blocking(move || {
            // It asks the server even where attributes are cached, and waits for no writer of what is no folder.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            drop(rustix::fs::open(&path, flags, Mode::empty()));
            held(&looks).remove(&path);
            drop(done);
        });
        looking
    }

    async fn call(&self, call: Call) -> Result<(), String> {
        let ending = || "the machine is ending".to_owned();
        let (sender, answer) = oneshot::channel();
        self.calls.send((call, sender)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        // And with it the porter's errands, upon which it ends as well.
        self.owner.abort();
    }
}

fn held(looks: &Looks) -> MutexGuard<'_, HashMap<PathBuf, watch::Receiver<()>>> {
    looks.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Owner {
    async fn add(&mut self, share: Share) -> Result<(), String> {
        if self.shares.iter().any(|(known, _)| *known == share) {
            return Ok(());
        }
        if self.shares.iter().any(|(known, _)| known.name == share.name) {
            return Err(format!("there is a share named {:?} already", share.name));
        }
        if self.shares.len() >= MAX_SHARES {
            return Err(format!(
                "{MAX_SHARES} folders are shared already, which is the most"
            ));
        }
        let number = self.free_slot();
        let at = match number {
            Some(number) => {
                self.errand(Errand::Mount {
                    slot: number,
                    path: share.path.clone(),
                    read_only: share.read_only,
                })
                .await?;
                slot(number)
            }
            None => share.path.clone(),
        };
        let ask = Ask::AddShare {
            share: share.clone(),
            at,
        };
        if let Err(why) = self.cell.ask(ask).await {
            self.empty(number).await;
            return Err(why);
        }
        self.shares.push((share, number));
        Ok(())
    }

    async fn remove(&mut self, name: &str) -> Result<(), String> {
        let Some(at) = self.shares.iter().position(|(share, _)| share.name == name) else {
            return Ok(());
        };
        let name = name.to_owned();
        self.cell.ask(Ask::RemoveShare { name }).await?;
        let (_, number) = self.shares.remove(at);
        self.empty(number).await;
        Ok(())
    }

    /// A slot without a folder, if the cell has slots.
    fn free_slot(&self) -> Option<usize> {
        self.porter.as_ref()?;
        (0..SLOTS).find(|number| self.shares.iter().all(|(_, taken)| *taken != Some(*number)))
    }

    async fn empty(&mut self, number: Option<usize>) {
        if let Some(slot) = number
            && let Err(why) = self.errand(Errand::Unmount { slot }).await
        {
            tracing::warn!(why, slot, "a folder that is no longer shared stays in view");
        }
    }

    async fn errand(&mut self, errand: Errand) -> Result<(), String> {
        let porter = self.porter.as_mut().ok_or_else(gone)?;
        let late = || {
            let seconds = ERRAND.as_secs();
            format!("the porter is not done within {seconds} seconds; the server of a folder may be away")
        };
        timeout(ERRAND, porter.run(errand))
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

fn gone() -> String {
    "the porter has ended".to_owned()
}

impl Porter {
    fn new(line: Line) -> Self {
        Self {
            line,
            owed: VecDeque::new(),
        }
    }

    /// Has it run an errand, once it is done with those that were given up. Dropped, this gives `errand` up.
    async fn run(&mut self, errand: Errand) -> Result<(), String> {
        while let Some(given_up) = self.owed.front().cloned() {
            let came_of_it = self.answer().await?;
            // A folder that comes into view so late is shared with nobody.
            if let (Errand::Mount { slot, .. }, Ok(())) = (given_up, came_of_it) {
                self.send(Errand::Unmount { slot }).await?;
            }
        }
        self.send(errand).await?;
        self.answer().await?
    }

    async fn send(&mut self, errand: Errand) -> Result<(), String> {
        self.line
            .feed(protocol::encode(&errand))
            .await
            .map_err(|_| gone())?;
        // From here on it is sent, if not by this flush then by a later one, and will be answered.
        self.owed.push_back(errand);
        SinkExt::<String>::flush(&mut self.line).await.map_err(|_| gone())
    }

    /// What came of the first errand that is owed; outside of that, that the porter cannot be talked to.
    async fn answer(&mut self) -> Result<Result<(), String>, String> {
        let text = self.line.next().await.and_then(Result::ok).ok_or_else(gone)?;
        self.owed.pop_front();
        match protocol::decode(&text)? {
            PorterSaid::Done(result) => Ok(result),
            other => Err(format!("the porter said {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::cell::words;
    use tokio::net::UnixStream;

    fn mount(slot: usize) -> Errand {
        Errand::Mount {
            slot,
            path: format!("/folder/{slot}").into(),
            read_only: false,
        }
    }

    async fn errand(line: &mut Line) -> Errand {
        protocol::decode(&line.next().await.unwrap().unwrap()).unwrap()
    }

    async fn done(line: &mut Line, result: Result<(), String>) {
        line.send(protocol::encode(&PorterSaid::Done(result)))
            .await
            .unwrap();
    }

    /// Owes an answer to an errand that was given up.
    async fn given_up() -> (Porter, Line) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut porter, mut theirs) = (Porter::new(words::line(ours)), words::line(theirs));
        let hangs = timeout(Duration::from_millis(20), porter.run(mount(0)));
        assert!(hangs.await.is_err(), "nobody has answered");
        assert_eq!(errand(&mut theirs).await, mount(0));
        (porter, theirs)
    }

    #[tokio::test]
    async fn a_folder_that_is_mounted_after_it_was_given_up_is_taken_out_before_the_next() {
        let (mut porter, mut theirs) = given_up().await;
        done(&mut theirs, Ok(())).await;
        let answering = async {
            assert_eq!(errand(&mut theirs).await, Errand::Unmount { slot: 0 });
            done(&mut theirs, Ok(())).await;
            // The slot is free again.
            assert_eq!(errand(&mut theirs).await, mount(0));
            done(&mut theirs, Err("no such folder".into())).await;
        };
        let (result, ()) = tokio::join!(porter.run(mount(0)), answering);
        assert_eq!(
            result,
            Err("no such folder".into()),
            "each errand has its own answer"
        );
    }

    #[tokio::test]
    async fn a_folder_that_failed_after_it_was_given_up_leaves_nothing_to_take_out() {
        let (mut porter, mut theirs) = given_up().await;
        // Nor does the one that waits for it in vain go astray.
        let hangs = timeout(Duration::from_millis(20), porter.run(mount(1)));
        assert!(hangs.await.is_err(), "nobody has answered");
        done(&mut theirs, Err("it went away".into())).await;
        let answering = async {
            assert_eq!(errand(&mut theirs).await, mount(2));
            done(&mut theirs, Ok(())).await;
        };
        let (result, ()) = tokio::join!(porter.run(mount(2)), answering);
        assert_eq!(result, Ok(()));
    }

    #[tokio::test]
    async fn a_folder_that_is_being_opened_is_waited_for_by_whoever_asks_for_it() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let folders = Folders::new(Handle::to(words::line(ours)).0, None);
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        for path in [directory.path(), &missing, directory.path()] {
            assert_eq!(folders.look(path).await, Ok(()), "{}", path.display());
        }
        assert!(
            held(&folders.looks).is_empty(),
            "nothing is kept of a look that ended"
        );

        let (done, looking) = watch::channel(());
        held(&folders.looks).insert(directory.path().to_owned(), looking);
        let soon = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(done);
        };
        let (first, second, ()) = tokio::join!(
            folders.look(directory.path()),
            folders.look(directory.path()),
            soon
        );
        assert_eq!((first, second), (Ok(()), Ok(())));

        let (_hangs, looking) = watch::channel(());
        held(&folders.looks).insert(directory.path().to_owned(), looking);
        let why = folders.look(directory.path()).await.unwrap_err();
        assert!(why.contains("may be away"), "{why}");
    }
}
