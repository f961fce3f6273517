"""Bounds against Monte Carlo, closed forms and Blahut-Arimoto; entropies and codes against planted ones."""

import dataclasses

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

import poprnn as pr
from conftest import TINY
from poprnn.analysis import _rate_distortion as bounds
from poprnn.analysis._codes import effective_dimensions, word_entropy, words
from poprnn.analysis.adaptation import _shared_bits
from poprnn.analysis.code_book import agreement
from poprnn.analysis.rate_distortion import _lines
from poprnn.analysis.serial_index import expected_index, index_of
from poprnn.analysis.transmitted_information import gains

D = pr.distributions
rng = lambda: np.random.default_rng(1)


# --- bounds ---------------------------------------------------------------------------------------------------------


def blahut_arimoto(x, p, guesses, slope, n=3000):
    """A point of the distortion-rate function of numbers ``x`` with probabilities ``p``: bits, distortion."""
    distortion = (x[:, None] - guesses) ** 2
    q = np.full(len(guesses), 1 / len(guesses))
    for _ in range(n):
        w = q * np.exp(-slope * distortion)
        w /= w.sum(axis=1, keepdims=True)
        q = p @ w
    ratio = np.where(w > 1e-300, w / np.maximum(q, 1e-300), 1)
    return float(np.sum(p[:, None] * w * np.log2(ratio))), float(np.sum(p[:, None] * w * distortion))


@pytest.mark.parametrize("slope", [0.6, 1.0, 3.0])
def test_signs_and_gaussian_limits_against_blahut_arimoto(slope):
    guesses = np.linspace(-1, 1, 201)
    bits, distortion = blahut_arimoto(np.array([-1.0, 1.0]), np.array([0.5, 0.5]), guesses, slope)
    np.testing.assert_allclose(bounds.signs_limit(5 * bits, 5), distortion, atol=2e-3)
    x = np.linspace(-5, 5, 201)
    p = np.exp(-(x**2) / 2)
    bits, distortion = blahut_arimoto(x, p / p.sum(), x, slope, n=300)
    np.testing.assert_allclose(bounds.gaussian_limit(3 * bits, 3), distortion, atol=2e-3)


def test_water_filling_against_a_search_for_the_best_shares():
    """No division of the bits among channels does better, and one does as well."""
    for spectrum in (np.array([4.0, 1.0, 0.25]), np.array([1.0, 0.9, 0.0]), np.ones(3)):
        for bits in (0.0, 0.7, 3.0, 9.0):
            shares = rng().dirichlet(np.full(3, 0.5), 200_000) * bits
            tried = (spectrum * 4.0**-shares).sum(axis=1) / spectrum.sum()
            limit = float(bounds.water_filling_limit(bits, spectrum))
            assert limit <= tried.min() + 1e-12 and limit > 0.98 * tried.min()
    np.testing.assert_allclose(bounds.water_filling_limit([1.0, 5.0], np.ones(4)), bounds.gaussian_limit([1.0, 5.0], 4))


def test_uniform_lines_against_quantisers():
    x = rng().uniform(0, 1, 400_000)
    for bits in (1, 2, 3):
        cells = np.floor(x * 2**bits)
        error = np.mean((x - (cells + 0.5) / 2**bits) ** 2) * 12
        np.testing.assert_allclose(bounds.uniform_scalar_limit(bits), error, rtol=0.01)
        edges = np.sort(rng().uniform(size=(2000, 2**bits - 1)), axis=1)  # no other cells of as many do better
        widths = np.diff(np.pad(edges, ((0, 0), (1, 1)), constant_values=(0, 1)), axis=1)
        assert ((widths**3).sum(axis=1) >= bounds.uniform_scalar_limit(bits) - 1e-12).all()
    assert float(bounds.uniform_reachable(3, 1)) == float(bounds.uniform_scalar_limit(3))
    y = rng().uniform(-1, 1, (100_000, 3))
    halved = lambda z, b: z - (np.floor((z + 1) / 2 * 2**b) + 0.5) / 2**b * 2 + 1
    error = np.mean([halved(y[:, 0], 2) ** 2, halved(y[:, 1], 1) ** 2, halved(y[:, 2], 1) ** 2]) * 3
    np.testing.assert_allclose(bounds.uniform_reachable(4, 3), error, rtol=0.01)


def test_sign_lines_against_monte_carlo():
    x = rng().normal(size=(200_000, 5))
    guess = np.where(np.arange(5) < 3, np.sign(x) * np.sqrt(2 / np.pi), 0)
    np.testing.assert_allclose(bounds.sign_bits_reachable(3, 5), np.mean((x - guess) ** 2), rtol=0.01)
    assert np.isnan(bounds.sign_bits_reachable(6, 5))
    s = np.sign(x)
    np.testing.assert_allclose(bounds.signs_reachable(3, 5), np.mean((s - np.where(np.arange(5) < 3, s, 0)) ** 2))
    assert (bounds.signs_limit(np.arange(6), 5) <= bounds.signs_reachable(np.arange(6), 5) + 1e-12).all()


def test_gaussian_quantisers_are_those_of_the_tables():
    """Max 1960, table I; and the embedded ones, cut one after another. Errors by numerical integration of the cells."""
    np.testing.assert_allclose(
        [bounds.lloyd_max(b) for b in range(1, 6)], [0.3634, 0.1175, 0.03455, 0.00950, 0.00250], rtol=2e-3
    )
    np.testing.assert_allclose(
        [bounds.greedy_embedded(b) for b in range(1, 6)], [0.3634, 0.1175, 0.03484, 0.00980, 0.00266], rtol=2e-3
    )
    x = np.linspace(-8, 8, 160_001)
    p = np.exp(-(x**2) / 2) / np.exp(-(x**2) / 2).sum()
    edges = bounds._greedy_edges(3)
    cell = np.searchsorted(edges[1:-1], x)
    mean = np.bincount(cell, p * x) / np.bincount(cell, p)
    np.testing.assert_allclose(bounds.greedy_embedded(3), np.sum(p * (x - mean[cell]) ** 2), rtol=1e-4)
    np.testing.assert_allclose(np.diff(ndtr(edges)).sum(), 1)
    assert all(
        bounds.greedy_embedded(b) > bounds.lloyd_max(b) - 1e-9 > bounds.gaussian_limit(b, 1) for b in range(1, 6)
    )


def test_noisy_limit_is_reached_by_one_number_through_one_channel():
    """Goblick: a Gaussian number sent as it is attains the limit; more channels than numbers do not."""
    x, noise = rng().normal(size=(2, 200_000, 2))
    for s in (0.5, 4.0):
        y = np.sqrt(s) * x + noise
        error = np.mean((x - np.sqrt(s) / (1 + s) * y) ** 2)
        np.testing.assert_allclose(bounds.noisy_limit(s, 2, 2), error, rtol=0.01)
        twice = 1 / (1 + 2 * s)  # one number sent twice: linear combination, above the limit
        assert bounds.noisy_limit(s, 2, 1) < twice


def test_linear_benchmark_is_what_principal_components_leave():
    spectrum = np.array([3.0, 1.0, 0.5, 0.5])
    x = rng().normal(size=(100_000, 4)) * spectrum**0.5
    u = np.linalg.eigh(np.cov(x.T))[1][:, ::-1]
    for k in range(1, 5):
        left = x - x @ u[:, :k] @ u[:, :k].T
        np.testing.assert_allclose(
            bounds.linear_benchmark(k, spectrum), (left**2).sum() / (x**2).sum(), rtol=0.02, atol=1e-12
        )
    assert bounds.linear_benchmark([0, 9], spectrum).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(bounds.linear_benchmark(np.arange(6), np.ones(4)), [1, 0.75, 0.5, 0.25, 0, 0])


# --- information ----------------------------------------------------------------------------------------------------


def test_entropies_of_planted_codes_are_recovered():
    p = np.array([0.4, 0.3, 0.2, 0.1])
    truth = -(p * np.log2(p)).sum()
    draws = np.random.default_rng(5).choice(4, (4000, 100), p=p)
    found = word_entropy(words(draws[:, :, None])[:, :, 0])
    error = found.bits.std() / 4000**0.5
    assert abs(found.bits.mean() - truth) < 4 * error
    assert abs((found.bits - found.correction).mean() - truth) > 8 * error, "without the correction it is too small"
    np.testing.assert_allclose(found.correction, (found.n_words - 1) / (200 * np.log(2)))
    one = word_entropy(words(np.zeros((2, 50, 1), int))[:, :, 0])
    assert one.bits.tolist() == [0, 0] and one.n_words.tolist() == [1, 1]


def test_words_are_told_apart_by_everything_since_the_first_step():
    symbols = np.random.default_rng(2).integers(0, 3, (3, 200, 4))
    found = words(symbols)
    for member in range(3):
        for step in range(4):
            rows = [tuple(row) for row in symbols[member, :, : step + 1]]
            same = {}
            for row, number in zip(rows, found[member, :, step], strict=True):
                assert same.setdefault(row, number) == number
            assert len(set(same.values())) == len(same)
            assert [same[row] for row in sorted(same)] == sorted(same.values()), "in the order of their symbols"
    assert not set(found[0, :, 3]) & set(found[1, :, 3])


def test_effective_dimensions_of_planted_codes():
    x = np.random.default_rng(3).normal(size=(20_000, 4))
    noise = np.random.default_rng(4).normal(size=(20_000, 3, 1))
    planted = {
        "one channel a step": (x[:, :3, None], [1, 2, 3]),
        "the same thing again": (np.repeat(x[:, :1, None], 3, axis=1), [1, 1, 1]),
        "nothing": (noise, [0, 0, 0]),
        "half noise": (x[:, :3, None] + noise, [0.5, 1, 1.5]),
        "mixed": ((x @ np.random.default_rng(5).normal(size=(4, 3)))[:, :, None], [1, 2, 3]),
        "constant": (np.ones((20_000, 3, 1)), [0, 0, 0]),
    }
    found = effective_dimensions(np.stack([c for c, _ in planted.values()]), x)
    np.testing.assert_allclose(found, [wanted for _, wanted in planted.values()], atol=0.05)
    # against ordinary least squares, one after another
    for row, (codes, _) in zip(found, list(planted.values())[:5], strict=False):
        for step in range(3):
            design = np.column_stack([np.ones(len(x)), codes[:, : step + 1, 0]])
            left = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
            np.testing.assert_allclose(row[step], 4 * (1 - (left**2).sum() / ((x - x.mean(0)) ** 2).sum()), atol=2e-3)


def test_noise_explains_nothing_on_average():
    """Few trials, many numbers: without the degrees of freedom it would explain as many as there are."""
    generator = np.random.default_rng(6)
    found = [
        effective_dimensions(generator.normal(size=(1, 60, 4, 5)), generator.normal(size=(60, 4)))[0, -1]
        for _ in range(60)
    ]
    assert abs(np.mean(found)) < 4 * np.std(found) / 60**0.5
    assert 4 * 20 / 59 > 1, "what it would be"


def test_serial_index_is_1_and_t_on_planted_gains():
    for t in (2, 5, 8):
        assert index_of(np.eye(t)[0]) == 1
        assert index_of(np.full(t, 0.3)) == pytest.approx(t)
    assert 1 < index_of(np.array([4.0, 2.0, 0.0])) < 2
    assert np.isnan(index_of(np.zeros(3)))
    assert gains(np.array([[1.0, 3.0, 2.9]])).tolist() == [[1.0, 2.0, 0.0]]
    for width, wanted in ((1, 8.0), (3, 64 / 22), (8, 1.0)):
        run = pr.from_arrays(
            pr.tasks.StaticVectors(n_steps=8), pr.cells.BottleneckAutoencoder(n_units=2, width=width), {}
        )
        assert expected_index(run) == pytest.approx(wanted)


# --- planted networks -----------------------------------------------------------------------------------------------


def pr_key():
    return jax.random.key(0)


def sender(*, again, d=3, n_steps=3, **options):
    """A linear network that sends all d channels at each step, or what has not come yet (feedback subtracts it)."""
    cell = pr.cells.BottleneckAutoencoder(n_units=d, width=d, activation="identity", **options)
    a = {k: np.zeros(v.shape) for k, v in cell.init(d, d, key=pr_key()).trainable.items()}
    for name in ("W_in", "W_bottleneck", "W_decoder", "W_out"):
        a[name] = np.eye(d)
    a["W"] = np.eye(d) * (0 if again else 1)
    a["W_feedback"] = -np.eye(d) * (0 if again else 1)
    return pr.from_arrays(pr.tasks.StaticVectors(inputs=D.Gaussian(n_dimensions=d), n_steps=n_steps), cell, a)


def test_errors_and_information_of_a_network_that_says_everything_at_once():
    for again in (True, False):
        run = sender(again=again)
        assert np.abs(pr.measure("rate_distortion", run).data["error"].values).max() < 1e-9
        found = pr.measure("transmitted_information", run).data
        np.testing.assert_allclose(found["information"].values, 3, atol=0.01)
        assert found.attrs["unit"] == "dimensions"
        np.testing.assert_allclose(pr.measure("serial_index", run).data["index"].values, 1, atol=0.01)


def planted_symbols(kind, x, n_steps=4):
    """Words for uniform x in [0, 1)."""
    digits = (np.floor(x[:, None] * 2.0 ** np.arange(1, n_steps + 1)) % 2).astype(int)
    if kind == "expansion":
        return digits
    if kind == "Gray":
        return digits ^ np.pad(digits, ((0, 0), (1, 0)))[:, :-1]
    if kind == "one step wrong":  # one step's thresholds are off by a tenth of their cells
        shifted = (np.floor((x + 0.1 / 2**3)[:, None] * 2.0 ** np.arange(1, n_steps + 1)) % 2).astype(int)
        return np.column_stack([digits[:, :2], shifted[:, 2:3], digits[:, 3:]])
    return np.random.default_rng(0).integers(0, 2, digits.shape)


def test_binary_expansions_are_known_up_to_flips():
    x = np.random.default_rng(7).uniform(size=8000)
    kinds = ("expansion", "Gray", "one step wrong", "chance")
    symbols = np.stack([planted_symbols(kind, x) for kind in kinds])
    share = agreement(symbols, x, 2).mean(axis=1)
    np.testing.assert_allclose(share[:2], 1)
    np.testing.assert_allclose(share[2], [1, 1, 0.9, 0.9], atol=0.02)
    np.testing.assert_allclose(share[3], 0.5 ** np.arange(1, 5), atol=0.06)
    assert (agreement(1 - symbols[:1], x, 2)).all()
    # three symbols a step, renamed differently after every prefix
    digits = (np.floor(x[:, None] * 3.0 ** np.arange(1, 4)) % 3).astype(int)
    renamed = digits.copy()
    renamed[:, 1] = (digits[:, 1] + digits[:, 0]) % 3
    assert agreement(renamed[None], x, 3).all()


def signed(**options):
    """A network whose bits are the signs of two channels, again and again."""
    cell = pr.cells.BottleneckAutoencoder(n_units=2, width=2, bottleneck="binary", **options)
    a = {k: np.zeros(v.shape) for k, v in cell.init(2, 2, key=pr_key()).trainable.items()}
    a["W_in"] = a["W_bottleneck"] = np.eye(2)
    return pr.from_arrays(pr.tasks.StaticVectors(inputs=D.Gaussian(n_dimensions=2), n_steps=2), cell, a)


def test_code_book_of_two_signs():
    found = pr.measure("code_book", signed(), n_trials=20_000).data
    assert found["n_words"].values.tolist() == [4] and found["n_prefixes"].values.tolist() == [[4, 4]]
    np.testing.assert_allclose(found["probability"].values, 0.25, atol=0.02)
    corner = np.sqrt(2 / np.pi)
    for symbol, centroid in zip(found["symbol"].values[0], found["centroid"].values[0], strict=True):
        assert symbol[0] == symbol[1]
        np.testing.assert_allclose(
            centroid, corner * np.array([2 * (symbol[0] % 2) - 1, 2 * (symbol[0] // 2) - 1]), atol=0.05
        )
    information = pr.measure("transmitted_information", signed()).data
    np.testing.assert_allclose(information["information"].values, 2, atol=0.01)
    assert float(information["capacity"]) == 2 and information.attrs["unit"] == "bits"
    np.testing.assert_allclose(information["efficiency"].values, 0.5, atol=0.01)
    few = pr.measure("transmitted_information", signed(), n_trials=16, max_correction=0.01).data
    assert np.isnan(few["information"].values).all(), "too few trials for so many words"
    np.testing.assert_allclose(pr.measure("serial_index", signed()).data["index"].values, 1, atol=0.01)


def test_every_line_appears_where_it_belongs():
    cell = pr.cells.BottleneckAutoencoder
    binary = cell(n_units=2, width=1, bottleneck="binary")
    one = lambda make, **o: make(n_dimensions=1, **o)
    cases = [
        (cell(n_units=2), D.Gaussian(), "final", {"linear": "benchmark"}),
        (cell(n_units=2), D.Uniform(), "final", {"linear": "benchmark"}),
        (cell(n_units=2, noise=0.1), D.Gaussian(), "final", {"noisy channel": "limit"}),
        (cell(n_units=2, noise=0.1), one(D.Gaussian, variances=[2.0]), "final", {"noisy channel": "limit"}),
        (cell(n_units=2, noise=0.1), D.Uniform(), "final", {}),
        (binary, D.Gaussian(), "final", {"Gaussian": "limit", "sign bits": "reachable"}),
        (binary, one(D.Gaussian), "final", {"Gaussian": "limit", "Lloyd-Max": "reachable"}),
        (binary, one(D.Gaussian), "anytime", {"Gaussian": "limit", "embedded quantiser": "reachable"}),
        (binary, one(D.Gaussian, variances=[2.0]), "final", {"water-filling": "limit"}),
        (binary, D.Uniform(), "final", {"halving in turn": "reachable"}),
        (binary, one(D.Uniform), "final", {"halving": "limit"}),
        (binary, D.Signs(), "final", {"signs, at best": "limit", "signs as they are": "reachable"}),
        (binary, D.Dictionary(), "final", {}),
    ]
    for made, inputs, objective, wanted in cases:
        training = pr.Training(objective=objective)
        run = pr.from_arrays(pr.tasks.StaticVectors(inputs=inputs, n_steps=2), made, {}, training=training)
        lines = _lines(run, inputs, np.arange(1, 3), None if made.noise == 0 else np.ones(1))
        assert {name: kind for name, (kind, _) in lines.items()} == wanted, (made, inputs)
        assert all(np.diff(values) < 0 for _, values in lines.values())
    ratio = pr.measure("rate_distortion", sender(again=True, noise=0.5), n_trials=8192).data["signal_to_noise"]
    np.testing.assert_allclose(ratio.values, 4, rtol=0.05)


def test_no_network_passes_a_limit_and_errors_by_kind_add_up():
    run = pr.fit(
        pr.tasks.StaticVectors(inputs=D.Dictionary(n_patterns=4), n_steps=2),
        pr.cells.BottleneckAutoencoder(n_units=8),
        members=2,
        objective="anytime",
        **TINY | {"steps_per_epoch": 50},
    )
    found = pr.measure("rate_distortion", run, members="all").data
    p = run.task.inputs.probabilities()
    drawn = np.einsum("mkt,k->mt", found["error_by_kind"].values, p)
    np.testing.assert_allclose(drawn, found["error"].values, rtol=0.1)


# --- adaptation and composition -------------------------------------------------------------------------------------


def test_shared_bits_of_planted_codes():
    generator = np.random.default_rng(8)
    old = generator.integers(0, 2, (1, 20_000, 3))
    flipped, other = 1 - old, generator.integers(0, 2, old.shape)
    half = np.concatenate([old[:, :, :1], other[:, :, 1:]], axis=2)
    for new, wanted in ((old, 3), (flipped, 3), (other, 0), (half, 1)):
        mutual, entropy = _shared_bits(old, new)
        np.testing.assert_allclose([mutual[0], entropy[0]], [wanted, 3], atol=0.01)


@pytest.fixture(scope="module")
def shifted():
    inputs = [D.Uniform(n_dimensions=1, low=-1.0, high=1.0), D.Uniform(n_dimensions=1, low=0.0, high=1.0)]
    return pr.fit(
        pr.tasks.StaticVectors(inputs=inputs[0], shifts=inputs[1:], n_steps=1),
        pr.cells.BottleneckAutoencoder(n_units=8, width=1, bottleneck="binary"),
        members=2,
        curriculum=pr.curricula.Shifts(epochs=[2]),
        objective="final",
        monitors=(),
        snapshots=1,
        optimizer={"kind": "adam", "learning_rate": 0.02},
        epochs=5,
        steps_per_epoch=60,
        batch=64,
        evaluation_batches=1,
    )


def test_adaptation_to_half_of_an_interval(shifted):
    """One bit: the sign, which says nothing on the upper half until the threshold has moved there."""
    found = pr.measure("adaptation", shifted, members="all", n_trials=1000).data
    assert found["step"].values.tolist() == [-60, 0, 60, 120, 180]
    at = lambda name, step: found[name].sel(step=step).values
    assert (at("rate_old", 0) > 0.9).all() and (at("rate_new", 0) < 0.6).all() and (at("rate_new", 180) > 0.8).all()
    assert (at("rate_old", 180) < at("rate_old", 0)).all(), "what is gained on the new inputs is lost on the old"
    np.testing.assert_array_equal(found["rate_before"].values, at("rate_old", 0))
    np.testing.assert_allclose(at("mutual_information", 0), at("word_entropy", 0), atol=1e-9)
    assert np.isnan(at("mutual_information", -60)).all()
    assert (at("mutual_information", 180) < 0.5 * at("word_entropy", 180)).all()
    recover = lambda share: pr.measure("adaptation", shifted, members="all", n_trials=1000, share=share).data
    rate, before = found["rate_new"].values, found["rate_before"].values[:, None]
    for share in (0.3, 0.9):
        good = (rate >= share * before) & (found["step"].values >= 0)
        wanted = [found["step"].values[row.argmax()] if row.any() else np.nan for row in good]
        np.testing.assert_array_equal(recover(share)["steps_to_recover"].values, wanted)


@pytest.mark.parametrize(
    ("analysis", "change", "says"),
    [
        ("adaptation", lambda run: dataclasses.replace(run, snapshots={}), "no snapshot of epoch 2"),
        ("adaptation", lambda run: run.on(pr.tasks.StaticVectors(inputs=run.task.inputs, n_steps=1)), "shift = 1"),
        ("compositional_error", lambda run: run, "holds nothing out"),
        ("code_book", lambda run: sender(again=True), "it has no code words"),
    ],
)
def test_questions_that_make_no_sense(shifted, analysis, change, says):
    with pytest.raises(pr.NotApplicableError, match=says):
        pr.measure(analysis, change(shifted), members="all")


@pytest.mark.parametrize(
    "analysis",
    ["rate_distortion", "transmitted_information", "serial_index", "code_book", "adaptation", "compositional_error"],
)
def test_other_networks_are_refused(analysis, tiny_run):
    with pytest.raises(pr.NotApplicableError, match="bottleneck_autoencoder"):
        pr.measure(analysis, tiny_run, members="all")


@pytest.mark.parametrize("analysis", ["rate_distortion", "transmitted_information", "serial_index", "code_book"])
def test_trials_and_seed_change_the_answer_and_a_round_trip_to_disk(analysis, shifted, tmp_path):
    ask = lambda **o: pr.measure(analysis, shifted, members="all", **{"n_trials": 200} | o)
    usual = ask()
    assert usual.data.equals(ask().data)
    assert not usual.data.equals(ask(seed=1).data) and not usual.data.equals(ask(n_trials=201).data)
    from poprnn.analysis.contract import load_result

    xr.testing.assert_equal(load_result(usual.save(tmp_path)).data, usual.data)


def test_a_network_that_adds_its_factors_composes_and_one_that_knows_them_by_heart_does_not():
    task = pr.tasks.StaticVectors(inputs=D.Compositional(n_dimensions=3), n_steps=1)
    identity = dataclasses.replace(sender(again=True), setup=sender(again=True).setup.replace("task", task))
    identity = dataclasses.replace(identity, arrays=task.arrays())
    found = pr.measure("compositional_error", identity).data
    assert np.abs(found["error"].values).max() < 1e-9
    # a linear network that has lost one direction errs by that direction's power in each of the two sets
    a = {k: v.copy() for k, v in identity.parameters.trainable.items()}
    a["W_out"][:, 0, 0] = 0
    lame = dataclasses.replace(identity, parameters=pr.Parameters(a, {}))
    found = pr.measure("compositional_error", lame, n_trials=20_000).data
    inputs, patterns = task.inputs, task.inputs.patterns()
    for place, held in enumerate((False, True)):
        x = patterns[np.arange(2), inputs.combinations(held)].sum(axis=1) / 2**0.5
        np.testing.assert_allclose(
            found["error"].values[0, place, 0], (x[:, 0] ** 2).mean() / inputs.spectrum().sum(), rtol=0.05
        )
    wanted = found["error"].values[0, 1, 0] / found["error"].values[0, 0, 0]
    np.testing.assert_allclose([found["ratio"].values[0], float(found["mean_ratio"])], wanted)
    assert np.isnan(float(found["mean_ratio_low"]))
