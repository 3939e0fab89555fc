#!/usr/bin/env bash
# From a fresh clone to a finished job: sets up, builds, and runs a small recipe on the CPU.
# Further arguments go to `zebra run` (for example: --fresh).
set -euo pipefail
cd "$(dirname "$0")/.."

recipe=recipes/tiny/quickstart.yaml

scripts/setup.sh --cpu
cmake --preset release
cmake --build build/release --target zebra_cli_exe
build/release/bin/zebra run "$recipe" "$@"

output=$(sed -n 's/^output: *\([^ #]*\).*/\1/p' "$recipe")
echo "report: $output/report.html"
echo "numbers: $output/summary.json"
