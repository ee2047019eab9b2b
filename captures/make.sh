#!/bin/sh
# Makes the captures of this folder anew: make.sh [FOLDER]
#
# Needs root, ip, tcpdump, tshark with mergecap, curl, ping and python3. All traffic stays between two network namespaces
# that this script makes and removes. Addresses are those of documentation (RFC 5737, RFC 3849).
set -eu

out=$(realpath "${1:-$(dirname "$0")}")
client=wfp-capture-client
server=wfp-capture-server
in_client() { ip netns exec $client "$@"; }
in_server() { ip netns exec $server "$@"; }

cleanup() {
    kill $jobs 2>/dev/null || true
    ip netns del $client 2>/dev/null || true
    ip netns del $server 2>/dev/null || true
    rm -rf "$work"
}
work=$(mktemp -d)
jobs=
trap cleanup EXIT

ip netns add $client
ip netns add $server
for n in $client $server; do
    # Silence: no router solicitations, no duplicate address detection.
    ip netns exec $n sh -c 'for f in all default; do
        echo 0 > /proc/sys/net/ipv6/conf/$f/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/$f/router_solicitations; done'
    ip -n $n link set lo up
done
ip link add c0 netns $client type veth peer name s0 netns $server
in_client ethtool -K c0 tso off gso off gro off tx off >/dev/null
in_server ethtool -K s0 tso off gso off gro off tx off >/dev/null
ip -n $client link set c0 address 02:00:00:00:00:01
ip -n $server link set s0 address 02:00:00:00:00:50
ip -n $client addr add 192.0.2.1/24 dev c0
ip -n $server addr add 192.0.2.80/24 dev s0
ip -n $client addr add 2001:db8::1/64 dev c0 nodad
ip -n $server addr add 2001:db8::80/64 dev s0 nodad
ip -n $client link set c0 up
ip -n $server link set s0 up
sleep 1

mkdir "$work/www"
printf 'hello from port 80\n' > "$work/www/index.html"
cat > "$work/udp.py" <<'PYTHON'
"""A name server that answers every question with 192.0.2.80, and on port 4000 an echo."""
import select, socket
sockets = []
for port in (53, 4000):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    sockets.append(s)
while True:
    for s in select.select(sockets, [], [])[0]:
        data, peer = s.recvfrom(65536)
        if s is sockets[0]:
            question = data[12:].split(b"\0", 1)[0] + data[12:][data[12:].index(b"\0"):][:5]
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([192, 0, 2, 80])
            data = data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question + answer
        s.sendto(data, peer)
PYTHON
cat > "$work/ask.py" <<'PYTHON'
"""Asks a server, from one socket: ask.py HOST PORT TEXT-OR-LENGTH"""
import socket, sys
host, port, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if port == 53:
    name = b"".join(bytes([len(l)]) + l for l in what.encode().split(b"."))
    data = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + name + b"\0\0\1\0\1"
else:
    data = bytes(i & 255 for i in range(int(what)))
family = socket.AF_INET6 if ":" in host else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(data, (host, port))
s.recvfrom(65536)
PYTHON

in_server python3 -m http.server --directory "$work/www" 80 >/dev/null 2>&1 & jobs="$jobs $!"
in_server python3 "$work/udp.py" & jobs="$jobs $!"
sleep 1
# Neighbors know one another before captures begin.
in_client ping -q -c 1 192.0.2.80 >/dev/null
in_client ping -q -c 1 2001:db8::80 >/dev/null

# capture NAMESPACE DEVICE FILE OPTIONS: FILTER, while the function `traffic` runs
capture() {
    rm -f "$work/log"
    namespace=$1 device=$2 file=$3 options=$4 filter=$5
    ip netns exec $namespace tcpdump -q -U --immediate-mode $options -i "$device" -w "$work/$file" "$filter" 2>"$work/log" & pid=$!
    until grep -q listening "$work/log" 2>/dev/null; do sleep 0.1; done
    traffic
    sleep 0.5
    kill $pid
    wait $pid || true
    [ -z "${keep:-}" ] && cp "$work/$file" "$out/$file" || true
}

traffic() { in_client curl -s --noproxy '*' -o /dev/null http://192.0.2.80/; }
capture $client c0 http.pcap "" "tcp"
capture $server any sll.pcap "-y LINUX_SLL" "tcp"
capture $server any sll2.pcap "-y LINUX_SLL2" "tcp"
traffic() { in_client curl -s --noproxy '*' -o /dev/null "http://[2001:db8::80]/" || true; in_client curl -s --noproxy '*' http://192.0.2.80:81/ || true; }
capture $client c0 refused.pcap "" "tcp"
traffic() { in_server curl -s --noproxy '*' -o /dev/null http://127.0.0.1/; }
capture $server lo loopback.pcap "" "tcp"
traffic() {
    in_client ping -q -c 2 -i 0.2 192.0.2.80 >/dev/null
    in_client ping -q -c 2 -i 0.2 2001:db8::80 >/dev/null
    in_client python3 "$work/ask.py" 192.0.2.80 4001 5 2>/dev/null || true
    in_client python3 "$work/ask.py" 2001:db8::80 4001 5 2>/dev/null || true
}
capture $client c0 ping.pcap "--time-stamp-precision=nano" "icmp or (icmp6 and ip6[40] != 135 and ip6[40] != 136) or udp"
traffic() {
    in_client python3 "$work/ask.py" 192.0.2.80 4000 4000
    in_client python3 "$work/ask.py" 2001:db8::80 4000 4000
}
capture $client c0 fragments.pcap "" "udp or ip[6:2] & 0x3fff != 0 or ip6[6] = 44"
keep=no
traffic() {
    in_client python3 "$work/ask.py" 192.0.2.80 53 example.com
    in_client python3 "$work/ask.py" 2001:db8::80 53 example.com
}
capture $client c0 dns-ethernet.pcap "" "udp"
capture $client any dns-cooked.pcap "-y LINUX_SLL2 --time-stamp-precision=nano" "udp"
editcap -F pcapng "$work/dns-ethernet.pcap" "$out/dns.pcapng" 2>/dev/null
mergecap -F pcapng -w "$out/two-interfaces.pcapng" "$work/dns-ethernet.pcap" "$work/dns-cooked.pcap" 2>/dev/null
# The questions and answers of dns.pcapng once more: those of IPv4 in VLAN 7, those of IPv6 in VLAN 7 of a provider's VLAN 100.
python3 - "$work/dns-ethernet.pcap" "$out/vlan.pcap" <<'PYTHON'
import struct, sys
data = open(sys.argv[1], "rb").read()
out, at = data[:24], 24
while at < len(data):
    seconds, part, length, _ = struct.unpack_from("<IIII", data, at)
    frame = data[at + 16:at + 16 + length]
    tags = b"\x81\0\0\x07" if frame[12:14] == b"\x08\0" else b"\x88\xa8\0\x64\x81\0\0\x07"
    frame = frame[:12] + tags + frame[12:]
    out += struct.pack("<IIII", seconds, part, len(frame), len(frame)) + frame
    at += 16 + length
open(sys.argv[2], "wb").write(out)
PYTHON
# Seven whole records, and the beginning of an eighth.
python3 - "$out/http.pcap" "$out/cut.pcap" <<'PYTHON'
import struct, sys
data = open(sys.argv[1], "rb").read()
at = 24
for _ in range(7):
    at += 16 + struct.unpack_from("<I", data, at + 8)[0]
open(sys.argv[2], "wb").write(data[:at + 16 + 20])
PYTHON
