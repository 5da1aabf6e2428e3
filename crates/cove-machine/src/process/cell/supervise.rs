//! Sees a guest that runs in the cell to its end, for a machine process that only passes on what is asked and told.

use super::{
    client::Cell,
    panics,
    words::{Ask, Word},
};
use crate::{
    Exit, ExitCause,
    process::{
        console::{Console, PIPE},
        control::{Asked, Audience, reply},
        hypervisor::Input,
        protocol::Order,
    },
};
use futures_util::future::OptionFuture;
use std::time::Duration;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep_until},
};

/// How long the cell may take to end a guest that is to be killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(4);

/// Watches the guest in `cell` to its end. Dropped, it kills the cell.
pub(in super::super) async fn supervise(
    mut cell: Cell,
    mut console: Console,
    Input {
        mut requests,
        mut plugged,
    }: Input,
    audience: Audience,
) -> Exit {
    let mut buffer = vec![0; PIPE];
    let mut console_open = true;
    let mut deadline = None;
    let mut killed = false;
    // Told at once, whatever it is.
    plugged.mark_changed();
    let account = loop {
        tokio::select! {
            count = cell.console.read(&mut buffer), if console_open => {
                let count = count.unwrap_or(0);
                console_open = count > 0;
                console.write(&buffer[..count]);
            }
            word = cell.words.recv() => match word {
                Some(Word::Event(event)) => audience.tell(event),
                Some(Word::Ended(exit)) => break Some(exit),
                Some(other) => tracing::warn!(?other, "the process that faces the guest speaks out of turn"),
                None => break None,
            },
            Some(asked) = requests.recv() => {
                if asked.order == Order::Kill {
                    killed = true;
                    deadline = Some(Instant::now() + KILL_TIMEOUT);
                }
                pass_on(&cell, asked);
            }
            Ok(()) = plugged.changed() => {
                let (handle, up) = (cell.handle.clone(), *plugged.borrow_and_update());
                tokio::spawn(async move { handle.ask(Ask::Plug(up)).await });
            }
            Some(()) = OptionFuture::from(deadline.map(sleep_until)) => {
                tracing::warn!("the process that faces the guest does not end by itself");
                deadline = None;
                cell.kill();
            }
        }
    };
    console.drain(&mut cell.console).await;
    let exit = account.or_else(|| {
        killed.then(|| Exit {
            cause: ExitCause::Killed,
            console_tail: Vec::new(),
        })
    });
    if let Some(exit) = exit {
        cell.end().await;
        return exit;
    }
    Exit {
        cause: died(cell).await,
        console_tail: console.tail(),
    }
}

/// Why the machine ended when its cell did so unasked.
pub(in super::super) async fn died(cell: Cell) -> ExitCause {
    let log = cell.end().await;
    if let Some(words) = panics::words(&log) {
        return ExitCause::CellPanicked {
            words: words.to_owned(),
        };
    }
    ExitCause::HypervisorDied {
        status: "the process that faces the guest ended".into(),
        stderr: log,
        crashed: false,
    }
}

fn pass_on(cell: &Cell, Asked { order, answer }: Asked) {
    let handle = cell.handle.clone();
    tokio::spawn(async move {
        let result = handle.ask(Ask::Machine(order)).await;
        reply(answer, result.map(drop));
    });
}
