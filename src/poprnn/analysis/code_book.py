"""Which code words a discrete bottleneck uses, for what, and whether they are a binary expansion."""

from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from poprnn.analysis._codes import distribution_of, passed, require_autoencoder, symbols_of, words
from poprnn.analysis._population import Seed
from poprnn.analysis.rate_distortion import Trials
from poprnn.core.arrays import Bool, Float, Int
from poprnn.tasks.distributions.uniform import Uniform
from poprnn.training.run import Run


def code_book(run: Run, *, n_trials: Trials = 4096, seed: Seed = 0) -> xr.Dataset:
    """Table of the words that pass a discrete bottleneck in T steps, the tree they form, and what each stands for.

    A step's symbol is what all units of the bottleneck say, one of m = c^k. For a uniform scalar on [low, high] the
    words are held against the expansion of u = (x - low) / (high - low) in base m (the binary expansion for one binary
    unit): digit t is ``floor(u m^t) mod m``. Symbols may be named differently after every prefix (for one bit: a flip
    per prefix), so that Gray codes count: within the inputs of one prefix of the expansion, symbols and digits are
    matched one to one such that as many inputs as possible agree. An input counts at step t if it agrees at t and at
    all steps before.

    Args:
        run: the population, a discrete ``bottleneck_autoencoder`` on ``static_vectors``.
        n_trials: vectors, the same for all members (our choice).
        seed: changes them.

    Returns:
        Words in the order of their symbols along ``word_place``, padded to the member with the most (probability 0,
        symbols and prefixes -1, NaN elsewhere): ``probability`` (member, word_place); ``symbol`` and ``prefix``
        (member, word_place, time), what is sent at a step and the node of the tree that the word passes there (nodes
        are numbered in order at each step); ``centroid`` (member, word_place, input_channel), the mean input;
        ``n_words`` (member) and ``n_prefixes`` (member, time), as sampled. For scalars ``input`` (trial), in order, and
        ``word`` (member, trial), the place of its word. For uniform scalars ``expansion`` (member, time), the share of
        inputs that agree up to each step, and ``expansion_standard_error``, binomial. Time counts from 1.

    Raises:
        NotApplicableError: a continuous bottleneck, or other networks.

    Reference: Graetz et al., Exploring trade-offs between sequential and parallel computation in recurrent neural
    networks ("a sequential binary code"); the comparison is ours.

    >>> import numpy as np, poprnn as pr
    >>> cell = pr.cells.BottleneckAutoencoder(n_units=1, width=1, bottleneck="binary", activation="identity")
    >>> task = pr.tasks.StaticVectors(inputs=pr.distributions.Uniform(n_dimensions=1), n_steps=2)
    >>> run = pr.from_arrays(task, cell, {"W_in": np.eye(1), "b_encoder": np.zeros(1), "W_bottleneck": -np.eye(1),
    ...                                   "b_bottleneck": np.zeros(1), "W_feedback": np.zeros((1, 1))})
    >>> found = pr.measure("code_book", run).data        # x < 0, said twice: the first digit, flipped, then nothing new
    >>> found["symbol"].values[0].tolist(), found["expansion"].values.round(1).tolist()
    ([[0, 0], [1, 1]], [[1.0, 0.5]])
    """
    require_autoencoder("code_book", run, discrete=True)
    found, distribution = passed("code_book", run, n_trials, seed), distribution_of(run)
    symbols = symbols_of(run, found.codes)
    prefixes = words(symbols)
    prefixes = prefixes - prefixes.min(axis=1, keepdims=True)
    _n_members, _, n_steps = symbols.shape
    n_prefixes = prefixes.max(axis=1) + 1
    variables: dict[str, Any] = _table(symbols, prefixes, found.inputs)
    variables |= {"n_words": ("member", n_prefixes[:, -1]), "n_prefixes": (("member", "time"), n_prefixes)}
    if distribution.n_dimensions == 1:
        order = np.argsort(found.inputs[:, 0])
        variables |= {"input": ("trial", found.inputs[order, 0]), "word": (("member", "trial"), prefixes[:, order, -1])}
    if isinstance(distribution, Uniform) and distribution.n_dimensions == 1:
        cell: Any = run.cell
        unit = (found.inputs[:, 0] - distribution.low) / (distribution.high - distribution.low)
        agrees = agreement(symbols, unit, (cell.n_classes or 2) ** cell.width)
        share = agrees.mean(axis=1)
        variables |= {
            "expansion": (("member", "time"), share, {"long_name": "share of inputs coded as by the expansion"}),
            "expansion_standard_error": (("member", "time"), np.sqrt(share * (1 - share) / n_trials)),
        }
    return xr.Dataset(variables, {"member": run.member_index, "time": np.arange(1, n_steps + 1)})


def _table(
    symbols: Int[np.ndarray, "member trial time"],
    prefixes: Int[np.ndarray, "member trial time"],
    inputs: Float[np.ndarray, "trial input"],
) -> dict[str, Any]:
    """Words by member, padded."""
    n_members, n_trials, n_steps = symbols.shape
    word = prefixes[:, :, -1]
    size = (n_members, int(word.max()) + 1)
    place = (np.arange(n_members)[:, None], word)
    count = np.zeros(size, np.int64)
    np.add.at(count, place, 1)
    total = np.zeros((*size, inputs.shape[1]))
    np.add.at(total, place, inputs)
    table = {name: np.full((*size, n_steps), -1, np.int64) for name in ("symbol", "prefix")}
    for name, values in (("symbol", symbols), ("prefix", prefixes)):
        table[name][place] = values  # all trials of a word write the same
    with np.errstate(invalid="ignore"):  # padding
        centroid = total / count[:, :, None]
    return {
        "probability": (("member", "word_place"), count / n_trials),
        "centroid": (("member", "word_place", "input_channel"), centroid),
        **{name: (("member", "word_place", "time"), values) for name, values in table.items()},
    }


def agreement(
    symbols: Int[np.ndarray, "member trial time"], unit: Float[np.ndarray, "trial"], base: int
) -> Bool[np.ndarray, "member trial time"]:
    """Whether an input is coded as by the expansion of ``unit`` in [0, 1), up to each step; symbols named as fits best.

    >>> unit = np.array([0.1, 0.3, 0.6, 0.9])
    >>> agreement(np.array([[[0, 0], [0, 1], [1, 1], [1, 0]]]), unit, 2).all()     # a Gray code
    np.True_
    """
    n_members, _n_trials, n_steps = symbols.shape
    digits = np.floor(unit[:, None] * float(base) ** np.arange(n_steps + 1)).astype(np.int64)
    agrees = np.empty(symbols.shape, bool)
    member = np.arange(n_members)[:, None]
    for step in range(n_steps):
        prefix, digit = digits[:, step], digits[:, step + 1] % base
        known, group = np.unique(prefix, return_inverse=True)
        shape = (n_members, len(known), base, base)
        count = np.zeros(shape, np.int64)
        np.add.at(count, (member, group, symbols[:, :, step], digit), 1)
        named = [linear_sum_assignment(c, maximize=True)[1] for c in count.reshape(-1, base, base)]
        digit_of = np.reshape(named, shape[:3])
        agrees[:, :, step] = digit_of[member, group, symbols[:, :, step]] == digit
    return np.logical_and.accumulate(agrees, axis=2)
