//! Loading the modules that the engine is going to ask for, while it has not started yet.
//!
//! The engine and its iptables would have the kernel start `modprobe` for them, one after the other and in the middle
//! of its own start.

use super::modules::{Module, insert, load_all};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::Path,
};

/// What an engine with a bridge network ends up with.
const WANTED: [&str; 12] = [
    "br_netfilter",
    "nf_conntrack_netlink",
    "nft_chain_nat",
    "nft_compat",
    "veth",
    "xfrm_user",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_conntrack",
    "xt_mark",
    "xt_nat",
    "xt_tcpudp",
];

/// The size of the table of connections, and how many the kernel keeps account of. In a guest of 1 GiB it would by
/// itself take some 7,700, each of which counts for two minutes after its end; beyond them it drops what would begin
/// another one. This is what it takes with a little more memory.
const TRACKED: [&str; 2] = ["nf_conntrack_buckets", "nf_conntrack_max"];
const LEAST_TRACKED: u32 = 65_536;

/// The clocks that the kernel has to choose from.
const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";

/// Loads what the engine is going to ask for, and on KVM, which nothing would ask for, the host's clock as a device
/// (`/dev/ptp0`), for programs that keep time better than to the second.
pub(crate) fn load_for_the_engine() -> io::Result<()> {
    let mut wanted = WANTED.to_vec();
    let clocks = fs::read_to_string(CLOCKS).unwrap_or_default();
    if clocks.split_ascii_whitespace().any(|clock| clock == "kvm-clock") {
        wanted.push("ptp_kvm");
    }
    load(&wanted)?;
    for name in TRACKED {
        raise(&Path::new("/proc/sys/net/netfilter").join(name))?;
    }
    Ok(())
}

/// Raises a setting of the kernel's that is less than [`LEAST_TRACKED`].
fn raise(setting: &Path) -> io::Result<()> {
    let now: u32 = fs::read_to_string(setting)?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    if now < LEAST_TRACKED {
        fs::write(setting, LEAST_TRACKED.to_string())?;
    }
    Ok(())
}

/// Loads `wanted` and what they need. What fails here fails again for whoever needs it, with a better reason.
pub(crate) fn load(wanted: &[&str]) -> io::Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let directory = Path::new("/lib/modules").join(release);
    let list = with_dependencies(&fs::read_to_string(directory.join("modules.dep"))?, wanted);
    let load = |module: &Module| insert(&File::open(directory.join(&module.path))?);
    load_all(list, load, |name, outcome| {
        if let Err(error) = outcome {
            tracing::info!(name, "not loaded ahead: {error}");
        }
    });
    Ok(())
}

/// `wanted` and what they need, from `modules.dep`: lines `path: path…` with everything that the first one needs.
/// Modules that the kernel would have to be asked to unpack are left out.
fn with_dependencies(modules_dep: &str, wanted: &[&str]) -> Vec<Module> {
    let plain = |path: &&str| {
        Path::new(path)
            .extension()
            .is_some_and(|extension| extension == "ko")
    };
    let known: BTreeMap<String, (&str, Vec<&str>)> = modules_dep
        .lines()
        .filter_map(|line| {
            let (path, needs) = line.split_once(':')?;
            Some((name(path), (path, needs.split_ascii_whitespace().collect())))
        })
        .collect();
    let mut names: BTreeSet<String> = BTreeSet::new();
    for wanted in wanted {
        if let Some((path, needs)) = known.get(*wanted) {
            names.extend(needs.iter().copied().chain([*path]).filter(plain).map(name));
        }
    }
    let module = |name: String| {
        let (path, needs) = known.get(&name)?;
        Some(Module {
            needs: needs.iter().map(|path| self::name(path)).collect(),
            path: path.into(),
            name,
        })
    };
    names.into_iter().filter_map(module).collect()
}

/// The kernel's name of the module in the file `path`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_raised_and_never_lowered() {
        let setting = tempfile::NamedTempFile::new().unwrap();
        for (before, after) in [("7680\n", "65536"), ("262144\n", "262144\n")] {
            fs::write(setting.path(), before).unwrap();
            raise(setting.path()).unwrap();
            assert_eq!(fs::read_to_string(setting.path()).unwrap(), after);
        }
        fs::write(setting.path(), "many").unwrap();
        assert!(raise(setting.path()).is_err());
    }

    const MODULES_DEP: &str = "\
kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/net/802/stp.ko: kernel/net/llc/llc.ko
kernel/net/llc/llc.ko:
kernel/net/bridge/br_netfilter.ko: kernel/net/bridge/bridge.ko kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/char/hw_random/rng-core.ko
kernel/drivers/char/hw_random/rng-core.ko:
kernel/net/packed.ko.gz:
";

    fn names(wanted: &[&str]) -> Vec<String> {
        with_dependencies(MODULES_DEP, wanted)
            .into_iter()
            .map(|module| module.name)
            .collect()
    }

    #[test]
    fn a_module_comes_with_all_that_it_needs() {
        assert_eq!(names(&["br_netfilter"]), ["br_netfilter", "bridge", "llc", "stp"]);
    }

    #[test]
    fn hyphens_in_file_names_are_underscores_in_names() {
        assert_eq!(names(&["virtio_rng"]), ["rng_core", "virtio_rng"]);
    }

    #[test]
    fn unknown_and_compressed_modules_are_left_out() {
        assert!(names(&["vxlan", "packed"]).is_empty());
    }
}
