//! The rules together, on a small tree on disk.

use std::fs;

use super::*;

#[test]
fn a_tree_with_a_fault_fails_as_a_whole() {
    let folder = std::env::temp_dir().join(format!("riverrun-tidy-{}", std::process::id()));
    fs::create_dir_all(folder.join("target")).unwrap();
    fs::write(folder.join("target/skipped.rs"), "todo!()").unwrap();
    fs::write(folder.join("build.rs"), "//! Builds nothing at all.\n").unwrap();
    let clean = run(&folder);
    fs::write(folder.join("README.md"), "[gone](gone.md)\n").unwrap();
    let faulty = run(&folder);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(clean, Ok(()));
    assert_eq!(faulty, Err("tidy found 1 places to mend".to_owned()));
}
