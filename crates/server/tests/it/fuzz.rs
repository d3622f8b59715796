//! The seeds of the doors' fuzz targets, played as a fuzzer would (`fuzz/src`): the targets compile, and
//! what they found once is not found again.

use std::{fs, path::Path};

#[path = "../../../../fuzz/src/lib.rs"]
mod targets;

fn play(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut n_seeds = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // Tells whose the panic is that may follow.
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
        n_seeds += 1;
    }
    assert!(n_seeds > 0, "{} has no seeds", folder.display());
}

#[test]
fn consumers() {
    play("consumers", targets::consumers::check);
}

#[test]
fn kinesis() {
    play("kinesis", targets::kinesis::check);
}

#[test]
fn mapped() {
    play("mapped", targets::mapped::check);
}

#[test]
fn marks() {
    play("marks", targets::marks::check);
}

#[test]
fn produce() {
    play("produce", targets::produce::check);
}

#[test]
fn signature() {
    play("signature", targets::signature::check);
}

#[test]
fn v3() {
    play("v3", targets::v3::check);
}
