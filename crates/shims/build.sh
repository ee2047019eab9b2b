#!/bin/sh
# Builds the eBPF programs: crates/kernel/shims/openwfp.bpf.o, which is committed, and the manifest
# beside it, which says from which sources and with which tools it was made.
#
#   crates/shims/build.sh           builds both anew; installs nothing
#   crates/shims/build.sh --check   fails when a source has changed since; needs no toolchain
#
# Two builds in different folders give the same bytes. CARGO_TARGET_DIR, BPF_RUSTC (a rustc with core
# for bpfel-unknown-none), BPF_LINKER, LLVM_OBJCOPY and LLVM_NM may be set.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
object=crates/kernel/shims/openwfp.bpf.o
manifest=crates/kernel/shims/openwfp.bpf.manifest
cd "$root"

# Lines of sha256sum; all others of the manifest begin with #.
if [ "${1:-}" = --check ]; then
    if grep -v '^#' "$manifest" | sha256sum --check --quiet --strict; then
        exit 0
    fi
    echo "$object does not belong to these sources: run crates/shims/build.sh" >&2
    exit 1
elif [ $# -gt 0 ]; then
    echo "usage: $0 [--check]" >&2
    exit 2
fi

rustc=${BPF_RUSTC:-/usr/bin/rustc}
linker=${BPF_LINKER:-$(command -v bpf-linker || echo "${CARGO_HOME:-$HOME/.cargo}/bin/bpf-linker")}
# llvm-NAME, or the newest llvm-NAME-VERSION
llvm() {
    (cd /usr/bin && ls "llvm-$1-"[0-9]* 2>/dev/null | sort -rV | sed 's,^,/usr/bin/,' | head -n 1) | grep . || command -v "llvm-$1" || :
}
objcopy=${LLVM_OBJCOPY:-$(llvm objcopy)}
nm=${LLVM_NM:-$(llvm nm)}
missing=
[ -x "$rustc" ] && [ -d "$("$rustc" --print sysroot)/lib/rustlib/bpfel-unknown-none" ] || missing="$missing
  a Rust compiler with core for bpfel-unknown-none:
    apt-get install rustc-web libstd-rust-web-dev-bpf"
[ -x "$linker" ] || missing="$missing
  bpf-linker, built against the LLVM of that compiler:
    mkdir -p target/llvm && ln -sf /usr/lib/x86_64-linux-gnu/libLLVM.so.22.1 target/llvm/libLLVM.so
    RUSTFLAGS=\"-L \$PWD/target/llvm\" cargo install bpf-linker --version 0.13.0"
[ -n "$objcopy" ] && [ -n "$nm" ] || missing="$missing
  llvm-objcopy and llvm-nm:
    apt-get install llvm"
if [ -n "$missing" ]; then
    echo "missing:$missing" >&2
    exit 1
fi

target=${CARGO_TARGET_DIR:-$here/target}
cargo=${CARGO_HOME:-$HOME/.cargo}
(
    cd "$here"
    # The target is known to stable compilers, but its core and the intrinsics for atomic
    # instructions are not: RUSTC_BOOTSTRAP lets them in.
    env -u RUSTC_WRAPPER -u CARGO_ENCODED_RUSTFLAGS RUSTC="$rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$target" \
        RUSTFLAGS="-C linker=$linker -C link-arg=--btf -C target-cpu=v3 -C debuginfo=2 \
            --remap-path-prefix=$root=/openwfp --remap-path-prefix=$cargo=/cargo" \
        cargo build --locked --release --target bpfel-unknown-none
)
built=$target/bpfel-unknown-none/release/openwfp
mkdir -p "$(dirname "$object")"
# The debugging sections go, BTF stays. Functions that are not inlined lose the hash in their names, which
# depends on the folder: Cs…_7openwfp becomes C7openwfp, the same name without a disambiguator.
names=$(mktemp)
trap 'rm -f "$names"' EXIT
"$nm" --format=just-symbols "$built" | awk '/^_R/ { name = $0; gsub(/Cs[0-9A-Za-z]+_/, "C"); print name, $0 }' >"$names"
"$objcopy" --strip-debug --redefine-syms="$names" "$built" "$object"

# The sources, as the compiler lists them.
sources=$(sed 's/^[^:]*: *//' "$built.d" | tr ' ' '\n' | sed -n "s,^$root/,,p")
{
    echo "# $object, made by crates/shims/build.sh with"
    echo "# $("$rustc" --version)"
    echo "# $("$linker" --version)"
    {
        echo "$sources"
        echo crates/shims/Cargo.toml
        echo crates/shims/Cargo.lock
        echo crates/shims/build.sh
        echo "$sources" | sed -n 's,^\(crates/[^/]*\)/.*,\1/Cargo.toml,p'
        echo "$object"
    } | sort -u | xargs sha256sum
} >"$manifest"
echo "$object: $(wc -c <"$object") bytes"
