#!/usr/bin/env bash
# Checks (or with --fix, mends) the form of the whole tree: clang-format, shellcheck.
# clang-format 14 is asked for by name, because every version formats a little differently.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t sources < <(git ls-files --cached --others --exclude-standard -- \
  '*.h' '*.cpp' '*.cu' '*.cuh' | sort -u | xargs -r ls -d 2>/dev/null)
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run)

format=$(command -v clang-format-14 || true)
if [ -z "$format" ]; then
  echo "style: clang-format-14 is missing; run scripts/setup.sh --dev" >&2
  exit 1
fi
if [ "${1:-}" = --fix ]; then
  "$format" -i "${sources[@]}"
  exit
fi

failed=0
for source in "${sources[@]}"; do
  if ! "$format" --dry-run -Werror "$source" >/dev/null 2>&1; then
    echo "style: $source is not formatted"
    failed=1
  fi
done
shellcheck "${scripts[@]}" || failed=1
if [ "$failed" = 0 ]; then
  echo "style: ok (${#sources[@]} sources, ${#scripts[@]} scripts)"
else
  echo "style: run scripts/check_style.sh --fix and mend what is left"
fi
exit "$failed"
