//! A smaller blob: type aliases alone.

use super::{Btf, BtfError, HEADER_BYTES, MAGIC, TYPE_BYTES, kind};

impl Btf {
    /// A blob with the type aliases of these names under the numbers that they have here, and nothing else of meaning.
    ///
    /// A reader that knows the kernel's hundred thousand types takes its time; this one has hardly anything to read.
    pub fn typedefs_alone(&self, names: &[String]) -> Result<Vec<u8>, BtfError> {
        let mut strings = vec![0u8];
        let mut named = Vec::with_capacity(names.len());
        for name in names {
            let found = self.types.iter().position(|ty| ty.kind() == kind::TYPEDEF && self.is_named(ty.name, name));
            let index = found.ok_or_else(|| BtfError::NoStructure { structure: name.clone() })?;
            named.push((index, strings.len() as u32));
            strings.extend(name.bytes().chain([0]));
        }
        let count = named.iter().map(|(index, _)| index + 1).max().unwrap_or(0);
        let length = (count * TYPE_BYTES) as u32;
        let mut blob = Vec::with_capacity(HEADER_BYTES + length as usize + strings.len());
        blob.extend(MAGIC.to_ne_bytes());
        blob.extend([1, 0]); // version, flags
        for word in [HEADER_BYTES as u32, 0, length, length, strings.len() as u32] {
            blob.extend(word.to_ne_bytes());
        }
        let pointer_to_nothing = [0, kind::POINTER << 24, 0].map(u32::to_ne_bytes).concat();
        blob.extend(pointer_to_nothing.repeat(count));
        for (index, name) in named {
            let at = HEADER_BYTES + index * TYPE_BYTES;
            let alias = [name, kind::TYPEDEF << 24, 0].map(u32::to_ne_bytes).concat();
            if let Some(place) = blob.get_mut(at..at + TYPE_BYTES) {
                place.copy_from_slice(&alias);
            }
        }
        blob.extend(strings);
        Ok(blob)
    }
}
