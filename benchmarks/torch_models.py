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
- Freed memory is kept (torch_baseline.py).

torch.nn.RNN is no alternative: it has no leaky ReLU, no leak, and no fast CPU kernel.

Axes: member, time, trial, unit. Members are there ("bmm", batched products) or not ("loop").
"""

from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor

SLOPE = 0.1
VARIANTS = ("naive", "eager", "script", "compile", "manual", "manual_script")
_leaky_relu_grad = torch.ops.aten.leaky_relu_backward.grad_input


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


# ---------------------------------------------------------------- hand-written gradients, one network


def forward_loop(states: List[Tensor], a_t: Tensor):
    """states[t + 1] holds the drive of step t on entry and the state on return."""
    for t in range(len(states) - 1):
        F.leaky_relu_(states[t + 1].addmm_(states[t], a_t), 0.1)


def leaky_relu_grad_(g: Tensor, h: Tensor):
    """g *= f'(h), in place. TorchScript wants the plain name, Python is faster with the overload."""
    if torch.jit.is_scripting():
        torch.ops.aten.leaky_relu_backward(g, h, 0.1, True, grad_input=g)
    else:
        _leaky_relu_grad(g, h, SLOPE, True, grad_input=g)


def backward_loop(grads: List[Tensor], states: List[Tensor], outer: List[Tensor], a: Tensor):
    """grads[t] becomes dL/d(argument of f at t); `outer` is dL/dh_t of every step, or of the last alone."""
    last = len(grads) - 1
    grads[last].copy_(outer[-1])
    leaky_relu_grad_(grads[last], states[last + 1])
    for t in range(last - 1, -1, -1):
        if len(outer) > 1:
            torch.addmm(outer[t], grads[t + 1], a, out=grads[t])
        else:
            torch.mm(grads[t + 1], a, out=grads[t])
        leaky_relu_grad_(grads[t], states[t + 1])


class Workspace:
    """Buffers kept from step to step: fresh ones of this size would be mapped by the kernel every time."""

    def __init__(self):
        self.shape = None

    def get(self, time, *tail):
        """(states [time + 1, ...], their list, gradients [time, ...], their list)."""
        if self.shape is None or self.shape[0] < time or self.shape[1:] != tail:
            self.shape = (time, *tail)
            self.h, self.g = torch.empty(time + 1, *tail), torch.empty(time, *tail)
            self.h_list, self.g_list = list(self.h.unbind()), list(self.g.unbind())
        return self.h[: time + 1], self.h_list[: time + 1], self.g[:time], self.g_list[:time]


class ManualLoop(torch.autograd.Function):
    """The loop of one network with its gradient by hand: each weight gradient is one product at the end."""

    @staticmethod
    def forward(ctx, x, a, w_in, b, h0, last, space, loops):
        time, batch, n_inputs = x.shape
        h, h_list, g, g_list = space.get(time, batch, a.shape[0])
        h_list[0].copy_(h0)
        torch.addmm(b, x.reshape(-1, n_inputs), w_in.t(), out=h[1:].view(time * batch, -1))
        loops[0](h_list, a.t())
        ctx.kept = (x, a, last, loops, h, h_list, g, g_list)
        return h_list[-1].clone() if last else h[1:]

    @staticmethod
    def backward(ctx, outer):
        x, a, last, loops, h, h_list, g, g_list = ctx.kept
        loops[1](g_list, h_list, [outer] if last else list(outer.unbind()), a)
        g_t = g.view(-1, a.shape[0]).t()
        grad_a = g_t @ h[:-1].view(-1, a.shape[0])
        grad_in = g_t @ x.reshape(-1, x.shape[-1])
        return None, grad_a, grad_in, g_t.sum(1), None, None, None, None


# ---------------------------------------------------------------- hand-written gradients, members batched


def batched_forward(rows: List[Tensor], states: List[Tensor], out: List[Tensor], z: Tensor, w_t: Tensor, o_t: Tensor):
    """rows[t] = [h_t, x_{t+1}, 1], so that one batched product gives recurrence, input and bias."""
    for t in range(len(out)):
        torch.bmm(rows[t], w_t, out=z)
        states[t + 1].copy_(F.leaky_relu_(z, 0.1))
        torch.bmm(rows[t + 1], o_t, out=out[t])


def batched_backward(
    rows: List[Tensor], states: List[Tensor], outer: List[Tensor], g: List[Tensor], weights: List[Tensor]
):
    """Weight gradients are added up step by step, while the rows are in cache: no transposed copy of them.

    `g` is two zeroed buffers; `weights` is (A, readout, gradient of [A, W_in, b], gradient of the readout).
    """
    a, w_out, grad_w, grad_out = weights
    for i in range(len(outer)):
        t = len(outer) - 1 - i
        now, later = g[i % 2], g[(i + 1) % 2]
        torch.bmm(outer[t], w_out, out=now)
        now.baddbmm_(later, a)
        leaky_relu_grad_(now, states[t + 1])
        grad_w.baddbmm_(now.mT, rows[t])
        grad_out.baddbmm_(outer[t].mT, rows[t + 1])


class ManualBatched(torch.autograd.Function):
    """Outputs [member, T, B, O] of stacked networks, loop and readout with their gradient by hand."""

    @staticmethod
    def forward(ctx, x, w, w_out, h0, space, loops):
        members, time, batch, n_inputs = x.shape
        n_units = w.shape[1]
        rows, row_list, _, _ = space.get(time, members, batch, n_units + n_inputs + 1)
        rows[:-1, ..., n_units:-1] = x.transpose(0, 1)
        rows[..., -1] = 1.0
        rows[-1, ..., n_units:-1] = 0.0
        states = [row[..., :n_units] for row in row_list]
        states[0].copy_(h0)
        out = x.new_empty(time, members, batch, w_out.shape[1])
        loops[0](row_list, states, list(out.unbind()), x.new_empty(members, batch, n_units), w.mT, w_out.mT)
        ctx.kept = (w, w_out, loops, row_list, states)
        return out.transpose(0, 1)

    @staticmethod
    def backward(ctx, outer):
        w, w_out, loops, row_list, states = ctx.kept
        n_units = w.shape[1]
        outer = list(outer.transpose(0, 1).contiguous().unbind())
        g = [torch.zeros_like(states[0], memory_format=torch.contiguous_format) for _ in range(2)]
        grad_w, grad_out = torch.zeros_like(w), torch.zeros_like(w_out)
        weights = [w[..., :n_units].contiguous(), w_out[..., :n_units].contiguous(), grad_w, grad_out]
        loops[1](row_list, states, outer, g, weights)
        return None, grad_w, grad_out, None, None, None


# ---------------------------------------------------------------- one callable per variant


def make_forward(variant, batched=False, chunk=0):
    """A function (net, x, h0, last=False, n_outputs=None) -> outputs, for one of VARIANTS.

    `last` reads out the last step alone, `n_outputs` only the first rows of the readout
    (both for single networks). `chunk` is the number of steps per compiled graph, 0 for all: at T = 500
    all of them took 51 s to compile for a single network (chunks of 20: 7 s), more than 120 s for batched
    members (chunks of 20: 14 s, of 100: 105 s), and ran no faster than chunks of 100.
    """
    scripted = torch.jit.script if "script" in variant else lambda function: function
    if variant.startswith("manual") and batched:
        return _manual_batched(Workspace(), (scripted(batched_forward), scripted(batched_backward)))
    if variant.startswith("manual"):
        space, loops = Workspace(), (scripted(forward_loop), scripted(backward_loop))
        states = lambda net, x, h, last: ManualLoop.apply(x, *net.folded(), h, last, space, loops)
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


def _manual_batched(space, loops):
    """The readout's row is [W_out, 0, b_out]: it ignores the inputs that stand in the row beside the state."""

    def forward(net, x, h0, last=False, n_outputs=None):
        a, w_in, b = net.folded()
        w = torch.cat([a, w_in, b.unsqueeze(-1)], -1)
        gap = net.w_out.new_zeros(*net.w_out.shape[:-1], w_in.shape[-1])
        w_out = torch.cat([net.w_out, gap, net.b_out.unsqueeze(-1)], -1)
        return ManualBatched.apply(x, w, w_out, h0, space, loops)

    return forward
