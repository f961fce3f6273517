"""BibTeX of the papers behind what poprnn offers."""

import tomllib
from collections.abc import Iterable
from pathlib import Path


def bibtex(keys: Iterable[str]) -> str:
    """The entries for some keys, in that order.

    >>> bibtex(["poprnn"]).splitlines()[0]
    '@software{poprnn,'
    """
    entries = tomllib.loads(Path(__file__).with_name("references.toml").read_text(encoding="utf-8"))
    return "\n\n".join(entries.get(key, f"% no entry for {key}").strip() for key in keys)
