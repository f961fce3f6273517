"""Blueprints: frozen, hashable descriptions with typed fields and no arrays.

A subclass of :class:`Blueprint` becomes a validated, keyword-only, frozen dataclass by itself. Its fields are the
only schema there is: Python calls, TOML keys, ``--set``, documentation and error messages all come from them.
"""

import copy
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, dataclass_transform

import pydantic
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from poprnn.core import catalogue
from poprnn.core.errors import ConfigurationError, nearest

PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
T = typing.TypeVar("T")
Tuple = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple that may be written as a list (TOML has no tuples); its items stay strict."""

_CONFIG = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
class Blueprint:
    """Base of every description: tasks, cells, methods, curricula, optimisers, whole experiments."""

    family: ClassVar[str | None] = None
    static: ClassVar[frozenset[str]] = frozenset()
    """Float fields that shape the program and so cannot differ between members (see ``vary``)."""
    cites: ClassVar[tuple[str, ...]] = ()
    """Keys of the papers to cite when this is used."""
    traced: ClassVar[frozenset[str]] = frozenset()
    """Integer fields that may differ between members nevertheless."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        pydantic_dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)
        checked = cls.__init__

        def __init__(self: Any, *args: Any, **options: Any) -> None:
            if args:
                raise ConfigurationError(f"{cls.__name__} takes options by name only")
            options = {k: _coerce(_annotations(cls).get(k), v) for k, v in options.items()}
            try:
                checked(self, **options)
            except pydantic.ValidationError as error:
                raise _readable(cls, error) from None

        __init__.__wrapped__ = checked  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[method-assign]

    @classmethod
    def name(cls) -> str:
        """The name under which the catalogue (and ``kind = "…"`` in a file) knows this blueprint."""
        return catalogue.name_of(cls.family or "", cls)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, every field spelled out but those that are ``None``; inverse of :func:`build`."""
        out: dict[str, Any] = {} if self.family is None else {"kind": self.name()}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _plain(getattr(self, field.name))
            if value is not None:
                out[field.name] = value
        return out

    def chosen(self) -> dict[str, Any]:
        """As :meth:`to_dict`, without the fields that stand at their defaults; it does not change as options are added.

        >>> class Half(Blueprint):
        ...     share: float = 0.5
        >>> Half(share=0.5).chosen(), Half(share=0.25).chosen()
        ({}, {'share': 0.25})
        """
        out: dict[str, Any] = {} if self.family is None else {"kind": self.name()}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, default = getattr(self, field.name), field.default
            if isinstance(default, pydantic.fields.FieldInfo):
                default = default.get_default(call_default_factory=True, validated_data={})
            if value != default:
                out[field.name] = _plain(value, chosen=True)
        return out

    def substitute(self, values: Mapping[str, Any]) -> Self:
        """A copy with fields (dotted paths into nested blueprints) replaced, unchecked: values may be traced.

        This is how a hyperparameter that differs between members reaches the code that reads it.
        """
        new = copy.copy(self)
        for path, value in values.items():
            head, _, rest = path.partition(".")
            inner = getattr(new, head)
            if rest and isinstance(inner, tuple):  # "penalties.0.strength"
                place, _, rest = rest.partition(".")
                items = list(inner)
                items[int(place)] = items[int(place)].substitute({rest: value})
                value = tuple(items)
            elif rest:
                value = inner.substitute({rest: value})
            object.__setattr__(new, head, value)
        return new


def _plain(value: Any, *, chosen: bool = False) -> Any:
    if isinstance(value, Blueprint):
        return value.chosen() if chosen else value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(v, chosen=chosen) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v, chosen=chosen) for k, v in value.items()}
    return value


def _annotations(cls: type) -> dict[str, Any]:
    cached = cls.__dict__.get("_hints")
    if cached is None:
        cached = typing.get_type_hints(cls, include_extras=False)
        cls._hints = cached  # type: ignore[attr-defined]
    return cached


def _blueprint_in(annotation: Any) -> type[Blueprint] | None:
    """The blueprint class named somewhere in a type, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Blueprint):
        return annotation
    for inner in typing.get_args(annotation):
        if (found := _blueprint_in(inner)) is not None:
            return found
    return None


def _coerce(annotation: Any, value: Any) -> Any:
    """Dictionaries and names become the blueprints that the field's type asks for; the rest stays."""
    base = _blueprint_in(annotation)
    if base is None:
        return value
    if isinstance(value, list | tuple):
        return tuple(_coerce(base, v) for v in value)
    if isinstance(value, Mapping) or (isinstance(value, str) and base.family is not None):
        return build(base, value)
    return value


def build(base: type[Blueprint], spec: Mapping[str, Any] | str, where: str = "") -> Any:
    """A blueprint from plain data: ``{"kind": "n_parity", "n_max": 20}`` or just ``"n_parity"``.

    Raises ``ConfigurationError`` naming the option, its value, the rule and the nearest valid name.
    """
    options = {"kind": spec} if isinstance(spec, str) else dict(spec)
    cls: type[Blueprint] = base
    if base.family is not None:
        kind = options.pop("kind", None)
        if kind is None:
            raise ConfigurationError(
                f"{where or base.__name__}: 'kind' is missing{nearest('', catalogue.names(base.family))}"
            )
        cls = catalogue.find(base.family, kind)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            raise ConfigurationError(f"{where or cls.__name__}: unknown option '{key}'{nearest(key, known)}")
    return cls(**options)


def _readable(cls: type, error: pydantic.ValidationError) -> ConfigurationError:
    """One line per problem: name, value, rule, nearest valid name."""
    lines: list[str] = []
    seen: set[str] = set()
    fields = {f.name for f in dataclasses.fields(cls)}
    for problem in error.errors():
        # pydantic adds the names of a union's branches to the place; what is left is what the user wrote
        path = ".".join(str(p) for p in problem["loc"] if isinstance(p, int) or p in fields) or str(
            problem["loc"][0] if problem["loc"] else cls.__name__
        )
        if path in seen:
            continue
        seen.add(path)
        if problem["type"] in ("unexpected_keyword_argument", "unexpected_positional_argument"):
            known = [f.name for f in dataclasses.fields(cls)]
            lines.append(f"{cls.__name__}: unknown option '{path}'{nearest(path, known)}")
        elif problem["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            lines.append(f"{cls.__name__}: option '{path}' is missing")
        else:
            rule = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            shown = repr(problem["input"])
            shown = shown if len(shown) < 60 else shown[:57] + "..."
            if problem["type"] == "value_error":  # raised by a blueprint's own rule, which says it all
                lines.append(rule)
            else:
                lines.append(f"{cls.__name__}: {path} = {shown}: must be {rule}")
    return ConfigurationError("\n".join(dict.fromkeys(lines[:2])))


def is_zero(value: Any) -> bool:
    """Whether a field is the plain number 0, so that code can leave work out; a traced value never is."""
    return isinstance(value, int | float) and value == 0


def variable_fields(blueprint: Blueprint, prefix: str = "") -> dict[str, Any]:
    """Dotted paths and values of every field that may differ between members."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(blueprint):  # type: ignore[arg-type]
        value = getattr(blueprint, field.name)
        path = f"{prefix}{field.name}"
        if isinstance(value, Blueprint):
            out |= variable_fields(value, path + ".")
        elif isinstance(value, tuple) and value and isinstance(value[0], Blueprint):
            for i, item in enumerate(value):
                out |= variable_fields(item, f"{path}.{i}.")
        elif field.name in blueprint.traced or (
            _is_float(_annotations(type(blueprint)).get(field.name)) and field.name not in blueprint.static
        ):
            out[path] = value
    return out


def _is_float(annotation: Any) -> bool:
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return float in (typing.get_args(annotation) if union else (annotation,))
