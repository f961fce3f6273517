"""How well every memory N is answered."""

import numpy as np
import xarray as xr

from poprnn.analysis._population import Seed, heads_by_stage
from poprnn.core.arrays import Bool, Int
from poprnn.core.blueprint import Fraction, PositiveInt
from poprnn.core.errors import NotApplicableError
from poprnn.tasks._memory import MemoryTask
from poprnn.training.evaluate import evaluate
from poprnn.training.run import Run


def accuracy_by_n(
    run: Run, *, n_trials: PositiveInt = 2000, threshold: Fraction = 0.98, batch: PositiveInt = 100, seed: Seed = 0
) -> xr.Dataset:
    """Accuracy p of the answer to every memory N, each on fresh trials drawn for that N alone, and the largest N.

    Its standard error is ``sqrt(p (1 - p) / n_trials)``, which takes trials as independent; it is 0 at p = 1. Trials
    of a batch share their length, so where accuracy depends on length, smaller batches give the more honest error.

    Under a curriculum with one readout for all N (``single_head``), this is the accuracy of that shared readout at
    each N; having moved on to a larger N, it is not expected to answer the smaller ones.

    Args:
        run: the population, trained on ``n_parity``, ``n_dms`` or another memory task.
        n_trials: trials for each member and N, rounded up to whole batches.
        threshold: accuracy to be exceeded by a memory that counts (the paper's curricula: 0.98).
        batch: trials that share one length (and dt), run at once.
        seed: changes the trials.

    Returns:
        ``accuracy``, ``standard_error`` and ``trained`` (member, n), where ``n`` is the memory N and ``trained`` says
        which heads have been active in the stages the member has seen (all, for networks brought in); ``n_trials``;
        ``largest_n`` (member): the largest trained N such that it and all smaller trained N exceed the threshold, so
        that a forgotten one counts; with a shared readout simply the largest N that exceeds it; 0 if there is none.
        ``largest_n_low`` and ``largest_n_high``: the same with every accuracy one standard error lower and higher (a
        member that ended as soon as it passed stands close to the threshold, and they will differ).

    Raises:
        NotApplicableError: the task has no memories N.

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, figure 3.

    >>> import numpy as np, poprnn as pr
    >>> run = pr.from_arrays(pr.tasks.NParity(n_max=4), pr.cells.LeakyRNN(n_units=8), {"W": np.zeros((8, 8))})
    >>> answer = pr.measure("accuracy_by_n", run, n_trials=200).data
    >>> answer["n"].values.tolist(), answer["largest_n"].values.tolist()
    ([2, 3, 4], [0])
    """
    task = run.task
    if not isinstance(task, MemoryTask):
        raise NotApplicableError(f"accuracy_by_n: task '{task.name()}' has no heads that ask for a memory N")
    batch, heads = min(batch, n_trials), np.arange(task.n_heads)
    score = evaluate(run, heads=heads, n_trials=n_trials, batch=batch, seed=seed)["accuracy"][:, heads, heads]
    total = -(-n_trials // batch) * batch
    # back to whole trials: 0.98 in float32 would exceed the threshold 0.98
    accuracy = np.rint(score.astype(np.float64) * total) / total
    error = np.sqrt(accuracy * (1 - accuracy) / total)
    memories, trained = task.n_min + heads, _trained(run)
    shared = run.setup.training.curriculum.shared_readout
    largest = {
        name: _largest(accuracy + shift * error > threshold, trained, memories, shared)
        for name, shift in (("largest_n", 0), ("largest_n_low", -1), ("largest_n_high", 1))
    }
    return xr.Dataset(
        {
            "accuracy": (("member", "n"), accuracy),
            "standard_error": (("member", "n"), error),
            "trained": (("member", "n"), trained),
            **{name: ("member", values) for name, values in largest.items()},
            "n_trials": ((), total),
        },
        {"member": run.member_index, "n": memories},
    )


def _trained(run: Run) -> Bool[np.ndarray, "member head"]:
    """Heads that were active in any stage a member has seen; all of them where nothing is known of its training."""
    if run.progress is None:
        return np.ones((run.n_members, run.task.n_heads), bool)
    stages = np.arange(run.setup.training.curriculum.n_stages(run.task))
    active, _ = heads_by_stage(run, stages)
    seen = stages[None, :] <= np.asarray(run.progress.index)[:, None]
    return np.asarray(np.any(active & seen[:, :, None], axis=1))


def _largest(
    passed: Bool[np.ndarray, "member head"],
    trained: Bool[np.ndarray, "member head"],
    memories: Int[np.ndarray, "head"],
    shared: bool,
) -> Int[np.ndarray, "member"]:
    """The largest N that counts as solved, 0 if none does."""
    if not shared:
        unbroken = np.logical_and.accumulate(passed | ~trained, axis=1)
        passed = passed & trained & unbroken
    return np.where(passed, memories, 0).max(axis=1)
