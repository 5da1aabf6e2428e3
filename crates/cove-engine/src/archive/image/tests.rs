//! Images in both layouts, and archives that mean harm.

use super::*;
use crate::archive::{LayerEntry, header};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use serde_json::json;
use std::io::Write as _;
use tar::Builder;

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (path, content) in files {
        let kind = if path.ends_with('/') {
            EntryType::Directory
        } else {
            EntryType::Regular
        };
        let mut header = header(kind, 0o644, content.len() as u64, 0);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// A frame of Zstandard with its bytes as they are, in blocks of a kibibyte.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut packed = [&zstd::MAGIC[..], &[0, 0]].concat();
    for block in bytes.chunks(1024) {
        let header = u32::try_from(block.len()).unwrap() << 3;
        packed.extend_from_slice(&header.to_le_bytes()[..3]);
        packed.extend_from_slice(block);
    }
    // The last one is empty.
    packed.extend_from_slice(&[1, 0, 0]);
    packed
}

fn config(layers: usize) -> Vec<u8> {
    let digests: Vec<_> = (0..layers).map(|at| format!("sha256:d{at}")).collect();
    json!({
        "rootfs": {"diff_ids": digests},
        "history": [{"created_by": "ADD rootfs /"}, {"created_by": "CMD [\"sh\"]", "empty_layer": true},
                    {"created_by": "RUN rm /etc/motd"}],
    })
    .to_string()
    .into_bytes()
}

fn read(archive: &[u8]) -> Result<ImageArchive, ArchiveError> {
    read_image(archive, |_| None)
}

fn paths(layer: &ImageLayer) -> Vec<String> {
    let layer = layer.content.as_ref().unwrap();
    let path = |entry: &LayerEntry| match entry {
        LayerEntry::Folder { path } => format!("{path}/"),
        LayerEntry::File { path, size } => format!("{path} {size}"),
        LayerEntry::Gone { path } => format!("-{path}"),
        LayerEntry::Emptied { path } => format!("-{path}/*"),
    };
    layer.entries.iter().map(path).collect()
}

fn base() -> Vec<u8> {
    tar(&[("etc/", b""), ("etc/motd", b"hello"), ("bin/sh", &[7; 700])])
}

fn above() -> Vec<u8> {
    tar(&[("etc/", b""), ("etc/.wh.motd", b""), ("var/.wh..wh..opq", b"")])
}

#[test]
fn layers_come_in_the_order_of_the_manifest_wherever_that_stands() {
    let manifest = json!([{"Config": "blobs/sha256/c", "Layers": ["blobs/sha256/one", "blobs/sha256/two"]}]);
    let image = tar(&[
        ("blobs/sha256/two", &above()),
        ("blobs/sha256/c", &config(2)),
        ("blobs/sha256/one", &base()),
        ("manifest.json", manifest.to_string().as_bytes()),
    ]);
    let found = read(&image).unwrap();
    let [one, two] = &found.layers[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (one.digest.as_str(), one.command.as_str()),
        ("sha256:d0", "ADD rootfs /")
    );
    assert_eq!(two.command, "RUN rm /etc/motd");
    assert_eq!(paths(one), ["etc/", "etc/motd 5", "bin/sh 700"]);
    assert_eq!(paths(two), ["etc/", "-etc/motd", "-var/*"]);
}

#[test]
fn the_layout_of_the_oci_is_read_with_layers_that_are_packed() {
    let digest = |name: &str| json!({"digest": format!("sha256:{name}")});
    let attested = json!({"digest": "sha256:none", "platform": {"os": "unknown"}});
    let index = json!({"manifests": [attested, digest("inner")]}).to_string();
    let inner = json!({"manifests": [digest("manifest")]}).to_string();
    let manifest = json!({"config": digest("config"), "layers": [digest("gz"), digest("zstd")]}).to_string();
    let image = tar(&[
        ("oci-layout", b"{\"imageLayoutVersion\": \"1.0.0\"}"),
        ("index.json", index.as_bytes()),
        ("blobs/sha256/inner", inner.as_bytes()),
        ("blobs/sha256/manifest", manifest.as_bytes()),
        ("blobs/sha256/config", &config(2)),
        ("blobs/sha256/gz", &gzip(&base())),
        ("blobs/sha256/zstd", &zstd(&above())),
    ]);
    let found = read(&image).unwrap();
    assert_eq!(paths(&found.layers[0]), ["etc/", "etc/motd 5", "bin/sh 700"]);
    assert_eq!(paths(&found.layers[1]), ["etc/", "-etc/motd", "-var/*"]);
}

#[test]
fn a_layer_that_cannot_be_unpacked_is_told_and_not_taken_for_one_without_files() {
    let manifest = json!([{"Config": "c", "Layers": ["gz", "zstd"]}]).to_string();
    let image = tar(&[
        ("gz", &gzip(&base())),
        ("zstd", &[&zstd::MAGIC[..], &[0xff; 600]].concat()),
        ("c", &config(2)),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let found = read(&image).unwrap();
    assert!(found.layers[0].content.is_some());
    assert_eq!(found.layers[1].content, None);
}

#[test]
fn a_layer_that_links_to_another_is_that_and_one_that_is_known_is_not_read() {
    let manifest = json!([{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]).to_string();
    let mut archive = Builder::new(Vec::new());
    for (path, content) in [
        ("a/layer.tar", base()),
        ("c.json", config(2)),
        ("manifest.json", manifest.into_bytes()),
    ] {
        let mut header = header(EntryType::Regular, 0o644, content.len() as u64, 0);
        archive.append_data(&mut header, path, &content[..]).unwrap();
    }
    let mut link = header(EntryType::Symlink, 0o777, 0, 0);
    archive
        .append_link(&mut link, "b/layer.tar", "../a/layer.tar")
        .unwrap();
    let found = read(&archive.into_inner().unwrap()).unwrap();
    assert_eq!(found.layers[0].content, found.layers[1].content);

    let manifest = json!([{"Config": "c", "Layers": ["blobs/sha256/x"]}]).to_string();
    let image = tar(&[
        ("blobs/sha256/x", b"nothing that could be read"),
        ("c", &config(1)),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let kept = Arc::new(Layer::default());
    let found = read_image(&image[..], |digest| {
        (digest == "sha256:x").then(|| Arc::clone(&kept))
    });
    assert_eq!(found.unwrap().layers[0].content, Some(kept));
}

#[test]
fn what_does_not_hang_together_is_refused() {
    let layers = |layers: &[&str], count| {
        let manifest = json!([{"Config": "c", "Layers": layers}]).to_string();
        tar(&[
            ("one", &base()),
            ("c", &config(count)),
            ("manifest.json", manifest.as_bytes()),
        ])
    };
    assert!(read(&layers(&["one"], 1)).is_ok());
    for (name, image) in [
        ("a layer that is not there", layers(&["two"], 1)),
        ("a layer that is none", layers(&["c"], 1)),
        ("more than the configuration says", layers(&["one", "one"], 1)),
        ("less than the configuration says", layers(&[], 1)),
        ("no manifest", tar(&[("one", &base())])),
        ("nothing at all", tar(&[])),
        (
            "an index that leads to itself",
            tar(&[
                ("index.json", b"{\"manifests\": [{\"digest\": \"sha256:i\"}]}"),
                ("blobs/sha256/i", b"{\"manifests\": [{\"digest\": \"sha256:i\"}]}"),
            ]),
        ),
        ("a manifest that is none", tar(&[("manifest.json", b"[7]")])),
    ] {
        assert!(matches!(read(&image), Err(ArchiveError::Broken(_))), "{name}");
    }
    let whole = layers(&["one"], 1);
    for end in [600, 1400, whole.len() / 2] {
        assert!(read(&whole[..end]).is_err(), "{end}");
    }
}

#[test]
fn json_that_is_longer_than_any_is_not_kept() {
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(usize::try_from(LONGEST).unwrap()));
    let mut unpacked = 0;
    let kept = read_file(long.as_bytes(), long.len() as u64, LONGEST, &mut unpacked).unwrap();
    assert!(kept.is_none());
    let kept = read_file(&b"{}"[..], 2, 1, &mut unpacked).unwrap();
    assert!(kept.is_none(), "there is no room left");
    let kept = read_file(&b"{}"[..], 2, 2, &mut unpacked).unwrap();
    assert!(matches!(kept, Some(Kept::Json(text)) if text == b"{}"));
}

#[test]
fn what_unpacks_to_more_than_any_image_is_not_read_to_its_end() {
    let zeros = tar(&[("zeros", &vec![0; 1 << 20])]);
    for packed in [gzip(&zeros), zstd(&zeros)] {
        let mut unpacked = MAX_UNPACKED - (1 << 16);
        assert!(matches!(
            read_file(&packed[..], packed.len() as u64, LONGEST, &mut unpacked),
            Err(ArchiveError::Broken(_))
        ));
        let mut unpacked = 0;
        assert!(read_file(&packed[..], packed.len() as u64, LONGEST, &mut unpacked).is_ok());
        assert!(unpacked > 1 << 20, "{unpacked}");
    }
}

#[test]
fn a_layer_that_is_odd_leaves_the_others_readable_and_counts_all_the_same() {
    let mut sparse = base();
    // The kind of the second entry, and what its checksum is then.
    let at = BLOCK;
    sparse[at + 156] = b'S';
    let sum: u32 = (0..BLOCK)
        .map(|byte| {
            if (148..156).contains(&byte) {
                32
            } else {
                u32::from(sparse[at + byte])
            }
        })
        .sum();
    sparse[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut changed = base();
    changed[at] ^= 1;
    let manifest = json!([{"Config": "c", "Layers": ["base", "sparse", "changed", "cut"]}]).to_string();
    let packed = gzip(&base());
    let image = tar(&[
        ("base", &base()),
        ("sparse", &sparse),
        ("changed", &changed),
        ("cut", &packed[..packed.len() / 2]),
        ("c", &config(4)),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let found = read(&image).unwrap();
    let readable: Vec<_> = found.layers.iter().map(|layer| layer.content.is_some()).collect();
    assert_eq!(readable, [true, false, false, false]);

    let packed = gzip(&sparse);
    let mut unpacked = 0;
    let kept = read_file(&packed[..], packed.len() as u64, LONGEST, &mut unpacked).unwrap();
    assert!(matches!(kept, Some(Kept::Packed)));
    assert!(unpacked >= 2 * BLOCK as u64, "{unpacked}");
}

#[test]
fn a_layer_that_stands_there_many_times_counts_as_often() {
    let read_times = |layer: &[u8], count| {
        let manifest = json!([{"Config": "c", "Layers": vec!["one"; count]}]).to_string();
        read(&tar(&[
            ("one", layer),
            ("c", &config(count)),
            ("manifest.json", manifest.as_bytes()),
        ]))
    };
    let names = |count: usize, length: usize| -> Vec<String> {
        let name = |at: usize| format!("{at:05}{}", "x".repeat(length - 5));
        (0..count).map(name).collect()
    };
    let layer_of = |names: &[String]| {
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        tar(&files)
    };
    for (layer, what) in [
        (layer_of(&names(1 + MAX_KEPT / MAX_LAYERS, 5)), "entries"),
        (layer_of(&names(1 + MAX_PATHS / MAX_LAYERS / 4000, 4000)), "paths"),
    ] {
        assert!(read_times(&layer, 2).is_ok(), "{what}");
        assert!(
            matches!(read_times(&layer, MAX_LAYERS), Err(ArchiveError::Broken(_))),
            "{what}"
        );
    }
}

#[test]
fn more_files_than_any_image_has_are_refused() {
    let names: Vec<String> = (0..=MAX_FILES).map(|at| format!("{at}.json")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"{}"[..])).collect();
    assert!(matches!(read(&tar(&files)), Err(ArchiveError::Broken(_))));
}

proptest! {
    #[test]
    fn a_changed_image_is_refused_or_read_and_nothing_panics(at in any::<usize>(), value in any::<u8>()) {
        let manifest = json!([{"Config": "c", "Layers": ["one"]}]).to_string();
        let mut image = tar(&[
            ("one", &gzip(&base())),
            ("c", &config(1)),
            ("manifest.json", manifest.as_bytes()),
        ]);
        let at = at % image.len();
        image[at] = value;
        let _ = read(&image);
    }
}
