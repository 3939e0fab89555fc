#!/usr/bin/env bash
# Kills a small job with kill -9 again and again, at random moments of every stage (in a step, in a
# save, between data and commit, in an export), lets it resume by itself, and compares every run
# that reached its end with an undisturbed one: losses, sample marks and all tensors, bit by bit.
#
# Usage: scripts/kill_suite.sh [KILLS] [--nproc N | --moving] [--seed S] [--keep]
#   KILLS      how many, by default 200
#   --nproc N  local ranks of a job; then one rank or the whole group is killed
#   --moving   with parallel.bit_equal: goes on after each kill with a number of ranks (1, 2, 4), sharding
#              and recomputation drawn at random; the undisturbed run is one process
#   --seed S   of the random moments, by default 1
#   --keep     leave the folder with the runs
# Environment: ZEBRA_BIN, the program [build/release/bin/zebra].
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

kills=200
nproc=1
moving=false
seed=1
keep=0
while [ $# -gt 0 ]; do
  case $1 in
    --nproc) nproc=${2:?--nproc wants a number} && shift 2 ;;
    --moving) moving=true && shift ;;
    --seed) seed=${2:?--seed wants a number} && shift 2 ;;
    --keep) keep=1 && shift ;;
    [0-9]*) kills=$1 && shift ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
done
zebra=$(realpath "${ZEBRA_BIN:-build/release/bin/zebra}")
RANDOM=$seed
layout=()
if [ "$nproc" != 1 ]; then layout=(--nproc "$nproc"); fi

work=$(mktemp -d -t zebra-kills-XXXXXX)
finish() {
  if [ "$keep" = 0 ]; then rm -rf "$work"; else echo "runs: $work"; fi
}
trap finish EXIT
cd "$work" || exit 1

quietly() { "$@" >>setup.log 2>&1 || { cat setup.log && exit 1; }; }
quietly "$zebra" data stories --out text --seed 5 --stories 120 --held-out 20 --questions 8 --pairs 48
quietly "$zebra" data tokenizer --input text/train.txt --vocab 400 --output text/tokenizer.model

data='data:
  sequence_length: 64
  train: [{path: text/train.txt, format: stories}]
  validation: [{path: text/valid.txt, format: stories}]'
cat >base.yaml <<END
name: base
output: runs/base
new_model: {tokenizer: text/tokenizer.model, hidden_size: 32, intermediate_size: 64, num_layers: 3,
            num_heads: 4, num_kv_heads: 2, head_dim: 8, max_position_embeddings: 160}
$data
stages: {pretrain: {tokens: 8000, batch_size: 8}}
eval: {max_sequences: 8, speed: false}
END
cat >job.yaml <<END
name: killed
output: runs/whole
base: {model: runs/base/stages/pretrain}
hybrid:
  mla_layers: {select: smart, count: 1}
  smart_sequences: 8
  mla: {q_lora_rank: 16, kv_lora_rank: 8, qk_nope_head_dim: 4, qk_rope_head_dim: 4, v_head_dim: 8,
        rope: default}
$data
stages:
  ild: {tokens: 12288, batch_size: 8, micro_batch_size: 2, optimizer: {learning_rate: 3.0e-3}}
  distill: {tokens: 20480, batch_size: 8, micro_batch_size: 2, optimizer: {learning_rate: 3.0e-3}}
  dpo: {epochs: 1, batch_size: 8, micro_batch_size: 2, beta: 0.1, train: [text/pairs.jsonl],
        max_length: 160, max_prompt_length: 96, optimizer: {learning_rate: 1.0e-4}}
eval: {max_sequences: 8, speed: false}
checkpoint: {every_steps: 2}
health: {hang_timeout_minutes: 2}
parallel: {bit_equal: $moving}
threads: 1
END
quietly "$zebra" run base.yaml
began=$(date +%s%N)
quietly "$zebra" run job.yaml "${layout[@]}"
whole_ms=$((($(date +%s%N) - began) / 1000000))
echo "undisturbed: $whole_ms ms, $nproc rank(s)"

move() {  # another layout
  local sizes=(1 2 4) shardings=(none zero1 zero2 full) recomputes=(none smart full)
  nproc=${sizes[RANDOM % 3]}
  layout=(--set "parallel.sharding=${shardings[RANDOM % 4]}" --set "parallel.recompute=${recomputes[RANDOM % 3]}")
  if [ "$nproc" != 1 ]; then layout+=(--nproc "$nproc"); fi
  moves[$nproc]=$((${moves[$nproc]:-0} + 1))
}

measures() {  # metrics.jsonl of a run without what depends on the machine and its clock
  sed -E 's/, "(tokens_per_second|step_seconds|data_seconds|memory_bytes|model_tflops|mfu)": [^,}]*//g' \
    "runs/$1/metrics.jsonl"
}

compare() {  # compare RUN: whether it is the undisturbed one
  diff <(measures whole) <(measures "$1") >difference.txt || return 1
  local file
  while read -r file; do
    cmp -s "runs/whole/$file" "runs/$1/$file" || { echo "$file" >difference.txt && return 1; }
  done < <(cd runs/whole && find stages -name '*.safetensors' | sort)
}

stage_of() {  # the first stage of a run without a record
  local stage
  for stage in init ild smart compose distill dpo eval; do
    if [ ! -e "runs/$1/stages/$stage.json" ]; then echo "$stage" && return; fi
  done
  echo end
}

# Whether a moment has come; `nullglob` makes patterns without a match vanish.
shopt -s nullglob
come() {
  local found=()
  case $2 in
    save) found=(runs/"$1"/checkpoints/*/tmp-step-*) ;;
    commit) found=(runs/"$1"/checkpoints/*/tmp-step-*/rank-*.safetensors) ;;
    export) found=(runs/"$1"/stages/.*.partial runs/"$1"/stages/*/.*.partial) ;;
  esac
  [ ${#found[@]} -gt 0 ]
}

where() {  # what a run was at when it was killed, by what it left behind
  if come "$1" commit; then
    echo commit
  elif come "$1" save; then
    echo save
  elif come "$1" export; then
    echo export
  else
    echo work
  fi
}

kill_now() {  # kill_now GROUP: all of it, or one rank
  local children
  mapfile -t children < <(pgrep -P "$1")
  if [ "$nproc" != 1 ] && [ ${#children[@]} -gt 0 ] && ((RANDOM % 2)); then
    kill -9 "${children[RANDOM % ${#children[@]}]}" 2>>kill.log
    one_rank=$((one_rank + 1))
  else
    kill -9 -- "-$1" 2>>kill.log
  fi
}

declare -A seen moves
killed=0
ended=0
one_rank=0
wrong=0
number=0
moments=(work save work commit work export)
while [ "$killed" -lt "$kills" ]; do
  number=$((number + 1))
  run=run-$number
  while true; do  # until this run reaches its end
    moment=${moments[RANDOM % ${#moments[@]}]}
    wait_ms=$((RANDOM % (whole_ms * 3 / 4) + 200))
    stage=$(stage_of "$run")
    if $moving; then move; fi
    setsid "$zebra" run job.yaml --set "output=runs/$run" "${layout[@]}" >"$run.out" 2>"$run.err" &
    child=$!
    began=$(date +%s%N)
    late=0  # save, commit and export wait for their moment after a random while
    while kill -0 "$child" 2>>kill.log; do
      now_ms=$((($(date +%s%N) - began) / 1000000))
      if [ "$killed" -ge "$kills" ]; then break; fi
      if [ "$now_ms" -ge $((wait_ms / 2)) ] && [ "$moment" != work ] && come "$run" "$moment"; then late=1; fi
      if [ "$moment" = work ]; then
        sleep 0.01
        if [ "$now_ms" -ge "$wait_ms" ]; then late=1; fi
      fi
      if [ "$late" = 1 ]; then
        kill_now "$child"
        killed=$((killed + 1))
        stage=$(stage_of "$run")
        key="$stage $(where "$run")"
        seen[$key]=$((${seen[$key]:-0} + 1))
        break
      fi
    done
    wait "$child" 2>>kill.log
    code=$?
    case $code in
      0) break ;;
      137 | 9) ;;
      *)
        echo "run $number ended with code $code:" && tail -5 "$run.err"
        wrong=$((wrong + 1))
        break
        ;;
    esac
  done
  if [ "$code" = 0 ]; then
    ended=$((ended + 1))
    if ! compare "$run"; then
      wrong=$((wrong + 1))
      echo "run $number differs from the undisturbed one:" && head -3 difference.txt
    fi
  fi
  rm -rf "runs/$run" "$run.out" "$run.err"
done 2>>kill.log  # the shell tells there of every process that was killed

echo "stage and moment of the kills:"
for key in "${!seen[@]}"; do echo "  $key: ${seen[$key]}"; done | sort
if $moving; then
  for size in "${!moves[@]}"; do echo "  starts with $size rank(s): ${moves[$size]}"; done | sort
fi
echo "$killed kills ($one_rank of one rank alone), $ended runs reached their end, $wrong wrong"
[ "$wrong" = 0 ]
