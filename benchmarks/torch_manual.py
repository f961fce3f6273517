"""The time loop with its gradient written by hand: the fastest PyTorch this benchmark knows.

Autograd adds up the weight gradient step by step and allocates every state anew. Here the states go into a
buffer that is kept, the gradient with respect to them into another, and the weight gradient is one matrix
product at the end (one network), or is added up in place while its operands are in cache (members batched).
"""

from itertools import pairwise
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor

SLOPE = 0.1
_leaky_relu = torch._C._nn.leaky_relu  # F.leaky_relu, which hides its `out`
_leaky_relu_grad = torch.ops.aten.leaky_relu_backward.grad_input

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


# The same two loops on oneDNN. PyTorch's float32 products go to MKL, which on this AMD reaches 97 GFLOP/s
# for 256 x 200 x 200 on one core. oneDNN, which ships with PyTorch and is
# what torch.compile calls for inference, reaches 180. Worth it from about 200 units; below, its longer
# call costs more than it saves (20 x 50 x 50: 7 GFLOP/s against 45). Not a public function.


def forward_loop_onednn(states, a_t):
    """As `forward_loop`: leaky_relu(states[t] A' + drive) in two calls."""
    affine, a = torch.ops.mkldnn._linear_pointwise.binary, a_t.t()
    for h, following in pairwise(states):
        _leaky_relu(affine(h, following, a, None, "add"), SLOPE, out=following)


def backward_loop_onednn(grads, states, outer, a):
    """As `backward_loop`."""
    linear, a_t = torch.ops.mkldnn._linear_pointwise, a.t()
    last = len(grads) - 1
    _leaky_relu_grad(outer[-1], states[-1], SLOPE, True, grad_input=grads[-1])
    for t in range(last - 1, -1, -1):
        if len(outer) > 1:
            g = linear.binary(grads[t + 1], outer[t], a_t, None, "add")
        else:
            g = linear.default(grads[t + 1], a_t, None, "none", [], "")
        _leaky_relu_grad(g, states[t + 1], SLOPE, True, grad_input=grads[t])


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
        previous = h[:-1].view(-1, a.shape[0])
        if loops[1] is backward_loop_onednn:
            grad_a = torch.ops.mkldnn._linear_pointwise(g_t, previous.t(), None, "none", [], "")
        else:
            grad_a = g_t @ previous
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


# ---------------------------------------------------------------- callables


def single(forward_loop, backward_loop):
    """A function (net, x, h0, last) -> states of one network, on the given loops."""
    space, loops = Workspace(), (forward_loop, backward_loop)

    def states(net, x, h0, last):
        return ManualLoop.apply(x, *net.folded(), h0, last, space, loops)

    return states


def batched(scripted):
    """A function (net, x, h0) -> outputs of stacked networks, at all steps; `scripted` is applied to the loops.

    The readout's row is [W_out, 0, b_out]: it ignores the inputs that stand in the row beside the state.
    """
    space, loops = Workspace(), (scripted(batched_forward), scripted(batched_backward))

    def forward(net, x, h0):
        a, w_in, b = net.folded()
        w = torch.cat([a, w_in, b.unsqueeze(-1)], -1)
        gap = net.w_out.new_zeros(*net.w_out.shape[:-1], w_in.shape[-1])
        w_out = torch.cat([net.w_out, gap, net.b_out.unsqueeze(-1)], -1)
        return ManualBatched.apply(x, w, w_out, h0, space, loops)

    return forward
