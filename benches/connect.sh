#!/usr/bin/env bash
# What a filtered connect() and close() cost: no policy, `wfp run`, and nftables, side by side in one run; and what a refused
# connect() alone costs (wfp-refused). Then what a start costs, and the kernel program by the kernel's own statistics.
# As root. Everything happens on the loopback of a network namespace that is made for this and taken away again.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${COUNT:-20000}
rounds=${ROUNDS:-7}
cargo build --release -q --bin wfp --example connect_loop --example measure
target=${CARGO_TARGET_DIR:-$PWD/target}/release
wfp=$target/wfp loop=$target/examples/connect_loop
work=$(mktemp -d)
ns=wfp-bench-$$
cpu=$(($(nproc) - 1))
cleanup() {
    kill "${server:-0}" 2>/dev/null || true
    ip netns delete "$ns" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
ip netns add "$ns"
# nsenter keeps the mounts, so that the control groups can still be seen
# All on one CPU: what is measured is a call, not how soon another CPU wakes up.
in_ns() { taskset -c "$cpu" nsenter --net="/run/netns/$ns" "$@"; }
in_ns ip link set lo up
# not by the function: that would be a shell of its own, and the server would outlive it with our standard output open
taskset -c "$cpu" nsenter --net="/run/netns/$ns" "$loop" serve 9000 & server=$!
sleep 0.5

policy() { # filters, then one that refuses port 9001
    local n
    for n in $(seq 1 "$1"); do
        printf '[[filter]]\nname = "network %d"\nlayer = "ALE_AUTH_CONNECT"\naction = "block"\n' "$n"
        printf '[filter.when]\nIP_REMOTE_ADDRESS = "10.%d.%d.0/24"\nIP_REMOTE_PORT = %d\n' $((n / 250)) $((n % 250)) $((1000 + n))
    done
    printf '[[filter]]\nname = "port 9001"\nlayer = "ALE_AUTH_CONNECT"\naction = "block"\nwhen = { IP_REMOTE_PORT = 9001 }\n'
}
policy 100 >"$work/100.toml"
policy 1000 >"$work/1000.toml"
rules() {
    printf 'table inet bench {\nchain out {\ntype filter hook output priority 0; policy accept;\n'
    for n in $(seq 1 "$1"); do echo "ip daddr 10.$((n / 250)).$((n % 250)).0/24 tcp dport $((1000 + n)) drop"; done
    printf '}\n}\n'
}

measure() { # name command...
    local name=$1; shift
    "$@" | awk -v name="$name" '{print name, $1}' >>"$work/times"
}
for _ in $(seq "$rounds"); do
    measure none in_ns "$loop" connect 9000 "$count"
    measure wfp-100 in_ns "$wfp" run -q -p "$work/100.toml" -- "$loop" connect 9000 "$count"
    measure wfp-1000 in_ns "$wfp" run -q -p "$work/1000.toml" -- "$loop" connect 9000 "$count"
    measure wfp-refused in_ns "$wfp" run -q -p "$work/1000.toml" -- "$loop" refused 9001 "$count"
    for n in 100 1000; do
        rules "$n" | in_ns nft -f -
        measure "nft-$n" in_ns "$loop" connect 9000 "$count"
        in_ns nft delete table inet bench
    done
done
printf '[[filter]]\nname = "x"\nlayer = "ALE_AUTH_CONNECT"\naction = "block"\nwhen = { IP_REMOTE_PORT = 81 }\n' >"$work/one.toml"
start() { # name command...
    local name=$1 before; shift
    before=$(date +%s%N)
    "$@"
    echo "$name $((($(date +%s%N) - before) / 1000))" >>"$work/starts"
}
for _ in $(seq "$rounds"); do
    start "true" true
    start "wfp run, one layer" "$wfp" run -q -p "$work/one.toml" -- true
    start "wfp run, all layers recorded" "$wfp" run -q -p "$work/one.toml" --events /dev/null -- true
done
python3 - "$work/times" "$work/starts" <<'PY'
import statistics, sys
times = {}
for line in open(sys.argv[1]):
    name, ns = line.split()
    times.setdefault(name, []).append(int(ns))
base = statistics.median(times["none"])
print(f"{'':12} {'median ns':>10} {'against none':>13}   least .. most")
for name, all in times.items():
    median = statistics.median(all)
    print(f"{name:12} {median:10.0f} {median / base:13.3f}   {min(all)} .. {max(all)}")
starts = {}
for line in open(sys.argv[2]):
    name, us = line.rsplit(" ", 1)
    starts.setdefault(name, []).append(int(us) / 1000)
for name, all in starts.items():
    print(f"{name:32} {statistics.median(all):8.1f} ms")
PY
"$target/examples/measure"
