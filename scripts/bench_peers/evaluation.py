"""What evaluation.sh runs in its Python environment."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import yaml

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


def splits(folder):
    return {file.stem: str(file.resolve()) for file in folder.glob("*.jsonl")}


def local_tasks(names, data, folder):
    """The harness's own tasks, with rows from files in place of the hub; returns their names."""
    import lm_eval.tasks

    root = pathlib.Path(lm_eval.tasks.__file__).parent
    made = []
    for path in root.glob("**/*.yaml"):
        head = path.read_text(errors="ignore")
        name = next((line.split(":", 1)[1].strip().strip("\"'") for line in head.splitlines()
                     if line.startswith(("task:", '"task":'))), "")
        below = f"mmlu/{name[5:]}" if path.parent.parts[-2:] == ("mmlu", "default") else name
        wanted = name in names or ("mmlu" in names and below.startswith("mmlu/"))
        if not name or not wanted or not (data / below).is_dir():
            continue
        files = splits(data / below)
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
        batch_size=args.batch_size, device="cpu", limit=args.limit, num_fewshot=0, log_samples=False)
    spent = time.perf_counter() - began
    return spent, {name.removeprefix("local_"): value for name, value in results["results"].items()}


def run_zebra(args, names, folder):
    output = folder / "zebra.json"
    command = [os.environ["ZEBRA_BIN"], "eval", args.model, "--tasks", ",".join(names), "--data", str(args.data),
               "--max-length", str(args.max_length), "--threads", str(args.threads), "--fewshot", "0",
               "--output", str(output)]
    if args.limit:
        command += ["--limit", str(args.limit)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, json.loads(output.read_text())["results"]


def compare(ours, theirs):
    compared = differing = 0
    for task, scores in sorted(theirs.items()):
        for key, value in scores.items():
            if "," not in key or not isinstance(value, float) or task in GROUPS:
                continue
            compared += 1
            if abs(ours[task][key] - value) > 1e-9:
                differing += 1
                print(f"  {task} {key}: harness {value:.6f}, zebra {ours[task][key]:.6f}")
    print(f"scores compared: {compared}, differing: {differing}")


def main():
    args = parse()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        names = local_tasks(args.tasks.split(","), args.data, folder)
        if not names:
            sys.exit(f"evaluation.sh: no task of {args.tasks} has rows in {args.data}")
        zebra, ours = run_zebra(args, names, folder)
        print(f"zebra eval: {zebra:.1f} s", flush=True)
        harness, theirs = run_harness(args, names, folder)
        print(f"lm-evaluation-harness: {harness:.1f} s")
        print(f"ratio: {harness / zebra:.2f}  ({len(names)} tasks, {args.threads} threads)")
        compare(ours, theirs)


if __name__ == "__main__":
    main()
