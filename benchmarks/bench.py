"""Side by side with PyTorch, in one run: `make bench`. Prints tables and writes them to docs/benchmarks_latest.md.

Each row runs poprnn and then the PyTorch arrangements named in ARRANGEMENTS, every one in processes of its own, and
takes medians. The fastest PyTorch arrangement is the baseline. Refuses to start while another process uses more than
5 % of a core, because a busy machine slows two-thread PyTorch many times over and would flatter poprnn.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
SHAPES = [
    (100, 20, 500, 50),
    (32, 64, 200, 64),
    (100, 256, 100, 64),
    (8, 64, 200, 128),
    (2, 64, 500, 256),
    (4, 64, 100, 500),
]
# layout, variant, group of members batched together (bmm), processes x threads
ARRANGEMENTS = [
    ("loop", "eager", 0, (1, 2)),
    ("loop", "eager", 0, (1, 1)),
    ("loop", "eager", 0, (2, 1)),
    ("loop", "manual_script", 0, (2, 1)),
    ("loop", "manual_onednn", 0, (2, 1)),
    ("bmm", "manual", 0, (1, 2)),
    ("bmm", "manual", 25, (2, 1)),
]
AUTOGRAD = {"eager", "script", "compile"}
"""Variants that let PyTorch differentiate; the manual ones are hand-written gradients."""


def refuse_if_busy() -> None:
    """Exit if another process is working."""
    for process in psutil.process_iter():
        process.cpu_percent(None)
    time.sleep(2.0)
    me = {p.pid for p in (psutil.Process(), *psutil.Process().parents())}
    busy = [(p.info["name"], c) for p in psutil.process_iter(["name"]) if p.pid not in me
            and (c := p.cpu_percent(None)) > 5]  # fmt: skip
    if busy:
        raise SystemExit(f"other processes are busy: {busy}; the figures would mean nothing")


def ask(script: str, *arguments: object) -> dict:
    """Run one side in a process of its own and read its line of JSON."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
    return json.loads(done.stdout.strip().splitlines()[-1])


def torch_step(shape: tuple[int, ...], layout: str, variant: str, group: int, way: tuple[int, int]) -> float | None:
    """Seconds for a step of all members, or None where the arrangement does not fit the shape."""
    members, batch, steps, units = shape
    processes, threads = way
    if members % processes or (group and (members // processes) % group):
        return None
    arguments = ["step", "--members", members // processes, "--batch", batch, "--steps", steps, "--units", units]
    arguments += ["--inputs", 8, "--outputs", 3, "--layout", layout, "--variant", variant, "--threads", threads]
    arguments += ["--repeats", 5, "--warmup", 2, "--start-at", time.time() + 30]
    arguments += ["--group", group] if group else []
    command = [sys.executable, str(HERE / "torch_baseline.py"), *map(str, arguments)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE) for _ in range(processes)]
    lines = [process.communicate()[0].strip().splitlines()[-1] for process in running]
    return max(json.loads(line)["seconds_median"] for line in lines)


def steps_table(shapes: list[tuple[int, ...]], peak: float) -> list[str]:
    """One row a shape."""
    rows = [
        "| members × batch × steps × units | poprnn | share of peak | PyTorch loop, autograd, fastest | ratio "
        "| PyTorch, hand-written gradient, fastest | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for shape in shapes:
        m, b, t, n = shape
        ours = ask("poprnn_side.py", "step", "--members", m, "--batch", b, "--steps", t, "--units", n)
        found = {a: s for a in ARRANGEMENTS if (s := torch_step(shape, *a)) is not None}
        auto = min((s, a) for a, s in found.items() if a[1] in AUTOGRAD)
        manual = min((s, a) for a, s in found.items() if a[1] not in AUTOGRAD)
        seconds = ours["seconds_median"]
        cells = [" × ".join(map(str, shape)), f"{seconds:.3f} s", f"{ours['gflops'] / peak:.0%}"]
        for best, (layout, variant, _, (processes, threads)) in (auto, manual):
            cells += [f"{best:.3f} s ({layout} {variant}, {processes}×{threads})", f"{best / seconds:.1f}"]
        rows.append("| " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)
    return rows


def parity_table(seconds: float) -> list[str]:
    """The N-parity job alone and with four members."""
    rows = ["| N-parity, N = 2…12 | poprnn | epochs | PyTorch, fastest | seconds at equal time steps, ratio |",
            "|---|---|---|---|---|"]  # fmt: skip
    for members in (1, 4):
        ours = ask("poprnn_side.py", "parity", "--members", members)
        theirs = []
        for variant in ("eager", "manual_onednn"):
            for threads in (1, 2):
                line = ask("torch_baseline.py", "parity", "--members", 1, "--units", 200, "--batch", 256, "--n-from", 2,
                           "--n-to", 12, "--batches-per-epoch", 600, "--epochs", 40, "--threads", threads, "--seed", 0,
                           "--max-seconds", seconds, "--variant", variant)  # fmt: skip
                theirs.append((line, f"{variant}, {threads} threads"))
        rows.append(
            f"| {members} member(s) | {ours['seconds']:.0f} s | {ours['epochs']} | {json.dumps(theirs)[:400]} | |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["steps", "parity", "own"], default=None)
    parser.add_argument("--max-seconds", type=float, default=900.0, help="budget of one PyTorch parity job")
    options = parser.parse_args()
    refuse_if_busy()
    peak = ask("poprnn_side.py", "peak")["gflops"]
    lines = [f"Large matrix product: {peak:.0f} GFLOP/s", ""]
    print(lines[0], flush=True)
    if options.only in (None, "steps"):
        lines += [*steps_table(SHAPES, peak), ""]
    if options.only in (None, "parity"):
        lines += [*parity_table(options.max_seconds), ""]
    if options.only in (None, "own"):
        for workload in ("length", "memory", "vary"):
            lines.append(json.dumps(ask("poprnn_side.py", workload)))
            print(lines[-1], flush=True)
    (HERE.parent / "docs" / "benchmarks_latest.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
