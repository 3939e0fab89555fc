#!/usr/bin/env bash
# zebra eval against lm-evaluation-harness: the same model, rows, threads and machine, one after the
# other. Documents with an ending longer than the context, which the harness cannot score, are left
# out on both sides. Prints both times, their ratio, the largest difference of a log-likelihood and of
# a score, and every score that differs.
#
# Usage: scripts/bench_peers/evaluation.sh MODEL DATA [--setup] [--limit N] [--threads N]
#          [--tasks a,b] [--batch-size N] [--max-length N]
#   MODEL    a Llama folder that transformers can read, too
#   DATA     a folder of TASK/SPLIT.jsonl
#   --setup  first makes the Python environment (lm_eval 0.4.13, transformers, torch for CPUs; 2 GB)
# ZEBRA_PEERS names the environment's folder (~/.cache/zebra/peers), ZEBRA_BIN the program
# (build/release/bin/zebra).
set -Eeuo pipefail
here=$(cd "$(dirname "$0")" && pwd)
peers=${ZEBRA_PEERS:-$HOME/.cache/zebra/peers}

arguments=()
for argument in "$@"; do
  if [ "$argument" != --setup ]; then
    arguments+=("$argument")
    continue
  fi
  python3 -m venv "$peers"
  "$peers/bin/pip" install --quiet lm_eval==0.4.13 transformers accelerate sentencepiece protobuf tiktoken torch
done
if [ ! -x "$peers/bin/python" ] ||
  ! "$peers/bin/python" -c 'import importlib.metadata; importlib.metadata.version("lm_eval")' 2> /dev/null; then
  echo "evaluation.sh: no Python environment with lm_eval in $peers; run with --setup" >&2
  exit 2
fi
export ZEBRA_BIN=${ZEBRA_BIN:-$here/../../build/release/bin/zebra}
if [ ! -x "$ZEBRA_BIN" ]; then
  echo "evaluation.sh: no program at $ZEBRA_BIN; build it, or name it with ZEBRA_BIN" >&2
  exit 2
fi
exec "$peers/bin/python" "$here/evaluation.py" "${arguments[@]}"
