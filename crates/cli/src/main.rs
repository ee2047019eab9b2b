//! wfp
fn main() {}
