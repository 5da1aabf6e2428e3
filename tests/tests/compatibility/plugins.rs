//! Plugins of the engine.

use crate::docker;
use cove_tests::harness::Cove;
use std::fs;

/// As `docker plugin create` wants it: who answers which interface at which socket, and which directory's mounts the
/// engine is to see.
const CONFIG: &str = r#"{
    "description": "volumes as directories",
    "documentation": "https://docs.docker.com/engine/extend/plugins_volume/",
    "entrypoint": ["/cove-volumes"],
    "workdir": "/",
    "interface": { "types": ["docker.volumedriver/1.0"], "socket": "volumes.sock" },
    "network": { "type": "none" },
    "propagatedMount": "/data",
    "linux": { "capabilities": [] }
}"#;

pub(crate) fn a_volume_plugin_serves_volumes_from_create_to_remove(cove: &Cove) {
    let directory = cove.scratch().join("plugin");
    let root = directory.join("rootfs");
    fs::create_dir_all(root.join("data")).unwrap();
    fs::create_dir_all(root.join("run/docker/plugins")).unwrap();
    let program = cove.kit().volumes.as_ref().unwrap();
    fs::copy(program, root.join("cove-volumes")).unwrap();
    fs::write(directory.join("config.json"), CONFIG).unwrap();
    docker(cove, "plugin create folders:1").arg(&directory).ok();
    docker(cove, "plugin enable folders:1").ok();

    docker(cove, "volume create -d folders:1 --opt seed=sown garden").ok();
    let mounts = || {
        docker(
            cove,
            "volume inspect --format {{.Driver}}/{{.Status.mounts}} garden",
        )
        .ok()
    };
    assert_eq!(mounts(), "folders:1/0");
    docker(cove, "run -d --name gardener -v garden:/g alpine sh -c")
        .arg("cat /g/seed > /g/plant; until [ -e /g/harvest ]; do sleep 0.1; done; cat /g/harvest")
        .ok();
    assert_eq!(mounts(), "folders:1/1");
    // The same directory, in another container at the same time.
    docker(cove, "run --rm -v garden:/g alpine sh -c")
        .arg("until [ -s /g/plant ]; do sleep 0.1; done; cp /g/plant /g/new; mv /g/new /g/harvest")
        .ok();
    assert_eq!(docker(cove, "wait gardener").ok(), "0");
    assert_eq!(docker(cove, "logs gardener").ok(), "sown");
    assert_eq!(mounts(), "folders:1/0");
    docker(cove, "plugin disable folders:1")
        .run()
        .fails_with(1)
        .says(&["is in use"]);
    docker(cove, "rm gardener").ok();
    docker(cove, "volume rm garden").ok();
    assert_eq!(docker(cove, "volume ls -q --filter driver=folders:1").ok(), "");
    docker(cove, "plugin disable folders:1").ok();
    docker(cove, "plugin rm folders:1").ok();
}
