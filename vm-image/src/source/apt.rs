//! Debian packages through the machine's apt, in a state of its own.
//!
//! The machine may run another release, or have other sources configured; none of that matters, and none of
//! it is touched: apt gets private lists, an empty status and one source, and needs no root for that. Kept
//! are the machine's mirror and proxy settings. The release file must be signed by the Debian keyring, the
//! package lists are checked against it by apt, and each package's hash comes from those lists.
//!
//! Which versions the archive offered is remembered, so that a build is repeatable and needs no network until
//! somebody asks to refresh: old versions vanish from the archive, but not from the cache. Those that vanished
//! before they were in the cache, since the build that wanted them was broken off, are the exception: then all
//! are asked for anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::command::{command, failed_download, output, output_with_progress};
use super::{Artifact, Cache, Fetch, Source};
use crate::debian::{Paragraph, parse_control};
use crate::digest::Digest;
use crate::error::{ImageError, ResultExt as _};
use crate::recipe::Debian;
use crate::tools::{APT_CACHE, APT_GET};

const PURPOSE: &str = "fetching Docker Engine";

/// Debian packages to fetch with apt.
pub(crate) struct Apt<'a> {
    pub(crate) debian: &'a Debian,
    /// A mirror to use in place of the machine's own.
    pub(crate) mirror: Option<&'a str>,
}

/// What the archive offered under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    name: String,
    version: String,
    arch: String,
    size: u64,
    sha256: Digest,
}

impl Source for Apt<'_> {
    fn fetch(&self, fetch: &mut Fetch<'_>) -> Result<Vec<Artifact>, ImageError> {
        let question = self.question();
        let mut state = None;
        let remembered = if fetch.refresh {
            None
        } else {
            fetch.cache.resolved::<Vec<Offer>>(question)
        };
        let mut offers = match remembered {
            Some(offers) => offers,
            None if fetch.offline => {
                return Err(ImageError::Offline {
                    what: "the list of Debian packages".into(),
                });
            }
            None => {
                let offers = self.resolve(state.insert(self.open_state(fetch)?))?;
                fetch.cache.remember(question, &offers)?;
                offers
            }
        };
        let mut missing = missing_of(&offers, fetch.cache)?;
        if !missing.is_empty() {
            if fetch.offline {
                let what = names(&missing);
                return Err(ImageError::Offline { what });
            }
            let state = if let Some(state) = state {
                state
            } else {
                let state = self.open_state(fetch)?;
                let now = self.resolve(&state)?;
                if let Some(note) = superseded(&missing, &now) {
                    fetch.notes.push(note);
                    fetch.cache.remember(question, &now)?;
                    missing = missing_of(&now, fetch.cache)?;
                    offers = now;
                }
                state
            };
            if !missing.is_empty() {
                download(&state, &missing, fetch)
                    .map_err(|error| failed_download(error, &names(&missing)))?;
            }
        }
        let origin = format!("debian {}, signed index", self.debian.suite);
        let artifact = |offer: Offer| {
            let path = fetch
                .cache
                .get(offer.sha256)?
                .ok_or_else(|| ImageError::Download {
                    what: offer.name.clone(),
                    output: "apt did not write it".into(),
                })?;
            let Offer {
                name,
                version,
                arch,
                sha256,
                ..
            } = offer;
            Ok(Artifact {
                name,
                version,
                arch,
                origin: origin.clone(),
                sha256,
                path,
            })
        };
        offers.into_iter().map(artifact).collect()
    }
}

impl Apt<'_> {
    /// What is asked of the archive, as a digest to remember the answer under.
    fn question(&self) -> Digest {
        let Debian {
            suite,
            component,
            architecture,
            package,
            ..
        } = self.debian;
        let mut text = format!("apt 1\n{suite}\n{component}\n{architecture}\n");
        for package in package {
            text.extend([package.name.as_str(), "\n"]);
        }
        Digest::of(text.as_bytes())
    }

    /// A private apt state with fresh lists from the first mirror that works.
    fn open_state(&self, fetch: &Fetch<'_>) -> Result<State, ImageError> {
        // apt would say that the lists are not signed, and leave the mirror under suspicion.
        let keyring = &self.debian.keyring;
        if !keyring.is_file() {
            return Err(ImageError::KeyringMissing {
                path: keyring.clone(),
            });
        }
        let state = State::create(&fetch.cache.dir().join("apt"), &self.debian.architecture)?;
        let mirrors = match self.mirror {
            Some(mirror) => vec![mirror.to_owned()],
            None => configured_mirrors()?,
        };
        let mut last = ImageError::NoMirror;
        for mirror in mirrors {
            match self.update(&state, &mirror) {
                Ok(()) => return Ok(state),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn update(&self, state: &State, mirror: &str) -> Result<(), ImageError> {
        let Debian {
            suite,
            component,
            keyring,
            architecture,
            ..
        } = self.debian;
        let line = format!(
            "deb [arch={architecture} signed-by={}] {mirror} {suite} {component}\n",
            keyring.display()
        );
        let list = state.dir.join("sources.list");
        fs::write(&list, line).at("write", &list)?;
        // Without the error mode, apt calls it a success when it could not fetch anything.
        let mut update = state.command(APT_GET)?;
        update.args(["-o", "APT::Update::Error-Mode=any", "update"]);
        output(&mut update, APT_GET, PURPOSE)
            .map_err(|error| failed_download(error, &format!("the package lists of Debian {suite}")))?;
        Ok(())
    }

    fn resolve(&self, state: &State) -> Result<Vec<Offer>, ImageError> {
        let names = || self.debian.package.iter().map(|package| package.name.as_str());
        let mut show = state.command(APT_CACHE)?;
        show.args(["show", "--no-all-versions"]).args(names());
        // apt-cache fails when one of the names is unknown, and shows the others; we say which.
        let shown = show.output().at("run", Path::new(APT_CACHE))?;
        let paragraphs = parse_control(&String::from_utf8_lossy(&shown.stdout));
        let offer = |name: &str| {
            paragraphs
                .iter()
                .find(|paragraph| paragraph.get("Package").is_some_and(|found| found == name))
                .and_then(offer)
        };
        let offers: Vec<Option<Offer>> = names().map(offer).collect();
        let missing: Vec<&str> = names()
            .zip(&offers)
            .filter(|(_, offer)| offer.is_none())
            .map(|(name, _)| name)
            .collect();
        if !missing.is_empty() {
            let origin = format!("Debian {}", self.debian.suite);
            return Err(ImageError::NotOffered {
                missing: missing.join(", "),
                origin,
            });
        }
        Ok(offers.into_iter().flatten().collect())
    }
}

fn offer(paragraph: &Paragraph) -> Option<Offer> {
    Some(Offer {
        name: paragraph.get("Package")?.clone(),
        version: paragraph.get("Version")?.clone(),
        arch: paragraph.get("Architecture")?.clone(),
        size: paragraph.get("Size")?.parse().ok()?,
        sha256: paragraph.get("SHA256")?.parse().ok()?,
    })
}

/// Those of `offers` that the cache does not have.
fn missing_of(offers: &[Offer], cache: &Cache) -> Result<Vec<Offer>, ImageError> {
    let mut missing = Vec::new();
    for offer in offers {
        if cache.get(offer.sha256)?.is_none() {
            missing.push(offer.clone());
        }
    }
    Ok(missing)
}

fn names(offers: &[Offer]) -> String {
    let names: Vec<_> = offers.iter().map(|offer| offer.name.as_str()).collect();
    names.join(", ")
}

/// What to say of those of the `missing` that the archive does not offer any more, if there are any; `now` is all
/// that it offers.
fn superseded(missing: &[Offer], now: &[Offer]) -> Option<String> {
    let gone: Vec<String> = missing
        .iter()
        .filter(|offer| !now.contains(offer))
        .map(|offer| {
            let successor = now.iter().find(|other| other.name == offer.name);
            let version = successor.map_or("nothing", |successor| &*successor.version);
            format!("{} {version} in place of {}", offer.name, offer.version)
        })
        .collect();
    (!gone.is_empty()).then(|| {
        format!(
            "Debian has other versions by now than an earlier build chose, and all packages were chosen anew: {}",
            gone.join(", ")
        )
    })
}

/// Downloads `offers` into the cache.
fn download(state: &State, offers: &[Offer], fetch: &mut Fetch<'_>) -> Result<(), ImageError> {
    let dir = fetch.cache.temporary_dir()?;
    let total = offers.iter().map(|offer| offer.size).sum();
    let mut get = state.command(APT_GET)?;
    get.current_dir(dir.path()).args(["-q", "download"]);
    get.args(
        offers
            .iter()
            .map(|offer| format!("{}={}", offer.name, offer.version)),
    );
    output_with_progress(&mut get, APT_GET, PURPOSE, || {
        let sizes = files(dir.path()).unwrap_or_default();
        (fetch.step)(sizes.iter().map(|(_, size)| size).sum::<u64>().min(total), total);
    })?;
    // apt chooses the files' names; sizes and then hashes say which is which.
    let fetched = files(dir.path())?;
    for (path, size) in fetched {
        for offer in offers.iter().filter(|offer| offer.size == size) {
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{}_", offer.name)))
            {
                fetch.cache.put(&path, offer.sha256, "the Debian mirror")?;
                break;
            }
        }
    }
    (fetch.step)(total, total);
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>, ImageError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).at("read", dir)? {
        let entry = entry.at("read", dir)?;
        // A file may be renamed between the listing and the question, while apt is at work.
        if let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            files.push((entry.path(), metadata.len()));
        }
    }
    Ok(files)
}

/// The machine's own Debian mirrors, best first. apt itself reads the configuration, whatever its format.
fn configured_mirrors() -> Result<Vec<String>, ImageError> {
    let mut targets = command(APT_GET, PURPOSE)?;
    targets.args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(LABEL)",
        "Created-By: Packages",
    ]);
    let mirrors = choose_mirrors(&output(&mut targets, APT_GET, PURPOSE)?);
    if mirrors.is_empty() {
        Err(ImageError::NoMirror)
    } else {
        Ok(mirrors)
    }
}

/// From lines of an address and, where the lists were fetched, the archive's label.
fn choose_mirrors(targets: &str) -> Vec<String> {
    let mut mirrors: Vec<(u8, &str)> = Vec::new();
    for line in targets.lines() {
        let (uri, label) = line.split_once(' ').unwrap_or((line, ""));
        let rank = match label.trim() {
            "Debian" => 0,
            // Lists that were never fetched have no label; the address's last part has to do.
            _ if uri.trim_end_matches('/').ends_with("/debian") => 1,
            _ => continue,
        };
        if !mirrors.iter().any(|(_, known)| *known == uri) {
            mirrors.push((rank, uri));
        }
    }
    mirrors.sort_by_key(|(rank, _)| *rank);
    mirrors.into_iter().map(|(_, uri)| uri.to_owned()).collect()
}

/// A private apt state.
struct State {
    dir: PathBuf,
    options: Vec<String>,
}

impl State {
    fn create(dir: &Path, architecture: &str) -> Result<Self, ImageError> {
        for sub in ["lists/partial", "archives/partial", "empty"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).at("create", &path)?;
        }
        let status = dir.join("status");
        fs::write(&status, "").at("write", &status)?;
        let dir = fs::canonicalize(dir).at("find", dir)?;
        let at = dir.display();
        // Options on the command line win over the machine's configuration, which stays in force for
        // proxies and the like. What would weaken authentication is forced to its default.
        let options = [
            format!("Dir::State={at}"),
            format!("Dir::State::Lists={at}/lists"),
            format!("Dir::State::status={at}/status"),
            format!("Dir::Cache={at}"),
            format!("Dir::Cache::archives={at}/archives"),
            format!("Dir::Etc::SourceList={at}/sources.list"),
            format!("Dir::Etc::SourceParts={at}/empty"),
            "Dir::Etc::Preferences=/dev/null".into(),
            format!("Dir::Etc::PreferencesParts={at}/empty"),
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            // Only root would change to another user, who could not write here.
            "APT::Sandbox::User=root".into(),
            "APT::Get::AllowUnauthenticated=false".into(),
            "Acquire::AllowInsecureRepositories=false".into(),
            "Acquire::AllowWeakRepositories=false".into(),
            "Acquire::AllowDowngradeToInsecureRepositories=false".into(),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".into(),
            "Acquire::Retries=3".into(),
        ];
        Ok(Self {
            dir,
            options: options.into(),
        })
    }

    fn command(&self, program: &'static str) -> Result<Command, ImageError> {
        let mut command = command(program, PURPOSE)?;
        for option in &self.options {
            command.args(["-o", option]);
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debian_mirror_is_told_from_other_sources() {
        let targets = "http://m.example/debian-security/ Debian-Security\n\
                       http://other.example/apt/ vendor\n\
                       http://unfetched.example/debian/ \n\
                       http://m.example/debian/ Debian\n\
                       http://m.example/debian/ Debian\n";
        assert_eq!(
            choose_mirrors(targets),
            ["http://m.example/debian/", "http://unfetched.example/debian/"]
        );
    }

    #[test]
    fn a_machine_without_debian_sources_has_no_mirror() {
        assert!(choose_mirrors("http://archive.example/ubuntu/ Ubuntu\n").is_empty());
        assert!(choose_mirrors("").is_empty());
    }

    #[test]
    fn what_vanished_before_it_was_fetched_is_chosen_anew_and_named() {
        let offer = |name: &str, version: &str| Offer {
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            size: 1,
            sha256: Digest::of(format!("{name} {version}").as_bytes()),
        };
        let now = [offer("containerd", "1.7.2"), offer("docker.io", "26.1.5")];
        assert_eq!(superseded(&[offer("containerd", "1.7.2")], &now), None);
        let missing = [offer("containerd", "1.7.2"), offer("docker.io", "26.1.4")];
        let note = superseded(&missing, &now).unwrap();
        assert!(note.ends_with(": docker.io 26.1.5 in place of 26.1.4"), "{note}");
    }

    #[test]
    fn a_missing_keyring_is_named_with_its_package_before_anything_is_fetched() {
        let directory = tempfile::tempdir().unwrap();
        let mut debian = crate::recipe::Recipe::load(None).unwrap().debian;
        let usual = ImageError::KeyringMissing {
            path: debian.keyring.clone(),
        };
        assert!(usual.hint().unwrap().ends_with(" debian-archive-keyring"));
        debian.keyring = directory.path().join("absent.gpg");
        let apt = Apt {
            debian: &debian,
            mirror: None,
        };
        let fetch = Fetch {
            cache: &Cache::open(&directory.path().join("cache")).unwrap(),
            offline: false,
            refresh: false,
            step: &mut |_, _| {},
            notes: &mut Vec::new(),
        };
        let error = apt.open_state(&fetch).err().unwrap();
        assert!(matches!(&error, ImageError::KeyringMissing { path } if *path == debian.keyring));
        assert!(error.hint().unwrap().contains("recipe"), "{error}");
    }

    #[test]
    fn what_the_cache_has_is_not_missing() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(&directory.path().join("cache")).unwrap();
        let offer = |name: &str| Offer {
            name: name.into(),
            version: "1".into(),
            arch: "amd64".into(),
            size: 1,
            sha256: Digest::of(name.as_bytes()),
        };
        let file = directory.path().join("there.deb");
        fs::write(&file, b"there").unwrap();
        cache.put(&file, Digest::of(b"there"), "nowhere").unwrap();
        let missing = missing_of(&[offer("there"), offer("away")], &cache).unwrap();
        assert_eq!(names(&missing), "away");
    }

    #[test]
    fn an_offer_needs_every_field_to_be_one() {
        let text = format!(
            "Package: x\nVersion: 1\nArchitecture: amd64\nSize: 10\nSHA256: {}\n",
            Digest::of(b"x")
        );
        assert!(offer(&parse_control(&text)[0]).is_some());
        for field in ["Package", "Version", "Architecture", "Size", "SHA256"] {
            let broken = text.replace(&format!("{field}:"), "X:");
            assert!(offer(&parse_control(&broken)[0]).is_none(), "{field}");
        }
    }
}
