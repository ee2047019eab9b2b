#!/usr/bin/env bash
# What a filtered connect() and close() cost: no policy, `wfp run`, and nftables, side by side in one run; and what a refused
# connect() alone costs (wfp-refused). Then what a start costs, and the kernel program by the kernel's own statistics.
# As root. Everything happens on the loopbacks of network namespaces that are made for this and taken away again.
#
# All clients are started first and take turns of COUNT connects each, ROUNDS times. Before and after each turn is one without a
# policy, with whose mean it is compared: whatever else slows the machine down meets all three. "none again" is compared so too,
# and shows how far the comparison itself is off. Client and server are on one CPU: what is measured is a call, not how soon
# another CPU wakes up. "wfp-100 owner": one filter asks for the application.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${COUNT:-500}
rounds=${ROUNDS:-150}
starts=${STARTS:-7}
cargo build --release -q --bin wfp --example connect_loop --example measure
target=${CARGO_TARGET_DIR:-$PWD/target}/release
wfp=$target/wfp loop=$target/examples/connect_loop
work=$(mktemp -d)
cpu=$(($(nproc) - 1))
namespaces=()
servers=()
cleanup() {
    [ "${#servers[@]}" = 0 ] || kill "${servers[@]}" 2>/dev/null || true
    for name in "${namespaces[@]}"; do ip netns delete "$name" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
# nsenter keeps the mounts, so that the control groups can still be seen
inside() { local name=$1; shift; taskset -c "$cpu" nsenter --net="/run/netns/$name" "$@"; }
namespace() { # name: with a server on port 9000
    ip netns add "$1"
    namespaces+=("$1")
    inside "$1" ip link set lo up
    # not by the function: that would be a shell of its own, and the server would outlive it with our standard output open
    taskset -c "$cpu" nsenter --net="/run/netns/$1" "$loop" serve 9000 &
    servers+=($!)
}
ns=wfp-bench-$$
for name in "$ns" "$ns-100" "$ns-1000"; do namespace "$name"; done
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
{ policy 100; printf '[[filter]]\nname = "cat"\nlayer = "ALE_AUTH_CONNECT"\naction = "block"\nwhen = { ALE_APP_ID = "/bin/cat" }\n'; } >"$work/100 owner.toml"
rules() {
    printf 'table inet bench {\nchain out {\ntype filter hook output priority 0; policy accept;\n'
    for n in $(seq 1 "$1"); do echo "ip daddr 10.$((n / 250)).$((n % 250)).0/24 tcp dport $((1000 + n)) drop"; done
    printf '}\n}\n'
}

inside "$ns-100" nft -f - <<<"$(rules 100)"
inside "$ns-1000" nft -f - <<<"$(rules 1000)"
client() { # name namespace command...
    local name=$1 namespace=$2; shift 2
    local words=("$name" taskset -c "$cpu" nsenter "--net=/run/netns/$namespace" "$@" "$loop" turns 9000 "$count")
    (IFS=$'\t'; echo "${words[*]}") >>"$work/clients"
}
client none "$ns"
client "none again" "$ns"
for file in 100 1000 "100 owner"; do client "wfp-$file" "$ns" "$wfp" run -q -p "$work/$file.toml" --; done
for n in 100 1000; do client "nft-$n" "$ns-$n"; done
printf '[[filter]]\nname = "x"\nlayer = "ALE_AUTH_CONNECT"\naction = "block"\nwhen = { IP_REMOTE_PORT = 81 }\n' >"$work/one.toml"
"$wfp" show layers --json | python3 -c '
import json, sys
for line in sys.stdin:
    layer = json.loads(line)
    if "live" in layer["met"]:
        print("[[filter]]\nname = \"x\"\nlayer = \"%s\"\naction = \"permit\"" % layer["layer"])
' >"$work/every.toml"
start() { # name command...
    local name=$1 before; shift
    before=$(date +%s%N)
    "$@"
    echo "$name $((($(date +%s%N) - before) / 1000))" >>"$work/starts"
}
for _ in $(seq "$starts"); do
    start "true" true
    start "wfp run, one layer" "$wfp" run -q -p "$work/one.toml" -- true
    start "wfp run, ALE layers recorded" "$wfp" run -q -p "$work/one.toml" --events /dev/null -- true
    start "wfp run, every live layer" "$wfp" run -q -p "$work/every.toml" -- true
done
python3 - "$count" "$rounds" "$work/starts" "$work/clients" <<'PY'
import statistics, subprocess, sys

count, rounds = sys.argv[1], int(sys.argv[2])
clients, times = {}, {}
for line in open(sys.argv[4]):
    name, *command = line.rstrip("\n").split("\t")
    pipe = subprocess.PIPE
    clients[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
    times[name] = []
def turn(name):
    client = clients[name]
    client.stdin.write("\n")
    return int(client.stdout.readline().split()[0])


others = [name for name in clients if name != "none"]
ratios = {name: [] for name in others}
for number in range(-2, rounds):
    # the first two rounds only warm up
    first = number % len(others)
    before = turn("none")
    for name in others[first:] + others[:first]:
        time, after = turn(name), turn("none")
        if number >= 0:
            times[name].append(time)
            times["none"].append(after)
            ratios[name].append(2 * time / (before + after))
        before = after
for client in clients.values():
    client.stdin.close()
    client.wait()
print(f"{'':14} {'median ns':>9} {'least':>8}   against none before and after: median (quartiles)")
for name, all in times.items():
    compared = ""
    if name in ratios:
        low, middle, high = statistics.quantiles(ratios[name], n=4)
        compared = f"{middle:.3f} ({low:.3f} .. {high:.3f})"
    print(f"{name:14} {statistics.median(all):9.0f} {min(all):8}   {compared}")
starts = {}
for line in open(sys.argv[3]):
    name, us = line.rsplit(" ", 1)
    starts.setdefault(name, []).append(int(us) / 1000)
for name, all in starts.items():
    print(f"{name:32} {statistics.median(all):8.1f} ms")
PY
inside "$ns" "$wfp" run -q -p "$work/1000.toml" -- "$loop" refused 9001 20000
"$target/examples/measure"
