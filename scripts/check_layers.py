#!/usr/bin/env python3
"""Checks what a compiler does not: that modules only include modules below them, and sizes.

- A file of src/ or include/ includes only its own module and those that docs/architecture.md grants.
- No header includes torch/torch.h (a precompiled header serves the sources).
- CUDA sources include no LibTorch header.
- No file is longer than 600 lines, no line of the library is a `using namespace`.
- The modules' CMake files grant no more than the table here; every public header is installed.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_LINES = 600

# module: the modules it may use. `log` is the logger inside base, compiled without LibTorch.
MAY_USE = {
    "log": "",
    "base": "log",
    "ops": "base",
    "io": "base",
    "data": "base",
    "dist": "base",
    "model": "base ops",
    "convert": "base ops model io",
    "init": "base ops model",
    "eval": "base ops model data dist",
    "train": "base ops model io data dist convert init eval",
    "cli": "base ops model io data dist convert init eval train",
}

# module: its public headers in include/zebra. A private header's module is its folder.
PUBLIC = {
    "base": "error options log",
    "ops": "ops losses cached_attention",
    "model": "layers mixers model cache",
    "io": "safetensors checkpoint",
    "data": "tokenizer chat_template dataset prepare",
    "dist": "dist",
    "convert": "convert",
    "init": "init",
    "eval": "eval generate tasks",
    "train": "recipe recipe_running trainer",
}
MODULE_OF = {header: module for module, headers in PUBLIC.items() for header in headers.split()}

INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)
SOURCE_KINDS = {".h", ".cpp", ".cu", ".cuh"}
LIBTORCH = ("torch/", "ATen/", "c10/")


def module_of_include(name):
    """The module an included file belongs to, or None for other people's headers."""
    first, _, rest = name.partition("/")
    if first == "zebra":
        return MODULE_OF.get(rest.removesuffix(".h"), f"unknown header {name}") if rest != "zebra.h" else None
    return first if first in MAY_USE and rest else None


def own_module(path):
    top = path.relative_to(ROOT).parts
    return top[1] if top[0] == "src" else MODULE_OF.get(path.stem, f"unknown header {path.name}")


def check_source(path):
    """Yields what is wrong with one file of src/ or include/."""
    text, own = path.read_text(), own_module(path)
    if own not in MAY_USE:
        yield f"{own}: name its module in scripts/check_layers.py"
        return
    for name in INCLUDE.findall(text):
        used = module_of_include(name)
        if used and used != own and used not in MAY_USE[own].split():
            yield f"{own} may not use {used} ({name})"
        if path.suffix == ".h" and name == "torch/torch.h":
            yield "a header must not include torch/torch.h"
        if path.suffix in {".cu", ".cuh"} and name.startswith(LIBTORCH):
            yield f"a CUDA source must not include LibTorch ({name})"
    if re.search(r"^using namespace", text, re.M):
        yield "using namespace at file scope"


def check_length(path):
    lines = path.read_text().count("\n")
    if lines > MAX_LINES:
        yield f"{lines} lines; {MAX_LINES} is the end, split it"


def check_cmake(path):
    """Yields grants of a module's CMake file that the table lacks."""
    for name, body in re.findall(r"zebra_module\((\w+)(.*?)^\)", path.read_text(), re.M | re.S):
        uses = re.search(r"\bUSES((?:\s+[a-z]\w*)+)", body)
        for used in uses.group(1).split() if uses else []:
            if used not in MAY_USE[name].split():
                yield f"{name} may not use {used}"


def files(*folders):
    for folder in folders:
        yield from (p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in SOURCE_KINDS)


def main():
    found = []
    for path in files("src", "include"):
        if path.name != "zebra.h":
            found += [(path, message) for message in check_source(path)]
    for path in files("src", "include", "tests"):
        found += [(path, message) for message in check_length(path)]
    for path in sorted((ROOT / "src").glob("*/CMakeLists.txt")):
        found += [(path, message) for message in check_cmake(path)]
    listed = (ROOT / "src/CMakeLists.txt").read_text()
    for path in sorted((ROOT / "include/zebra").glob("*.h")):
        if f"include/zebra/{path.name}\n" not in listed:
            found.append((path, "not named in src/CMakeLists.txt, hence not installed"))
    for path, message in found:
        print(f"{path.relative_to(ROOT)}: {message}")
    print(f"layers: {len(found)} mistakes" if found else "layers: ok")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
