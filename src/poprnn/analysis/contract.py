"""How questions are put: choosing members, checking options, packing the answer.

An analysis is a function named like its file, ``def name(run, *, option=default, …) -> xarray.Dataset``: pure, no
files, no plots. It answers for every member of the run it is given; :func:`measure` has chosen them.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from poprnn.core import catalogue, storage
from poprnn.core.blueprint import Blueprint
from poprnn.core.errors import ConfigurationError, NotApplicableError, StorageError, nearest
from poprnn.training.run import Run

if typing.TYPE_CHECKING:
    import xarray as xr

Which = Literal["solved", "all"] | Sequence[int]


@dataclasses.dataclass(frozen=True)
class Result:
    """An answer: named arrays, the options they were made with, and who was left out and why."""

    name: str
    """The analysis."""
    data: "xr.Dataset"
    """Named axes; the coordinate ``member`` is the member's number in its population."""
    options: dict[str, Any]
    """All options, defaults included."""
    left_out: dict[int, str]
    """Members that were not measured, and why."""

    def to_xarray(self) -> Any:
        """The one variable if there is just one, else the whole dataset."""
        variables = list(self.data.data_vars)
        return self.data[variables[0]] if len(variables) == 1 else self.data

    def to_dict(self) -> dict[str, Any]:
        """Plain data (for JSON)."""
        return {"analysis": self.name, "options": self.options, "left_out": self.left_out, "data": self.data.to_dict()}

    def save(self, folder: str | Path) -> Path:
        """``NAME.safetensors`` with the arrays beside ``NAME.json`` with axes, options and who was left out."""
        folder = Path(folder)
        arrays, layout, words = {}, {}, {}
        for name, variable in {**self.data.data_vars, **self.data.coords}.items():
            values = variable.values
            layout[str(name)] = {
                "dims": list(variable.dims),
                "coord": name in self.data.coords,
                "attrs": dict(variable.attrs),
            }
            if values.dtype.kind in "OUS":
                words[str(name)] = values.astype(str).tolist()
            else:
                arrays[str(name)] = np.asarray(values)
        storage.save_tree(folder / f"{self.name}.safetensors", arrays)
        storage.save_json(
            folder / f"{self.name}.json",
            {
                "analysis": self.name,
                "options": self.options,
                "left_out": self.left_out,
                "layout": layout,
                "words": words,
                "attrs": dict(self.data.attrs),
            },
        )
        return folder / f"{self.name}.json"


def load_result(path: str | Path) -> Result:
    """Read back what :meth:`Result.save` wrote."""
    import xarray as xr

    path = Path(path)
    about = storage.load_json(path)
    arrays = storage.load_arrays(path.with_suffix(".safetensors"))
    try:
        variables: dict[str, Any] = {}
        coords: dict[str, Any] = {}
        for name, layout in about["layout"].items():
            values = np.asarray(about["words"][name]) if name in about["words"] else arrays[name]
            (coords if layout["coord"] else variables)[name] = (layout["dims"], values, layout["attrs"])
        data = xr.Dataset(variables, coords, about["attrs"])
        return Result(about["analysis"], data, about["options"], {int(k): v for k, v in about["left_out"].items()})
    except KeyError as error:
        raise StorageError(f"{path} is not a result: {error} is missing") from None


def measure(analysis: str | Callable[..., Any], run: Run, /, *, members: Which = "solved", **options: Any) -> Result:
    """Put a question to a population.

    Args:
        analysis: catalogue name (or the function itself).
        run: the population.
        members: ``"solved"`` (also those brought in from elsewhere), ``"all"`` that have not diverged, or numbers.
        options: the analysis' own.

    Raises:
        ConfigurationError: unknown analysis or option. NotApplicableError: the question makes no sense for this
            population, or no member is left to answer it.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), members=2, epochs=1, steps_per_epoch=1, batch=4)
    >>> measure("connectivity", run, members="all").to_xarray()["mean"].dims
    ('member', 'unit')
    """
    function = catalogue.find("analyses", analysis) if isinstance(analysis, str) else analysis
    options = check_options(function, options)
    chosen, left_out = _choose(run, members)
    if not len(chosen):
        reasons = ", ".join(sorted(set(left_out.values())))
        raise NotApplicableError(f"{function.__name__}: no member to measure ({reasons}); choose with members='all'")
    data = function(run.select(chosen), **options)
    if "member" in data.dims and "member" not in data.coords:
        data = data.assign_coords(member=run.member_index[chosen])
    # an option may be a task: a result is kept as plain data
    plain = {name: value.to_dict() if isinstance(value, Blueprint) else value for name, value in options.items()}
    return Result(function.__name__, data, plain, left_out)


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The options of an analysis and their defaults."""
    return {
        name: p.default
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def check_options(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Options filled up with defaults and held against the function's annotations."""
    known = defaults(function)
    hints = typing.get_type_hints(function, include_extras=True)
    out = dict(known)
    for name, value in options.items():
        if name not in known:
            raise ConfigurationError(f"{function.__name__}: unknown option '{name}'{nearest(name, known)}")
        try:
            out[name] = pydantic.TypeAdapter(hints.get(name, Any)).validate_python(value, strict=True)
        except pydantic.ValidationError as error:
            rule = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise ConfigurationError(f"{function.__name__}: {name} = {value!r}: must be {rule}") from None
    return out


def check_members(members: Any, index: Sequence[int] | np.ndarray) -> None:
    """``ConfigurationError`` unless members are ``"solved"``, ``"all"`` or numbers among ``index``."""
    if isinstance(members, str) and members in ("solved", "all"):
        return
    numbers = (
        isinstance(members, Sequence | np.ndarray)
        and not isinstance(members, str)
        and all(isinstance(m, int | np.integer) and not isinstance(m, bool) for m in members)
    )
    if not numbers:
        raise ConfigurationError(f"members = {members!r}: must be 'solved', 'all' or a list of numbers")
    for m in members:
        if m not in index:
            raise ConfigurationError(f"members: no member {m} in this run (it has {min(index)} … {max(index)})")


def _choose(run: Run, members: Which) -> tuple[np.ndarray, dict[int, str]]:
    index = run.member_index
    check_members(members, index)
    if isinstance(members, str):
        fits = {"solved": ("solved", "brought_in"), "all": None}[members]
        good = [word not in ("diverged", "not_reached") and (fits is None or word in fits) for word in run.outcome]
        left = {int(index[k]): run.outcome[k] for k, ok in enumerate(good) if not ok}
        return np.flatnonzero(good), left
    wanted = [int(m) for m in members]
    places = np.array([int(np.flatnonzero(index == m)[0]) for m in wanted])
    return places, {int(m): "not asked for" for m in index if m not in wanted}
