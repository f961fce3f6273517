"""Values, times, sizes and blueprints in words."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from poprnn.core.blueprint import Blueprint


def show(value: Any) -> str:
    """A value as short text: four digits, lists in brackets, nothing for ``None``.

    >>> show(0.123456), show([1.0, 2.5]), show(None), show(True)
    ('0.1235', '[1, 2.5]', '', 'yes')
    """
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}" if np.isfinite(value) else "not finite"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {show(v)}" for k, v in value.items())
    if isinstance(value, list | tuple | np.ndarray):
        return "[" + ", ".join(show(v) for v in value) + "]"
    return str(value)


def duration(seconds: float) -> str:
    """A time span in words.

    >>> duration(0.42), duration(75), duration(7380)
    ('0.42 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(number: float, unit: str) -> str:
    """A large number with a prefix.

    >>> size(6.4e11, "FLOP")
    '640 GFLOP'
    """
    for prefix in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:.3g} E{unit}"


def operations(flops: float, seconds: float | None) -> str:
    """Number of operations, and how many a second where the time is known."""
    return size(flops, "FLOP") + (f", {size(flops / seconds, 'FLOP/s')} on average" if seconds else "")


def described(blueprint: Blueprint) -> str:
    """A blueprint's name and the options in which it departs from its defaults.

    >>> import poprnn as pr
    >>> described(pr.tasks.NParity(n_max=5))
    'n_parity (n_max = 5)'
    """
    plain = blueprint.to_dict()
    options = []
    for field in dataclasses.fields(blueprint):  # type: ignore[arg-type]
        default = getattr(field.default, "default", field.default)
        if field.name in plain and getattr(blueprint, field.name) != default:
            value = plain[field.name]
            shown = value.get("kind", "…") if isinstance(value, dict) else show(value)
            options.append(f"{field.name} = {shown}")
    return blueprint.name() + (f" ({', '.join(options)})" if options else "")
