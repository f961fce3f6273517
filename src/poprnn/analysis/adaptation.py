"""What becomes of a code when the inputs change: rates and code words against training since the shift."""

from typing import Annotated, Any

import numpy as np
import xarray as xr
from pydantic import Field

from poprnn.analysis._codes import Passed, passed, require_autoencoder, symbols_of, word_entropy, words
from poprnn.analysis._population import Seed
from poprnn.analysis.rate_distortion import Trials
from poprnn.analysis.transmitted_information import information_of
from poprnn.core.arrays import Float
from poprnn.core.blueprint import Positive, PositiveInt
from poprnn.core.errors import NotApplicableError
from poprnn.training.curricula.shifts import Shifts
from poprnn.training.run import Run

Share = Annotated[float, Field(gt=0, le=1)]


def adaptation(
    run: Run,
    *,
    shift: PositiveInt = 1,
    share: Share = 0.95,
    n_trials: Trials = 4096,
    max_correction: Positive = 0.1,
    seed: Seed = 0,
) -> xr.Dataset:
    """Information per step on the old and the new inputs, before and after a shift, at every snapshot of continual
    training.

    The rate is ``transmitted_information`` at the last step over the number of steps. For discrete bottlenecks the
    words at every snapshot are held against those just before the shift, on the same new inputs: their mutual
    information ``H(old) + H(new) - H(old, new)`` is H(new) where the code has stayed (whatever its words are called).

    Args:
        run: trained with curriculum ``shifts`` on ``static_vectors`` that has ``shifts``, keeping snapshots every so
            many epochs (``snapshots = 1``).
        shift: which one, from 1.
        share: of the rate before the shift, to be recovered.
        n_trials: vectors of each distribution, the same for all members and snapshots (our choice).
        max_correction: in bits, see ``transmitted_information``; discrete bottlenecks only.
        seed: changes the vectors.

    Returns:
        Over ``step``, training steps since the shift (negative before it): ``rate_old`` and ``rate_new`` (member,
        step), on the inputs of the stage before the shift and of that after it; ``rate_before`` (member), ``rate_old``
        at step 0; ``steps_to_recover`` (member), the first snapshot at which ``rate_new`` is ``share`` of that again,
        NaN if none is; for discrete bottlenecks ``mutual_information`` and ``word_entropy`` (member, step) in bits, on
        the new inputs, the former only from the shift on. The attribute ``unit`` is "bits" or "dimensions".

    Raises:
        NotApplicableError: other networks, another curriculum, no such shift, or no snapshot at the shift.

    Reference: the continual-learning experiments of Graetz et al., Exploring trade-offs between sequential and parallel
    computation in recurrent neural networks, which says that codes reorganise; measures are ours.

    >>> import poprnn as pr
    >>> inputs = [pr.distributions.Gaussian(n_dimensions=2, variances=v) for v in ([1.0, 0.0], [0.0, 1.0])]
    >>> task = pr.tasks.StaticVectors(inputs=inputs[0], shifts=inputs[1:], n_steps=1)
    >>> run = pr.fit(task, pr.cells.BottleneckAutoencoder(n_units=4, width=1),
    ...     curriculum=pr.curricula.Shifts(epochs=[1]), epochs=3, steps_per_epoch=2, batch=4,
    ...     evaluation_batches=1, monitors=(), snapshots=1)
    >>> pr.measure("adaptation", run, members="all", n_trials=64).data["step"].values.tolist()
    [0, 2, 4]
    """
    require_autoencoder("adaptation", run)
    moments, at_shift = _moments(run, shift)
    task, cell = run.task, run.cell
    old, new = (
        task.substitute({"inputs": task.distributions[shift - i], "shifts": ()})  # type: ignore[attr-defined]
        for i in (1, 0)
    )

    def rate(found: Passed) -> Float[np.ndarray, "member"]:
        return information_of(run, found.codes, found.inputs, max_correction)[:, -1] / found.codes.shape[2]

    ask = lambda name, asked: passed("adaptation", run.at(name).on(asked), n_trials, seed)
    discrete = cell.bottleneck != "continuous"  # type: ignore[attr-defined]
    before = symbols_of(run, ask(moments[at_shift], new).codes) if discrete else None
    columns: dict[str, list[np.ndarray]] = {
        "rate_old": [],
        "rate_new": [],
        "mutual_information": [],
        "word_entropy": [],
    }
    for epoch, name in moments.items():
        columns["rate_old"].append(rate(ask(name, old)))
        columns["rate_new"].append(rate(found := ask(name, new)))
        if before is not None:
            mutual, entropy = _shared_bits(before, symbols_of(run, found.codes))
            columns["mutual_information"].append(mutual if epoch >= at_shift else np.full(len(mutual), np.nan))
            columns["word_entropy"].append(entropy)
    n_steps = run.history["n_steps"].max(axis=1)[np.array(list(moments)) - 1]
    step = n_steps - n_steps[list(moments).index(at_shift)]
    table = {name: np.stack(values, axis=1) for name, values in columns.items() if values}
    rate_before = table["rate_old"][:, step == 0][:, 0]
    good = (table["rate_new"] >= share * rate_before[:, None]) & (step >= 0)
    return xr.Dataset(
        {
            **{name: (("member", "step"), values) for name, values in table.items()},
            "rate_before": ("member", rate_before),
            "steps_to_recover": ("member", np.where(good.any(axis=1), step[good.argmax(axis=1)], np.nan)),
        },
        {"member": run.member_index, "step": ("step", step, {"long_name": "training steps since the shift"})},
        {"unit": "bits" if discrete else "dimensions"},
    )


def _moments(run: Run, shift: int) -> tuple[dict[int, str], int]:
    """Snapshots by epoch, from the stage before the shift and the one after it, and the epoch of the shift."""
    curriculum: Any = run.setup.training.curriculum
    if not isinstance(curriculum, Shifts) or not shift <= min(len(curriculum.epochs), len(run.task.shifts)):  # type: ignore[attr-defined]
        raise NotApplicableError(
            f"adaptation: shift = {shift}: needs curriculum 'shifts' with so many shifts and a task with as many"
        )
    ends = (0, *curriculum.epochs, len(run.history))
    epochs = sorted(int(name.removeprefix("epoch_")) for name in run.snapshots if name.startswith("epoch_"))
    kept = {e: f"epoch_{e:05d}" for e in epochs if ends[shift - 1] < e <= ends[shift + 1]}
    if ends[shift] not in kept:
        raise NotApplicableError(f"adaptation: no snapshot of epoch {ends[shift]}, the last before the shift")
    return kept, ends[shift]


def _shared_bits(old: np.ndarray, new: np.ndarray) -> tuple[Float[np.ndarray, "member"], Float[np.ndarray, "member"]]:
    """Mutual information of old and new words for the same inputs, and the entropy of the new, in bits."""
    n_steps = old.shape[2]
    both = words(np.concatenate([old, new], axis=2))[:, :, -1]
    first, second = (word_entropy(words(s)[:, :, n_steps - 1]).bits for s in (old, new))
    return first + second - word_entropy(both).bits, second
