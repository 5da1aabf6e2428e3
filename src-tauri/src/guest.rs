//! A program in the guest that answers one question and ends.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
};
use cove_wire::{Exec, ExecCodec, ExecPacket};
use futures_util::StreamExt as _;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;
use tokio_util::codec::Framed;

/// Longest answer, in bytes. Five thousand files of the longest names are half of it.
const LONGEST: usize = 4 << 20;
/// Of what a program says of its failure, so much is shown.
const COMPLAINT: usize = 2000;
/// How long a question may take. A folder whose file system does not answer would otherwise keep the page waiting for
/// ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it and returns what it wrote, unless that takes too long.
pub(crate) async fn output(cove: &Cove, command: &[&str]) -> Answer<Vec<u8>> {
    match timeout(PATIENCE, output_of_work(cove, command)).await {
        Ok(answer) => answer,
        Err(_) => Err(Refusal::new(
            format!("the machine did not answer within {} s", PATIENCE.as_secs()),
            "Try again; if it goes on, see how the machine is.",
        )),
    }
}

/// Runs it and returns what it wrote, however long that takes. The machine ends it when this is dropped.
pub(crate) async fn output_of_work(cove: &Cove, command: &[&str]) -> Answer<Vec<u8>> {
    let exec = Exec {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        environment: BTreeMap::new(),
        directory: None,
        terminal: None,
    };
    let stream = cove.client().exec(&cove.machine, &exec).await?;
    let mut packets = Framed::new(stream, ExecCodec);
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let broken = || Refusal::new("the machine broke off its answer", "Try again.");
    while let Some(packet) = packets.next().await {
        match packet.map_err(|_| broken())? {
            ExecPacket::Stdout(data) => said.extend_from_slice(&data),
            ExecPacket::Stderr(data) => {
                let room = COMPLAINT.saturating_sub(complaint.len());
                complaint.extend_from_slice(&data[..data.len().min(room)]);
            }
            ExecPacket::Exit(0) => return Ok(said),
            ExecPacket::Exit(code) => {
                let words = String::from_utf8_lossy(&complaint);
                return Err(Refusal::new(
                    format!("the machine's agent ended with {code}: {}", words.trim()),
                    "If Cove was upgraded since the machine started, restart the machine.",
                ));
            }
            // Only ever sent by our side.
            ExecPacket::Stdin(_)
            | ExecPacket::StdinEnd
            | ExecPacket::Resize { .. }
            | ExecPacket::Signal(_) => {}
        }
        if said.len() > LONGEST {
            return Err(Refusal::new("the machine's answer is longer than it may be", ""));
        }
    }
    Err(broken())
}
