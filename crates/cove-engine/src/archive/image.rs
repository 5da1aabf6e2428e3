//! A whole image, as the engine's `GET /images/NAME/get` sends it: which files each of its layers holds.
//!
//! ```text
//!  archive ──entry by entry──▶ a layer: its headers are kept ─┐
//!                              JSON: kept, if it is short     ├──at the end──▶ which layers are the image's, in order
//!                              a link: where it leads         │
//!                              anything else: passed over    ─┘
//! ```
//!
//! What says which layers there are often comes behind them, so that everything that looks like a layer is read as one.
//! Both layouts are understood: `manifest.json` of Docker, and `index.json` of the OCI's image specification.

use super::{
    ArchiveError,
    attributes::BLOCK,
    headers::{Entry, Headers, header_of},
    layer::{Layer, path_of},
    zstd,
};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use std::{
    collections::HashMap,
    io::{self, Cursor, Read},
    sync::Arc,
};
use tar::EntryType;

/// Files of an archive that are kept, and links between them. An image has at most 127 layers.
const MAX_FILES: usize = 4096;
/// Entries of an archive.
const MAX_ENTRIES: usize = 65_536;
/// Layers of an image.
const MAX_LAYERS: usize = 512;
/// Bytes of one piece of JSON, and of all of them.
const LONGEST: u64 = 4 << 20;
/// See [`LONGEST`].
const MAX_JSON: u64 = 32 << 20;
/// Bytes that all layers of an archive may have once they are unpacked: what is packed says nothing of how much it is.
const MAX_UNPACKED: u64 = 256 << 30;
/// Entries of all layers that are kept.
const MAX_KEPT: usize = 500_000;
/// Bytes of their paths: what a computer gives for a look, whatever an image is made of.
const MAX_PATHS: usize = 64 << 20;
/// What is said of more than that.
const TOO_MANY: &str = "more files in its layers than are read";
/// Indexes that may lead to one another.
const DEEPEST: usize = 3;
/// What gzip begins with (RFC 1952).
const GZIP: &[u8] = &[0x1f, 0x8b];

/// The layers of an image, the lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageArchive {
    /// Them.
    pub layers: Vec<ImageLayer>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// The digest of its content, `sha256:…`.
    pub digest: String,
    /// What made it, as the builder recorded it; empty where that is not known.
    pub command: String,
    /// What it holds; nothing if it is packed or made in a way that is not read here.
    pub content: Option<Arc<Layer>>,
}

/// A file of the archive, by its path.
enum Kept {
    Layer(Arc<Layer>),
    /// A layer that is packed or made in a way that is not read here.
    Packed,
    Json(Vec<u8>),
    /// The path of another.
    Link(String),
}

/// Reads an image's archive. A layer that `known` has by its digest is not read again.
pub fn read_image(
    archive: impl Read,
    known: impl Fn(&str) -> Option<Arc<Layer>>,
) -> Result<ImageArchive, ArchiveError> {
    let mut headers = Headers::new(archive);
    let mut files = HashMap::new();
    let (mut entries, mut json, mut unpacked, mut kept, mut paths) = (0, 0, 0, 0, 0);
    while let Some(entry) = headers.next()? {
        entries += 1;
        if entries > MAX_ENTRIES || files.len() == MAX_FILES {
            return Err(nonsense("more files than any image has"));
        }
        let Some(path) = path_of(&entry.path) else {
            continue;
        };
        if let Some(target) = link_of(&entry, &path) {
            files.insert(path, Kept::Link(target));
            continue;
        }
        if !matches!(entry.kind, EntryType::Regular | EntryType::Continuous) || entry.size == 0 {
            continue;
        }
        // Blobs are named by their digests. That of one that is not packed is the layer's.
        if let Some(layer) = digest_of(&path).and_then(|digest| known(&digest)) {
            files.insert(path, Kept::Layer(layer));
            continue;
        }
        let room = LONGEST.min(MAX_JSON - json);
        match read_file(headers.content(), entry.size, room, &mut unpacked)? {
            Some(Kept::Layer(layer)) => {
                kept += layer.entries.len();
                paths += layer.bytes;
                if kept > MAX_KEPT || paths > MAX_PATHS {
                    return Err(nonsense(TOO_MANY));
                }
                files.insert(path, Kept::Layer(layer));
            }
            Some(Kept::Json(text)) => {
                json += text.len() as u64;
                files.insert(path, Kept::Json(text));
            }
            Some(other) => {
                files.insert(path, other);
            }
            None => {}
        }
    }
    Files(files).image()
}

/// What a file is: JSON of at most `room` bytes, a layer, or nothing that matters.
fn read_file(
    mut content: impl Read,
    size: u64,
    room: u64,
    unpacked: &mut u64,
) -> Result<Option<Kept>, ArchiveError> {
    let mut head = Vec::with_capacity(BLOCK);
    let first = (&mut content).take(BLOCK as u64).read_to_end(&mut head);
    first.map_err(ArchiveError::Broken)?;
    let whole = Cursor::new(&head).chain(content);
    if head.starts_with(GZIP) {
        return layer(MultiGzDecoder::new(whole), unpacked).map(Some);
    }
    if head.starts_with(&zstd::MAGIC) {
        return layer(zstd::Unpacked::new(whole), unpacked).map(Some);
    }
    if let Some(block) = head.first_chunk::<BLOCK>()
        && (header_of(block).is_some() || block.iter().all(|&byte| byte == 0))
    {
        return layer(whole, unpacked).map(Some);
    }
    if !matches!(head.first(), Some(b'{' | b'[')) || size > room {
        return Ok(None);
    }
    let mut text = Vec::new();
    whole
        .take(size)
        .read_to_end(&mut text)
        .map_err(ArchiveError::Broken)?;
    Ok(Some(Kept::Json(text)))
}

fn layer(archive: impl Read, unpacked: &mut u64) -> Result<Kept, ArchiveError> {
    let mut bounded = Bounded {
        archive,
        left: MAX_UNPACKED.saturating_sub(*unpacked),
        exceeded: false,
    };
    let before = bounded.left;
    let read = Layer::read(&mut bounded);
    *unpacked += before - bounded.left;
    match read {
        Ok(layer) => Ok(Kept::Layer(Arc::new(layer))),
        Err(error) if bounded.exceeded => Err(error),
        // One that is odd leaves the others readable. An archive that breaks off ends at its next header.
        Err(_) => Ok(Kept::Packed),
    }
}

/// Refuses to go on where there were too many bytes.
struct Bounded<R> {
    archive: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            self.exceeded = true;
            return Err(io::Error::other("its layers are larger than any image's"));
        };
        self.left = left;
        Ok(count)
    }
}

/// Where a link leads, as a path of the archive.
fn link_of(entry: &Entry, path: &str) -> Option<String> {
    match entry.kind {
        EntryType::Link => path_of(&entry.link),
        // Docker's older layout leads from one layer's folder to another's, `../ID/layer.tar`.
        EntryType::Symlink => {
            let target = String::from_utf8_lossy(&entry.link);
            let mut parts: Vec<&str> = path.split('/').collect();
            parts.pop();
            for part in target.split('/') {
                match part {
                    "" | "." => {}
                    ".." => {
                        parts.pop()?;
                    }
                    part => parts.push(part),
                }
            }
            Some(parts.join("/"))
        }
        _ => None,
    }
}

/// `blobs/sha256/HEX` as `sha256:HEX`.
fn digest_of(path: &str) -> Option<String> {
    let (algorithm, digits) = path.strip_prefix("blobs/")?.split_once('/')?;
    Some(format!("{algorithm}:{digits}"))
}

/// The files of an archive by their paths.
struct Files(HashMap<String, Kept>);

impl Files {
    fn image(&self) -> Result<ImageArchive, ArchiveError> {
        let (config, paths) = if let Some(manifest) = self.json("manifest.json") {
            let paths = strings(&manifest[0]["Layers"]);
            (manifest[0]["Config"].as_str().map(str::to_owned), paths)
        } else {
            let index = self.json("index.json");
            let index = index.ok_or_else(|| nonsense("neither manifest.json nor index.json"))?;
            let manifest = self
                .manifest(index, DEEPEST)
                .ok_or_else(|| nonsense("an index that leads to no image"))?;
            let layers = manifest["layers"].as_array().into_iter().flatten();
            let paths = layers.take(MAX_LAYERS + 1).filter_map(blob_of).collect();
            (blob_of(&manifest["config"]), paths)
        };
        let config = config
            .and_then(|path| self.json(&path))
            .ok_or_else(|| nonsense("an image without its configuration"))?;
        let digests = strings(&config["rootfs"]["diff_ids"]);
        if digests.len() != paths.len() || paths.len() > MAX_LAYERS {
            return Err(nonsense("other layers than its configuration says"));
        }
        let commands = commands(&config["history"], digests.len());
        let layers = digests.into_iter().zip(paths).zip(commands);
        let layers = layers.map(|((digest, path), command)| {
            Ok::<_, ArchiveError>(ImageLayer {
                content: self.layer(&path)?,
                digest,
                command,
            })
        });
        let layers: Vec<_> = layers.collect::<Result<_, ArchiveError>>()?;
        // One layer may stand there many times, and who compares them has each of its paths as often.
        let all = || layers.iter().filter_map(|layer| layer.content.as_deref());
        let kept: usize = all().map(|layer| layer.entries.len()).sum();
        let bytes: usize = all().map(|layer| layer.bytes).sum();
        if kept > MAX_KEPT || bytes > MAX_PATHS {
            return Err(nonsense(TOO_MANY));
        }
        Ok(ImageArchive { layers })
    }

    /// The manifest that an index leads to: the first of its images.
    fn manifest(&self, mut found: Value, depth: usize) -> Option<Value> {
        for _ in 0..depth {
            if found["layers"].is_array() {
                return Some(found);
            }
            let manifests = found["manifests"].as_array()?;
            // Builders put what they attest beside the images, for a platform that does not exist.
            let image = manifests
                .iter()
                .find(|manifest| manifest["platform"]["os"] != "unknown")?;
            found = self.json(&blob_of(image)?)?;
        }
        found["layers"].is_array().then_some(found)
    }

    fn json(&self, path: &str) -> Option<Value> {
        match self.0.get(path)? {
            Kept::Json(text) => serde_json::from_slice(text).ok(),
            Kept::Layer(_) | Kept::Packed | Kept::Link(_) => None,
        }
    }

    fn layer(&self, path: &str) -> Result<Option<Arc<Layer>>, ArchiveError> {
        let found = match self.0.get(path) {
            // One link is enough: they lead to what an earlier layer has.
            Some(Kept::Link(target)) => self.0.get(target),
            found => found,
        };
        match found {
            Some(Kept::Layer(layer)) => Ok(Some(Arc::clone(layer))),
            Some(Kept::Packed) => Ok(None),
            Some(Kept::Json(_) | Kept::Link(_)) | None => Err(nonsense("not all of its layers")),
        }
    }
}

/// What made each of so many layers; steps that made none are passed over. Empty where they do not agree.
fn commands(history: &Value, count: usize) -> Vec<String> {
    let steps = history.as_array().into_iter().flatten();
    let steps = steps.filter(|step| step["empty_layer"] != true);
    let found: Vec<String> = steps
        .take(count + 1)
        .map(|step| step["created_by"].as_str().unwrap_or_default().to_owned())
        .collect();
    if found.len() == count {
        found
    } else {
        vec![String::new(); count]
    }
}

/// The path of what a descriptor names.
fn blob_of(descriptor: &Value) -> Option<String> {
    let (algorithm, digits) = descriptor["digest"].as_str()?.split_once(':')?;
    Some(format!("blobs/{algorithm}/{digits}"))
}

fn strings(list: &Value) -> Vec<String> {
    let all = list.as_array().into_iter().flatten();
    all.take(MAX_LAYERS + 1)
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

fn nonsense(what: &'static str) -> ArchiveError {
    ArchiveError::Broken(io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests;
