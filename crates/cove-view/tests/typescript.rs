//! The front end's generated types are those of this crate.

use std::{fs, path::Path};

#[test]
fn the_front_ends_types_are_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/src/lib/host/types.gen.ts");
    let wanted = cove_view::typescript::module();
    if std::env::var_os("COVE_UPDATE_TYPES").is_some() {
        fs::write(&file, &wanted).expect("cannot write the types");
    }
    let found = fs::read_to_string(&file).expect("cannot read the types");
    assert!(
        found == wanted,
        "{} is stale; make it again: COVE_UPDATE_TYPES=1 cargo test -p cove-view",
        file.display()
    );
}
