#!/usr/bin/env bash
# Breaks the engine in one place after another and expects its tests to notice.
# A line is: file, what stands there, what it becomes.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/crates"
cp -r crates/engine crates/model "$work/crates/"
cp Cargo.lock rustfmt.toml "$work/"
# the same workspace with two members
sed -E 's#^members = .*#members = ["crates/engine", "crates/model"]#; s#^exclude = .*#exclude = []#' Cargo.toml >"$work/Cargo.toml"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/mutants OPENWFP_CASES=${OPENWFP_CASES:-40000}
cd "$work"
source=crates/engine/src
cargo test -q -p openwfp-engine --test oracle --test arbitration --test rules --no-run
caught=0
missed=0
while IFS='|' read -r file from to; do
    [ -n "$file" ] || continue
    cp "$source/$file" "$work/original"
    python3 - "$source/$file" "$from" "$to" <<'PY'
import sys
path, old, new = sys.argv[1:]
text = open(path).read()
if text.count(old) < 1:
    sys.exit(f"{path}: no such text: {old}")
open(path, "w").write(text.replace(old, new, 1))
PY
    if ! cargo test -q -p openwfp-engine --test oracle --test arbitration --test rules --no-run >"$work/log" 2>&1; then
        cat "$work/log"
        echo "this is no mutant, it does not compile: $file: $from -> $to"
        exit 1
    fi
    if cargo test -q -p openwfp-engine --test oracle --test arbitration --test rules >"$work/log" 2>&1; then
        echo "MISSED  $file: $from -> $to"
        missed=$((missed + 1))
    else
        echo "caught  $file: $from -> $to"
        caught=$((caught + 1))
    fi
    cp "$work/original" "$source/$file"
done <<'MUTANTS'
classify.rs|value.wrapping_sub(test.a as u64) <= test.b as u64|value.wrapping_sub(test.a as u64) < test.b as u64
classify.rs|known && value as u32 & test.a == test.b|value as u32 & test.a == test.b
classify.rs|known && value as u32 & test.a != 0|known && value as u32 & test.a == test.a
classify.rs|rank > state.floor|rank >= state.floor
classify.rs|(value > cell.c as u64) as u32|(value >= cell.c as u64) as u32
classify.rs|sublayer + 1 == self.sublayers && rank|rank
arbitrate.rs|self.write(BLOCK, true, Reason::None, filter, sublayer)|self.write(BLOCK, clears, Reason::None, filter, sublayer)
arbitrate.rs|filter_action::UNREADABLE => self.write(BLOCK, true|filter_action::UNREADABLE => self.write(PERMIT, true
arbitrate.rs|if !self.is_hard() {|if true {
arbitrate.rs|PERMIT_IF_CALLOUT_UNREGISTERED != 0|PERMIT_IF_CALLOUT_UNREGISTERED == 0
compile/emit.rs|(true, false) => group_start - at|(true, false) => 1
compile/lower.rs|low <= before.1.saturating_add(1)|low <= before.1.saturating_add(2)
compile/rule.rs|first <= low && last >= high|first <= low || last >= high
compile/mod.rs|core::cmp::Reverse(filter.effective_weight),|filter.effective_weight,
compile/users.rs|low: *uid,|low: 0,
compile/users.rs|entry.grants_match)|{ let _ = entry; true })
compile/mod.rs|if !filter.is_disabled() {|if true {
compile/rule.rs|self.push(rank, second);|drop(second);
arbitrate.rs|(filter.filter_errno() as u32) << 16|0
MUTANTS
echo "$caught mutants caught, $missed missed"
[ "$missed" = 0 ]
