#!/usr/bin/env bash
# What filtering costs per packet: TCP throughput and datagrams per second over a veth pair between two network namespaces
# that are made for this and taken away again. Side by side:
#   none        no policy
#   again       no policy once more: how far two measurements of the same differ
#   ale         `wfp run` with 100 filters at each of the layers that authorize
#   idle        `wfp run` with packet layers switched on, but filters only at those that this traffic does not meet
#   packets     `wfp run` with 100 filters at every packet layer, of which none matches
#   nft-linear  100 nftables rules in the chains output and input, of which none matches
#   nft-set     the same as a set of 100 elements
# out: the filtered side sends; in: it receives. Everything is on one CPU, so that a figure is the cost of both sides together.
#
# All clients are started first and take turns of BYTES over TCP and of DATAGRAMS, ROUNDS times, so that whatever else slows the
# machine down meets all of them; each turn is compared with the turn without a policy of the same round. TCP is timed by the clock,
# and datagrams by the sender's processor time, which includes the way up to the socket of the other side.
#
#   benches/throughput.sh     as root; needs nft, python3. ROUNDS, BYTES, DATAGRAMS and ONLY (names from above) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/veth.sh
rounds=${ROUNDS:-60}
bytes=${BYTES:-$((64 << 20))}
datagrams=${DATAGRAMS:-20000}
only=${ONLY:-none again ale idle packets nft-linear nft-set}
cargo build --release -q -p openwfp-cli --bin wfp --example datagrams --example bulk
target=${CARGO_TARGET_DIR:-$PWD/target}/release
wfp=$target/wfp udp=$target/examples/datagrams tcp=$target/examples/bulk
work=$(mktemp -d)
cpu=$(($(nproc) - 1))
namespaces=()
started=()
cleanup() {
    [ "${#started[@]}" = 0 ] || kill "${started[@]}" 2>/dev/null || true
    for name in "${namespaces[@]}"; do ip netns delete "$name" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
# nsenter keeps the mounts, so that the control groups can still be seen
inside() { local ns=$1; shift; nice -n -10 taskset -c "$cpu" nsenter --net="/run/netns/$ns" "$@"; }
background() { # not by the function: that would be a shell of its own, which would be killed in the server's place
    local ns=$1; shift
    nice -n -10 taskset -c "$cpu" nsenter --net="/run/netns/$ns" "$@" >/dev/null & started+=($!)
}
pair() { # name: two namespaces and servers in both
    local here=$1-here there=$1-there
    namespaces+=("$here" "$there")
    veth_pair "$here" "$there"
    local ns
    for ns in "$here" "$there"; do
        # no pacing by estimates of bandwidth, and buffers of one size
        inside "$ns" sysctl -q -w net.ipv4.tcp_congestion_control=reno \
            net.ipv4.tcp_rmem="4194304 4194304 4194304" net.ipv4.tcp_wmem="4194304 4194304 4194304"
    done
    background "$there" "$tcp" serve 192.0.2.2:9
    background "$there" "$udp" sink 192.0.2.2:9
}

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

# what is filtered by nftables has namespaces of its own, since rules hold for all of one
space=wfp-bench-$$
pair "$space"
port=100
client() { # what, name, space, command...
    local what=$1 name=$2 ns=$3; shift 3
    local words=("$what" "$name" nice -n -10 taskset -c "$cpu" nsenter "--net=/run/netns/$ns" "$@")
    (IFS=$'\t'; echo "${words[*]}") >>"$work/clients"
}
for name in $only; do
    base=$space
    case $name in
        none | again) prefix=() ;;
        nft-*)
            base=$space-$name
            pair "$base"
            if [ "$name" = nft-set ]; then set_of; else linear; fi | inside "$base-here" nft -f -
            prefix=()
            ;;
        *) prefix=("$wfp" run -q -p "$work/$name.toml" --) ;;
    esac
    client tcp-out "$name" "$base-here" "${prefix[@]}" "$tcp" turns 192.0.2.2:9 out "$bytes"
    client tcp-in "$name" "$base-here" "${prefix[@]}" "$tcp" turns 192.0.2.2:9 in "$bytes"
    client udp-out "$name" "$base-here" "${prefix[@]}" "$udp" turns 192.0.2.2:9 "$datagrams"
    port=$((port + 1))
    background "$base-here" "${prefix[@]}" "$udp" sink "192.0.2.1:$port"
    client udp-in "$name" "$base-there" "$udp" turns "192.0.2.1:$port" "$datagrams"
done
sleep 3
python3 - "$rounds" "$bytes" "$datagrams" "$work/clients" <<'PY'
import statistics, subprocess, sys
rounds, size, count = map(int, sys.argv[1:4])
clients = {}
for line in open(sys.argv[4]):
    what, name, *command = line.rstrip("\n").split("\t")
    pipe = subprocess.PIPE
    client = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
    clients.setdefault(what, {})[name] = client
for what, group in clients.items():
    times = {name: [] for name in group}
    names = list(group)
    for number in range(-3, rounds):
        # the first rounds only warm up
        first = number % len(names)
        for name in names[first:] + names[:first]:
            group[name].stdin.write("\n")
            time = int(group[name].stdout.readline())
            if number >= 0:
                times[name].append(time)
    unit, amount = ("Gbit/s", size * 8) if what.startswith("tcp") else ("million/s", count * 1000)
    print(f"{what}: {unit}; against none, turn by turn: median (quartiles)")
    for name, all in times.items():
        low, middle, high = statistics.quantiles([b / a for a, b in zip(all, times.get("none", all))], n=4)
        print(f"  {name:12} {amount / statistics.median(all):9.3f}  {middle:6.3f} ({low:.3f} .. {high:.3f})", flush=True)
for group in clients.values():
    for client in group.values():
        client.stdin.close()
        client.wait()
PY
