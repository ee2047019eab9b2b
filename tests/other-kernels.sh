#!/bin/sh
# Runs the tests that need BPF, or another program, under other kernels, in qemu.
#
#   tests/other-kernels.sh [FOLDER [VERSION...]]
#
# Without FOLDER the tests of crates/kernel are built (static) and run: programs are labelled, the filtering programs
# attached, connects refused and permitted with the caller named, random policies compared with the naive matcher. And so is wfp,
# for `wfp run` with policies and events (other-kernels/run-a-command). Nothing may be skipped there but what that version of Linux
# has not; this is said.
#
# FOLDER is copied to /test of an initramfs that has busybox; /test/run in it is executed as root and
# its exit status counts. What FOLDER holds must be static or bring its libraries. VERSION is the
# beginning of a kernel version in Debian's archive (default: 6.1 and 6.12). KERNELS names the
# folder where the packages are kept (default: ~/.cache/openwfp/kernels); nothing is installed. ACCEL=kvm
# is faster where it works; APPEND goes to the kernel's command line (preempt=full).
#
# Without qemu, busybox-static or the packages a line says so, and the kernel is passed over.
# Exit status: 0 all that ran passed; 1 one failed; 2 wrong usage.
set -u

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

for tool in qemu-system-x86_64 busybox dpkg-deb apt-get; do
    command -v "$tool" >/dev/null || {
        echo "skipped: no $tool (apt-get install qemu-system-x86 busybox-static)"
        exit 0
    }
done

# The tests of crates/kernel, and a script that runs them.
tests() {
    host=x86_64-unknown-linux-gnu
    here=$(cd "$(dirname "$0")/.." && pwd)
    mkdir "$work/tests" || exit 1
    (cd "$here" && RUSTFLAGS="-C target-feature=+crt-static" cargo test --quiet --no-run --target $host -p openwfp-kernel \
        --message-format json --test verifier --test kernel_values --test labels --test enforce \
        --test inbound --test address_versions --test kernel_drops --test unix --test layers \
        --test kernel_oracle --test nesting) >"$work/built" || exit 1
    (cd "$here" && RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --target $host -p openwfp-cli --bin wfp \
        --message-format json) >"$work/built-wfp" || exit 1
    cp "$here"/tests/other-kernels/* "$work/tests/"
    # the executables, from cargo's messages
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$work/built" "$work/built-wfp" | while read -r file; do
        name=$(basename "$file")
        cp "$file" "$work/tests/${name%-*}"
        strip "$work/tests/${name%-*}"
    done
    cat >"$work/tests/run" <<'RUN'
#!/bin/sh
failed=0
# tests that cannot run here fail, but for those that no kernel of this version could run
export WFP_TEST_EVERYTHING=1
run() {
    ./"$@" --test-threads=1 >/tmp/output 2>&1 || { failed=1; cat /tmp/output; }
    grep -o 'skipped: .*' /tmp/output | sort -u | sed "s/^/$1: /"
    grep '^test result' /tmp/output | sed "s/^/$1: /"
}
./run-a-command || failed=1
run verifier
run kernel_values
# the others need tools that busybox has not
run labels a_program_is_named groups_below
run enforce
run inbound
run address_versions
run kernel_drops a_datagram_for a_filter_at what_the_programs_of_a_group
run unix
run layers
run nesting
# a sample: emulated processors are slow
export OPENWFP_CASES=16
run kernel_oracle random_policies
exit $failed
RUN
    chmod +x "$work/tests/run"
}

if [ $# -eq 0 ]; then
    tests
    folder=$work/tests
elif [ -x "$1/run" ]; then
    folder=$(cd "$1" && pwd)
    shift
else
    echo "usage: $0 [FOLDER [VERSION...]]   (FOLDER/run is executed)" >&2
    exit 2
fi
[ $# -gt 0 ] || set -- 6.1 6.12
kernels=${KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/openwfp/kernels}
timeout=${TIMEOUT:-1800}
mkdir -p "$kernels" || exit 1
# The package of a version: the newest one for cloud machines, which is small and has the drivers of qemu.
package() {
    name=$(echo "$1" | sed 's/[.]/[.]/g')
    apt-cache pkgnames linux-image-"$1" |
        grep -E "^linux-image-$name[.0-9+a-z-]*-cloud-amd64(-unsigned)?\$" | grep -vE "^linux-image-$name[0-9]" |
        sort -V | tail -n 1
}

# The file of a package in $kernels, downloaded when it is not there.
image() {
    for file in "$kernels/$1"_*.deb; do
        [ -e "$file" ] && { echo "$file"; return 0; }
    done
    (cd "$kernels" && apt-get -qq download "$1" >/dev/null 2>&1) || return 1
    for file in "$kernels/$1"_*.deb; do
        [ -e "$file" ] && { echo "$file"; return 0; }
    done
    return 1
}

initramfs() {
    root=$work/root
    mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/run" "$root/etc" "$root/modules"
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp -RL "$folder" "$root/test"
    printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TMPDIR=/tmp
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
for module in /modules/*.ko; do [ -e "$module" ] && insmod "$module"; done
echo "kernel: $(uname -r)"
cd /test && ./run
echo "status: $?"
poweroff -f
INIT
    chmod +x "$root/init"
}

initramfs
failed=0
for version; do
    name=$(package "$version")
    [ -n "$name" ] || { echo "skipped: Linux $version: no package in apt's lists (apt-get update)"; continue; }
    file=$(image "$name") || { echo "skipped: Linux $version: $name cannot be downloaded"; continue; }
    rm -rf "$work/package" "$work/root/modules"
    mkdir -p "$work/package" "$work/root/modules"
    dpkg-deb -x "$file" "$work/package" || { echo "skipped: Linux $version: $file is damaged"; continue; }
    # modules in Debian's kernels; each after those that it needs, in the order of their names
    for module in inet_diag overlay tcp_diag; do
        find "$work/package" -name "$module.ko*" | while read -r file; do
            case $file in
            *.xz) xz -dc "$file" >"$work/root/modules/$module.ko" ;;
            *) cp "$file" "$work/root/modules/" ;;
            esac
        done
    done
    (cd "$work/root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd.gz"
    echo "== Linux $version ($name)"
    timeout "$timeout" qemu-system-x86_64 -machine accel=${ACCEL:-tcg} -cpu max -smp 2 -m 1024 -nographic \
        -no-reboot -nic none -kernel "$work"/package/boot/vmlinuz-* -initrd "$work/initrd.gz" \
        -append "console=ttyS0 quiet panic=-1 ${APPEND:-}" </dev/null 2>/dev/null |
        tr -d '\r' | tee "$work/output" | sed -n 's/.*\(kernel: \)/\1/; /^kernel: /,/^status: /p'
    if grep -q '^status: 0$' "$work/output"; then
        echo "== Linux $version: passed"
    else
        echo "== Linux $version: FAILED"
        failed=1
    fi
done
exit $failed
