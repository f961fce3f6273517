"""PyTorch side of the assembly benchmark: one training step of a Sparse Combo Net, one process, one JSON line.

    python torch_assembly.py --modules 16 --units 32 --batch 128 --steps 784 --variant manual --threads 1
    python torch_assembly.py --check

    x <- x + a (-x + W relu(x) + L x + w_in u + b),   L = B - P^-1 B^T P,   W block-diagonal and fixed

Cross-entropy of ten classes at the last step, Adam. Variants, all with the leak folded into A = (1 - a) I + a L:

- eager: autograd; W as a batch of small products (bmm).
- dense: autograd; W as one matrix, [x, relu(x)] times [A, W] as a single product.
- manual: states and cotangents in kept buffers, the gradient of A as one product at the end; W by bmm.
- manual_dense: the same with W as one matrix.
- manual_onednn: as manual, products with A by oneDNN (see torch_manual.py).

Needs torch and numpy only, and never imports poprnn.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch_baseline import integers, keep_freed_memory, wait_until

VARIANTS = ("eager", "dense", "manual", "manual_dense", "manual_onednn")
STEP = 0.03
BUFFERS: dict = {}


class Assembly:
    """Parameters: B holds the blocks i < j, one above the other, as poprnn stores them."""

    def __init__(self, modules, units):
        n = modules * units
        self.shape, self.pairs = (modules, units), torch.triu_indices(modules, modules, 1)
        W = torch.empty(modules, units, units).uniform_(-1, 1)
        self.W = W * (torch.rand_like(W) < 0.033) * (1 - torch.eye(units))
        self.W *= 0.9 / torch.linalg.eigvals(self.W.abs()).abs().amax(1).clamp(min=0.9)[:, None, None]
        J = self.W.abs() - torch.eye(units)
        ones = torch.ones(modules, units, 1)
        self.P = (torch.linalg.solve(J.mT, ones) / torch.linalg.solve(J, ones)).reshape(n)
        pairs = self.pairs.shape[1]
        self.B = (torch.randn(pairs, units, units) / n**0.5).requires_grad_()
        self.w_in = torch.empty(n, 1).uniform_(-1, 1).requires_grad_()
        self.b = torch.empty(n).uniform_(-1, 1).requires_grad_()
        self.w_out = torch.empty(10, n).uniform_(-(n**-0.5), n**-0.5).requires_grad_()
        self.b_out = torch.zeros(10).requires_grad_()

    @property
    def parameters(self):
        return [self.B, self.w_in, self.b, self.w_out, self.b_out]

    def folded(self):
        """A, once per forward."""
        (p, m), n = self.shape, len(self.P)
        blocks = torch.zeros(p, p, m, m).index_put((self.pairs[0], self.pairs[1]), self.B)
        B = blocks.transpose(1, 2).reshape(n, n)
        L = B - B.T * self.P / self.P[:, None]
        return (1 - STEP) * torch.eye(n) + STEP * L


def drive_of(net, u):
    """a (w_in u + b) of all steps: [time, trial, unit]."""
    return STEP * (u * net.w_in.T + net.b)


def modules_product(h, W_t):
    """W relu(x), module by module: [trial, unit]."""
    p, m = W_t.shape[0], W_t.shape[1]
    return torch.bmm(h.view(-1, p, m).transpose(0, 1), W_t).transpose(0, 1).reshape(h.shape)


def eager(net, u):
    A_t, W_t = net.folded().T.contiguous(), STEP * net.W.mT
    x = torch.zeros(u.shape[1], len(net.P))
    for d in drive_of(net, u).unbind():
        x = torch.addmm(d, x, A_t) + modules_product(F.relu(x), W_t)
    return x


def dense(net, u):
    A_t = torch.cat([net.folded().T, STEP * torch.block_diag(*net.W).T])
    x = torch.zeros(u.shape[1], len(net.P))
    for d in drive_of(net, u).unbind():
        x = torch.addmm(d, torch.cat([x, F.relu(x)], 1), A_t)
    return x


class Manual(torch.autograd.Function):
    """The loop with its gradient by hand; buffers are kept from step to step."""

    @staticmethod
    def forward(ctx, drive, A, W, variant):
        time_, batch, n = drive.shape
        place, shape = (*drive.shape, drive.dtype), (time_ + 1, batch, n)
        if place not in BUFFERS:
            BUFFERS[place] = (torch.empty(shape), torch.empty(shape), torch.empty(batch, n))
        states, grads, active = BUFFERS[place]
        states[0].zero_()
        A_t, W_t = A.T.contiguous(), W.mT.contiguous()
        affine = torch.ops.mkldnn._linear_pointwise.binary
        for x, new, d in zip(states[:-1], states[1:], drive, strict=True):
            torch.clamp_min(x, 0, out=active)
            if variant == "manual_dense":
                torch.addmm(d, x, A_t, out=new).addmm_(active, W_t)
            elif variant == "manual_onednn":
                torch.add(affine(x, d, A, None, "add"), modules_product(active, W_t), out=new)
            else:
                torch.addmm(d, x, A_t, out=new).add_(modules_product(active, W_t))
        ctx.kept = states, grads, A, A_t, W, variant
        return states[-1].clone()

    @staticmethod
    def backward(ctx, outer):
        states, grads, A, A_t, W, variant = ctx.kept
        grads[-1].copy_(outer)
        affine = torch.ops.mkldnn._linear_pointwise.binary
        for t in range(len(states) - 2, -1, -1):
            g = grads[t + 1]
            inner = g @ W if variant == "manual_dense" else modules_product(g, W)
            inner.mul_(states[t] > 0)
            if variant == "manual_onednn":
                grads[t].copy_(affine(g, inner, A_t, None, "add"))
            else:
                torch.addmm(inner, g, A, out=grads[t])
        n = A.shape[0]
        g = grads[1:].view(-1, n)
        return grads[1:], g.T @ states[:-1].view(-1, n), None, None


def manual(variant):
    def forward(net, u):
        W = STEP * (torch.block_diag(*net.W) if variant == "manual_dense" else net.W)
        return Manual.apply(drive_of(net, u), net.folded(), W, variant)

    return forward


def forward_of(variant):
    return {"eager": eager, "dense": dense}.get(variant) or manual(variant)


def loss_of(net, u, labels, variant):
    return F.cross_entropy(forward_of(variant)(net, u) @ net.w_out.T + net.b_out, labels)


def run(options):
    """Seconds of training steps."""
    net = Assembly(options.modules, options.units)
    u, labels = torch.rand(options.steps, options.batch, 1), torch.randint(0, 10, (options.batch,))
    adam = torch.optim.Adam(net.parameters, lr=1e-3, fused=True)

    def step():
        adam.zero_grad(set_to_none=True)
        loss = loss_of(net, u, labels, options.variant)
        loss.backward()
        adam.step()
        return loss.item()

    step()
    wait_until(options.start_at)
    seconds, processor = [], time.process_time()
    for _ in range(options.repeats):
        begin = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - begin)
    processor = (time.process_time() - processor) / options.repeats
    return {
        "workload": "assembly", "variant": options.variant, "threads": options.threads, "final_loss": loss,
        "seconds_median": statistics.median(seconds), "seconds_all": seconds, "cpu_seconds_mean": processor,
    }  # fmt: skip


def check():
    """Every variant against the first: loss and gradients, in float64 where oneDNN allows it."""
    worst = {}
    for variant in VARIANTS:
        found = []
        for kind in ("eager", variant):
            torch.manual_seed(0)
            torch.set_default_dtype(torch.float32 if variant == "manual_onednn" else torch.float64)
            net = Assembly(3, 8)
            loss = loss_of(net, torch.rand(11, 5, 1), torch.randint(0, 10, (5,)), kind)
            loss.backward()
            found.append([loss.detach(), *(p.grad for p in net.parameters)])
        error = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(*found, strict=True))
        worst[variant] = error
        if not error < (1e-4 if variant == "manual_onednn" else 1e-10):
            raise SystemExit(f"{variant}: relative error {error:.1e}")
    return {"workload": "check", "relative_error": worst}


def main():
    """Run one arrangement and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--start-at", type=float)
    parser.add_argument("--variant", choices=VARIANTS, default="manual")
    integers(parser, modules=16, units=32, batch=128, steps=784, repeats=3, threads=1, seed=0)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    print(json.dumps(check() if options.check else run(options)))


if __name__ == "__main__":
    main()
