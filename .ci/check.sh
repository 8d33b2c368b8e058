#!/usr/bin/env bash
# Format, lints, documentation, layers and scripts: everything that needs no test to run.
# Runs all of them even if one fails, and fails if any did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

passed=0
failed=0

# Runs one check under its name and counts how it ended.
check() {
  local name="$1"
  shift
  printf '\n==> %s: %s\n' "$name" "$*"
  if "$@"; then
    passed=$((passed + 1))
  else
    printf 'check failed: %s\n' "$name" >&2
    failed=$((failed + 1))
  fi
}

# Reads every script without running it.
parse_scripts() {
  local script status=0
  for script in tests/run .ci/run .ci/*.sh; do
    bash -n "$script" || status=1
  done
  return "$status"
}

check format cargo fmt --all --check
check lints cargo clippy --workspace --all-targets --locked -- -D warnings
check docs env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --locked
check layers bash .ci/layers.sh
check scripts parse_scripts

printf '\nchecks: %d passed, %d failed\n' "$passed" "$failed"
[ -z "${TALLY:-}" ] || echo "checks $passed $failed" >>"$TALLY"
[ "$failed" -eq 0 ]
