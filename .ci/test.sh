#!/usr/bin/env bash
# Every test suite: Rust's, then the published Python and JavaScript SDKs against the debug binary.
#
# tests/run installs what the SDK suites need; run alone, this script uses what is there. All suites run even if one
# fails. A test that is ignored or skipped counts as failed: here every test is meant to run.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=tests/.env/python/bin/python
RESULTS=tests/.env/results
mkdir -p "$RESULTS"
failed_suites=0

# Notes a suite's counts. A suite that ended with an error without a failed test, or ran none, failed as a whole.
record() {
  local suite="$1" exit_code="$2" passed="$3" failed="$4"
  if [ "$failed" -eq 0 ] && { [ "$exit_code" -ne 0 ] || [ "$passed" -eq 0 ]; }; then
    failed=1
  fi
  printf '\n%s: %d tests ran, %d passed, %d failed (%d s)\n' \
    "$suite" "$((passed + failed))" "$passed" "$failed" "$((SECONDS - suite_started))"
  [ -z "${TALLY:-}" ] || echo "$suite $passed $failed" >>"$TALLY"
  [ "$failed" -eq 0 ] || failed_suites=$((failed_suites + 1))
}

# Announces a suite and starts its clock.
begin() {
  suite_started="$SECONDS"
  printf '\n==> %s\n' "$*"
}

# Adds up the numbers that stand before a word in cargo's result lines, such as `3 passed`.
cargo_count() {
  awk -v word="$1" '/^test result: / { for (i = 2; i <= NF; i++) if ($i ~ "^" word) sum += $(i - 1) } END { print sum + 0 }' \
    "$RESULTS/rust.txt"
}

begin "rust: cargo test --workspace"
: >"$RESULTS/rust.txt"
# The binary first: the crash and interop tests start it.
cargo build --package mainspring-cli --locked &&
  cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$RESULTS/rust.txt"
rust_exit=$?
record rust "$rust_exit" "$(cargo_count passed)" "$(($(cargo_count failed) + $(cargo_count ignored)))"

target="$(cargo metadata --no-deps --format-version 1 --locked | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')"
export MAINSPRING_BIN="$target/debug/mainspring"

begin "python: published SDK against $MAINSPRING_BIN"
rm -f "$RESULTS/python.xml"
"$PYTHON" -m pytest tests/interop/python -q -ra --junitxml="$RESULTS/python.xml"
python_exit=$?
read -r python_passed python_failed < <("$PYTHON" - "$RESULTS/python.xml" <<'PY'
import sys, pathlib, xml.etree.ElementTree as xml
passed = failed = 0
if pathlib.Path(sys.argv[1]).exists():
    for suite in xml.parse(sys.argv[1]).iter("testsuite"):
        bad = sum(int(suite.get(kind, 0)) for kind in ("failures", "errors", "skipped"))
        failed += bad
        passed += max(int(suite.get("tests", 0)) - bad, 0)
print(passed, failed)
PY
)
record python "$python_exit" "$python_passed" "$python_failed"

begin "js: published SDK against $MAINSPRING_BIN"
rm -f "$RESULTS/js.tap"
# The time-out is for each file and only ends a hang.
node --test --test-timeout=300000 \
  --test-reporter=spec --test-reporter-destination=stdout \
  --test-reporter=tap --test-reporter-destination="$RESULTS/js.tap" \
  tests/interop/js/*.test.mjs
js_exit=$?
# Reads one of the closing counts of the TAP report, such as `# pass 12`.
js_count() {
  { grep "^# $1 " "$RESULTS/js.tap" 2>/dev/null || echo "# $1 0"; } | tail -n 1 | awk '{ print $3 }'
}
js_failed=$(($(js_count fail) + $(js_count cancelled) + $(js_count skipped) + $(js_count todo)))
record js "$js_exit" "$(js_count pass)" "$js_failed"

[ "$failed_suites" -eq 0 ]
