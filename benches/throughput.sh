#!/usr/bin/env bash
# What filtering costs per packet: TCP throughput and datagrams per second over a veth pair between two network namespaces
# that are made for this and taken away again. Side by side, in rounds:
#   none        no policy
#   ale         `wfp run` with 100 filters at each of the layers that authorize
#   idle        `wfp run` with packet layers switched on, but filters only at those that this traffic does not meet
#   packets     `wfp run` with 100 filters at every packet layer, of which none matches
#   nft-linear  100 nftables rules in the chains output and input, of which none matches
#   nft-set     the same as a set of 100 elements
# out: the filtered side sends; in: it receives. Everything is on one CPU, so that a figure is the cost of both sides, and
# counted by processor time, so that other work on the machine matters less: what a second of it moves.
#
#   benches/throughput.sh     as root; needs iperf3, nft, python3. ROUNDS, SECONDS_EACH and ONLY (names from above) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${ROUNDS:-9}
seconds=${SECONDS_EACH:-1}
only=${ONLY:-none ale idle packets nft-linear nft-set}
cargo build --release -q -p openwfp-cli --bin wfp --example datagrams
target=${CARGO_TARGET_DIR:-$PWD/target}/release
wfp=$target/wfp datagrams=$target/examples/datagrams
work=$(mktemp -d)
here=wfp-here-$$ there=wfp-there-$$
cpu=$(($(nproc) - 1))
started=()
cleanup() {
    kill "${started[@]}" 2>/dev/null || true
    ip netns delete "$here" 2>/dev/null || true
    ip netns delete "$there" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
ip netns add "$here"
ip netns add "$there"
ip -n "$here" link add veth0 type veth peer name veth0 netns "$there"
for side in "$here:1" "$there:2"; do
    ip -n "${side%:*}" link set lo up
    ip -n "${side%:*}" address add "192.0.2.${side#*:}/24" dev veth0
    ip -n "${side%:*}" link set veth0 up
done
# nsenter keeps the mounts, so that the control groups can still be seen
inside() { local ns=$1; shift; nice -n -10 taskset -c "$cpu" nsenter --net="/run/netns/$ns" "$@"; }
background() { # not by the function: that would be a shell of its own, which would be killed in the server's place
    local ns=$1; shift
    nice -n -10 taskset -c "$cpu" nsenter --net="/run/netns/$ns" "$@" >/dev/null & started+=($!)
}
background "$there" iperf3 -s
background "$there" "$datagrams" sink 192.0.2.2:9
sleep 1

filters() { # address or port, layer...
    local what=$1 layer n; shift
    for layer in "$@"; do
        for n in $(seq 0 99); do
            printf '[[filter]]\nname = "%s %d"\nlayer = "%s"\naction = "block"\n' "$layer" "$n" "$layer"
            printf '[filter.when]\nIP_REMOTE_ADDRESS = "10.0.%d.0/24"\n' "$n"
            [ "$what" = address ] || printf 'IP_REMOTE_PORT = %d\n' $((1000 + n))
        done
    done
}
filters port ALE_AUTH_CONNECT_V4 ALE_AUTH_RECV_ACCEPT_V4 >"$work/ale.toml"
filters address INBOUND_ICMP_ERROR_V4 OUTBOUND_ICMP_ERROR_V4 >"$work/idle.toml"
{
    filters address INBOUND_IPPACKET_V4 OUTBOUND_IPPACKET_V4
    filters port INBOUND_TRANSPORT_V4 OUTBOUND_TRANSPORT_V4 DATAGRAM_DATA_V4 STREAM_PACKET_V4
} >"$work/packets.toml"
linear() {
    local n
    printf 'table ip bench {\nchain out {\ntype filter hook output priority 0; policy accept;\n'
    for n in $(seq 0 99); do echo "ip daddr 10.0.$n.0/24 th dport $((1000 + n)) drop"; done
    printf '}\nchain in {\ntype filter hook input priority 0; policy accept;\n'
    for n in $(seq 0 99); do echo "ip saddr 10.0.$n.0/24 th sport $((1000 + n)) drop"; done
    printf '}\n}\n'
}
set_of() {
    printf 'table ip bench {\nset refused {\ntype ipv4_addr . inet_service; flags interval; elements = { '
    for n in $(seq 0 99); do printf '10.0.%d.0/24 . %d, ' "$n" $((1000 + n)); done
    printf '}\n}\nchain out {\ntype filter hook output priority 0; policy accept;\nip daddr . th dport @refused drop\n}\n'
    printf 'chain in {\ntype filter hook input priority 0; policy accept;\nip saddr . th sport @refused drop\n}\n}\n'
}

tcp() { # name, direction, iperf3's option for it, prefix...
    local name=$1 direction=$2 option=$3; shift 3
    # shellcheck disable=SC2086
    inside "$here" "$@" iperf3 -c 192.0.2.2 -t "$seconds" -J $option >"$work/json"
    python3 - "$name" "$direction" "$work/json" >>"$work/figures" <<'PY'
import json, sys
end = json.load(open(sys.argv[3]))["end"]
used = end["cpu_utilization_percent"]
rate = end["sum_received"]["bits_per_second"]
print(f"tcp-{sys.argv[2]}", sys.argv[1], rate / 1e9 / (used["host_total"] + used["remote_total"]) * 100)
PY
}
udp() { # name, prefix...
    local name=$1 rate sink; shift
    rate=$(inside "$here" "$@" "$datagrams" send 192.0.2.2:9 $((seconds * 1000)))
    echo "udp-out $name $rate" >>"$work/figures"
    nice -n -10 taskset -c "$cpu" nsenter --net="/run/netns/$here" "$@" "$datagrams" sink 192.0.2.1:9 & sink=$!
    sleep 0.4
    rate=$(inside "$there" "$datagrams" send 192.0.2.1:9 $((seconds * 1000)))
    echo "udp-in $name $rate" >>"$work/figures"
    kill "$sink"
    wait "$sink" 2>/dev/null || true
}
measure() { # name, prefix...
    local name=$1; shift
    tcp "$name" out "" "$@"
    tcp "$name" in -R "$@"
    udp "$name" "$@"
}
for _ in $(seq "$rounds"); do
    for name in $only; do
        case $name in
            none) measure none ;;
            nft-linear) linear | inside "$here" nft -f - ;;&
            nft-set) set_of | inside "$here" nft -f - ;;&
            nft-*)
                measure "$name"
                inside "$here" nft delete table ip bench
                ;;
            *) measure "$name" "$wfp" run -q -p "$work/$name.toml" -- ;;
        esac
    done
done
python3 - "$work/figures" <<'PY'
import statistics, sys
figures = {}
for line in open(sys.argv[1]):
    what, name, figure = line.split()
    figures.setdefault(what, {}).setdefault(name, []).append(float(figure))
units = {"tcp": ("Gbit", 1), "udp": ("thousand packets", 1e3)}
for what, names in figures.items():
    unit, scale = units[what[:3]]
    print(f"{what}: {unit} in a second of processor time; against none, of the same round: median (quartiles)")
    for name, all in names.items():
        against = [a / b for a, b in zip(all, names.get("none", all))]
        low, middle, high = statistics.quantiles(against, n=4) if len(against) > 1 else against * 3
        print(f"  {name:12} {statistics.median(all) / scale:9.2f}  {middle:6.3f} ({low:.3f} .. {high:.3f})")
PY
