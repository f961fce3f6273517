"""Leaky recurrent networks in PyTorch, written for speed on CPU: the other side of the benchmark.

    h_t = leaky_relu( (1 - 1/tau) h_{t-1} + (1/tau) (W h_{t-1} + W_in x_t + b) ),   diag(W) left out
    y_t = W_out h_t + b_out

What makes it fast, in order of weight:

- The leak, 1/tau and the mask are folded into ONE matrix before the loop,
  A = diag(1 - 1/tau) + diag(1/tau) W, so a step is one matrix product with an addition and one
  leaky ReLU. This is the same function with the same gradients.
- The loop walks over `drive.unbind()`. Indexing `drive[t]` would look the same, but the backward
  of every index fills a whole array of zeros: quadratic in time, ruinous where members are batched.
- Input product and readout are one matrix product each for all time steps.
- Freed memory is kept (torch_baseline.py), and the gradient may be written by hand (torch_manual.py).

torch.nn.RNN is no alternative: it has no leaky ReLU and no leak.

Axes: member, time, trial, unit. Members are there ("bmm", batched products) or not ("loop").
"""

from typing import List

import torch
import torch.nn.functional as F
import torch_manual
from torch import Tensor

SLOPE = 0.1
LOOP_VARIANTS = ("naive", "eager", "script", "compile", "manual", "manual_script", "manual_onednn")
BMM_VARIANTS = ("eager", "script", "compile", "manual", "manual_script")


class LeakyRNN:
    """Parameters of one network (`lead=()`), or of several stacked on axis 0 (`lead=(members,)`).

    tau ~ U(1, 2); recurrent and readout weights U(±1/sqrt(n_units)); input weights and bias U(-1, 1).
    """

    def __init__(self, n_units, n_inputs, n_outputs, lead=()):
        def uniform(low, high, *shape):
            return torch.empty(*lead, *shape).uniform_(low, high).requires_grad_()

        bound = n_units**-0.5
        self.w = uniform(-bound, bound, n_units, n_units)
        self.w_in = uniform(-1.0, 1.0, n_units, n_inputs)
        self.b = uniform(-1.0, 1.0, n_units)
        self.tau = uniform(1.0, 2.0, n_units)
        self.w_out = uniform(-bound, bound, n_outputs, n_units)
        self.b_out = uniform(-bound, bound, n_outputs)
        self.diagonal = torch.eye(n_units, dtype=torch.bool)

    @property
    def parameters(self):
        """The trainable arrays, in a fixed order."""
        return [self.w, self.w_in, self.b, self.tau, self.w_out, self.b_out]

    def folded(self):
        """(A, input weights, bias) with 1/tau, leak and mask multiplied in; once per forward."""
        alpha = 1.0 / self.tau.clamp(min=1.0)
        column = alpha.unsqueeze(-1)
        a = torch.where(self.diagonal, 1.0 - column, column * self.w)
        return a, column * self.w_in, alpha * self.b


# ---------------------------------------------------------------- autograd: naive, eager, script, compile


def naive(net, x, h, last):
    """The equation as it stands in the paper, everything inside the loop: states [T, B, N] or [B, N]."""
    states = []
    for t in range(x.shape[0]):
        alpha = 1.0 / net.tau.clamp(min=1.0)
        w = net.w.masked_fill(net.diagonal, 0.0)
        current = F.linear(h, w) + F.linear(x[t], net.w_in, net.b)
        h = F.leaky_relu((1.0 - alpha) * h + alpha * current, SLOPE)
        states.append(h)
    return h if last else torch.stack(states)


def unroll(drive: Tensor, a_t: Tensor, h: Tensor, last: bool) -> Tensor:
    """States [(member,) T, B, N] for a projected input, or only the last [(member,) B, N].

    Leaky ReLU works in place: its gradient needs only its own output.
    """
    time = drive.dim() - 3
    states: List[Tensor] = []
    for u in drive.unbind(time):
        if drive.dim() == 4:
            h = F.leaky_relu_(torch.baddbmm(u, h, a_t), 0.1)
        else:
            h = F.leaky_relu_(torch.addmm(u, h, a_t), 0.1)
        if not last:
            states.append(h)
    return h if last else torch.stack(states, time)


def in_chunks(step, chunk):
    """`step` (an unroll) applied to `chunk` time steps at a time, so that one short graph is compiled."""

    def run(drive, a_t, h, last):
        time, parts = drive.dim() - 3, []
        for piece in drive.split(chunk or drive.shape[time], time):
            parts.append(step(piece, a_t, h, False))
            h = parts[-1].select(time, -1)
        return h if last else torch.cat(parts, time) if len(parts) > 1 else parts[0]

    return run


def project(x, weight, bias):
    """weight x + bias for all time steps in one matrix product, [(member,) T, B, out]."""
    if x.dim() == 3:
        return F.linear(x, weight, bias)
    members, time, batch, _ = x.shape
    flat = torch.baddbmm(bias.unsqueeze(1), x.reshape(members, time * batch, -1), weight.mT)
    return flat.view(members, time, batch, -1)


# ---------------------------------------------------------------- one callable per variant


def make_forward(variant, batched=False, chunk=0):
    """A function (net, x, h0, last=False, n_outputs=None) -> outputs, for one of the variants.

    `last` reads out the last step alone, `n_outputs` only the first rows of the readout
    (both for single networks). `chunk` is the number of steps per compiled graph, 0 for all: at T = 500
    all of them took 51 s to compile for a single network (chunks of 20: 7 s), more than 400 s for batched
    members (chunks of 20: 14 s, of 100: 105 s), and ran no faster than chunks of 100.
    """
    scripted = torch.jit.script if "script" in variant else lambda function: function
    if variant.startswith("manual") and batched:
        outputs = torch_manual.batched(scripted)
        return lambda net, x, h0, last=False, n_outputs=None: outputs(net, x, h0)
    if variant == "manual_onednn":
        states = torch_manual.single(torch_manual.forward_loop_onednn, torch_manual.backward_loop_onednn)
    elif variant.startswith("manual"):
        states = torch_manual.single(scripted(torch_manual.forward_loop), scripted(torch_manual.backward_loop))
    elif variant == "naive":
        states = naive
    else:
        step = scripted(unroll)
        if variant == "compile":
            step = in_chunks(torch.compile(unroll, dynamic=False), chunk)

        def states(net, x, h, last):
            a, w_in, b = net.folded()
            return step(project(x, w_in, b), a.mT, h, last)

    def forward(net, x, h0, last=False, n_outputs=None):
        h = states(net, x, h0, last)
        if batched:
            return project(h, net.w_out, net.b_out)
        return F.linear(h, net.w_out[:n_outputs], net.b_out[:n_outputs])

    return forward
