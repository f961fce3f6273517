"""Contracts over everything the catalogue holds, found by discovery: nothing here names an entry to be tested."""

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import types
import typing
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import tomli_w

import poprnn
from poprnn.core import catalogue, show
from poprnn.core.blueprint import Blueprint, build
from poprnn.core.errors import ConfigurationError, canonical

SOURCE = Path(poprnn.__file__).parent
PROJECT = SOURCE.parent.parent
# Bases by family, as a blueprint's field would name them; families without a base hold functions or modules.
BASES = {
    "tasks": "tasks.contract:Task",
    "cells": "cells.contract:Cell",
    "distributions": "tasks.distributions.contract:Distribution",
    "modules": "cells.modules.contract:Module",
} | {
    family: f"training.{family}.contract:{base}"
    for family, base in (
        ("methods", "Method"),
        ("curricula", "Curriculum"),
        ("objectives", "Objective"),
        ("penalties", "Penalty"),
        ("monitors", "Monitor"),
        ("optimizers", "Optimizer"),
        ("schedules", "Schedule"),
    )
}
FILES = {
    family: sorted(
        p.stem for p in (SOURCE / folder).glob("*.py") if not p.stem.startswith("_") and p.stem != "contract"
    )
    for family, folder in catalogue.FAMILIES.items()
}
ENTRIES = [(family, name) for family in BASES for name in FILES[family]]
EVERYTHING = [(family, name) for family in FILES for name in FILES[family]]
# What entries that cannot do without options are given here.
REQUIRED = {
    "arrays": {"digest": "0" * 64},
    "cosine": {"peak": 0.1, "decay_steps": 10},
    "cosine_restarts": {"peak": 0.1, "period": 10},
    "exponential": {"start": 0.1, "factor": 0.5, "every": 10},
    "piecewise": {"values": (0.1, 0.01), "boundaries": (10,)},
    "reduce_on_plateau": {"start": 0.1},
}
MODULES = sorted(SOURCE.rglob("*.py"))


def base_of(family):
    module, name = BASES[family].split(":")
    return getattr(importlib.import_module(f"poprnn.{module}"), name)


def make(family, name, **options):
    return catalogue.find(family, name)(**REQUIRED.get(name, {}) | options)


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def ids(item):
    return item.relative_to(SOURCE).as_posix() if isinstance(item, Path) else "/".join(item)


# --- names ----------------------------------------------------------------------------------------------------------


def test_discovery_finds_every_file_and_every_family_has_entries():
    for family, files in FILES.items():
        assert files, f"no entries in {family}"
        assert set(files) <= set(catalogue.names(family))
    assert set(BASES) | {"analyses", "recipes"} == set(catalogue.FAMILIES)


@pytest.mark.parametrize("entry", EVERYTHING, ids=ids)
def test_every_name_resolves(entry):
    family, name = entry
    item = catalogue.find(family, name)
    assert catalogue.find(family, name.upper().replace("_", "-")) is item
    if family == "recipes":
        assert isinstance(item, types.ModuleType)
    elif family == "analyses":
        assert inspect.isfunction(item)
        assert item.__name__ == name
    else:
        assert issubclass(item, base_of(family))
        assert canonical(item.__name__) == canonical(name)
        assert item.name() == name
        assert item.__module__ == catalogue.module_name(family, name)


def test_names_are_unique_in_canonical_form():
    for family, files in FILES.items():
        assert len({canonical(n) for n in files}) == len(files), family


def test_names_are_unique_across_families_too():
    """``poprnn show NAME`` has no family to go by."""
    everything = [canonical(n) for files in FILES.values() for n in files]
    assert sorted(set(everything)) == sorted(everything)


@pytest.mark.parametrize("family", FILES)
def test_an_unknown_name_offers_the_nearest(family):
    name = FILES[family][0]
    with pytest.raises(ConfigurationError, match=f"did you mean '{name}'") as error:
        catalogue.find(family, name + "x")
    assert name + "x" in str(error.value)


def test_an_unknown_family_offers_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'cells'"):
        catalogue.names("cels")


def test_lazy_packages_offer_every_entry():
    for family in BASES:
        package = getattr(poprnn, family)
        assert set(FILES[family]) <= set(dir(package))
        assert getattr(package, catalogue.find(family, FILES[family][0]).__name__) is catalogue.find(
            family, FILES[family][0]
        )
        with pytest.raises(AttributeError, match="has no 'no_such_thing'"):
            _ = package.no_such_thing
    for name in poprnn.__all__:
        if name != "report" or (SOURCE / "report" / "page.py").exists():
            assert getattr(poprnn, name) is not None, name


# --- blueprints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_docstring_with_example(entry):
    text = vars(catalogue.find(*entry)).get("__doc__") or ""
    assert ">>>" in text, f"{ids(entry)} has no example"
    assert not text.lstrip().startswith(">>>"), "says what it is before the example"


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_every_option_is_explained(entry):
    cls = catalogue.find(*entry)
    for option in show.describe("/".join(entry))["options"]:
        assert option["type"], f"{cls.__name__}.{option['name']} has no type as written"
        inherited = any(option["name"] in vars(base).get("__annotations__", {}) for base in cls.__mro__[1:])
        assert option["text"] or inherited, f"{cls.__name__}.{option['name']} has no text below it"


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_defaults_construct_or_the_error_names_what_is_missing(entry):
    family, name = entry
    cls = catalogue.find(family, name)
    if name not in REQUIRED:
        cls()
        return
    with pytest.raises(ConfigurationError) as error:
        cls()
    required = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ] or ["path"]
    shown = str(error.value)
    assert len(shown.splitlines()) <= 2
    assert any(f"'{r}'" in shown or r in shown for r in required)
    assert cls.__name__ in shown


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_frozen_and_hashable(entry):
    one, two = make(*entry), make(*entry)
    assert one == two
    assert hash(one) == hash(two)
    for field in dataclasses.fields(one):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, field.name, getattr(one, field.name))
    with pytest.raises(ConfigurationError, match="by name only"):
        type(one)("positional")


def other_value(value, annotation):
    """Another valid value of a field, guessed from its type; ``None`` if no guess is safe."""
    options = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return next(o for o in options if o != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.01
    return None


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_round_trip_through_dictionaries_and_toml(entry):
    family, name = entry
    cls, base = catalogue.find(family, name), base_of(family)
    hints = typing.get_type_hints(cls)
    variants = [make(family, name)]
    for field in dataclasses.fields(cls):
        value = other_value(getattr(variants[0], field.name), hints[field.name])
        if value is not None:
            try:
                variants.append(make(family, name, **{field.name: value}))
            except ConfigurationError:  # the guess breaks a rule of the blueprint's own
                continue
            assert variants[-1] != variants[0]
    for blueprint in variants:
        plain = blueprint.to_dict()
        assert plain["kind"] == name
        assert build(base, plain) == blueprint
        read = tomllib.loads(tomli_w.dumps(plain))
        assert read == plain
        again = build(base, read)
        assert again == blueprint
        assert hash(again) == hash(blueprint)
        assert type(again) is cls
    assert build(base, name.upper(), "there") == variants[0] if name not in REQUIRED else True


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_no_field_is_lost_in_writing(entry):
    """Files leave ``None`` out, so wherever ``None`` is allowed it must be the default as well."""
    blueprint = make(*entry)
    plain = blueprint.to_dict()
    hints = typing.get_type_hints(type(blueprint))
    for field in dataclasses.fields(blueprint):
        assert (field.name in plain) == (getattr(blueprint, field.name) is not None)
        if types.NoneType in typing.get_args(hints[field.name]):
            assert field.default is None or getattr(field.default, "default", ...) is None, field.name


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_an_unknown_option_offers_the_nearest(entry):
    family, name = entry
    fields = [f.name for f in dataclasses.fields(catalogue.find(family, name))]
    wrong = (fields[0] if fields else "anything") + "_q"
    hint = f"did you mean '{fields[0]}'" if fields else "unknown option"
    spec = {"kind": name, **REQUIRED.get(name, {}), wrong: 1}
    for attempt in (lambda: make(family, name, **{wrong: 1}), lambda: build(base_of(family), spec)):
        with pytest.raises(ConfigurationError, match=hint) as error:
            attempt()
        assert f"'{wrong}'" in str(error.value)


def base_in(annotation):
    """Whether a field's type admits a blueprint, whose own error then speaks."""
    here = inspect.isclass(annotation) and issubclass(annotation, Blueprint)
    return here or any(base_in(a) for a in typing.get_args(annotation))


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_a_wrong_type_is_an_error_that_names_the_option(entry):
    for field in dataclasses.fields(catalogue.find(*entry)):
        for wrong in ({"a": "dictionary"}, [["nested"]]):
            with pytest.raises(ConfigurationError) as error:
                make(*entry, **{field.name: wrong})
            nested = base_in(typing.get_type_hints(catalogue.find(*entry))[field.name])
            named = field.name in str(error.value)
            assert named or (nested and re.search("'kind' is missing|no .* entry named", str(error.value)))


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_numbers_are_strict(entry):
    """A number in quotes, a fraction for a count, and NaN or infinity for a bounded number are refused."""
    hints = typing.get_type_hints(catalogue.find(*entry))
    blueprint = make(*entry)
    for field in dataclasses.fields(blueprint):
        value = getattr(blueprint, field.name)
        kinds = set(typing.get_args(hints[field.name])) or {hints[field.name]}
        wrong = []
        if isinstance(value, int | float) and not isinstance(value, bool) and str not in kinds:
            wrong = ["3", float("nan"), 2.5 if isinstance(value, int) else float("inf")]
            if typing.get_origin(hints[field.name]) is not typing.Literal:  # True == 1 there, which does no harm
                wrong.append(True)
        for bad in wrong:
            with pytest.raises(ConfigurationError):
                make(*entry, **{field.name: bad})


def test_bounds_are_checked_with_name_value_and_rule():
    with pytest.raises(ConfigurationError, match=r"LeakyRNN: n_units = -5: must be greater than 0"):
        poprnn.cells.LeakyRNN(n_units=-5)


def test_the_round_trip_test_would_notice_a_lost_field():
    """Planted: a blueprint whose field allows ``None`` but has another default loses it in a file."""

    class Leaky(Blueprint):
        rate: float | None = 0.5

    assert build(Leaky, Leaky(rate=None).to_dict()) != Leaky(rate=None)


# --- plugins and show -----------------------------------------------------------------------------------------------


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(catalogue, "_registered", {k: dict(v) for k, v in catalogue._registered.items()})


def test_registered_entries_join_the_catalogue(clean_registry):
    @poprnn.register("monitors")
    class NeverEnds(poprnn.Monitor):
        """Says no."""

        outcome = "never"
        limit: float = 1.0

    assert "never_ends" in catalogue.names("monitors")
    assert build(poprnn.Monitor, {"kind": "NeverEnds", "limit": 2.0}) == NeverEnds(limit=2.0)
    assert NeverEnds(limit=2.0).to_dict() == {"kind": "never_ends", "limit": 2.0}
    assert poprnn.monitors.NeverEnds is NeverEnds
    assert "Says no." in show.render(show.describe("never_ends"))
    with pytest.raises(ConfigurationError, match="already has an entry named 'solved'"):
        poprnn.register("monitors", "Solved")(NeverEnds)
    with pytest.raises(ConfigurationError, match="unknown family 'monitor'; did you mean 'monitors'"):
        poprnn.register("monitor")


def test_entry_points_join_the_catalogue(monkeypatch, tmp_path):
    (tmp_path / "their_cells.py").write_text(
        "import poprnn as pr\nclass Theirs(pr.Cell):\n    '''Another package's.'''\n    n_units: int = 3\n"
    )
    (tmp_path / "their_broken_cells.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("theirs", "their_cells:Theirs", "poprnn.cells"),
        EntryPoint("broken", "their_broken_cells:Broken", "poprnn.cells"),
    ]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [p for p in points if p.group == group])
    assert {"theirs", "broken"} <= set(catalogue.names("cells"))
    assert build(poprnn.Cell, {"kind": "theirs", "n_units": 5}).n_units == 5
    assert "theirs" not in catalogue.names("tasks")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        catalogue.find("cells", "broken")
    with pytest.raises(ConfigurationError, match="already has an entry named 'theirs'"):
        poprnn.register("cells", "theirs")(object)


def test_plugin_files(clean_registry, tmp_path):
    path = tmp_path / "my_own_penalty.py"
    path.write_text("import poprnn as pr\n@pr.register('penalties')\nclass MyOwn(pr.Penalty):\n    '''Mine.'''\n")
    catalogue.load_plugin(path)
    assert build(poprnn.Penalty, "my_own").strength == poprnn.Penalty().strength
    with pytest.raises(ConfigurationError, match="is not a file"):
        catalogue.load_plugin(tmp_path / "nowhere.py")


@pytest.mark.parametrize("entry", EVERYTHING, ids=ids)
def test_show_describes_every_entry(entry):
    family, name = entry
    about = show.describe("/".join(entry))
    assert (about["family"], about["name"]) == entry
    assert Path(about["path"]).name == f"{name}.py"
    assert about["text"]
    text = show.render(about)
    assert text.startswith(f"{name}  ({family})")
    item = catalogue.find(family, name)
    if inspect.isclass(item):
        assert [o["name"] for o in about["options"]] == [f.name for f in dataclasses.fields(item)]
        for field in dataclasses.fields(item):
            assert f"  {field.name}: " in text
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                assert re.search(rf"  {field.name}: .*, required", text)
    assert canonical(show.describe(name)["name"]) == canonical(name)


def test_show_offers_the_nearest_name():
    with pytest.raises(ConfigurationError, match="did you mean 'leaky_rnn'"):
        show.describe("leaky_rn")


# --- the source -----------------------------------------------------------------------------------------------------


def public_definitions(tree):
    """Public functions and classes of a module and the public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.ClassDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_public_things_have_docstrings(path):
    tree = tree_of(path)
    text = path.read_text(encoding="utf-8").strip()
    assert not text or ast.get_docstring(tree), "the module has none"
    assert [name for name, node in public_definitions(tree) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_files_and_functions_are_short(path):
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= 350, f"{n_lines} lines"
    long = {
        node.name: node.end_lineno - node.lineno + 1 - docstring_lines(node)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in long.items() if n > 50} == {}


def docstring_lines(node):
    """Lines a function's docstring takes: the rule is about code."""
    first = node.body[0]
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return first.end_lineno - first.lineno + 1 if is_text else 0


def imports_of(tree, package):
    """Every module an AST imports, absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(p for p in (prefix, node.module) if p)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def forbidden(tree):
    """Uses of eval, exec, pickle and assert."""
    found = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile")
    ]
    found += ["assert" for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    found += [m for m in imports_of(tree, "poprnn") if m.split(".")[0] in ("pickle", "cPickle", "dill", "joblib")]
    found += [
        f"allow_pickle={ast.unparse(node.value)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False"
    ]
    return found


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_nothing_dangerous(path):
    assert forbidden(tree_of(path)) == []


def test_dangerous_things_would_be_found():
    for planted in (
        "assert x",
        "eval('1')",
        "def f():\n    exec('1')",
        "import pickle",
        "from pickle import load",
        "np.load(f, allow_pickle=True)",
    ):
        assert forbidden(ast.parse(planted)), planted
    assert not forbidden(ast.parse("jax.eval_shape(f)\nloader.exec_module(m)\nnp.load(f, allow_pickle=False)"))


def module_of(path):
    parts = ("poprnn", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_only_the_report_plots(path):
    plotting = {
        m for m in imports_of(tree_of(path), module_of(path)) if m.split(".")[0] in ("matplotlib", "plotly", "seaborn")
    }
    assert not plotting or path.is_relative_to(SOURCE / "report"), plotting


def layers():
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return settings["contracts"][0]["layers"]


def upward(importer, imported, rooms):
    """Whether an import goes against the order of the rooms (the highest stands first)."""

    def height(module):
        return next((i for i, room in enumerate(rooms) if module == room or module.startswith(room + ".")), None)

    a, b = height(importer), height(imported)
    return a is not None and b is not None and b < a


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_rooms_import_only_downwards(path):
    module = module_of(path)
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    assert {m for m in imports_of(tree_of(path), package) if upward(module, m, layers())} == set()


def test_every_room_has_its_layer_and_an_upward_import_would_be_found():
    rooms = {
        f"poprnn.{p.stem}"
        for p in SOURCE.iterdir()
        if (p.suffix == ".py" or (p / "__init__.py").exists()) and not p.stem.startswith("_")
    }
    assert rooms == set(layers())
    assert upward("poprnn.core.x", "poprnn.tasks.n_dms", layers())
    assert upward("poprnn.training.fit", "poprnn.report", layers())
    assert not upward("poprnn.report.curves", "poprnn.training.run", layers())
    planted = imports_of(ast.parse("def f():\n    from ..training import fit"), "poprnn.core")
    assert any(upward("poprnn.core.x", m, layers()) for m in planted)


@pytest.mark.parametrize("module", ["poprnn", "poprnn.cli"])
def test_importing_costs_nothing(module):
    code = (
        f"import sys, {module}; from poprnn.core import catalogue\n"
        "names = [catalogue.names(f) for f in catalogue.FAMILIES]\n"
        "heavy = ('jax', 'optax', 'matplotlib', 'scipy', 'pyarrow', 'xarray')\n"
        "print(sorted(m for m in heavy if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
