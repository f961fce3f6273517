"""Describing an entry of the catalogue from its docstring and its typed fields."""

import ast
import dataclasses
import inspect
import textwrap
from typing import Any

from poprnn.core import catalogue, recipe_files
from poprnn.core.errors import ConfigurationError, canonical, nearest


def describe(name: str) -> dict[str, Any]:
    """Family, path, docstring and options of an entry, whichever family it is in."""
    family, _, rest = name.rpartition("/")
    families = [family] if family else list(catalogue.FAMILIES)
    found = [(f, n) for f in families for n in catalogue.names(f) if canonical(n) == canonical(rest)]
    if not found:
        everything = [n for f in families for n in catalogue.names(f)]
        raise ConfigurationError(f"nothing is named '{rest}'{nearest(rest, everything)}")
    family, name = found[0]
    item = catalogue.find(family, name)
    path = inspect.getsourcefile(item)
    about: dict[str, Any] = {
        "name": name,
        "family": family,
        "path": path,
        "text": inspect.getdoc(item) or "",
        "options": [],
    }
    if family == "recipes":
        about["recipe"] = recipe_files.read(name)
    elif inspect.isclass(item):
        about["options"] = _fields(item)
        if family == "cells":
            from poprnn.core import native  # JAX, which whatever shows a cell has already

            has_kernel = item.has_kernel()  # type: ignore[attr-defined]
            about["loops"] = native.status() if has_kernel else "XLA alone (this cell has no kernel)"
    else:
        about["options"] = [
            {"name": p.name, "type": _type_name(p.annotation), "default": _default(p.default), "text": ""}
            for p in inspect.signature(item).parameters.values()
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        ]
    return about


def _type_name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")


def _default(value: Any) -> str | None:
    return None if value is inspect.Parameter.empty else repr(value)


def _fields(cls: type) -> list[dict[str, Any]]:
    texts: dict[str, tuple[str, str]] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= _field_texts(base)
    out = []
    for field in dataclasses.fields(cls):
        kind, text = texts.get(field.name, ("", ""))
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = getattr(field.default, "default", field.default)
        out.append({"name": field.name, "type": kind, "default": None if required else repr(default), "text": text})
    return out


def _field_texts(cls: type) -> dict[str, tuple[str, str]]:
    """Type as written and the string below each field, from the class's source."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return {}
    out = {}
    for line, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text = " ".join(str(after.value.value).split()) if is_text else ""  # type: ignore[union-attr]
            out[line.target.id] = (ast.unparse(line.annotation), text)
    return out


def render(about: dict[str, Any]) -> str:
    """Text for a terminal."""
    lines = [f"{about['name']}  ({about['family']})", str(about["path"]), "", about["text"], ""]
    for option in about["options"]:
        default = "required" if option["default"] is None else f"default {option['default']}"
        lines.append(f"  {option['name']}: {option['type']}, {default}")
        if option["text"]:
            lines.append(f"      {option['text']}")
    if loops := about.get("loops"):
        lines += ["", f"loops over time on a CPU: {loops}"]
    if recipe := about.get("recipe"):
        lines += [f"paper: {recipe['paper']}", ""]
        for claim in recipe["claims"]:
            lines.append(f"  {claim['id']}: {claim['claim']}\n      paper: {claim['paper']}; rule: {claim['rule']}")
        for scale, spec in recipe["scales"].items():
            lines.append(f"  scale {scale}: " + ", ".join(f"{k} = {v}" for k, v in spec.items()))
    return "\n".join(lines).rstrip()
