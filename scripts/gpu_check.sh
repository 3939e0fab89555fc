#!/usr/bin/env bash
# Runs what a GPU changes: the tests tagged [cuda], and every golden test on the GPU in fp32 and bf16.
#
# Usage: scripts/gpu_check.sh [BUILD_DIR]     a build folder configured with ZEBRA_CUDA=ON
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build/cuda}
if ! grep -q '^ZEBRA_CUDA:BOOL=ON' "$build/CMakeCache.txt" 2>/dev/null; then
  echo "gpu_check: $build is no CUDA build; run: cmake --preset cuda && cmake --build build/cuda" >&2
  exit 2
fi
if ! nvidia-smi -L; then
  echo "gpu_check: no GPU is visible" >&2
  exit 2
fi
exec ctest --test-dir "$build" -L cuda --output-on-failure --no-tests=error
