//! The fuzz target for images, run over its seeds, over images of random policies, and over damaged ones.

#[path = "../../../fuzz/bodies/image.rs"]
mod body;
#[path = "common/oracle.rs"]
#[allow(dead_code)]
mod oracle;
#[path = "common/random.rs"]
#[allow(dead_code)]
mod random;

use openwfp_engine::compile_objects;
use std::{fs, path::Path};

#[test]
fn seeds_and_damaged_images_are_read_or_refused() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/image");
    let mut seen = 0;
    for entry in fs::read_dir(seeds).expect("the seeds are in the tree") {
        body::check(&fs::read(entry.expect("readable").path()).expect("readable"));
        seen += 1;
    }
    assert!(seen > 0);
    let mut random = random::Random::new(11);
    for _ in 0..200 {
        let policy = random::policy(&mut random, 30);
        let compiled = compile_objects(1, &policy.sublayers, policy.filters, &[]).expect("a small policy");
        let mut bytes = compiled.image().to_bytes();
        body::check(&bytes);
        for _ in 0..5 {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            body::check(&bytes);
        }
        bytes.truncate(random.below(bytes.len()));
        body::check(&bytes);
    }
}
