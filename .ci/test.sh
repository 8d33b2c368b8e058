#!/usr/bin/env bash
# Every test suite: Rust's, then the published SDKs against the debug binary, then what is built upon them: Microsoft's
# Agent Framework, and programs in four languages side by side.
#
# tests/run installs what the SDK suites need; run alone, this script uses what is there. LEFT_OUT names the languages, of
# java and go, that are not there. All suites run even if one fails. A test that is ignored or skipped counts as
# failed: here every test is meant to run.
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

# Runs a folder of pytest tests as the suite of that name, with another Python if one is given.
run_pytest() {
  local suite="$1" folder="$2" python="${3:-$PYTHON}" exit_code passed failed
  rm -f "$RESULTS/$suite.xml"
  "$python" -m pytest "$folder" -q -ra --junitxml="$RESULTS/$suite.xml"
  exit_code=$?
  read -r passed failed < <(junit_counts "$RESULTS/$suite.xml")
  record "$suite" "$exit_code" "$passed" "$failed"
}

# Adds up JUnit reports: prints how many tests passed, and how many did not.
junit_counts() {
  "$PYTHON" - "$@" <<'PY'
import sys, pathlib, xml.etree.ElementTree as xml
passed = failed = 0
for report in map(pathlib.Path, sys.argv[1:]):
    for suite in xml.parse(report).iter("testsuite") if report.exists() else ():
        bad = sum(int(suite.get(kind, 0)) for kind in ("failures", "errors", "skipped"))
        failed += bad
        passed += max(int(suite.get("tests", 0)) - bad, 0)
print(passed, failed)
PY
}

# Whether a language is there to be tested.
has() {
  [[ " ${LEFT_OUT:-} " != *" $1 "* ]]
}

begin "python: published SDK against $MAINSPRING_BIN"
run_pytest python tests/interop/python

begin "agent-framework: agents on the published SDK against $MAINSPRING_BIN"
run_pytest agent-framework tests/interop/agent-framework tests/.env/agent-framework/bin/python

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

if has java; then
  begin "java: published SDK against $MAINSPRING_BIN"
  rm -rf tests/interop/java/target/surefire-reports
  mvn -q -B -f tests/interop/java/pom.xml test
  java_exit=$?
  read -r java_passed java_failed < <(junit_counts tests/interop/java/target/surefire-reports/*.xml)
  record java "$java_exit" "$java_passed" "$java_failed"
fi

if has go; then
  begin "go: published SDK against $MAINSPRING_BIN"
  (cd tests/interop/go && go test -count=1 -timeout 600s -json ./...) >"$RESULTS/go.json"
  go_exit=$?
  # Tests with parts count as their parts. What a failed one printed is shown.
  read -r go_passed go_failed < <("$PYTHON" - "$RESULTS/go.json" <<'PY'
import json, sys
ended, printed = {}, {}
for line in open(sys.argv[1], encoding="utf-8"):
    event = json.loads(line)
    name = event.get("Test")
    if name and event["Action"] in ("pass", "fail", "skip"):
        ended[name] = event["Action"]
    elif name and event["Action"] == "output":
        printed.setdefault(name, []).append(event["Output"])
leaves = {name: end for name, end in ended.items() if not any(other.startswith(name + "/") for other in ended)}
for name, end in leaves.items():
    if end != "pass":
        print("".join(printed.get(name, [])), file=sys.stderr)
passed = sum(end == "pass" for end in leaves.values())
print(passed, len(leaves) - passed)
PY
  )
  record go "$go_exit" "$go_passed" "$go_failed"
fi

if has java && has go; then
  begin "languages: programs of four SDKs in one hub, samples, skills"
  INTEROP_JAVA_CLASSPATH="$PWD/tests/interop/java/target/classes:$(cat tests/interop/java/target/classpath.txt)"
  INTEROP_GO_PROGRAM="$PWD/tests/.env/go-program"
  export INTEROP_JAVA_CLASSPATH INTEROP_GO_PROGRAM
  run_pytest languages tests/interop/languages
fi

[ "$failed_suites" -eq 0 ]
