"""What evaluation.sh runs in its Python environment."""

import argparse
import collections
import importlib.metadata
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import yaml

HARNESS = "0.4.13"
TASKS = ["arc_easy", "arc_challenge", "openbookqa", "piqa", "winogrande", "hellaswag", "mmlu"]
GROUPS = {"mmlu", "mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities"}


def parse():
    parser = argparse.ArgumentParser(prog="evaluation.sh")
    parser.add_argument("model")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--batch-size", type=int, default=64, help="of the harness")
    parser.add_argument("--max-length", type=int, default=512)
    return parser.parse_args()


def lines_of(file):
    """Of JSON lines: splitlines() would also split where a text has U+2028."""
    return file.read_text().removesuffix("\n").split("\n")


def splits(folder):
    return {file.stem: str(file.resolve()) for file in folder.glob("*.jsonl")}


def mirror(data, folder):
    """A folder of links to all rows, in which a file can be replaced."""
    for file in data.glob("**/*.jsonl"):
        link = folder / file.relative_to(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
    return folder


def ending_tokens(tokenizer, context, ending):
    """Tokens that the harness scores: trailing spaces of the context count as the ending's."""
    stripped = context.rstrip()
    ending = context[len(stripped):] + ending
    return len(tokenizer.encode(stripped + ending)) - len(tokenizer.encode(stripped))


def drop_long_endings(args, names, rows, folder):
    """Takes out of `rows` the documents with an ending longer than the context, at which the harness stops."""
    import lm_eval
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    manager = lm_eval.tasks.TaskManager(include_path=str(folder))
    for name, task in manager.load([f"local_{name}" for name in names])["tasks"].items():
        task.set_config(key="num_fewshot", value=0)
        task.build_all_requests()
        # A token has at least one byte, but for a few at the seam with the context.
        long = {request.doc_id for request in task.instances
                if request.request_type == "loglikelihood"
                and len(request.args[1].encode()) + 8 > args.max_length
                and ending_tokens(tokenizer, *request.args) > args.max_length}
        if not long:
            continue
        split = task.config.test_split or task.config.validation_split
        file = rows / below(name.removeprefix("local_")) / f"{split}.jsonl"
        kept = [line for row, line in enumerate(lines_of(file)) if row not in long]
        file.unlink()
        file.write_text("\n".join(kept) + "\n")
        print(f"{name.removeprefix('local_')}: {len(long)} of {len(long) + len(kept)} documents left out, whose "
              f"ending has more than {args.max_length} tokens", flush=True)


def below(name):
    """Where a task's rows are in the folder."""
    return f"mmlu/{name[5:]}" if name.startswith("mmlu_") else name


def local_tasks(names, data, folder):
    """The harness's own tasks, with rows from files in place of the hub; returns their names."""
    import lm_eval.tasks

    folder.mkdir(exist_ok=True)
    root = pathlib.Path(lm_eval.tasks.__file__).parent
    made = []
    for path in root.glob("**/*.yaml"):
        head = path.read_text(errors="ignore")
        name = next((line.split(":", 1)[1].strip().strip("\"'") for line in head.splitlines()
                     if line.startswith(("task:", '"task":'))), "")
        is_subject = path.parent.parts[-2:] == ("mmlu", "default")
        wanted = name in names or ("mmlu" in names and is_subject)
        if not name or not wanted or not (data / below(name)).is_dir():
            continue
        files = splits(data / below(name))
        task = {"include": str(path), "task": f"local_{name}", "dataset_path": "json", "dataset_name": None,
                "dataset_kwargs": {"data_files": files}, "tag": None}
        for split in ("training_split", "validation_split", "test_split"):
            usual = {"training_split": "train", "validation_split": "validation", "test_split": "test"}[split]
            if usual not in files:
                task[split] = None
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
        made.append(name)
    return made


def run_harness(args, names, folder):
    import lm_eval
    import torch

    torch.set_num_threads(args.threads)
    began = time.perf_counter()
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={args.model},dtype=float32,max_length={args.max_length}",
        tasks=[f"local_{name}" for name in names],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(folder)),
        batch_size=args.batch_size, device="cpu", limit=args.limit, num_fewshot=0, log_samples=True)
    spent = time.perf_counter() - began
    by_task = [{name.removeprefix("local_"): value for name, value in results[part].items()}
               for part in ("results", "samples")]
    return spent, *by_task


def run_zebra(args, names, rows, folder):
    output = folder / "zebra.json"
    command = [os.environ["ZEBRA_BIN"], "eval", args.model, "--tasks", ",".join(names), "--data", str(rows),
               "--max-length", str(args.max_length), "--threads", str(args.threads), "--fewshot", "0",
               "--output", str(output), "--samples"]
    if args.limit:
        command += ["--limit", str(args.limit)]
    began = time.perf_counter()
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:
        sys.exit("evaluation.sh: zebra eval failed")
    spent = time.perf_counter() - began
    samples = {name: [json.loads(line) for line in
                      lines_of(folder / "zebra_samples" / f"samples_{name}.jsonl")] for name in names}
    return spent, json.loads(output.read_text())["results"], samples


def log_likelihoods(samples):
    """By document; generated answers have none."""
    numbers = collections.defaultdict(list)
    for sample in samples:
        for response in sample["resps"]:
            value = response[0][0] if isinstance(response[0], (list, tuple)) else response[0]
            try:
                numbers[sample["doc_id"]].append(float(value))
            except ValueError:
                pass
    return numbers


def compare_samples(ours, theirs):
    count, largest, where = 0, 0.0, ""
    for task in sorted(theirs):
        mine, its = log_likelihoods(ours[task]), log_likelihoods(theirs[task])
        if {doc: len(all) for doc, all in mine.items()} != {doc: len(all) for doc, all in its.items()}:
            sys.exit(f"evaluation.sh: {task}: the two sides have other documents")
        for doc, values in its.items():
            for a, b in zip(mine[doc], values):
                count += 1
                difference = abs(a - b)
                if difference > largest or math.isnan(difference):
                    largest, where = difference, f" ({task}, document {doc})"
    print(f"log-likelihoods compared: {count}, largest difference: {largest:.2g}{where}")


def compare(ours, theirs):
    compared = differing = 0
    largest = 0.0
    for task, scores in sorted(theirs.items()):
        for key, value in scores.items():
            if "," not in key or not isinstance(value, float) or task in GROUPS:
                continue
            compared += 1
            difference = abs(ours[task][key] - value)
            largest = max(largest, difference)
            if not difference <= 1e-9:  # a NaN differs, too
                differing += 1
                print(f"  {task} {key}: harness {value:.6f}, zebra {ours[task][key]:.6f}")
    print(f"scores compared: {compared}, differing: {differing}, largest difference: {largest:.2g}")


def main():
    args = parse()
    version = importlib.metadata.version("lm_eval")
    if version != HARNESS:
        sys.exit(f"evaluation.sh: expected lm_eval {HARNESS}, got {version}; run with --setup")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        rows = mirror(args.data, folder / "rows")
        names = local_tasks(args.tasks.split(","), rows, folder / "tasks")
        if not names:
            sys.exit(f"evaluation.sh: no task of {args.tasks} has rows in {args.data}")
        drop_long_endings(args, names, rows, folder / "tasks")
        local_tasks(args.tasks.split(","), rows, folder / "tasks")
        zebra, ours, our_samples = run_zebra(args, names, rows, folder)
        print(f"zebra eval: {zebra:.1f} s", flush=True)
        harness, theirs, their_samples = run_harness(args, names, folder / "tasks")
        print(f"lm-evaluation-harness: {harness:.1f} s")
        print(f"ratio: {harness / zebra:.2f}  ({len(names)} tasks, {args.threads} threads)")
        compare_samples(our_samples, their_samples)
        compare(ours, theirs)


if __name__ == "__main__":
    main()
