"""What recipes say about themselves, read from their TOML files alone (no JAX, no imports)."""

import tomllib
from typing import Any

from poprnn.core import catalogue


def read(name: str) -> dict[str, Any]:
    """A recipe's TOML; a scale with ``like = "other_recipe"`` has that one's entries of the same scale beneath its own.

    So populations that several recipes share are written down once.
    """
    path = catalogue.folder("recipes") / f"{name}.toml"
    about = tomllib.loads(path.read_text(encoding="utf-8"))
    for scale, entries in about["scales"].items():
        if "like" in entries:
            about["scales"][scale] = read(entries["like"])["scales"][scale] | entries
    return about


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
