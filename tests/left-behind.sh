#!/usr/bin/env bash
# Fails when the tests left a control group, a pinned program, a network namespace or a mount of ours behind.
set -u
status=0
complain() { printf 'left behind: %s\n' "$*"; status=1; }
while read -r _ point kind _; do
    case "$kind" in
    cgroup2) while read -r group; do complain "control group $group"; done < <(
        # those of runs, and those that tests make; the folder openwfp itself may stay
        find "$point" -mindepth 1 -maxdepth 2 -type d \( -path '*openwfp*/*' -o -name 'openwfp-*' -o -name 'wfp-*' \) 2>/dev/null
    ) ;;
    esac
done </proc/mounts
for folder in /sys/fs/bpf/wfp /run/wfp/bpf; do
    while read -r pin; do complain "pinned $pin"; done < <(find "$folder" -mindepth 1 2>/dev/null)
done
if grep -q ' /run/wfp/bpf ' /proc/mounts; then complain "the mount /run/wfp/bpf"; fi
if command -v ip >/dev/null; then
    while read -r name _; do case "$name" in wfp*|openwfp*) complain "network namespace $name" ;; esac; done < <(ip netns list 2>/dev/null)
fi
[ "$status" = 0 ] && echo "nothing is left behind"
exit "$status"
