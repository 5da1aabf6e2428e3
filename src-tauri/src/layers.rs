//! Which files the layers of images hold: read once from the engine's archive of an image, and kept as long as this
//! program runs. A layer that several images share is kept once, by its digest.

use crate::{
    failure::{Answer, Refusal},
    local::come,
    pieces,
    task::Report,
};
use cove_engine::{
    Engine, Place,
    archive::{self, ImageArchive, Layer},
};
use cove_view::{Below, LayerEntry, LayerFiles};
use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// How long the engine may take to send an image. An emulated machine sends some GiB in this time.
const LONGEST: Duration = Duration::from_mins(20);
/// Images whose layers are compared at a time.
const MOST_IMAGES: usize = 4;
/// Files of all layers that are kept, as a bound for memory; a hundred bytes each.
const MOST_FILES: usize = 1_000_000;
/// Bytes of the paths of all layers and images that are kept.
const MOST_BYTES: usize = 192 << 20;

/// What is known of layers and images by now.
#[derive(Debug, Default)]
pub(crate) struct Layers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By the digests of their contents.
    layers: HashMap<String, Arc<Layer>>,
    /// By the images' ids. An image with an id never changes.
    images: HashMap<String, Compared>,
}

/// The layers of an image, and how many bytes their paths have.
#[derive(Debug)]
struct Compared {
    files: Arc<Vec<LayerFiles>>,
    bytes: usize,
}

impl Layers {
    /// The layers of an image, the lowest first, if they were read.
    pub(crate) fn of(&self, image: &str) -> Option<Arc<Vec<LayerFiles>>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.images.get(image).map(|image| Arc::clone(&image.files))
    }

    /// The same; those that were not read yet are asked of the engine, which sends the whole image for it.
    pub(crate) async fn read(
        &self,
        engine: &Engine,
        image: &str,
        report: &Report,
    ) -> Answer<Arc<Vec<LayerFiles>>> {
        if let Some(known) = self.of(image) {
            return Ok(known);
        }
        let layers = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.layers.clone()
        };
        let reading = ask(engine, image, layers, report);
        let (archive, files) = timeout(LONGEST, reading).await.map_err(|_| {
            Refusal::new(
                format!("the engine took more than {} min for it", LONGEST.as_secs() / 60),
                "Try again once the machine has less to do.",
            )
        })??;
        Ok(self.keep(image, &archive, files))
    }

    fn keep(&self, image: &str, archive: &ImageArchive, files: Vec<LayerFiles>) -> Arc<Vec<LayerFiles>> {
        let files = Arc::new(files);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        for layer in &archive.layers {
            if let Some(content) = &layer.content {
                bytes += content.bytes;
                known.layers.insert(layer.digest.clone(), Arc::clone(content));
            }
        }
        let entries: usize = known.layers.values().map(|layer| layer.entries.len()).sum();
        let of_layers: usize = known.layers.values().map(|layer| layer.bytes).sum();
        let of_images: usize = known.images.values().map(|image| image.bytes).sum();
        let full = of_layers + of_images + bytes > MOST_BYTES;
        if entries > MOST_FILES || full {
            // The image at hand is kept all the same.
            known.layers.clear();
        }
        if known.images.len() >= MOST_IMAGES || full {
            known.images.clear();
        }
        let compared = Compared {
            files: Arc::clone(&files),
            bytes,
        };
        known.images.insert(image.to_owned(), compared);
        files
    }
}

async fn ask(
    engine: &Engine,
    image: &str,
    known: HashMap<String, Arc<Layer>>,
    report: &Report,
) -> Answer<(ImageArchive, Vec<LayerFiles>)> {
    let found = engine.get(&Place::of(&["images", image, "json"])).await?;
    let all = found["Size"].as_u64();
    let bytes = engine.bytes(&Place::of(&["images", image, "get"])).await?;
    let report = report.clone();
    pieces::hand_over(bytes, move |from| {
        let told = Told {
            from,
            come: 0,
            all,
            report,
        };
        let archive = archive::read_image(told, |digest| known.get(digest).cloned())?;
        let files = compare(&archive);
        Ok((archive, files))
    })
    .await
}

/// What each layer does to those below it.
fn compare(archive: &ImageArchive) -> Vec<LayerFiles> {
    let mut below = Below::default();
    let layers = archive.layers.iter().map(|layer| {
        let entries = layer
            .content
            .as_ref()
            .map(|content| content.entries.iter().map(entry));
        let left_out = layer.content.as_ref().map_or(0, |content| content.left_out);
        LayerFiles::over(&mut below, &layer.digest, &layer.command, entries, left_out)
    });
    layers.collect()
}

fn entry(entry: &archive::LayerEntry) -> LayerEntry<'_> {
    match entry {
        archive::LayerEntry::Folder { path } => LayerEntry::Folder(path),
        archive::LayerEntry::File { path, size } => LayerEntry::File(path, *size),
        archive::LayerEntry::Gone { path } => LayerEntry::Gone(path),
        archive::LayerEntry::Emptied { path } => LayerEntry::Emptied(path),
    }
}

/// An archive that is read, and tells how far that is.
struct Told<R> {
    from: R,
    come: u64,
    all: Option<u64>,
    report: Report,
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        let before = self.come >> 20;
        self.come += count as u64;
        if self.come >> 20 != before {
            self.report.tell(come(self.come, self.all));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_engine::archive::ImageLayer;

    fn image(digest: &str, paths: &[&str]) -> ImageArchive {
        let entries = paths.iter().map(|&path| archive::LayerEntry::File {
            path: path.into(),
            size: 1,
        });
        let content = Layer {
            entries: entries.collect(),
            bytes: paths.iter().map(|path| path.len()).sum(),
            left_out: 2,
        };
        ImageArchive {
            layers: vec![ImageLayer {
                digest: digest.to_owned(),
                command: "COPY . /".to_owned(),
                content: Some(Arc::new(content)),
            }],
        }
    }

    #[test]
    fn what_was_read_is_there_by_image_and_by_layer_and_is_bounded() {
        let layers = Layers::default();
        assert!(layers.of("one").is_none());
        let archive = image("sha256:a", &["etc/motd"]);
        let kept = layers.keep("one", &archive, compare(&archive));
        let view = kept[0].view();
        assert_eq!((view.added, view.left_out, view.readable), (1, 2, true));
        assert_eq!(layers.of("one"), Some(kept));
        assert!(layers.0.lock().unwrap().layers.contains_key("sha256:a"));
        for at in 0..MOST_IMAGES {
            layers.keep(&at.to_string(), &archive, compare(&archive));
        }
        let known = layers.0.lock().unwrap();
        assert!(known.images.len() <= MOST_IMAGES && known.images.contains_key("3"));
        assert_eq!(known.layers.len(), 1);
    }

    #[test]
    fn what_is_kept_is_bounded_by_its_paths_as_well() {
        let layers = Layers::default();
        for at in 0..3 {
            let digest = format!("sha256:{at}");
            let mut archive = image(&digest, &["etc/motd"]);
            let large = Layer {
                bytes: MOST_BYTES / 5,
                ..Layer::default()
            };
            archive.layers[0].content = Some(Arc::new(large));
            layers.keep(&digest, &archive, Vec::new());
            let known = layers.0.lock().unwrap();
            // Each counts as a layer and as an image.
            assert_eq!(known.images.len(), if at == 1 { 2 } else { 1 });
            assert_eq!(known.layers.len(), [1, 2, 0][at]);
        }
    }

    #[test]
    fn a_layer_that_cannot_be_read_leaves_the_others_readable() {
        let mut archive = image("sha256:a", &["etc/motd"]);
        archive.layers.insert(
            0,
            ImageLayer {
                digest: "sha256:packed".to_owned(),
                command: String::new(),
                content: None,
            },
        );
        let readable: Vec<_> = compare(&archive)
            .iter()
            .map(|layer| layer.view().readable)
            .collect();
        assert_eq!(readable, [false, true]);
    }
}
