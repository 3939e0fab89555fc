#!/usr/bin/env bash
# From a fresh clone to a finished job: sets up, builds, and runs a small recipe on the CPU.
# Further arguments go to `zebra run` (for example: --fresh).
set -euo pipefail
cd "$(dirname "$0")/.."

recipe=recipes/tiny/quickstart.yaml

scripts/setup.sh --cpu
# From nothing, sources are compiled in batches, which takes less than half the time. A
# build folder that is there stays as it is.
batches=()
if [ ! -e build/release/CMakeCache.txt ]; then batches=(-DCMAKE_UNITY_BUILD=ON); fi
cmake --preset release "${batches[@]}"
cmake --build build/release --target zebra_cli_exe
build/release/bin/zebra run "$recipe" "$@"

output=$(sed -n 's/^output: *\([^ #]*\).*/\1/p' "$recipe")
for argument in "$@"; do  # --set output=FOLDER is the user's word against the recipe's
  case $argument in
    output=* | --set=output=*) output=${argument#*output=} ;;
  esac
done
echo "report: $output/report.html"
echo "numbers: $output/summary.json"
