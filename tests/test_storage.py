"""What is written comes back; what is damaged says so, always in poprnn's own errors."""

import ast
import copy
import datetime
import json
import os
import string
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import poprnn
from poprnn import experiment
from poprnn.core import storage
from poprnn.core.errors import ConfigurationError, StorageError

few = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
dtypes = st.sampled_from([np.float32, np.float64, np.int32, np.bool_, np.uint32])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
names = st.text(string.ascii_letters + string.digits + "_-./ é", min_size=1, max_size=6)


@st.composite
def arrays(draw):
    array = draw(hnp.arrays(draw(dtypes), draw(shapes)))
    form = draw(st.sampled_from(["as it is", "transposed", "every other", "reversed"]))
    if form == "transposed":
        return array.T
    if form == "every other" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return array[::-1] if form == "reversed" and array.ndim else array


leaves = st.recursive(
    arrays(),
    lambda inner: st.one_of(
        st.dictionaries(names.filter(lambda n: "/" not in n), inner, max_size=3), st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=6,
)


def same(a, b):
    """The same bits, dtype and shape."""
    return a.dtype == b.dtype and a.shape == b.shape and np.ascontiguousarray(a).tobytes() == b.tobytes()


def flat(tree):
    return list(storage.names_and_leaves(tree).values())


# --- trees ------------------------------------------------------------------------------------------------------


@few
@given(tree=leaves)
def test_tree_survives(tmp_path, tree):
    storage.save_tree(tmp_path / "t.safetensors", tree)
    back = storage.load_tree(tmp_path / "t.safetensors", tree)
    assert type(back) is type(tree)
    assert len(flat(back)) == len(flat(tree))
    assert all(same(a, b) for a, b in zip(flat(tree), flat(back), strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


@few
@given(tree=st.dictionaries(names, arrays(), min_size=1, max_size=4))
def test_names_with_slashes_survive(tmp_path, tree):
    storage.save_tree(tmp_path / "t.safetensors", tree)
    back = storage.load_tree(tmp_path / "t.safetensors", tree)
    assert set(back) == set(tree)
    assert all(same(tree[k], back[k]) for k in tree)
    raw = storage.load_arrays(tmp_path / "t.safetensors")
    assert set(raw) == set(tree)


def test_two_arrays_of_one_name_do_not_lose_one(tmp_path):
    tree = {"a": {"b": np.zeros(2)}, "a/b": np.ones(2)}
    try:
        storage.save_tree(tmp_path / "t.safetensors", tree)
    except (StorageError, ConfigurationError) as error:
        assert "a/b" in str(error)  # noqa: PT017
        return
    back = storage.load_tree(tmp_path / "t.safetensors", tree)
    assert all(same(a, b) for a, b in zip([tree["a"]["b"], tree["a/b"]], [back["a"]["b"], back["a/b"]], strict=True))


@few
@given(tree=st.dictionaries(names, arrays(), min_size=1, max_size=3), data=st.data())
def test_truncated_file(tmp_path, tree, data):
    path = tmp_path / "t.safetensors"
    storage.save_tree(path, tree)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(StorageError):
        storage.load_tree(path, tree)
    with pytest.raises(StorageError):
        storage.load_arrays(path)


@few
@given(content=st.binary(max_size=80))
def test_garbage_file(tmp_path, content):
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError):
        storage.load_arrays(path)


@settings(few, max_examples=150)
@given(data=st.data())
def test_changed_byte_is_an_error_or_harmless(tmp_path, data):
    path = tmp_path / "t.safetensors"
    tree = {"W": np.ones((2, 3), np.float32), "n": np.arange(3, dtype=np.int32)}
    storage.save_tree(path, tree)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        storage.load_tree(path, tree)
    except StorageError as error:
        assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2"])
def test_dtypes_that_numpy_has_not(tmp_path, dtype):
    size = 2 if dtype == "BF16" else 1
    header = json.dumps({"W": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}).encode()
    header += b" " * (-len(header) % 8)
    path = tmp_path / "t.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2 * size))
    with pytest.raises(StorageError):
        storage.load_tree(path, {"W": np.zeros(2, np.float32)})


def test_missing_file_and_folder_in_its_place(tmp_path):
    for read in (storage.load_arrays, storage.load_json):
        with pytest.raises(StorageError, match="no such file"):
            read(tmp_path / "none")
        with pytest.raises(StorageError):
            read(tmp_path)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (np.zeros((3, 2), np.float32), r"'p/W' is float32\[2, 3\], expected float32\[3, 2\]"),
        (np.zeros((2, 3), np.float64), r"'p/W' is float32\[2, 3\], expected float64\[2, 3\]"),
        (np.zeros((2, 3), np.int32), r"'p/W' is float32\[2, 3\], expected int32\[2, 3\]"),
    ],
)
def test_array_that_does_not_fit_is_named(tmp_path, like, message):
    path = tmp_path / "t.safetensors"
    storage.save_tree(path, {"p": {"W": np.zeros((2, 3), np.float32), "b": np.zeros(1)}})
    with pytest.raises(StorageError, match=message):
        storage.load_tree(path, {"p": {"W": like, "b": np.zeros(1)}})
    with pytest.raises(StorageError, match="'p/bias' is missing"):
        storage.load_tree(path, {"p": {"bias": np.zeros(1)}})


# --- written aside, then renamed --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("old", [None, "old"])
def test_atomic_file_that_fails(tmp_path, error, old):
    path = tmp_path / "f.txt"
    if old:
        path.write_text(old)
    with pytest.raises(StorageError if error is OSError else error), storage.atomic_file(path) as aside:  # noqa: PT012
        aside.write_text("half")
        raise error("no")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == ([("f.txt", old)] if old else [])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("old", [None, "old"])
def test_atomic_folder_that_fails(tmp_path, error, old):
    path = tmp_path / "d"
    if old:
        path.mkdir()
        (path / "f").write_text(old)
    with pytest.raises(StorageError if error is OSError else error), storage.atomic_folder(path) as aside:  # noqa: PT012
        (aside / "f").write_text("half")
        raise error("no")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == (["d", "d/f"] if old else [])
    assert not old or (path / "f").read_text() == old


def test_atomic_file_and_folder_replace(tmp_path):
    for text in ("one", "two"):
        with storage.atomic_file(tmp_path / "deep" / "f") as aside:
            aside.write_text(text)
        with storage.atomic_folder(tmp_path / "deep" / "d") as aside:
            (aside / text).write_text(text)
    assert (tmp_path / "deep" / "f").read_text() == "two"
    assert [p.name for p in (tmp_path / "deep" / "d").iterdir()] == ["two"]
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["d", "f"]


def test_remains_of_a_killed_process_with_our_number_are_no_obstacle(tmp_path):
    """In a container every process may have the same number."""
    remains = tmp_path / f".d.{os.getpid()}.part"
    remains.mkdir()
    (remains / "half").write_text("half")
    with storage.atomic_folder(tmp_path / "d") as aside:
        (aside / "f").write_text("new")
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["f"]


def test_unwritable_place(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        storage.save_json(tmp_path / "plain" / "below.json", {})
    with pytest.raises(StorageError, match="cannot write"), storage.atomic_folder(tmp_path / "plain" / "below"):
        pass


# --- JSON -------------------------------------------------------------------------------------------------------

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.floats().map(np.float64),
    st.floats(width=32).map(np.float32),
    st.integers(-9, 9).map(np.int32),
    st.booleans().map(np.bool_),
    arrays(),
    st.just(Path("a/b")),
)


@few
@given(
    value=st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_to_json_is_always_strict_json(value):
    def refuse(word):
        raise AssertionError(word)

    json.loads(storage.to_json(value), parse_constant=refuse)


def test_to_json_values():
    text = storage.to_json(
        {
            "a": np.array([1.0, np.nan, -np.inf], np.float32),
            "b": np.int32(3),
            "c": np.bool_(True),
            4: (float("inf"), None),
            "d": np.zeros((0, 2)),
            "e": np.array(np.nan),
        },
        indent=None,
    )
    assert json.loads(text) == {"a": [1.0, None, None], "b": 3, "c": True, "4": [None, None], "d": [], "e": None}


@few
@given(content=st.binary(max_size=40))
def test_load_json_of_anything(tmp_path, content):
    (tmp_path / "f.json").write_bytes(content)
    try:
        storage.load_json(tmp_path / "f.json")
    except StorageError as error:
        assert "f.json" in str(error)  # noqa: PT017


# --- TOML and experiments ---------------------------------------------------------------------------------------

toml_like = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [
                "a",
                "=",
                "1",
                "[",
                "]",
                "{",
                "}",
                '"',
                "'",
                "\n",
                ".",
                ",",
                "2020-13-45",
                "1e999",
                "nan",
                "0x",
                "#",
                " ",
                "\\u",
            ]
        ),
        max_size=12,
    ).map("".join),
)


@settings(few, max_examples=150)
@given(text=toml_like)
def test_load_toml_of_anything(tmp_path, text):
    (tmp_path / "f.toml").write_text(text, encoding="utf-8")
    try:
        storage.load_toml(tmp_path / "f.toml")
    except ConfigurationError as error:
        assert "f.toml" in str(error)  # noqa: PT017


NASTY = {"date": "2020-02-30", "long number": "1" * 5000, "deep": "[" * 5000, "huge": "1e999", "nan": "nan"}
"""Values at which Python's own readers may raise something else than their syntax error."""


@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
def test_nasty_toml(tmp_path, value):
    (tmp_path / "f.toml").write_text(f"a = {value}\n")
    try:
        storage.load_toml(tmp_path / "f.toml")
    except ConfigurationError as error:
        assert "f.toml" in str(error)  # noqa: PT017


@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
def test_nasty_json(tmp_path, value):
    (tmp_path / "f.json").write_text(value)
    try:
        storage.load_json(tmp_path / "f.json")
    except StorageError as error:
        assert "f.json" in str(error)  # noqa: PT017


@few
@given(content=st.binary(max_size=40))
def test_load_toml_of_any_bytes(tmp_path, content):
    (tmp_path / "f.toml").write_bytes(content)
    try:
        storage.load_toml(tmp_path / "f.toml")
    except ConfigurationError as error:
        assert "f.toml" in str(error)  # noqa: PT017


VALID = {
    "population": {"members": 4, "seed": 1, "vary": {"training.optimizer.learning_rate": [0.1, 0.2]}},
    "task": {"kind": "n_parity", "n_max": 5},
    "cell": {"kind": "leaky_rnn", "n_units": 10, "activation": "tanh", "noise": 0.1},
    "training": {
        "batch": 8,
        "epochs": 3,
        "optimizer": {"kind": "sgd", "learning_rate": 0.1, "clip_norm": 1.0},
        "curriculum": {"kind": "multi_head", "threshold": 0.9},
        "penalties": [{"kind": "l1", "strength": 0.1}],
        "monitors": ["solved"],
        "snapshots": "stages",
        "trainable": ["readout"],
    },
    "analysis": [{"kind": "connectivity", "members": "all"}],
}
words = st.sampled_from(
    [
        "kind",
        "n_parity",
        "n_max",
        "leaky_rnn",
        "vanilla_rnn",
        "members",
        "sgd",
        "adam",
        "cosine",
        "learning_rate",
        "readout",
        "none",
        "all",
        "l1",
        "activity",
        "single_head",
        "sliding_window",
        "connectivity",
    ]
)
scalars = st.one_of(
    st.booleans(),
    st.integers(-3, 30),
    st.sampled_from([2**31, 2**63, 10**30]),
    st.floats(),
    words,
    st.text(max_size=4),
    st.just(datetime.date(2020, 1, 1)),
    st.just(datetime.time(1, 2)),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(tree, path=()):
    """Paths of everything in nested dictionaries and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def nearly_valid(draw):
    """A valid experiment in which a few places have been replaced, removed, or given a new neighbour."""
    tree = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(tree))))
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "remove":
            del parent[path[-1]]
        elif action == "add" and isinstance(parent, dict):
            parent[draw(words | st.text(max_size=4))] = draw(values)
        else:
            parent[path[-1]] = draw(values)
        if not tree:
            break
    return tree


def read(data):
    """Read an experiment; only a ``ConfigurationError`` of one or two lines may come out of it."""
    try:
        result = experiment.from_dict(data)
    except ConfigurationError as error:
        assert 1 <= len(str(error).splitlines()) <= 2  # noqa: PT017
        return
    assert experiment.from_dict(result.to_dict()).setup == result.setup


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"analysis": [3]},
        {"analysis": ["connectivity"]},
        {"analysis": [{"kind": ["connectivity"]}]},
        {"task": 5},
        {"task": [["kind", "n_parity"]]},
        {"training": "fast"},
        {"population": "four"},
        {"population": [{"members": 3}]},
        {"population": {"vary": 3}},
        {"task": {"n_max": 3}},
        {"task": {"kind": "n_parity", "dt": []}},
        {"cell": {}},
        {"population": {"vary": {"training.optimizer.learning_rate": [10**400]}}},
        {"cell": "none"},
        {"population": {"vary": {"training.optimizer.learning_rate": ["x"]}}},
    ],
    ids=str,
)
def test_wrong_sections(section):
    read(VALID | section)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("penalties", [{"strength": 0.1}]),
        ("penalties", [{}]),
        ("optimizer", {"learning_rate": 0.1}),
        ("monitors", [{}]),
        ("optimizer", {"learning_rate": {"peak": 0.1}}),
    ],
)
def test_an_entry_needs_its_kind(option, value):
    """The contract itself is no entry: it could be built, and would fail in the middle of training."""
    with pytest.raises(ConfigurationError, match="'kind' is missing"):
        experiment.from_dict(VALID | {"training": VALID["training"] | {option: value}})


@settings(few, max_examples=400)
@given(data=nearly_valid())
def test_nearly_valid_experiments(data):
    read(data)


@settings(few, max_examples=60)
@given(data=st.dictionaries(words | st.sampled_from(list(VALID)), values, max_size=4))
def test_random_experiments(data):
    read(data)


@settings(few, max_examples=150)
@given(
    text=st.one_of(
        st.text(max_size=20),
        st.tuples(
            st.sampled_from(list(map(".".join, (map(str, path) for path in places(VALID))))), st.text(max_size=10)
        ).map("=".join),
    )
)
def test_overrides_of_anything(text):
    check_override(text)


@pytest.mark.parametrize(
    "text",
    [
        *(f"task.n_max={value}" for value in NASTY.values()),
        "analysis.kind=3",
        "training.penalties.0.strength=3",
        "task=n_dms",
        "task",
        "",
        "=",
        "..=.",
    ],
    ids=lambda text: text[:20],
)
def test_nasty_overrides(text):
    check_override(text)


def check_override(text):
    data = copy.deepcopy(VALID)
    try:
        experiment.override(data, text)
    except ConfigurationError as error:
        assert "--set" in str(error)  # noqa: PT017
        return
    read(data)


def test_override_takes_one_value_only():
    """What stands on a second line must not vanish without a word."""
    data = copy.deepcopy(VALID)
    try:
        experiment.override(data, "task.n_max=3\ncell.n_units=4")
    except ConfigurationError:
        return
    assert data["task"]["n_max"] != 3


# --- no pickle --------------------------------------------------------------------------------------------------


def test_no_pickle():
    forbidden = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for path in Path(poprnn.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found = {(node.module or "").split(".")[0]}
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
                continue
            else:
                continue
            assert not found & forbidden, path


def test_pickled_array_is_refused(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(StorageError):
        storage.load_arrays(tmp_path / "evil.npy")
    assert safetensors.numpy.save({"a": np.zeros(1)})[:1] != b"\x80"
