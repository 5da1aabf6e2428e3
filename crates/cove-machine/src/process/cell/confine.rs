//! How the cell locks itself in, before it has more than one thread.

use super::words::Word;
use crate::{
    kvm::Disks,
    process::record::{Hypervisor, Launch},
    sockets,
};
use cove_confine::{
    ConfineError, Layer,
    landlock::{self, Folders},
    limits, namespaces, seccomp,
    view::{Access, Item, View},
};
use cove_wire::with_causes;
use std::path::Path;

/// Puts every layer in force that the host has. `bare` says why there are no namespaces. The disks of a machine on KVM
/// are opened on the way: as what is in view, but while their rings can still be made, which are locked memory. Fails
/// with what to tell the machine process.
pub(super) fn confine(
    launch: &Launch,
    directory: &Path,
    bare: Option<&str>,
) -> Result<(Vec<Layer>, Option<Disks>), Word> {
    let view = view(launch);
    let mut layers = Vec::new();
    let folders = if let Some(why) = bare {
        layers.extend(namespaces::absent_layers(why));
        Folders::Anywhere
    } else {
        layers.extend(namespaces::layers());
        let entered = view.enter(directory);
        layers.push(entered.map_err(|error| Word::NoView(with_causes(&error)))?);
        Folders::Slots
    };
    let failed = |error: ConfineError| Word::Failed(with_causes(&error));
    layers.push(landlock::restrict(&view.items, folders).map_err(failed)?);
    let disks = match launch.hypervisor {
        Hypervisor::Kvm => {
            Some(Disks::open(&launch.spec).map_err(|error| Word::Failed(with_causes(&error)))?)
        }
        Hypervisor::Emulated { .. } => None,
    };
    layers.extend(disks.as_ref().map(Disks::layer));
    layers.extend(limits::give_up().map_err(failed)?);
    layers.push(seccomp::arm().map_err(failed)?);
    Ok((layers, disks))
}

/// What the cell needs of the host's files: what the machine is made of as far as the cell reads it, and the directory
/// of its sockets, but for the one that the machine process is commanded by.
fn view(launch: &Launch) -> View {
    let spec = &launch.spec;
    let item = |path: &Path, access| Item {
        path: path.to_owned(),
        access,
    };
    let mut items = vec![item(&spec.runtime, Access::Sockets)];
    if launch.hypervisor == Hypervisor::Kvm {
        items.extend([
            item(&spec.kernel, Access::Read),
            item(&spec.initramfs, Access::Read),
            item(&spec.rootfs, Access::Read),
            item(&spec.data_disk, Access::Write),
            item("/dev/kvm".as_ref(), Access::Device),
        ]);
    }
    View {
        items,
        hidden: vec![sockets::control(&spec.runtime)],
    }
}
