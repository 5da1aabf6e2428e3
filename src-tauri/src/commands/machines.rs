//! Machines: listed, shown, created and deleted.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    stream::Streams,
    task::Tasks,
    terminal::Terminals,
};
use cove_api::NewMachine;
use cove_view::MachineView;
use std::sync::Arc;
use tauri::State;

/// All machines of the daemon, which is started if need be.
#[tauri::command]
pub(crate) async fn machines(cove: State<'_, Arc<Cove>>) -> Answer<Vec<MachineView>> {
    let machines = cove.daemon().await?.machines().await?;
    Ok(machines.into_iter().map(MachineView::from).collect())
}

/// Shows another machine from now on. What the page has under way ends, since it is about the machine before; the page
/// asks for everything anew.
#[tauri::command]
pub(crate) async fn choose_machine(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    tasks: State<'_, Tasks>,
    terminals: State<'_, Terminals>,
    name: String,
) -> Answer<()> {
    // The daemon knows none by a name that would lead elsewhere.
    let machine = cove.daemon().await?.machine(&name).await?;
    streams.clear();
    tasks.clear();
    terminals.clear();
    cove.choose(machine.name);
    Ok(())
}

/// Creates a machine, which neither starts nor shows it. What is not given comes from the settings; memory is in MiB,
/// the largest size of the disk in GiB.
#[tauri::command]
pub(crate) async fn create_machine(
    cove: State<'_, Arc<Cove>>,
    name: String,
    cpus: Option<u32>,
    memory_mib: Option<u32>,
    disk_gib: Option<u32>,
) -> Answer<()> {
    let wanted = NewMachine {
        name,
        cpus,
        memory_mib,
        disk_gib,
    };
    cove.daemon().await?.create_machine(&wanted).await?;
    Ok(())
}

/// Deletes a stopped machine with everything in it; `confirm` has to be its name once more.
#[tauri::command]
pub(crate) async fn delete_machine(cove: State<'_, Arc<Cove>>, name: String, confirm: String) -> Answer<()> {
    if name == cove.machine() {
        return Err(Refusal::new(
            format!("machine `{name}` is the one that this window shows"),
            "Show another machine first.",
        ));
    }
    cove.daemon().await?.delete_machine(&name, &confirm).await?;
    Ok(())
}
