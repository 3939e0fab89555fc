#!/usr/bin/env python3
"""Runs clang-tidy over src/ and include/ with the flags of a configured build folder.

LibTorch's headers cost ten seconds a run, so sources that share no name of their own are checked as
one that includes them, and alone only when that fails. A file that passed is remembered by the hash
of its text and of .clang-tidy, in the cache folder, and not looked at again until it changes.
Headers are checked together too. LibTorch is precompiled once for clang.

Usage: scripts/check_tidy.py BUILD_DIR [--jobs N]
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("ZEBRA_CACHE") or pathlib.Path.home() / ".cache/zebra") / "tidy"
CLANG, TIDY = "clang++-14", "clang-tidy-14"
BATCH = 16  # sources in one run
# What a line at the left margin defines: functions, types and constants.
DEFINED = re.compile(
    r"(?<!::)\b(\w+)\(|\b(?:struct|class|enum class|enum|using) (\w+)|\b(k[A-Z]\w*)")
KEEP = ("-D", "-I", "-std", "-fopenmp", "-m")  # what a clang run needs of a gcc command


class Job(typing.NamedTuple):
    name: str
    text: str  # what it was checked for: a change checks it again
    path: pathlib.Path
    flags: list
    headers: str  # regular expression of the headers whose complaints count


def digest(*texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def clang_flags(command):
    """The flags of a compile command that matter to clang, and whether LibTorch is precompiled."""
    words, flags = shlex.split(command), []
    for i, word in enumerate(words):
        if word == "-isystem":
            flags += [word, words[i + 1]]
        elif word.startswith(KEEP):
            flags.append("-std=c++20" if word.startswith("-std") else word)
    return flags, "cmake_pch" in command


def precompile(flags):
    """LibTorch's header for clang; made once for each set of flags."""
    pch = CACHE / f"torch-{digest(*flags)}.pch"
    if not pch.exists():
        header = pch.with_suffix(".h")  # its own: clang refuses a header that was written again
        header.write_text("#include <torch/torch.h>\n")
        part = pch.with_suffix(f".{os.getpid()}")
        subprocess.run([CLANG, *flags, "-x", "c++-header", header, "-o", part], check=True)
        part.rename(pch)
    return ["-include-pch", str(pch)]


def jobs_to_do(build):
    """One job for each source of the build, and one for a source that includes all headers."""
    commands = json.loads((build / "compile_commands.json").read_text())
    everything = None
    for entry in commands:
        path = pathlib.Path(entry["file"])
        if not path.is_relative_to(ROOT / "src"):
            continue
        flags, torch = clang_flags(entry["command"])
        if torch:
            everything = everything or flags
            flags = flags + precompile([f for f in flags if not f.startswith("-D") or "USE_" in f])
        yield Job(str(path.relative_to(ROOT)), path.read_text(), path, flags, "^$")
    headers = sorted([*ROOT.glob("include/zebra/*.h"), *ROOT.glob("src/**/*.h")])
    # Those that are compiled once for each instruction set cannot be included by another source.
    headers = [h for h in headers if "ZEBRA_ISA" not in h.read_text()]
    if headers and everything:
        source = CACHE / f"headers-{os.getpid()}.cpp"
        source.write_text("#include <torch/torch.h>\n" + "".join(f'#include "{h}"\n' for h in headers))
        text = "".join(str(h.relative_to(ROOT)) + h.read_text() for h in headers)
        yield Job("all headers", text, source, everything, "(include/zebra|src)/.*")


def mark(job, settings):
    return CACHE / f"passed-{digest(job.name, job.text, settings)}"


def run_tidy(path, headers, flags):
    """What clang-tidy complains about; empty when it passed."""
    command = [TIDY, "--quiet", f"--config-file={ROOT / '.clang-tidy'}", f"--header-filter={headers}"]
    result = subprocess.run([*command, str(path), "--", *flags], capture_output=True, text=True)
    return "" if result.returncode == 0 else result.stdout or result.stderr


def names_of(job):
    lines = [line for line in job.text.splitlines() if line and line[0] not in " /#}"]
    return {name for line in lines for found in DEFINED.findall(line) for name in found if name}


def batches(jobs):
    """The jobs, those together that compile as one source: with equal flags and no common name."""
    open_ones = []  # (flags, names, jobs)
    for job in jobs:
        names = names_of(job)
        for flags, taken, batch in open_ones:
            if flags == job.flags and len(batch) < BATCH and not names & taken:
                taken |= names
                batch.append(job)
                break
        else:
            open_ones.append((job.flags, names, [job]))
    return [batch for _, _, batch in open_ones]


def check_batch(batch, settings):
    """(name, complaints) of those that failed."""
    if len(batch) > 1:
        source = CACHE / f"batch-{digest(*(job.name for job in batch))}-{os.getpid()}.cpp"
        source.write_text("".join(f'#include "{job.path}"\n' for job in batch))
        complaints = run_tidy(source, "src/.*[.]cpp", batch[0].flags)
        source.unlink()
        if not complaints:
            for job in batch:
                mark(job, settings).touch()
            return []
    failed = []
    for job in batch:
        complaints = run_tidy(job.path, job.headers, job.flags)
        if complaints:
            failed.append((job.name, complaints))
        else:
            mark(job, settings).touch()
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    settings = (ROOT / ".clang-tidy").read_text()
    bad = []
    jobs = [job for job in jobs_to_do(arguments.build) if not mark(job, settings).exists()]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for failed in pool.map(lambda batch: check_batch(batch, settings), batches(jobs)):
            for name, complaints in failed:
                bad.append(name)
                print(f"{complaints}\n", flush=True)
    for left in CACHE.glob(f"headers-{os.getpid()}.cpp"):
        left.unlink()
    print(f"clang-tidy: {', '.join(bad) + ' failed' if bad else 'ok'}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
