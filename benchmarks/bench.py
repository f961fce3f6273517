"""Side by side with PyTorch, in one run: `make bench`. Prints tables and writes them into docs/benchmarks.md.

Each row runs poprnn and then the PyTorch arrangements named in ARRANGEMENTS, every one in processes of its own, and
takes medians. The fastest PyTorch arrangement is the baseline: of those that let PyTorch differentiate, and, apart,
of those with a gradient written by hand. Refuses to start while another process uses more than 5 % of a core, because
a busy machine slows two-thread PyTorch many times over and would flatter poprnn.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
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
    ("loop", "naive", 0, (1, 2)),
    ("loop", "eager", 0, (1, 2)),
    ("loop", "eager", 0, (1, 1)),
    ("loop", "eager", 0, (2, 1)),
    ("bmm", "eager", 0, (1, 2)),
    ("loop", "manual_script", 0, (2, 1)),
    ("loop", "manual_onednn", 0, (2, 1)),
    ("bmm", "manual", 25, (2, 1)),
]
GROUPS = {
    "naive loop": lambda a: a[1] == "naive",
    "loop, autograd": lambda a: a[0] == "loop" and a[1] == "eager",
    "members batched, autograd": lambda a: a[0] == "bmm" and a[1] == "eager",
    "gradient by hand": lambda a: a[1].startswith("manual"),
}
START_SECONDS = 15
"""Until then every process of an arrangement has imported PyTorch and built its networks, so that all time together."""


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
    return ask_all(1, script, *arguments)[0]


def ask_all(n_processes: int, script: str, *arguments: object) -> list[dict]:
    """The same at once in several processes."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE) for _ in range(n_processes)]
    lines = [process.communicate()[0].strip().splitlines()[-1] for process in running]
    return [json.loads(line) for line in lines]


def torch_step(shape: tuple[int, ...], layout: str, variant: str, group: int, way: tuple[int, int]) -> float | None:
    """Seconds for a step of all members, or None where the arrangement does not fit the shape."""
    members, batch, steps, units = shape
    processes, threads = way
    if members % processes or (group and (members // processes) % group):
        return None
    arguments = ["--members", members // processes, "--batch", batch, "--steps", steps, "--units", units]
    arguments += ["--inputs", 8, "--outputs", 3, "--layout", layout, "--variant", variant, "--threads", threads]
    arguments += ["--repeats", 1 if variant == "naive" else 3, "--warmup", 1]
    arguments += ["--group", group] if group else []
    arguments += ["--start-at", time.time() + START_SECONDS] if processes > 1 else []
    return max(line["seconds_median"] for line in ask_all(processes, "torch_baseline.py", "step", *arguments))


def steps_table(shapes: list[tuple[int, ...]], peak: float) -> list[str]:
    """One row a shape."""
    head = ["members × batch × steps × units", "poprnn", "share of peak"]
    head += [f"PyTorch, {group}" for group in GROUPS]
    rows = [_row(head), "|---" * len(head) + "|"]
    for shape in shapes:
        m, b, t, n = shape
        ours = ask("poprnn_side.py", "step", "--members", m, "--batch", b, "--steps", t, "--units", n)
        found = {a: s for a in ARRANGEMENTS if (s := torch_step(shape, *a)) is not None}
        seconds = ours["seconds_median"]
        cells = [" × ".join(map(str, shape)), f"{seconds:.3f} s", f"{ours['gflops'] / peak:.0%}"]
        for belongs in GROUPS.values():
            best, (_, variant, _, (processes, threads)) = min((s, a) for a, s in found.items() if belongs(a))
            cells.append(f"{best / seconds:.1f} × ({best:.2f} s; {variant}, {processes}×{threads} threads)")
        rows.append(_row(cells))
        print(rows[-1], flush=True)
    return rows


COGNITIVE = [("loop", 0, (1, 2)), ("loop", 0, (1, 1)), ("loop", 0, (2, 1)), ("bmm", 0, (1, 2)), ("bmm", 25, (2, 1))]


def cognitive_table() -> list[str]:
    """100 networks of 50 units on dm1 at 5 ms: trials, noise, penalties and Adam on both sides."""
    ours = ask("poprnn_side.py", "cognitive", "--members", 100, "--batch", 20)["seconds_median"]
    found = {}
    for layout, group, (processes, threads) in COGNITIVE:
        arguments = ["--members", 100 // processes, "--layout", layout, "--group", group, "--threads", threads]
        arguments += ["--repeats", 3, "--start-at", time.time() + 2 * START_SECONDS]
        seconds = max(line["seconds_median"] for line in ask_all(processes, "torch_cognitive.py", *arguments))
        found[f"{layout}{f' of {group}' if group else ''}, {processes}×{threads} threads"] = seconds
    rows = [_row(["", "seconds a step", "over poprnn's control"]), "|---" * 3 + "|"]
    rows += [_row([f"poprnn, {name}", f"{s:.3f}", f"{s / ours['control']:.2f} ×"]) for name, s in ours.items()]
    rows += [_row([f"PyTorch, {name}", f"{s:.3f}", f"{s / ours['control']:.1f} ×"]) for name, s in found.items()]
    print("\n".join(rows[2:]), flush=True)
    return rows


FLIP_FLOP = [(v, g, w) for v, g in (("nn_rnn", 0), ("eager", 0), ("manual", 0)) for w in ((1, 2), (1, 1), (2, 1))]
FLIP_FLOP += [("eager", 5, (2, 1)), ("manual", 5, (2, 1)), ("manual", 25, (2, 1)), ("manual", 25, (1, 2))]


def flip_flop_table() -> list[str]:
    """50 networks of 64 tanh units on three bits, 256 trials of 100 steps: trials and Adam on both sides."""
    ours = ask("poprnn_side.py", "flip_flop", "--members", 50, "--batch", 256)["seconds_median"]
    rows = [_row(["", "seconds a step", "over poprnn"]), "|---" * 3 + "|", _row(["poprnn", f"{ours:.3f}", "1"])]
    for variant, group, (processes, threads) in FLIP_FLOP:
        arguments = ["--members", 50 // processes, "--variant", variant, "--group", group, "--threads", threads]
        arguments += ["--repeats", 3, "--warmup", 1]
        arguments += ["--start-at", time.time() + 2 * START_SECONDS] if processes > 1 else []
        seconds = max(line["seconds_median"] for line in ask_all(processes, "torch_flip_flop.py", *arguments))
        name = f"{variant}{f', members by {group}' if group else ''}, {processes}×{threads} threads"
        rows.append(_row([f"PyTorch, {name}", f"{seconds:.3f}", f"{seconds / ours:.1f} ×"]))
    print("\n".join(rows[2:]), flush=True)
    return rows


def parity_table() -> list[str]:
    """The N-parity job, N = 2…12, alone and with four members; PyTorch trains its networks one after another.

    Both sides draw their own batches, so the number of epochs differs from seed to seed; the ratio compares the
    seconds a time step of training, everything else included (evaluations; compilation on our side).
    """
    head = ["members", "poprnn", "epochs", "µs a time step", "PyTorch, autograd", "PyTorch, gradient by hand"]
    rows = [_row(head), "|---" * len(head) + "|"]
    for members, (processes, threads) in ((1, (1, 2)), (4, (2, 1))):
        ours = ask("poprnn_side.py", "parity", "--members", members)
        pace = ours["seconds"] / ours["time_steps"]
        cells = [str(members), f"{ours['seconds']:.0f} s", ", ".join(map(str, ours["epochs"])), f"{pace * 1e6:.0f}"]
        for variant in ("eager", "manual_onednn"):
            # four networks in two processes take as long, network by network, as the two that are run here
            arguments = ["--variant", variant, "--threads", threads, "--start-at", time.time() + START_SECONDS]
            lines = ask_all(processes, "torch_baseline.py", "parity", *arguments)
            steps = sum(m["training_time_steps"] for line in lines for m in line["members"])
            seconds = max(line["seconds_total"] for line in lines)
            epochs = ", ".join(str(m["epochs"]) for line in lines for m in line["members"])
            other = seconds / steps
            cells.append(
                f"{other / pace:.1f} × ({other * 1e6:.0f} µs; {processes}×{threads} threads; "
                f"{seconds:.0f} s for {processes} network(s), epochs {epochs})"
            )
        rows.append(_row(cells))
        print(rows[-1], flush=True)
    return rows


ASSEMBLY = [(v, t) for v in ("eager", "dense", "manual", "manual_dense", "manual_onednn") for t in (1, 2)]


def assembly_table() -> list[str]:
    """A Sparse Combo Net of 16 modules of 32 units on sequences of 784 steps, 128 at once: one training step."""
    ours = ask("poprnn_side.py", "assembly", "--batch", 128, "--steps", 784)
    seconds = ours["seconds_median"]
    found = {}
    for variant, threads in ASSEMBLY:
        answer = ask("torch_assembly.py", "--variant", variant, "--threads", threads)
        found[f"{variant}, {threads} thread(s)"] = answer["seconds_median"]
    rows = [_row(["", "seconds a step", "over poprnn"]), "|---" * 3 + "|", _row(["poprnn", f"{seconds:.2f}", "1"])]
    rows += [_row([f"PyTorch, {name}", f"{s:.2f}", f"{s / seconds:.1f} ×"]) for name, s in found.items()]
    rows += [_row(["one check of the certificate", f"{ours['certificate_seconds']:.2f}", ""])]
    print("\n".join(rows[2:]), flush=True)
    return rows


def own_table() -> list[str]:
    """What concerns poprnn alone."""
    rows = ["| | |", "|---|---|"]
    length, memory, vary = (ask("poprnn_side.py", w) for w in ("length", "memory", "vary"))
    rows += [
        _row(["training step at true length 10 over one at 404, capacity 404", f"{length['ratio']:.1%}"]),
        _row(["100 members × 20 trials × 10,000 steps × 50 units, beyond start-up", f"{memory['beyond_mb']:.0f} MB"]),
        _row(["16 learning rates as one population, against 16 runs", f"{vary['ratio']:.1f} × as fast"]),
    ]
    print("\n".join(rows[2:]), flush=True)
    return rows


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write(part: str, lines: list[str]) -> None:
    """Replace what stands between the page's markers for this part."""
    text = PAGE.read_text()
    start, end = f"<!-- {part} -->\n", f"<!-- end {part} -->"
    before, rest = text.split(start)
    PAGE.write_text(before + start + "\n".join(lines) + "\n" + end + rest.split(end)[1])


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", choices=["steps", "cognitive", "flip_flop", "parity", "assembly", "own"], default=None
    )
    options = parser.parse_args()
    refuse_if_busy()
    if options.only in (None, "steps"):
        peak = ask("poprnn_side.py", "peak")["gflops"]
        note = f"A large matrix product ran at {peak:.0f} GFLOP/s in the same run."
        print(note, flush=True)
        write("steps", [*steps_table(SHAPES, peak), "", note])
    if options.only in (None, "cognitive"):
        write("cognitive", cognitive_table())
    if options.only in (None, "flip_flop"):
        write("flip_flop", flip_flop_table())
    if options.only in (None, "parity"):
        write("parity", parity_table())
    if options.only in (None, "assembly"):
        write("assembly", assembly_table())
    if options.only in (None, "own"):
        write("own", own_table())


if __name__ == "__main__":
    main()
