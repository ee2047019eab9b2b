#!/usr/bin/env bash
# Builds the eBPF object from its sources and compares it with the one in the tree. Installs the toolchain where it can
# (as root, with apt-get); where the packages cannot be had a line says so.
set -euo pipefail
cd "$(dirname "$0")/.."
object=crates/kernel/shims/openwfp.bpf.o
if [ ! -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/bpfel-unknown-none" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "skipped: no Rust compiler for bpfel-unknown-none, and no way to install one"
        exit 0
    fi
    apt-get update -qq || true
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq rustc-web libstd-rust-web-dev-bpf llvm >/dev/null; then
        echo "skipped: the packages rustc-web and libstd-rust-web-dev-bpf cannot be had"
        exit 0
    fi
fi
if ! command -v bpf-linker >/dev/null && [ ! -x "${CARGO_HOME:-$HOME/.cargo}/bin/bpf-linker" ]; then
    library=$(find /usr/lib -name 'libLLVM.so.22*' | head -n 1)
    [ -n "$library" ] || { echo "skipped: bpf-linker needs libLLVM 22"; exit 0; }
    mkdir -p target/llvm
    ln -sf "$library" target/llvm/libLLVM.so
    RUSTFLAGS="-L $PWD/target/llvm" cargo install --quiet bpf-linker --version 0.13.0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# a copy, so that the tree stays as it is
mkdir "$work/tree"
cp -r crates Cargo.toml Cargo.lock "$work/tree/"
rm -f "$work/tree/$object"
(cd "$work/tree" && CARGO_TARGET_DIR="$work/target" crates/shims/build.sh)
if cmp "$object" "$work/tree/$object"; then
    echo "the object is what its sources give"
else
    tools() { grep '^#' "$1/crates/kernel/shims/openwfp.bpf.manifest" | sort; }
    if [ "$(tools .)" = "$(tools "$work/tree")" ]; then exit 1; fi
    echo "skipped: the object was built with other versions of the tools"
fi
