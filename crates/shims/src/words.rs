//! Records moved word by word.
//!
//! LLVM makes calls to `memset` and `memcpy` out of plain assignments, which BPF has not. Volatile
//! words stay words. Every record of `openwfp-abi` consists of whole 8-byte words.

/// Sets a record to zero.
///
/// # Safety
/// `record` is valid for writes, aligned to 8 bytes, and zeros are a valid `T`.
#[inline(always)]
pub unsafe fn zero<T>(record: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: within the record.
        unsafe { record.cast::<u64>().add(word).write_volatile(0) };
    }
}

/// Copies a record.
///
/// # Safety
/// `from` is valid for reads, `to` for writes, both aligned to 8 bytes.
#[inline(always)]
pub unsafe fn copy<T: Copy>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: within the records.
        unsafe {
            let value = from.cast::<u64>().add(word).read_volatile();
            to.cast::<u64>().add(word).write_volatile(value);
        }
    }
}
