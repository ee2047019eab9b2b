#!/usr/bin/env bash
# What it costs to have every datagram permitted in user space: a callout (ring buffer out, our device back in) beside NFQUEUE with
# batched verdicts (benches/nfqueue.c), over lo and over a veth pair, in network namespaces and a control group that are made for
# this and taken away again. In rounds, one after the other:
#   none      nothing is asked
#   nfqueue   iptables -j NFQUEUE
#   divert    a callout at OUTBOUND_TRANSPORT_V4
# each asleep when there is nothing to do, and with `-poll` looking for packets all the time. Printed are, as median (and quartiles)
# of the rounds: packets a second; packets per second of processor time, of both sides together, and of who answers alone; and the
# time that one datagram takes, when there is one at a time.
#
#   benches/divert.sh     as root; needs cc, iptables-legacy, python3. ROUNDS, SECONDS_EACH and ONLY (names from above) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/veth.sh
rounds=${ROUNDS:-7}
milliseconds=$((${SECONDS_EACH:-1} * 1000))
only=${ONLY:-none nfqueue divert nfqueue-poll divert-poll}
window=${WINDOW:-64} bytes=${BYTES:-64}
examples=${EXAMPLES:-}
if [ -z "$examples" ]; then
    cargo build --release -q -p openwfp-kernel --example divert --example load
    examples=${CARGO_TARGET_DIR:-$PWD/target}/release/examples
fi
work=$(mktemp -d)
here=wfp-here-$$ there=wfp-there-$$
hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
group=$hierarchy/openwfp-bench-$$
cleanup() {
    wait || true
    ip netns delete "$here" 2>/dev/null || true
    ip netns delete "$there" 2>/dev/null || true
    rmdir "$group" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
cc -O2 -o "$work/nfqueue" benches/nfqueue.c
mkdir "$group"
veth_pair "$here" "$there"
# nsenter keeps the mounts, so that the control groups can still be seen
inside() { nice -n -10 nsenter --net="/run/netns/$here" "$@"; }
port=7000
last=$(($(nproc) - 1))

measure() { # way device what
    local way=$1 device=$2 what=$3 name=${1%-poll} poll= space=- address=127.0.0.1 answers=
    [ "$name" = "$way" ] || poll=poll
    [ "$device" = lo ] || { space=/run/netns/$there; address=192.0.2.2; }
    : >"$work/answers"
    local alive=$((milliseconds + 1500))
    case $name in
    nfqueue)
        inside iptables-legacy -A OUTPUT -o "$device" -p udp --dport $port -j NFQUEUE --queue-num 5
        inside taskset -c "$last" "$work/nfqueue" 5 $alive $poll >"$work/answers" &
        answers=$!
        ;;
    divert)
        inside taskset -c "$last" "$examples/divert" "$group" $port $alive $poll >"$work/answers" 2>>"$work/errors" &
        answers=$!
        ;;
    esac
    [ -z "$answers" ] || until grep -q ready "$work/answers"; do sleep 0.05; done
    local in_group=$group
    [ "$name" = divert ] || in_group=-
    if [ "$what" = rate ]; then
        inside taskset -c 0 "$examples/load" window "$in_group" "$space" $address:$port $milliseconds "$window" "$bytes" >"$work/load"
    else
        inside taskset -c 0 "$examples/load" ping "$in_group" "$space" $address:$port $milliseconds >"$work/load"
    fi
    [ -z "$answers" ] || wait "$answers"
    [ "$name" != nfqueue ] || inside iptables-legacy -F OUTPUT
    echo "$way $device $what $(tr '\n' ' ' <"$work/load") answers: $(grep packets "$work/answers" || true)" >>"$work/all"
}

for round in $(seq "$rounds"); do
    for device in lo veth0; do
        for way in $only; do
            measure "$way" $device rate
            measure "$way" $device ping
        done
    done
    echo "round $round" >&2
done
python3 - "$work/all" <<'END'
import re, statistics, sys
rates, times = {}, {}
for line in open(sys.argv[1]):
    way, device, what, rest = line.split(' ', 3)
    own, _, answers = rest.partition('answers:')
    numbers = lambda text: {name: float(value) for name, value in re.findall(r'(\w+) ([0-9.]+)', text)}
    own, answers = numbers(own), numbers(answers)
    if what == 'rate':
        used = own['processor'] + answers.get('processor', 0)
        alone = answers['packets'] / answers['processor'] if answers.get('processor') else float('nan')
        rates.setdefault((device, way), []).append((own['rate'], own['packets'] / used, alone, own['lost']))
    else:
        times.setdefault((device, way), []).append((own['median'], own['p99'], own['lost']))
def shown(values, form='{:,.0f}'):
    values = sorted(values)
    quartile = lambda part: values[min(len(values) - 1, int(len(values) * part))]
    return f'{form.format(statistics.median(values))} ({form.format(quartile(.25))} .. {form.format(quartile(.75))})'
print('device way: packets/s; packets/s of processor, both sides; of who answers; median us; p99 us; lost')
for key in rates:
    columns = list(zip(*rates[key]))
    waits = list(zip(*times[key]))
    print(f'{key[0]} {key[1]}: {shown(columns[0])}; {shown(columns[1])}; {shown(columns[2])}; '
          f'{shown(waits[0], "{:.1f}")}; {shown(waits[1], "{:.1f}")}; {sum(columns[3]) + sum(waits[2]):.0f}')
END
