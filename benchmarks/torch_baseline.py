"""PyTorch side of the benchmark: one arrangement, one process, one JSON line.

    python torch_baseline.py step --members 100 --batch 20 --steps 500 --units 50 --layout bmm --variant manual
    python torch_baseline.py parity --members 1 --n-to 12 --epochs 40 --variant manual_script --threads 2
    python torch_baseline.py --check

"Two one-thread processes" is two of these started together, each with half the members, --threads 1
and the same --start-at (Unix time, later than both warm-ups).

Needs torch and numpy only, and never imports poprnn. The models are in torch_models.py and
torch_manual.py, the parity job in torch_parity.py.
"""

import argparse
import ctypes
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch_models import BMM_VARIANTS, LOOP_VARIANTS, LeakyRNN, make_forward
from torch_parity import run_parity

# ---------------------------------------------------------------- step: one training step of M networks


def build_step(options):
    """A function that does one training step of all members and returns their mean loss.

    Members go through in groups: of one (loop), or of `--group` (bmm; all unless said). Smaller groups
    keep the states in cache, larger ones need fewer calls.
    """
    size = 1 if options.layout == "loop" else options.group or options.members
    if options.members % size:
        raise SystemExit(f"--group {size} must divide --members {options.members}")
    lead = () if options.layout == "loop" else (size,)
    groups = []
    for _ in range(options.members // size):
        net = LeakyRNN(options.units, options.inputs, options.outputs, lead)
        groups.append((net, *step_data(options, lead), torch.zeros(*lead, options.batch, options.units)))
    forward = make_forward(options.variant, options.layout == "bmm", options.chunk)
    # Fused Adam is one call for all arrays of all members: the fastest of the three kinds on CPU.
    adam = torch.optim.Adam([p for net, *_ in groups for p in net.parameters], lr=1e-3, fused=True)

    def step():
        adam.zero_grad(set_to_none=True)
        total = 0.0
        for net, x, target, h0 in groups:
            # The sum over members of each one's mean, so that every network has its own gradient.
            loss = F.mse_loss(forward(net, x, h0), target) * size
            loss.backward()
            total += loss.item()
        adam.step()
        return total / options.members

    return step


def step_data(options, lead):
    """Fixed inputs and targets [(member,) T, B, ·]; where members are batched by hand, time lies outermost."""

    def normal(width):
        if lead and options.variant.startswith("manual"):
            return torch.randn(options.steps, *lead, options.batch, width).transpose(0, 1)
        return torch.randn(*lead, options.steps, options.batch, width)

    return normal(options.inputs), normal(options.outputs)


def wait_until(unix_time):
    """Sleep until then; returns by how many seconds the moment was missed (0 if it was not)."""
    if unix_time is None:
        return 0.0
    late = time.time() - unix_time
    if late < 0:
        time.sleep(-late)
    return max(late, 0.0)


def run_step(options):
    """Time `--repeats` steps after `--warmup` others; the first step (with any compiling) is kept apart."""
    step = build_step(options)
    clock = time.perf_counter
    begin = clock()
    loss = step()
    first = clock() - begin
    for _ in range(options.warmup - 1):
        loss = step()
    late = wait_until(options.start_at)
    seconds, processor = [], time.process_time()
    for _ in range(options.repeats):
        begin = clock()
        loss = step()
        seconds.append(clock() - begin)
    processor = time.process_time() - processor
    shape = {k: getattr(options, k) for k in ("members", "batch", "steps", "units", "inputs", "outputs")}
    return {
        "workload": "step",
        "layout": options.layout,
        "variant": options.variant,
        "threads": options.threads,
        "seconds_median": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_all": seconds,
        "final_loss": loss,
        "cpu_seconds_mean": processor / options.repeats,
        "seconds_first_step": first,
        "seconds_late": late,
        "shape": shape,
        "group": options.group,
        "chunk": options.chunk,
        "torch": torch.__version__,
    }


# ---------------------------------------------------------------- check


def gradients(variant, dtype, lead, last):
    """Outputs and gradients of a small network that is the same for every variant and dtype."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    net = LeakyRNN(12, 3, 2, lead)
    x, h0 = torch.randn(*lead, 21, 5, 3), torch.rand(*lead, 5, 12)
    with torch.no_grad():
        net.tau[..., :2] = 0.5  # below the clamp
        for name, value in list(vars(net).items()):
            if value.is_floating_point():
                setattr(net, name, value.to(dtype).requires_grad_())
    torch.set_default_dtype(dtype)
    x, h0 = x.to(dtype), h0.to(dtype)
    if variant == "naive" and lead:
        pieces = []
        for k in range(lead[0]):
            one = LeakyRNN(12, 3, 2)
            for name in ("w", "w_in", "b", "tau", "w_out", "b_out"):
                setattr(one, name, getattr(net, name)[k])
            pieces.append(make_forward("naive")(one, x[k], h0[k], last))
        out = torch.stack(pieces)
    else:
        out = make_forward(variant, bool(lead), chunk=7)(net, x, h0, last)
    out.square().sum().backward()
    return [out.detach(), *(p.grad for p in net.parameters)]


def check():
    """Every variant against the paper's equation in float64: outputs and all gradients."""
    worst = {}
    for lead, last in (((), False), ((), True), ((3,), False)):
        truth = gradients("naive", torch.float64, lead, last)
        for variant in BMM_VARIANTS if lead else LOOP_VARIANTS:
            tolerances = {torch.float32: 1e-5, torch.float64: 1e-12}
            if variant == "manual_onednn":
                del tolerances[torch.float64]  # oneDNN has no float64
            for dtype, tolerance in tolerances.items():
                got = gradients(variant, dtype, lead, last)
                error = max(float((g - t).abs().max() / t.abs().max()) for g, t in zip(got, truth, strict=True))
                label = f"{variant} {'bmm' if lead else 'loop'}{' last' if last else ''} {str(dtype)[6:]}"
                worst[label] = error
                if not error < tolerance:
                    raise SystemExit(f"{label}: relative error {error:.1e} exceeds {tolerance:.0e}")
    return {"workload": "check", "relative_error": worst}


# ---------------------------------------------------------------- command line


def parse(arguments=None):
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare all variants with the plain equation")
    parser.add_argument("--plain-malloc", action="store_true", help="leave the C library's allocator as it is")
    jobs = parser.add_subparsers(dest="workload")
    common = argparse.ArgumentParser(add_help=False)
    integers(common, threads=1, seed=0)
    common.add_argument("--start-at", type=float, help="Unix time at which to begin timing")
    step = jobs.add_parser("step", parents=[common])
    integers(step, members=100, batch=20, steps=500, units=50, inputs=8, outputs=3, repeats=5, warmup=2)
    integers(step, group=0, chunk=20)
    step.add_argument("--layout", choices=("loop", "bmm"), default="loop")
    step.add_argument("--variant", choices=LOOP_VARIANTS, default="eager")
    parity = jobs.add_parser("parity", parents=[common])
    integers(parity, members=1, units=200, batch=256, n_from=2, n_to=12, batches_per_epoch=600, epochs=40)
    parity.add_argument("--max-seconds", type=float, default=float("inf"))
    parity.add_argument("--variant", choices=[v for v in LOOP_VARIANTS if v != "compile"], default="eager")
    options = parser.parse_args(arguments)
    if not options.check and options.workload is None:
        parser.error("choose step or parity, or --check")
    if getattr(options, "layout", "loop") == "bmm" and options.variant not in BMM_VARIANTS:
        parser.error(f"--variant {options.variant} has no bmm layout")
    return options


def integers(parser, **defaults):
    """Add one integer option for each name."""
    for name, default in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)


def keep_freed_memory():
    """Let glibc keep freed memory instead of handing it back to the kernel; returns whether it agreed.

    Otherwise every large array is mapped, and zeroed page by page, at every step: up to half of the
    time of the eager variants. PyTorch's tuning guide advises jemalloc or tcmalloc for the same reason;
    this needs no preloading. (Values: <malloc.h>.)
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1) and mallopt(top_pad, 1 << 26))


def main():
    """Run one arrangement and print it as JSON."""
    options = parse()
    if not options.plain_malloc:
        keep_freed_memory()
    # Before any other thread exists, so that all inherit it. A safeguard: gradients that fade over long
    # sequences may become denormal numbers, on which products are slow.
    torch.set_flush_denormal(True)
    if options.check:
        print(json.dumps(check()))
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if options.workload == "step":
        result = run_step(options)
    else:
        wait_until(options.start_at)
        result = run_parity(options)
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
