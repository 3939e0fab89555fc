#!/usr/bin/env bash
# Sets up, builds and tests everything; the last line counts the test cases.
#
# Usage: scripts/test.sh [--quick] [--filter REGEX] [--preset NAME]
#   --quick          the unit tests alone, without the checks of form
#   --filter REGEX   only the CTest entries (module.label) that match
#   --preset NAME    a preset of CMakePresets.json, by default release
set -euo pipefail
cd "$(dirname "$0")/.."

preset=release
checks=1
ctest_arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --quick) checks=0 && ctest_arguments+=(-L unit) && shift ;;
    --filter) checks=0 && ctest_arguments+=(-R "${2:?--filter wants a regular expression}") && shift 2 ;;
    --preset) preset=${2:?--preset wants a name} && shift 2 ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
done
build=build/$preset
form=--cpu
if [ "$preset" = cuda ]; then form=--cuda; fi

passed=0
failed=0
skipped=0
check() {  # check NAME COMMAND...: one test case
  echo "== $1"
  if "${@:2}"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $1"
  fi
}

finish() {  # the closing line, and the exit status
  if [ "$skipped" = 0 ]; then
    echo "$passed passed, $failed failed"
  else
    echo "$passed passed, $failed failed, $skipped skipped"
  fi
  if [ "$failed" = 0 ]; then exit 0; else exit 1; fi
}

# shellcheck disable=SC2317  # called through check
build_all() {
  scripts/setup.sh "$form" --dev && cmake --preset "$preset" -DCMAKE_UNITY_BUILD=OFF && cmake --build "$build"
}

# shellcheck disable=SC2317  # called through check
build_in_batches() {  # as quickstart.sh does: names of one module may not clash
  cmake --preset release -B build/batches -DCMAKE_UNITY_BUILD=ON -DZEBRA_BUILD_TESTS=OFF >/dev/null &&
    cmake --build build/batches --target zebra_cli_exe
}

run_tests() {
  rm -f "$build/results.xml"  # that of an earlier run must not count
  # What failed is counted from the results, which also tell of skipped cases.
  local status=0 counts
  ctest --test-dir "$build" --no-tests=error --output-on-failure --output-junit results.xml \
    --test-output-size-passed 10000000 --test-output-size-failed 10000000 "${ctest_arguments[@]}" || status=$?
  counts=$(scripts/count_cases.py "$build/results.xml") || counts="0 1 0"
  read -r tests_passed tests_failed tests_skipped <<<"$counts"
  if [ "$status" != 0 ] && [ "$tests_failed" = 0 ]; then
    echo "FAILED: ctest ended with $status, though no case failed"
    tests_failed=1
  fi
  passed=$((passed + tests_passed))
  failed=$((failed + tests_failed))
  skipped=$((skipped + tests_skipped))
}

if [ "$checks" = 1 ]; then
  check "layers" scripts/check_layers.py
fi
check "build" build_all
if [ "$failed" != 0 ]; then finish; fi
if [ "$checks" = 1 ]; then
  check "build in batches" build_in_batches
  check "format" scripts/check_style.sh
  check "clang-tidy" scripts/check_tidy.py "$build"
fi
run_tests
finish
