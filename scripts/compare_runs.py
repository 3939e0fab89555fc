#!/usr/bin/env python3
"""Compares two run folders: the losses of every step, and the weights of every model.

Usage: scripts/compare_runs.py RUN REFERENCE [--losses 1e-6] [--weights 1e-5] [--exact]

Losses are compared relative to the reference's, weights relative to the tensor's largest magnitude.
Prints the largest differences; exit status 1 when one is beyond its limit, or samples differ.
"""

import argparse
import array
import json
import math
import operator
import pathlib
import struct
import sys


def steps(run):
    """{(stage, step): line} of metrics.jsonl."""
    found = {}
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if "loss" in line:
            found[line["stage"], line["step"]] = line
    return found


def tensors(path):
    """{name: floats} of a safetensors file in F32 or F64."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    result = {}
    for name, info in header.items():
        kind = {"F32": "f", "F64": "d"}.get(info["dtype"])
        if kind is None:
            raise SystemExit(f"{path}: {name}: expected F32 or F64, got {info['dtype']}")
        begin, end = info["data_offsets"]
        result[name] = array.array(kind, data[8 + size + begin : 8 + size + end])
    return result


def largest(values):
    """The maximum; NaN when there is one, which max() may pass over."""
    values = list(values)
    return math.nan if any(map(math.isnan, values)) else max(values)


def compare_losses(run, reference):
    own, expected = steps(run), steps(reference)
    if own.keys() != expected.keys():
        raise SystemExit(f"{run}: {len(own)} steps, {reference}: {len(expected)} steps")
    for key, line in expected.items():
        if own[key].get("samples") != line.get("samples"):
            raise SystemExit(f"{run}: other samples in {key[0]} step {key[1]}")
    return largest(abs(own[k]["loss"] - v["loss"]) / abs(v["loss"]) for k, v in expected.items())


def compare_weights(run, reference):
    differences = [0.0]
    files = sorted(p.relative_to(reference) for p in reference.glob("stages/**/model.safetensors"))
    if not files:
        raise SystemExit(f"{reference}: holds no model")
    for file in files:
        own, expected = tensors(run / file), tensors(reference / file)
        if own.keys() != expected.keys():
            raise SystemExit(f"{run / file}: other tensors than {reference / file}")
        for name, values in expected.items():
            if own[name] == values:  # neither holds a NaN then
                continue
            size = largest(map(abs, values)) or 1.0
            differences.append(largest(map(abs, map(operator.sub, own[name], values))) / size)
    return largest(differences)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("reference", type=pathlib.Path)
    parser.add_argument("--losses", type=float, default=1e-6)
    parser.add_argument("--weights", type=float, default=1e-5)
    parser.add_argument("--exact", action="store_true", help="demand equal bits")
    options = parser.parse_args()
    losses = compare_losses(options.run, options.reference)
    weights = compare_weights(options.run, options.reference)
    limits = (0.0, 0.0) if options.exact else (options.losses, options.weights)
    good = losses <= limits[0] and weights <= limits[1]
    print(f"losses {losses:.2e}, weights {weights:.2e}: {'ok' if good else 'FAILED'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
