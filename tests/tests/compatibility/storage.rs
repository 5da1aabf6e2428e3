//! Volumes, bind mounts, tmpfs.

use crate::{Shared, docker, output_of};
use cove_tests::harness::Cove;
use std::fs;

pub(crate) fn an_empty_volume_is_filled_from_the_image(cove: &Cove) {
    let dockerfile =
        "FROM alpine\nRUN mkdir /seed && echo from the image > /seed/file && chown -R 7:8 /seed\n";
    docker(cove, "build -q -t seeded -").input(dockerfile).ok();
    let read = |options: &str| {
        docker(cove, &format!("run --rm {options} seeded sh -c"))
            .arg("cat /seed/file; stat -c %u:%g /seed")
            .ok()
    };
    assert_eq!(read("-v seedling:/seed"), "from the image\n7:8");
    output_of(cove, "-v seedling:/v", "echo changed > /v/file");
    assert_eq!(
        read("-v seedling:/seed"),
        "changed\n7:8",
        "a volume with content was filled again"
    );
    docker(
        cove,
        "run --rm --mount type=volume,src=bare,dst=/seed,volume-nocopy seeded test ! -e /seed/file",
    )
    .ok();
    docker(cove, "volume rm seedling bare").ok();
    docker(cove, "rmi seeded").ok();
}

pub(crate) fn containers_share_a_volume_at_the_same_time(cove: &Cove) {
    docker(cove, "run -d --name reader -v channel:/c alpine sh -c")
        .arg("until [ -s /c/word ]; do sleep 0.1; done; cat /c/word")
        .ok();
    output_of(
        cove,
        "-v channel:/c",
        "echo heard > /c/word.new && mv /c/word.new /c/word",
    );
    assert_eq!(docker(cove, "wait reader").ok(), "0");
    assert_eq!(docker(cove, "logs reader").ok(), "heard");
    let borrowed = docker(cove, "run --rm --volumes-from reader:ro alpine sh -c")
        .arg("cat /c/word; touch /c/x 2>&1")
        .run();
    assert!(
        borrowed.text().starts_with("heard\ntouch: /c/x: Read-only"),
        "{borrowed}"
    );
    docker(cove, "rm reader").ok();
    docker(cove, "volume rm channel").ok();
}

pub(crate) fn volumes_have_labels_and_are_found_by_them(cove: &Cove) {
    docker(cove, "volume create --label team=red labelled").ok();
    assert_eq!(
        docker(cove, "volume ls -q --filter label=team=red").ok(),
        "labelled"
    );
    assert_eq!(docker(cove, "volume ls -q --filter label=team=blue").ok(), "");
    docker(cove, "create --name user -v labelled:/v alpine").ok();
    docker(cove, "volume rm labelled")
        .run()
        .fails_with(1)
        .says(&["volume is in use"]);
    assert!(
        !docker(cove, "volume ls -q --filter dangling=true")
            .ok()
            .contains("labelled")
    );
    docker(cove, "rm user").ok();
    docker(cove, "volume rm labelled").ok();
}

pub(crate) fn an_anonymous_volume_goes_with_its_container_if_asked(cove: &Cove) {
    docker(cove, "volume prune -f").ok();
    let volumes = || docker(cove, "volume ls -q").ok();
    let before = volumes();
    docker(cove, "run --rm -v /scratch alpine touch /scratch/x").ok();
    assert_eq!(volumes(), before);
    docker(cove, "run --name leaves -v /scratch alpine touch /scratch/x").ok();
    docker(cove, "rm leaves").ok();
    assert_ne!(volumes(), before);
    docker(cove, "volume prune -f").ok();
    assert_eq!(volumes(), before);
}

pub(crate) fn a_volume_is_backed_up_and_restored_by_tar(cove: &Cove) {
    output_of(
        cove,
        "-v precious:/v",
        "mkdir /v/d && echo gold > /v/d/nugget && chown 5:6 /v/d/nugget && chmod 640 /v/d/nugget",
    );
    let archive = docker(cove, "run --rm -v precious:/v:ro alpine tar -c -C /v .").run();
    assert_eq!(archive.code, Some(0), "{}", archive.stderr);
    docker(cove, "volume rm precious").ok();
    docker(cove, "run --rm -i -v precious:/v alpine tar -x -C /v")
        .input(archive.stdout)
        .ok();
    assert_eq!(
        output_of(
            cove,
            "-v precious:/v",
            "cat /v/d/nugget; stat -c '%u:%g %a' /v/d/nugget"
        ),
        "gold\n5:6 640"
    );
    docker(cove, "volume rm precious").ok();
}

pub(crate) fn a_tmpfs_has_its_size_and_forgets(cove: &Cove) {
    docker(
        cove,
        "create --name brief --tmpfs /t:size=4m,mode=1770 alpine sh -c",
    )
    .arg("ls /t; df -k /t | awk 'NR==2 {print $1, $2}'; stat -c %a /t; touch /t/kept")
    .ok();
    // The second life sees nothing of the first one's file.
    for life in ["first", "second"] {
        assert_eq!(docker(cove, "start -a brief").ok(), "tmpfs 4096\n1770", "{life}");
    }
    docker(cove, "rm brief").ok();
    let full = docker(
        cove,
        "run --rm --mount type=tmpfs,dst=/t,tmpfs-size=1m alpine dd if=/dev/zero of=/t/x bs=1M count=2",
    )
    .run();
    assert!(full.stderr.contains("No space left on device"), "{full}");
}

pub(crate) fn a_host_folder_is_bound_both_ways_and_read_only_if_asked(cove: &Cove) {
    let folder = Shared::new(cove, cove.scratch().join("bound"));
    fs::write(folder.join("from-host"), "hello").unwrap();
    let bind = |options: &str, script: &str| {
        let mount = format!("type=bind,src={},dst=/b{options}", folder.display());
        docker(cove, "run --rm --mount")
            .args([&mount, "alpine", "sh", "-c", script])
            .run()
    };
    assert_eq!(
        bind("", "cat /b/from-host; echo back > /b/from-container").text(),
        "hello"
    );
    assert_eq!(
        fs::read_to_string(folder.join("from-container")).unwrap(),
        "back\n"
    );
    assert!(
        bind(",readonly", "touch /b/x")
            .stderr
            .contains("Read-only file system")
    );
    let missing = format!("{}/not-there:/b", folder.display());
    // As Docker has it: `-v` makes the folder, `--mount` refuses.
    docker(cove, "run --rm -v")
        .args([&missing, "alpine", "true"])
        .ok();
    assert!(folder.join("not-there").is_dir());
    docker(cove, "run --rm --mount")
        .arg(format!("type=bind,src={}/nor-this,dst=/b", folder.display()))
        .args(["alpine", "true"])
        .run()
        .fails_with(125)
        .says(&["bind source path does not exist"]);
}

pub(crate) fn a_mount_made_later_propagates_if_asked(cove: &Cove) {
    let folder = Shared::new(cove, cove.scratch().join("propagated"));
    fs::create_dir(folder.join("inner")).unwrap();
    let volume = |propagation: &str| format!("{}:/p:{propagation}", folder.display());
    for (name, propagation) in [("follower", "rslave"), ("recluse", "rprivate")] {
        docker(cove, "run -d --name")
            .args([name, "-v", &volume(propagation), "alpine", "sleep", "600"])
            .ok();
    }
    let with_rights = |words: &[&str]| {
        docker(cove, "run --rm --privileged -v")
            .args([&volume("rshared"), "alpine"])
            .args(words)
            .ok()
    };
    with_rights(&["mount", "-t", "tmpfs", "none", "/p/inner"]);
    let kind = |name: &str| docker(cove, &format!("exec {name} stat -f -c %T /p/inner")).ok();
    assert_eq!(kind("follower"), "tmpfs");
    assert_ne!(kind("recluse"), "tmpfs");
    docker(cove, "rm -f follower recluse").ok();
    with_rights(&["umount", "/p/inner"]);
}
