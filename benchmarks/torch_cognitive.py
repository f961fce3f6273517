"""PyTorch side of the cognitive benchmark: training steps on dm1, task generation, noise and penalties included.

    python torch_cognitive.py --members 100 --threads 2 --layout loop
    python torch_cognitive.py --members 100 --threads 2 --layout bmm --group 25

The network, task and loss are those of Soo, Goudar & Wang (NeurIPS 2023) as poprnn has them: 50 units, OU noise, trials
of 5 ms steps whose durations a batch has in common, the first second without gradient. Written to be fast: what is
constant within a period is computed once a period, noise is drawn at once, a step is a product, a rectification and an
interpolation. "Two one-thread processes" is two of these started together with half the members each and the same
--start-at. Needs torch only.
"""

import argparse
import itertools
import json
import math
import statistics
import time

import torch
from torch_baseline import keep_freed_memory, wait_until

N_UNITS, N_RING, N_RULES, DT, TAU = 50, 32, 20, 5.0, 100.0
ALPHA = DT / TAU
N_IN, N_OUT = 1 + 2 * N_RING + N_RULES, 1 + N_RING
RULE_DM1 = 6
PREFERRED = torch.arange(N_RING) * 2 * math.pi / N_RING


def bump(directions):
    """Activity of a ring, [..., ring]."""
    apart = (directions[..., None] - PREFERRED).abs() % (2 * math.pi)
    apart = torch.minimum(apart, 2 * math.pi - apart)
    return 0.8 * torch.exp(-0.5 * (8 * apart / math.pi) ** 2)


def trials(lead, batch):
    """Steps of the four periods, and inputs [(member,) batch, channel] and targets of each of them."""
    jitter = lambda ms: round((ms + 200 * torch.rand(()).item() - 100) / DT)
    steps = (round(1000 / DT), jitter(500), jitter(500), round(500 / DT))
    shape = (*lead, batch)
    first = 2 * math.pi * torch.rand(shape)
    second = first + math.pi / 2 + math.pi * torch.rand(shape)
    mean, half = 0.8 + 0.4 * torch.rand(shape), 0.1 + 0.1 * torch.rand(shape)
    half = torch.where(torch.rand(shape) < 0.5, half, -half)
    rings = (mean + half)[..., None] * bump(first) + (mean - half)[..., None] * bump(second)
    answer = bump(torch.where(half > 0, first, second))
    rule = torch.zeros(*shape, N_IN)
    rule[..., 1 + 2 * N_RING + RULE_DM1] = 1
    fixate = rule.clone()
    fixate[..., 0] = 1
    stimulus = fixate.clone()
    stimulus[..., 1 : 1 + N_RING] = rings
    hold = torch.full((*shape, N_OUT), 0.05)
    hold[..., 0] = 0.85
    respond = torch.full((*shape, N_OUT), 0.05)
    respond[..., 1:] += answer
    return steps, (rule, fixate, stimulus, rule), (None, hold, hold, respond)


class Network:
    """Arrays of one network, or of several."""

    def __init__(self, lead):
        normal = lambda *shape: torch.randn(*lead, *shape)
        self.w = (normal(N_UNITS, N_UNITS) / N_UNITS).requires_grad_()
        self.w_in = normal(N_UNITS, N_IN).requires_grad_()
        self.b = normal(1, N_UNITS).requires_grad_()
        self.w_out = normal(N_OUT, N_UNITS).requires_grad_()
        self.lead = lead
        index = torch.arange(N_UNITS)
        self.receives = (index < 20).float()[:, None]
        self.is_read = ((index >= 20) & (index < 40)).float()

    @property
    def parameters(self):
        return self.w, self.w_in, self.b, self.w_out


def noise(n_steps, shape):
    """0.1 times an Ornstein-Uhlenbeck process, [time, ...]."""
    eta = torch.randn(n_steps, *shape).mul_((2 * ALPHA) ** 0.5)
    eta[0].add_(torch.randn(shape), alpha=1 - ALPHA)
    steps = eta.unbind(0)
    for before, now in itertools.pairwise(steps):
        now.add_(before, alpha=1 - ALPHA)
    return eta.mul_(0.1)


def loss_of(net, batch):
    """Loss of a fresh batch, summed over the members of the group."""
    steps, inputs, targets = trials(net.lead, batch)
    shape = (*net.lead, batch, N_UNITS)
    eta, first = noise(sum(steps), shape), 0
    w, w_in = net.w.transpose(-1, -2), (net.w_in * net.receives).transpose(-1, -2)
    product = torch.baddbmm if net.lead else torch.addmm
    r, losses, total = torch.zeros(shape), [], 0.0
    for period, (n, x) in enumerate(zip(steps, inputs, strict=True)):
        with torch.set_grad_enabled(period > 0):
            drives = (eta[first : first + n] + (x @ w_in + net.b)).unbind(0)
            states = []
            for drive in drives:
                r = torch.lerp(r, torch.relu(product(drive, r, w)), ALPHA)
                states.append(r)
            first += n
            if period == 0:
                continue
            states = torch.stack(states)
            total = total + states.abs().sum()
            grace = round(200 / DT) if period in (1, 3) else 0
            y = torch.sigmoid(states[grace:] @ (net.w_out * net.is_read).transpose(-1, -2))
            losses.append(((y - targets[period]) ** 2).sum() / (batch * N_OUT))
    counted = steps[1] - round(200 / DT) + steps[2], steps[3] - round(200 / DT)
    error = (losses[0] + losses[1]) / counted[0] + losses[2] / counted[1]
    penalty = 1e-5 * total / (sum(steps) * batch * N_UNITS) + 1e-5 * net.w.abs().sum() / N_UNITS**2
    return error + penalty


def main():
    """Time steps of all members and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"members": 100, "batch": 20, "threads": 1, "group": 0, "repeats": 5, "warmup": 2}.items():
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--layout", choices=("loop", "bmm"), default="loop")
    parser.add_argument("--start-at", type=float)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    size = 1 if options.layout == "loop" else options.group or options.members
    nets = [Network(() if options.layout == "loop" else (size,)) for _ in range(options.members // size)]
    adam = torch.optim.Adam([p for net in nets for p in net.parameters], lr=0.1 / N_UNITS, fused=True)

    def step():
        adam.zero_grad(set_to_none=True)
        for net in nets:
            loss_of(net, options.batch).backward()
        adam.step()

    for _ in range(options.warmup):
        step()
    late = wait_until(options.start_at)
    seconds = []
    for _ in range(options.repeats):
        before = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - before)
    result = {"workload": "cognitive", "layout": options.layout, "threads": options.threads, "group": options.group}
    print(
        json.dumps(
            result | {"seconds_median": statistics.median(seconds), "seconds_late": late, "torch": torch.__version__}
        )
    )


if __name__ == "__main__":
    main()
