"""PyTorch side of the flip-flop benchmark: training steps of tanh networks on three bits, batches drawn anew each step.

    python torch_flip_flop.py --members 50 --threads 2 --variant nn_rnn
    python torch_flip_flop.py --members 50 --threads 2 --variant manual --group 25

The network, task and loss are those of Huang, Singh & Rajan (2024) as poprnn has them: h_t = tanh(W h_{t-1} + W_in x_t
+ b), 64 units, 256 trials of 100 steps, squared error at every step, Adam. Variants: `nn_rnn` is torch.nn.RNN, whose
loop runs in C++ (one network at a time); `eager` is a loop over time that PyTorch differentiates; `manual` has its
gradient written by hand, in place, with the weight gradient one product at the end. `--group` batches so many members.
Two one-thread processes are two of these with half the members and the same --start-at. Needs torch only.
"""

import argparse
import json
import statistics
import time
from itertools import pairwise

import torch
from torch_baseline import keep_freed_memory, wait_until

N_UNITS, N_BITS, N_STEPS, PROBABILITY = 64, 3, 100, 0.3


def trials(lead, batch):
    """Pulses and what is to be remembered of them, [(member,) time, trial, channel]."""
    shape = (*lead, N_STEPS, batch, N_BITS)
    draw = torch.rand(shape)
    pulses = (draw < PROBABILITY / 2).float() - (draw > 1 - PROBABILITY / 2).float()
    time_of = torch.arange(N_STEPS).view(-1, 1, 1).expand(shape)
    last = torch.where(pulses != 0, time_of, 0).cummax(dim=-3).values
    return pulses, pulses.gather(-3, last)


class Network:
    """Arrays of one network, or of several, and a readout."""

    def __init__(self, lead, variant):
        bound = N_UNITS**-0.5
        uniform = lambda *shape: torch.empty(*lead, *shape).uniform_(-bound, bound).requires_grad_()
        self.lead, self.variant = lead, variant
        self.w_out, self.b_out = uniform(N_UNITS, N_BITS), uniform(1, N_BITS)
        if variant == "nn_rnn":
            self.rnn = torch.nn.RNN(N_BITS, N_UNITS)
            self.parameters = (*self.rnn.parameters(), self.w_out, self.b_out)
            return
        self.w, self.w_in, self.b = uniform(N_UNITS, N_UNITS), uniform(N_BITS, N_UNITS), uniform(1, N_UNITS)
        self.parameters = (self.w, self.w_in, self.b, self.w_out, self.b_out)

    def states(self, x):
        """[(member,) time, trial, unit]."""
        if self.variant == "nn_rnn":
            return self.rnn(x)[0]
        flat = x.flatten(-3, -2)
        product = torch.baddbmm if self.lead else torch.addmm
        drive = product(self.b, flat, self.w_in).unflatten(-2, (N_STEPS, -1))
        if self.variant == "manual":
            return Unroll.apply(drive, self.w)
        h, states = drive.new_zeros(*self.lead, drive.shape[-2], N_UNITS), []
        for u in drive.unbind(-3):
            h = torch.tanh_(product(u, h, self.w))
            states.append(h)
        return torch.stack(states, -3)

    def loss(self, batch):
        """Of a fresh batch, summed over the members."""
        x, target = trials(self.lead, batch)
        product = torch.baddbmm if self.lead else torch.addmm
        read = product(self.b_out, self.states(x).flatten(-3, -2), self.w_out)
        apart = read - target.flatten(-3, -2)
        return (apart * apart).sum() / (target.numel() / (self.lead[0] if self.lead else 1))


class Unroll(torch.autograd.Function):
    """tanh(drive_t + h_{t-1} w), time the third axis from the end."""

    @staticmethod
    def forward(ctx, drive, w):
        states = drive.clone()  # the drives are overwritten by the states
        steps = states.unbind(-3)
        steps[0].tanh_()
        for before, now in pairwise(steps):
            (now.baddbmm_ if w.dim() == 3 else now.addmm_)(before, w).tanh_()
        ctx.save_for_backward(states, w)
        return states

    @staticmethod
    def backward(ctx, outer):
        states, w = ctx.saved_tensors
        slope = torch.addcmul(torch.ones(()), states, states, value=-1)
        grads, w_t = outer.clone(), w.mT
        steps = grads.unbind(-3)
        slopes = slope.unbind(-3)
        steps[-1].mul_(slopes[-1])
        for t in range(len(steps) - 2, -1, -1):
            (steps[t].baddbmm_ if w.dim() == 3 else steps[t].addmm_)(steps[t + 1], w_t).mul_(slopes[t])
        before = states.narrow(-3, 0, N_STEPS - 1).flatten(-3, -2)
        return grads, before.mT @ grads.narrow(-3, 1, N_STEPS - 1).flatten(-3, -2)


def check():
    """The gradient by hand is autograd's."""
    for lead in ((), (2,)):
        net = Network(lead, "eager")
        found = []
        for variant in ("eager", "manual"):
            net.variant = variant
            torch.manual_seed(1)
            found.append(torch.autograd.grad(net.loss(4), net.parameters))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def main():
    """Time steps of all members and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"members": 50, "batch": 256, "threads": 1, "group": 0, "repeats": 5, "warmup": 2}.items():
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--variant", choices=("nn_rnn", "eager", "manual"), default="nn_rnn")
    parser.add_argument("--start-at", type=float)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    check()
    lead = (options.group,) if options.group else ()
    nets = [Network(lead, options.variant) for _ in range(options.members // (options.group or 1))]
    adam = torch.optim.Adam([p for net in nets for p in net.parameters], lr=1e-3, fused=True)

    def step():
        adam.zero_grad(set_to_none=True)
        for net in nets:
            net.loss(options.batch).backward()
        adam.step()

    for _ in range(options.warmup):
        step()
    late = wait_until(options.start_at)
    seconds = []
    for _ in range(options.repeats):
        before = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - before)
    result = {"workload": "flip_flop", "variant": options.variant, "threads": options.threads, "group": options.group}
    times = {"seconds_median": statistics.median(seconds), "seconds_late": late}
    print(json.dumps(result | times | {"torch": torch.__version__}))


if __name__ == "__main__":
    main()
