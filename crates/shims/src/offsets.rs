//! Where kernel members are, and loads from there.
//!
//! No kernel structure is compiled in. Every offset is a constant in `.rodata`, zero in the object
//! file, which the loader sets from the running kernel's BTF; `.rodata` is frozen before the
//! programs are verified, so the verifier knows each number.
//!
//! Loads go through pointers whose type the verifier follows from the program's arguments on
//! ("typed loads"): it checks each against BTF, and a fault reads as zero. They cost a plain load,
//! where `bpf_probe_read_kernel` costs a call for each.

/// Reads a constant that the loader set.
macro_rules! constant {
    ($name:ident) => {
        // SAFETY: the address of a static. Volatile, else LLVM would fold the zero of the object file.
        unsafe { core::ptr::read_volatile(&raw const $name) }
    };
}

macro_rules! declare_offsets {
    ($($name:ident = $member:literal;)*) => {
        /// The constants themselves, under the names by which the loader finds them.
        #[allow(dead_code)]
        mod statics {
            $(#[doc = $member] #[unsafe(no_mangle)] pub static $name: u32 = 0;)*
        }
        $(
            #[doc = concat!("Bytes from the start of the structure to `", $member, "`.")]
            #[inline(always)]
            #[allow(non_snake_case, dead_code)]
            pub fn $name() -> usize {
                use statics::$name;
                constant!($name) as usize
            }
        )*
    };
}
openwfp_abi::kernel_members!(declare_offsets);

macro_rules! declare_bits {
    ($($name:ident = $member:literal;)*) => {
        #[allow(dead_code)]
        mod bit_statics {
            $(#[doc = $member] #[unsafe(no_mangle)] pub static $name: u32 = 0;)*
        }
        $(
            #[doc = concat!("The bit `", $member, "` of a structure.")]
            #[allow(non_snake_case, dead_code)]
            #[inline(always)]
            pub fn $name(structure: Pointer) -> bool {
                use bit_statics::$name;
                let place = constant!($name);
                let byte: u8 = load(structure, (place / 8) as usize);
                byte >> (place % 8) & 1 != 0
            }
        )*
    };
}
openwfp_abi::kernel_bits!(declare_bits);

/// Where the two bits of `sk_buff.ip_summed` are, in bits.
#[inline(always)]
#[allow(non_snake_case)]
pub fn PACKET_SUMMED_PLACE() -> u32 {
    use bit_statics::PACKET_SUMMED;
    constant!(PACKET_SUMMED)
}

/// Where `sock_common.skc_ipv6only` is, in bits.
#[inline(always)]
#[allow(non_snake_case)]
pub fn SOCK_IPV6ONLY_PLACE() -> u32 {
    use bit_statics::SOCK_IPV6ONLY;
    constant!(SOCK_IPV6ONLY)
}

macro_rules! declare_settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        #[allow(dead_code)]
        mod settings {
            $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: $type = 0;)*
        }
        $(
            $(#[$doc])*
            #[inline(always)]
            #[allow(non_snake_case, dead_code)]
            pub fn $name() -> $type {
                use settings::$name;
                constant!($name)
            }
        )*
    };
}
openwfp_abi::settings!(declare_settings);

/// A pointer to a kernel structure whose type the verifier knows.
pub type Pointer = *const u8;

/// A member's value; zero when the kernel could not read it.
#[inline(always)]
pub fn load<T: Copy>(structure: Pointer, offset: usize) -> T {
    // SAFETY: the verifier refuses the program unless a member of this size is at this offset of
    // the structure; a pointer that has become invalid reads as zero. Volatile, so that LLVM does
    // not merge neighbouring loads into one that would cross members.
    unsafe { core::ptr::read_volatile(structure.add(offset).cast::<T>()) }
}

/// A member that points to another structure; `None` when it is null or could not be read.
#[inline(always)]
pub fn pointer(structure: Pointer, offset: usize) -> Option<Pointer> {
    let target: Pointer = load(structure, offset);
    if target.is_null() { None } else { Some(target) }
}
