#!/usr/bin/env bash
# Makes a Debian 12 or Ubuntu 24.04 machine ready to build zebra: system packages, and LibTorch in a
# cache outside the clone (ZEBRA_CACHE, by default ~/.cache/zebra). Does only what is missing.
#
# Usage: scripts/setup.sh [--cpu | --cuda] [--dev]
#   --cpu    LibTorch and the two small wheels it needs to load on any machine
#   --cuda   also the CUDA libraries (2 GB), for the preset `cuda`
#   --dev    also the checkers that scripts/test.sh runs
# Without --cpu or --cuda: --cuda where a CUDA 13 toolkit is found, else --cpu.
# A LibTorch of your own, named by the environment variable CMAKE_PREFIX_PATH, is left as it is.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

torch_version=2.11.0
cache=${ZEBRA_CACHE:-$HOME/.cache/zebra}
packages=(build-essential cmake ninja-build ccache mold git ca-certificates unzip python3 python3-pip
  catch2 libcli11-dev libfmt-dev libgloo-dev libpcre2-dev libsentencepiece-dev libspdlog-dev
  libssl-dev libutf8proc-dev libxxhash-dev libyaml-cpp-dev nlohmann-json3-dev zlib1g-dev)
dev_packages=(clang-14 clang-format-14 clang-tidy-14 shellcheck)

step_name="start"
advice=""
step() {  # step NAME ADVICE: what is being done, and what to do should it fail
  step_name=$1
  advice=$2
  echo "setup: $step_name"
}
failed() {
  trap - ERR
  echo "setup: FAILED: $step_name. $advice" >&2
  exit 1
}
trap failed ERR

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

find_nvcc() {  # prints the release of the CUDA toolkit, such as 13.0, or nothing
  local nvcc
  nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
  if [ -x "$nvcc" ]; then "$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'; fi
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    echo "setup: not Debian or Ubuntu; install the equivalents of: ${packages[*]}"
    return
  fi
  local missing=() package
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} = 0 ]; then
    echo "setup: system packages: all there"
    return
  fi
  step "installing system packages: ${missing[*]}" \
    "Run 'apt-get update && apt-get install' with those names by hand, and see what it says."
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

own_libtorch() {  # prints the LibTorch that CMAKE_PREFIX_PATH names, if any
  local prefix root
  local prefixes=()
  IFS=: read -r -a prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for prefix in "${prefixes[@]}"; do
    for root in "$prefix" "$prefix/torch" "$prefix/../.."; do
      if [ -e "$root/lib/libtorch_cpu.so" ]; then
        (cd "$root" && pwd)
        return
      fi
    done
  done
}

download() {  # download REQUIREMENTS FOLDER: pinned wheels, whatever this machine's Python is
  local platforms=() glibc
  for glibc in {28..17}; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --no-cache-dir --require-hashes --python-version 3.11 --implementation cp \
    --abi cp311 --abi abi3 --abi none "${platforms[@]}" --platform manylinux2014_x86_64 \
    --requirement "$1" --dest "$2"
}

install_libtorch() {  # install_libtorch FORM FOLDER OTHER_FOLDER
  local form=$1 folder=$2 other=$3 gigabytes wheel
  if [ -d "$folder" ]; then
    echo "setup: LibTorch $torch_version ($form): $folder"
    return
  fi
  gigabytes=3
  [ "$form" = cpu ] || gigabytes=9
  rm -rf "$cache"/unpack.*  # left by a run that was killed; the lock is ours
  scratch=$(mktemp -d "$cache/unpack.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  step "making room in $cache" "It needs $gigabytes GB; set ZEBRA_CACHE to a folder on another disk."
  test "$(df --output=avail -BG "$cache" | tail -1 | tr -dc 0-9)" -ge "$gigabytes"

  mkdir "$scratch/wheels" "$scratch/tree"
  if [ -d "$other" ]; then
    cp -al "$other/torch" "$scratch/tree/torch"
  else
    step "downloading LibTorch $torch_version (530 MB)" "Check the network or pip's index settings, and run it again."
    download scripts/wheels/torch.txt "$scratch/wheels"
  fi
  step "downloading what LibTorch ($form) needs to load" "Check the network or pip's index settings, and run it again."
  download "scripts/wheels/$form.txt" "$scratch/wheels"

  step "unpacking into $folder" "Is the disk full? Make room and run it again."
  for wheel in "$scratch"/wheels/*.whl; do
    case $wheel in
      */torch-*) unzip -q "$wheel" 'torch/lib/*' 'torch/include/*' 'torch/share/*' -d "$scratch/tree" ;;
      *) unzip -q -o "$wheel" 'nvidia/*' -d "$scratch/tree" ;;
    esac
    rm "$wheel"
  done
  mv -T "$scratch/tree" "$folder"  # whole or not at all: a kill before this leaves no such folder
}

form=auto
for argument in "$@"; do
  case $argument in
    --cpu | --cuda) form=${argument#--} ;;
    --dev) packages+=("${dev_packages[@]}") ;;
    *)
      sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
      exit 2
      ;;
  esac
done
toolkit=$(find_nvcc)
if [ "$form" = auto ]; then
  case $toolkit in
    13.*) form=cuda ;;
    *) form=cpu ;;
  esac
fi
if [ "$form" = cuda ] && [[ $toolkit != 13.* ]]; then
  echo "setup: note: no CUDA 13 toolkit found (nvcc: ${toolkit:-none}); the preset 'cuda' needs one to build" >&2
fi

install_packages
own=$(own_libtorch)
if [ -n "$own" ]; then
  echo "setup: LibTorch from CMAKE_PREFIX_PATH: $own"
elif [ "$(uname -m)" != x86_64 ]; then
  step "LibTorch for $(uname -m)" "Only x86-64 is fetched: install LibTorch $torch_version and name it in CMAKE_PREFIX_PATH."
  false
else
  mkdir -p "$cache"
  exec 9>"$cache/setup.lock"  # two clones may set up at once
  flock 9
  plain=$cache/libtorch-$torch_version
  if [ "$form" = cpu ]; then
    install_libtorch cpu "$plain" "$plain-cuda"
  else
    install_libtorch cuda "$plain-cuda" "$plain"
  fi
fi
echo "setup: done ($form)"
