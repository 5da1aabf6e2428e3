//! The host folders that the guest may reach.
//!
//! ```text
//!  control socket ── add, remove ──▶ ┌───────┐ ── mount, unmount ──▶ porter
//!                  ◀── list ──────── │ owner │
//!                                    └───────┘ ── add, remove ─────▶ cell, with the file server
//! ```
//!
//! One task owns the list and the slots of the cell's view; [`Folders`] is the way to it. Nothing of it is kept on disk: a
//! daemon that adopts the machine learns the list from the greeting.

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
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

/// Most folders: each holds a descriptor, and the greeting names all of them in one line.
const MAX_SHARES: usize = 256;
const _: () = assert!(MAX_SHARES <= SLOTS);

/// The way to the folders. The task ends with the last of them.
#[derive(Debug)]
pub(crate) struct Folders {
    calls: mpsc::Sender<(Call, oneshot::Sender<Result<(), String>>)>,
    list: watch::Receiver<Vec<Share>>,
    cell: Handle,
    owner: AbortHandle,
}

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
    porter: Option<Line>,
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
            porter,
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
        self.call(Call::Add(share)).await
    }

    /// Takes a folder away, if it is there.
    pub(crate) async fn remove(&self, name: String) -> Result<(), String> {
        self.call(Call::Remove(name)).await
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
                self.errand(&Errand::Mount {
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
            && let Err(why) = self.errand(&Errand::Unmount { slot }).await
        {
            tracing::warn!(why, slot, "a folder that is no longer shared stays in view");
        }
    }

    async fn errand(&mut self, errand: &Errand) -> Result<(), String> {
        let gone = || "the porter has ended".to_owned();
        let porter = self.porter.as_mut().ok_or_else(gone)?;
        porter.send(protocol::encode(errand)).await.map_err(|_| gone())?;
        let text = porter.next().await.and_then(Result::ok).ok_or_else(gone)?;
        match protocol::decode(&text)? {
            PorterSaid::Done(result) => result,
            other => Err(format!("the porter said {other:?}")),
        }
    }
}
