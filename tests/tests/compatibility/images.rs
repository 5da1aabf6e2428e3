//! Images and their layers.

use crate::docker;
use cove_tests::harness::Cove;
use std::fs;

fn layers(cove: &Cove, image: &str) -> Vec<String> {
    let layers = cove.docker(["image", "inspect", "--format", "{{join .RootFS.Layers \",\"}}"]);
    layers.arg(image).ok().split(',').map(str::to_owned).collect()
}

/// Builds `image` from a Dockerfile alone.
fn build(cove: &Cove, image: &str, dockerfile: &str) {
    docker(cove, "build -q -t")
        .args([image, "-"])
        .input(dockerfile)
        .ok();
}

pub(crate) fn layers_are_shared_between_images(cove: &Cove) {
    build(cove, "branch-a", "FROM alpine\nRUN echo a > /a\n");
    build(cove, "branch-b", "FROM alpine\nRUN echo b > /b\n");
    let trunk = layers(cove, "alpine");
    let (a, b) = (layers(cove, "branch-a"), layers(cove, "branch-b"));
    assert_eq!(a[..trunk.len()], trunk);
    assert_eq!(b[..trunk.len()], trunk);
    assert_ne!(a.last(), b.last());
    // On the disk, too: the directories that lie below both are the same ones.
    let below = |image: &str| -> Vec<String> {
        let directories = docker(cove, "image inspect --format {{.GraphDriver.Data.LowerDir}}")
            .arg(image)
            .ok();
        directories.split(':').map(str::to_owned).collect()
    };
    let shared = below("branch-a");
    assert_eq!(shared.len(), trunk.len());
    assert_eq!(below("branch-b"), shared);
    docker(cove, "rmi branch-a branch-b").ok();
}

pub(crate) fn history_and_inspect_tell_how_an_image_was_made(cove: &Cove) {
    build(
        cove,
        "told",
        "FROM alpine\nENV COLOUR=blue\nLABEL kind=test\nEXPOSE 80\nCMD [\"true\"]\n",
    );
    let history = docker(cove, "history --no-trunc --format {{.CreatedBy}} told").ok();
    assert!(history.contains("ENV COLOUR=blue"), "{history}");
    let config = docker(
        cove,
        "image inspect --format {{.Config.Labels.kind}}{{.Config.Env}}{{.Config.ExposedPorts}} told",
    )
    .ok();
    assert!(
        config.starts_with("test[") && config.contains("COLOUR=blue") && config.contains("80/tcp"),
        "{config}"
    );
    let found = docker(cove, "images -q --filter label=kind=test").ok();
    assert_eq!(found.lines().count(), 1);
    docker(cove, "rmi told").ok();
}

pub(crate) fn tags_name_an_image_and_the_last_one_takes_it_along(cove: &Cove) {
    build(cove, "one:1", "FROM alpine\nRUN echo unique to this test > /x\n");
    docker(cove, "tag one:1 two:2").ok();
    assert!(docker(cove, "rmi one:1").ok().starts_with("Untagged: one:1"));
    docker(cove, "run --rm two:2 test -e /x").ok();
    docker(cove, "create --name holder two:2").ok();
    docker(cove, "rmi two:2")
        .run()
        .fails_with(1)
        .says(&["container", "is using its referenced image"]);
    docker(cove, "rm holder").ok();
    assert!(docker(cove, "rmi two:2").ok().contains("Deleted: sha256:"));
}

pub(crate) fn a_container_becomes_an_image(cove: &Cove) {
    docker(cove, "run --name work alpine sh -c")
        .arg("echo done > /result")
        .ok();
    docker(cove, "commit -a tester -m finished -c")
        .args(["CMD cat /result", "work", "committed"])
        .ok();
    assert_eq!(docker(cove, "run --rm committed").ok(), "done");
    assert_eq!(
        docker(cove, "image inspect --format {{.Author}}/{{.Comment}} committed").ok(),
        "tester/finished"
    );
    docker(cove, "rm work").ok();
    docker(cove, "rmi committed").ok();
}

pub(crate) fn save_and_load_keep_every_layer_and_tag(cove: &Cove) {
    build(cove, "kept:1", "FROM alpine\nRUN echo kept > /kept\n");
    docker(cove, "tag kept:1 kept:2").ok();
    let before = layers(cove, "kept:1");
    let archive = cove.scratch().join("kept.tar");
    docker(cove, "save kept:1 kept:2 -o").arg(&archive).ok();
    docker(cove, "rmi kept:1 kept:2").ok();
    docker(cove, "load -i").arg(&archive).ok();
    assert_eq!(layers(cove, "kept:2"), before);
    assert_eq!(docker(cove, "run --rm kept:1 cat /kept").ok(), "kept");
    docker(cove, "rmi kept:1 kept:2").ok();
    fs::remove_file(archive).unwrap();
}

pub(crate) fn export_and_import_flatten_a_container(cove: &Cove) {
    docker(cove, "run --name source alpine sh -c")
        .arg("echo flat > /flat")
        .ok();
    let archive = docker(cove, "export source").run();
    assert_eq!(archive.code, Some(0));
    docker(cove, "import -c")
        .args(["CMD cat /flat", "-", "flattened"])
        .input(archive.stdout)
        .ok();
    assert_eq!(layers(cove, "flattened").len(), 1);
    assert_eq!(docker(cove, "run --rm flattened").ok(), "flat");
    docker(cove, "rm source").ok();
    docker(cove, "rmi flattened").ok();
}

pub(crate) fn dangling_images_are_pruned_and_no_others(cove: &Cove) {
    build(cove, "moving", "FROM alpine\nRUN echo 1 > /n\n");
    let first = docker(cove, "images -q moving").ok();
    build(cove, "moving", "FROM alpine\nRUN echo 2 > /n\n");
    assert!(
        docker(cove, "images -q --filter dangling=true")
            .ok()
            .contains(&first)
    );
    docker(cove, "image prune -f").ok();
    assert!(!docker(cove, "images -qa").ok().contains(&first));
    docker(cove, "run --rm moving cat /n").ok();
    docker(cove, "rmi moving").ok();
}
