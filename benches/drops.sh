#!/usr/bin/env bash
# What a packet that the kernel drops costs while a policy looks at drops, and the packet is nobody's: datagrams to ports that nobody
# listens to, in a network namespace of their own, beside a run with a filter at a _DISCARD layer. The kernel itself counts the runs
# of the program and their time (kernel.bpf_stats_enabled, set meanwhile); reading the clock for that is a part of the figure.
#
#   benches/drops.sh          as root; needs bpftool, python3. ROUNDS and DATAGRAMS may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${ROUNDS:-9}
datagrams=${DATAGRAMS:-200000}
# what runs in the kernel is the same, however wfp was built
cargo build -q -p openwfp-cli --bin wfp
wfp=${CARGO_TARGET_DIR:-$PWD/target}/debug/wfp
work=$(mktemp -d)
before=$(sysctl -n kernel.bpf_stats_enabled)
cleanup() {
    sysctl -q -w kernel.bpf_stats_enabled="$before"
    exec 3>&- || true
    wait || true
    rm -rf "$work"
}
trap cleanup EXIT
cat > "$work/policy.toml" <<'POLICY'
[[filter]]
name   = "drops are looked at"
layer  = "INBOUND_TRANSPORT_V4_DISCARD"
action = "block"
when   = { IP_REMOTE_PORT = 1 }
POLICY
# the run goes on until this end is closed
mkfifo "$work/input"
"$wfp" run -q -p "$work/policy.toml" -- sh -c 'echo ready; cat' <"$work/input" >"$work/output" &
exec 3>"$work/input"
until grep -q ready "$work/output"; do sleep 0.05; done
# the one that was loaded last
program=$(bpftool -j prog show name kernel_drop | python3 -c '
import json, sys
found = json.load(sys.stdin)
print(max(each["id"] for each in (found if isinstance(found, list) else [found])))')
stats() { # its time in ns, its runs
    bpftool -j prog show id "$program" | python3 -c '
import json, sys
found = json.load(sys.stdin)
print(found.get("run_time_ns", 0), found.get("run_cnt", 0))'
}
sysctl -q -w kernel.bpf_stats_enabled=1
for _ in $(seq "$rounds"); do
    read -r time runs < <(stats)
    unshare --net bash -c "ip link set lo up && exec python3 -c '
import socket
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range($datagrams):
    out.sendto(bytes(18), (\"127.0.0.1\", 9))'"
    read -r later more < <(stats)
    echo "$((later - time)) $((more - runs))"
done | awk '{ print $1 / $2, $2 }' | sort -n | awk '
    { each[NR] = $1; runs += $2 }
    END { printf "%d drops; of %d rounds %.0f to %.0f ns each, median %.0f\n", runs, NR, each[1], each[NR], each[int((NR + 1) / 2)] }'
