"""The errors poprnn raises on purpose. The command prints them as one or two lines and exits with code 2."""

import difflib
from collections.abc import Iterable


class PoprnnError(Exception):
    """Base of every error that poprnn raises on purpose."""


class ConfigurationError(PoprnnError, ValueError):
    """A blueprint, experiment file or option that cannot be used; says name, value and rule."""


class StorageError(PoprnnError):
    """A run folder or file that cannot be read or written."""


class CapacityError(PoprnnError):
    """Work that would not fit into memory; refused before it starts, with the estimate."""


class NotApplicableError(PoprnnError):
    """A measure asked of a population it does not apply to (for instance tau of a network without tau)."""


def canonical(name: str) -> str:
    """The form under which names are compared: lower case, without underscores or hyphens.

    >>> canonical("n_dms") == canonical("NDMS")
    True
    """
    return name.replace("_", "").replace("-", "").lower()


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint ``; did you mean 'x'?`` with the closest known name, or the list of all names if none is close.

    >>> nearest("lern_rate", ["learning_rate", "momentum"])
    "; did you mean 'learning_rate'?"
    """
    known = list(known)
    by_canonical = {canonical(k): k for k in known}
    close = difflib.get_close_matches(canonical(name), by_canonical, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{by_canonical[close[0]]}'?"
    return f"; known: {', '.join(sorted(known))}" if known else ""
