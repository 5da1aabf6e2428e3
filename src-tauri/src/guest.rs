//! Programs in the guest: one that answers a question and ends, and the Docker client, whose words are followed.
//!
//! A program ends when it is let go of: its connection closes, and the agent hangs up on its process group.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    task::Report,
};
use bytes::Bytes;
use cove_api::{Client, Upgraded};
use cove_credentials::{Loan, Rights, borrow, client_variables, lendable, lender};
use cove_view::TaskStep;
use cove_wire::{Exec, ExecCodec, ExecPacket, MAX_EXEC_DATA};
use futures_util::{SinkExt as _, StreamExt as _};
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

/// A program that runs.
pub(crate) struct Program(Framed<Upgraded, ExecCodec>);

/// What a program does next.
pub(crate) enum Said {
    /// It wrote to its standard output.
    Out(Bytes),
    /// It wrote to its standard error.
    Err(Bytes),
    /// It ended with this code.
    Ended(i32),
}

/// What a program wrote, and the code that it ended with.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    /// The beginning of what it wrote to its standard error.
    pub(crate) complaint: String,
}

impl Program {
    /// Starts a program in this machine, whichever is shown by now, and gives it all of its input.
    pub(crate) async fn start(client: &Client, machine: &str, exec: &Exec, input: &[u8]) -> Answer<Self> {
        let Self(mut packets) = Self::open(client, machine, exec).await?;
        let pieces = input.chunks(MAX_EXEC_DATA);
        let pieces = pieces.map(|piece| ExecPacket::Stdin(Bytes::copy_from_slice(piece)));
        for packet in pieces.chain([ExecPacket::StdinEnd]) {
            // A program that takes no input may have ended; what it says of that is read below.
            if packets.send(packet).await.is_err() {
                break;
            }
        }
        Ok(Self(packets))
    }

    /// Starts a program in this machine, and gives it no input yet.
    pub(crate) async fn open(client: &Client, machine: &str, exec: &Exec) -> Answer<Self> {
        let stream = client.exec(machine, exec).await?;
        Ok(Self(Framed::new(stream, ExecCodec)))
    }

    /// What it does next; nothing follows its end.
    pub(crate) async fn next(&mut self) -> Answer<Said> {
        let broken = || Refusal::new("the machine broke off its answer", "Try again.");
        while let Some(packet) = self.0.next().await {
            match packet.map_err(|_| broken())? {
                ExecPacket::Stdout(data) => return Ok(Said::Out(data)),
                ExecPacket::Stderr(data) => return Ok(Said::Err(data)),
                ExecPacket::Exit(code) => return Ok(Said::Ended(code)),
                // Only ever sent by our side.
                ExecPacket::Stdin(_)
                | ExecPacket::StdinEnd
                | ExecPacket::Resize { .. }
                | ExecPacket::Signal(_) => {}
            }
        }
        Err(broken())
    }
}

/// The machine's Docker client with these words, in a folder that the machine has. As for `cove docker`, its way to the
/// engine is the gateway, and its configuration is the one whose accounts are lent, where this computer has any.
pub(crate) fn docker(words: Vec<String>, folder: Option<&str>) -> Exec {
    Exec {
        command: std::iter::once("docker".to_owned()).chain(words).collect(),
        environment: client_variables(lendable().is_some()),
        directory: folder.map(str::to_owned),
        terminal: None,
    }
}

/// Lends this computer's accounts at registries to a Docker client that is to be started in this machine, for as long
/// as what this returns lives. Why it goes on without one is told.
pub(crate) async fn lend_accounts(
    client: &Client,
    machine: &str,
    exec: &mut Exec,
    report: &Report,
) -> Option<Loan> {
    let told = report.clone();
    let tell = move |text: String| told.tell(TaskStep::Line { text });
    let registries = lendable()?;
    let program = lender();
    let loan = borrow(client.exec(machine, &program), registries, Rights::Read, tell).await?;
    exec.environment.extend([loan.variable()]);
    Some(loan)
}

/// Runs the agent, or another program that is part of every machine, in this one, and returns what it wrote.
pub(crate) async fn output(cove: &Cove, machine: &str, command: &[&str]) -> Answer<Vec<u8>> {
    answer_of(in_time(collect(&cove.client(), machine, &program(command), &[])).await?)
}

/// The same, however long it takes. The machine ends the program when this is dropped.
pub(crate) async fn output_of_work(cove: &Cove, machine: &str, command: &[&str]) -> Answer<Vec<u8>> {
    answer_of(collect(&cove.client(), machine, &program(command), &[]).await?)
}

fn answer_of(Ended { code, out, complaint }: Ended) -> Answer<Vec<u8>> {
    if code == 0 {
        return Ok(out);
    }
    Err(Refusal::new(
        format!("the machine's agent ended with {code}: {complaint}"),
        "If Cove was upgraded since the machine started, restart the machine.",
    ))
}

/// A program with its arguments.
pub(crate) fn program(command: &[&str]) -> Exec {
    Exec {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        environment: BTreeMap::new(),
        directory: None,
        terminal: None,
    }
}

/// Runs a program until it has ended, with `input`.
pub(crate) async fn finished(cove: &Cove, exec: &Exec, input: &[u8]) -> Answer<Ended> {
    in_time(collect(&cove.client(), &cove.machine(), exec, input)).await
}

async fn in_time(ended: impl Future<Output = Answer<Ended>>) -> Answer<Ended> {
    match timeout(PATIENCE, ended).await {
        Ok(answer) => answer,
        Err(_) => Err(Refusal::new(
            format!("the machine did not answer within {} s", PATIENCE.as_secs()),
            "Try again; if it goes on, see how the machine is.",
        )),
    }
}

async fn collect(client: &Client, machine: &str, exec: &Exec, input: &[u8]) -> Answer<Ended> {
    let mut program = Program::start(client, machine, exec, input).await?;
    let (mut out, mut complaint) = (Vec::new(), Vec::new());
    loop {
        match program.next().await? {
            Said::Out(data) => out.extend_from_slice(&data),
            Said::Err(data) => {
                let room = COMPLAINT.saturating_sub(complaint.len());
                complaint.extend_from_slice(&data[..data.len().min(room)]);
            }
            Said::Ended(code) => {
                let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
                return Ok(Ended { code, out, complaint });
            }
        }
        if out.len() > LONGEST {
            return Err(Refusal::new("the machine's answer is longer than it may be", ""));
        }
    }
}
