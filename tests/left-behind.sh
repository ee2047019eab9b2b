#!/usr/bin/env bash
# What the tests could leave behind: control groups, loaded and pinned programs, mounts, network namespaces, processes.
#
#   tests/left-behind.sh note FILE    writes down what there is before the tests
#   tests/left-behind.sh check FILE   fails when there is more now, and says what
#
# What ends is taken away by the kernel a moment later, so the check waits for up to ten seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

groups() { # of runs, and those that tests make; the folder that holds the runs may stay
    local point kind
    while read -r _ point kind _; do
        [ "$kind" = cgroup2 ] || continue
        find "$point" -mindepth 1 -type d \( -path '*/openwfp/*' -o -name 'openwfp-*' -o -name 'wfp-*' \) 2>/dev/null || true
    done </proc/mounts | sed 's/^/control group /'
}

pins() {
    find /sys/fs/bpf /run/wfp/bpf -mindepth 1 2>/dev/null | sed 's/^/pin /' || true
}

mounts() { # but for the folder that `ip netns` makes when it is first used, and leaves
    awk '{ kind = ""; for (i = 7; i < NF; i++) if ($i == "-") kind = $(i + 1); if ($5 != "/run/netns") print "mount " $5 " of " kind }' /proc/self/mountinfo
}

network_namespaces() { # named ones, and those that only a process holds
    find /run/netns -mindepth 1 2>/dev/null | sed "s/^/network namespace /" || true
    local process name
    for process in /proc/[0-9]*; do
        name=$(readlink "$process/ns/net" 2>/dev/null) && echo "network namespace $name" || true
    done
}

processes() { # of programs that were built here; this check's own ends before it is looked at
    local process program
    for process in /proc/[0-9]*; do
        program=$(readlink "$process/exe" 2>/dev/null) || continue
        case "$program" in "$target"/*) echo "process ${process#/proc/} $program" ;; esac
    done
}

all() {
    "$target/debug/examples/loaded"
    groups; pins; mounts; network_namespaces; processes
}

[ "$#" = 2 ] || { echo "usage: tests/left-behind.sh note|check FILE" >&2; exit 2; }
cargo build --quiet --locked -p openwfp-kernel --example loaded
case "$1" in
note) all | LC_ALL=C sort -u >"$2" ;;
check)
    now=$(mktemp) SECONDS=0
    trap 'rm -f "$now"' EXIT
    until [ "$SECONDS" -ge 10 ]; do
        all | LC_ALL=C sort -u >"$now"
        more=$(LC_ALL=C comm -13 "$2" "$now")
        [ -n "$more" ] || { echo "nothing is left behind"; exit 0; }
        sleep 0.2
    done
    sed 's/^/left behind: /' <<<"$more"
    exit 1
    ;;
*) echo "tests/left-behind.sh: $1 is neither note nor check" >&2; exit 2 ;;
esac
