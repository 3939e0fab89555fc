#!/usr/bin/env bash
# Runs what a GPU changes: the tests tagged [cuda], every golden test on the GPU in fp32 and bf16, and a
# job through NCCL with each sharding.
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
ctest --test-dir "$build" -L cuda --output-on-failure --no-tests=error

# The whole job through NCCL: on one GPU a group of one rank, on more a rank for each of two.
gpus=$(nvidia-smi -L | wc -l)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for sharding in none zero2 full; do
  "$build/bin/zebra" run recipes/tiny/quickstart.yaml --nproc "$((gpus > 1 ? 2 : 1))" \
    --set device=cuda --set dtype=bf16 --set "output=$folder/$sharding" --set "parallel.sharding=$sharding" \
    --set parallel.recompute=smart --set parallel.offload_inputs=true --set parallel.teacher_sharding=layer
done
