//! What the image target checks; also run over the seeds by an ordinary test.

use openwfp_engine::{Cell, MAX_STEPS, PolicyImage, Silent, Values, classify, words};

/// Reads the bytes as an image, and walks them as cells even when they are none.
pub fn check(bytes: &[u8]) {
    if let Ok(image) = PolicyImage::from_bytes(bytes) {
        assert_eq!(image.to_bytes(), bytes, "an image is its bytes");
    }
    let word = |chunk: &[u8], n: usize| u32::from_le_bytes([chunk[n], chunk[n + 1], chunk[n + 2], chunk[n + 3]]);
    let cells: Vec<Cell> = bytes
        .chunks_exact(16)
        .map(|chunk| Cell::new(word(chunk, 0), word(chunk, 4), word(chunk, 8), word(chunk, 12)))
        .collect();
    let mut values = Values::new();
    for (number, chunk) in bytes.chunks_exact(4).take(8).enumerate() {
        values.set(number, word(chunk, 0));
    }
    values.set_unknown(words::ALE_APP_ID);
    for layer in [0, 12, 48, 50, 98] {
        let verdict = classify(&cells[..], layer, &values, &mut Silent);
        assert!(verdict.steps <= MAX_STEPS);
    }
}
