"""The multi-head N-parity curriculum in PyTorch, networks one after another (workload `parity` of torch_baseline.py).

Bits with one probability a sequence, true lengths without padding, readout at the last step only and for the
active heads only; SGD with Nesterov momentum, gradient clipped to global norm 2.
"""

import time

import torch
import torch.nn.functional as F
from torch_models import LeakyRNN, make_forward


def parity_batch(n, batch):
    """Bits [M, B, 1] of true length M ~ U{n+2 … 4n}, and the parities of the last 2…n bits, [B, n-1]."""
    length = int(torch.randint(n + 2, 4 * n + 1, ()))
    bits = (torch.rand(length, batch) < torch.rand(batch)).to(torch.get_default_dtype())
    labels = bits[-n:].flip(0).cumsum(0)[1:].remainder(2).long().t()
    return bits.unsqueeze(-1), labels


class ParityJob:
    """One network on the multi-head N-parity curriculum."""

    def __init__(self, options, deadline):
        self.options, self.deadline = options, deadline
        self.net = LeakyRNN(options.units, 1, 2 * (options.n_to - 1))
        self.forward = make_forward(options.variant)
        self.optimizer = torch.optim.SGD(self.net.parameters, lr=0.05, momentum=0.1, nesterov=True, fused=True)
        self.counts = {"training_steps": 0, "training_time_steps": 0, "evaluation_time_steps": 0}

    def logits(self, n, kind):
        """(logits [B, n-1, 2] of the active heads at the last step, labels [B, n-1]) of a fresh batch."""
        bits, labels = parity_batch(n, self.options.batch)
        h0 = 0.1 * torch.rand(self.options.batch, self.options.units)
        out = self.forward(self.net, bits, h0, last=True, n_outputs=2 * (n - 1))
        self.counts[f"{kind}_time_steps"] += len(bits)
        return out.unflatten(1, (n - 1, 2)), labels

    def train_batch(self, n):
        """One update on cross-entropy, mean over trials and summed over active heads."""
        self.optimizer.zero_grad(set_to_none=True)
        logits, labels = self.logits(n, "training")
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / len(labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters, 2.0, foreach=True)
        self.optimizer.step()
        self.counts["training_steps"] += 1

    @torch.no_grad()
    def accuracy(self, n, n_batches=50):
        """Share of right answers of each active head, on fresh batches."""
        right = torch.zeros(n - 1)
        for _ in range(n_batches):
            logits, labels = self.logits(n, "evaluation")
            right += (logits.argmax(-1) == labels).to(right.dtype).mean(0)
        return right / n_batches

    def epoch(self, n):
        """Train, then evaluate; None if the time ran out on the way, else whether the stage is passed."""
        for _ in range(self.options.batches_per_epoch):
            if time.perf_counter() > self.deadline:
                return None
            self.train_batch(n)
        accuracy = self.accuracy(n)
        return bool(accuracy.mean() > 0.98 and accuracy[-1] > 0.98)

    def run(self):
        """Epochs until n-to is solved, or the epochs or the seconds are used up."""
        n, solved, seconds = self.options.n_from, None, []
        start, processor = time.perf_counter(), time.process_time()
        while n <= self.options.n_to and len(seconds) < self.options.epochs:
            begin = time.perf_counter()
            passed = self.epoch(n)
            if passed is None:
                break
            seconds.append(time.perf_counter() - begin)
            if passed:
                n, solved = n + 1, n
        total = time.perf_counter() - start
        result = {"epochs": len(seconds), "solved_n": solved, "seconds_total": total, "seconds_per_epoch": seconds}
        # Far more seconds than cpu_seconds / threads: something else had the processor.
        return {**result, "cpu_seconds": time.process_time() - processor, **self.counts}


def run_parity(options):
    """Train the members one after another; `--max-seconds` is for all of them together."""
    deadline = time.perf_counter() + options.max_seconds
    members = [ParityJob(options, deadline).run() for _ in range(options.members)]
    keys = ("variant", "threads", "units", "batch", "n_from", "n_to", "batches_per_epoch", "seed")
    head = {"workload": "parity", **{k: getattr(options, k) for k in keys}, "torch": torch.__version__}
    return {**head, "seconds_total": sum(m["seconds_total"] for m in members), "members": members}
