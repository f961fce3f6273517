"""What recipes say about themselves, read from their TOML files alone (no JAX, no imports)."""

import tomllib
from typing import Any

from poprnn.core import catalogue


def read(name: str) -> dict[str, Any]:
    """A recipe's TOML."""
    path = catalogue.folder("recipes") / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def summaries() -> list[dict[str, Any]]:
    """Name, title, paper, claim ids, scales and minutes of every recipe.

    >>> "name" in summaries()[0] and "claims" in summaries()[0]
    True
    """
    out = []
    for name in catalogue.names("recipes"):
        about = read(name)
        out.append(
            {
                "name": name,
                "title": about["title"],
                "paper": about["paper"],
                "claims": [c["id"] for c in about["claims"]],
                "scales": {
                    s: {"minutes": spec["minutes"], "members": spec.get("members")}
                    for s, spec in about["scales"].items()
                },
            }
        )
    return out
