"""What a cell is: the dynamics of one network, written for one trial of one member, one step at a time."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from poprnn.cells._activations import ActivationName
from poprnn.core.arrays import Array, Count, Float, PRNGKey, Scalar, Tree
from poprnn.core.blueprint import Blueprint
from poprnn.core.errors import ConfigurationError, NotApplicableError, nearest


class Parameters(NamedTuple):
    """A member's arrays. Only ``trainable`` is ever differentiated."""

    trainable: dict[str, Any]
    fixed: dict[str, Any]

    def replaced(self, **arrays: Any) -> "Parameters":
        """The parameters with some arrays exchanged, wherever they stand.

        >>> Parameters({"W": 1}, {"tau": 2}).replaced(tau=3)
        Parameters(trainable={'W': 1}, fixed={'tau': 3})
        """
        return Parameters(*({k: arrays.get(k, v) for k, v in group.items()} for group in self))


class Context(NamedTuple):
    """What a step may know besides its state and input."""

    time: Count | int = 0
    """Index of this step."""
    dt: Scalar | float | None = None
    """Integration step of this batch; ``None``: the cell's own."""
    schedule: dict[str, Any] = {}  # noqa: RUF012
    """Values that change over training: annealed temperatures from the cell, mixing coefficients from the method."""
    training: bool = False
    """Whether this is a training step."""
    trial: Tree = None
    """The trial being run (closed loops look at it)."""


class ElementWise(NamedTuple):
    """What compiled kernels must know of a cell with one array h for a state, whose input product is x U' + c and whose
    step is, with the drive d = input drive + h M', ``h <- f(d)``, or with a leak ``h <- h + leak (f(d) - h)``, an Euler
    step if the cell is a flow. The cell says so by :attr:`Cell.element_wise`, beside the methods that define it."""

    matrix: str
    """M's name among the prepared arrays."""
    activation: ActivationName
    """f."""
    inputs: tuple[str, str]
    """Names of U and c."""
    leak: str | None = None
    """The leak's name among the prepared arrays, one number a unit."""
    negative_slope: Scalar | float = 0.1
    """Slope of ``leaky_relu`` below zero."""


class Cell(Blueprint):
    """Base of all cells.

    A simple cell gives :meth:`init`, :meth:`step` and :meth:`readout`. A fast one splits its step into the part
    that is linear in the input (:meth:`input_drive`, one matrix product for a block of time), the part that is a
    matrix product with the state (:meth:`recurrent_drive`) and the element-wise rest (:meth:`update`); the unroll
    then takes the weight gradients as one product a block. Products are written ``x @ W.T`` with ``W`` shaped
    ``[to, from]``: of all forms this gives the fastest gradient.

    >>> import jax, jax.numpy as jnp
    >>> class Plain(Cell):
    ...     n_units: int = 8
    ...     def init(self, n_inputs, n_outputs, *, key):
    ...         W = jax.random.normal(key, (self.n_units, self.n_units + n_inputs)) / self.n_units**0.5
    ...         return Parameters({"W": W, "W_out": jnp.zeros((n_outputs, self.n_units))}, {})
    ...     def initial_state(self, prepared, *, key):
    ...         return jnp.zeros(self.n_units)
    ...     def step(self, prepared, state, input, *, key, context):
    ...         return jnp.tanh(prepared["W"] @ jnp.concatenate([state, input]))
    ...     def readout(self, prepared, state):
    ...         return prepared["W_out"] @ state
    >>> Plain().init(3, 2, key=jax.random.key(0)).trainable["W"].shape
    (8, 11)
    """

    family = "cells"
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "recurrent": ("W", "bias", "tau"),
        "input": ("W_in",),
        "readout": ("W_out", "b_out"),
    }
    """Names for sets of arrays, as `trainable = ["readout"]` may use them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # a part of one's own takes the place of an inherited finer split, which would otherwise win without a word
        replaced: tuple[str, ...] = ()
        if "step" in vars(cls) and "update" not in vars(cls):
            replaced = ("input_product", "input_noise", "input_drive", "noise_start", "recurrent_drive", "update")
        elif "input_drive" in vars(cls):
            replaced = ("input_product", "input_noise")
        if {"step", "update", "recurrent_drive", "input_drive", "input_product", "derivative"} & vars(cls).keys():
            replaced += ("element_wise",)  # says something about the methods it was defined beside, no others
        for part in replaced:
            if part not in vars(cls):
                setattr(cls, part, getattr(Cell, part))

    def init(self, n_inputs: int, n_outputs: int, *, key: PRNGKey) -> Parameters:
        """Random parameters of one member."""
        raise NotImplementedError

    def schedule(self, n_step: Count) -> dict[str, Any]:
        """Values for training step ``n_step`` that the cell itself anneals; they stand in ``context.schedule``."""
        del n_step
        return {}

    def prepare(self, parameters: Parameters, context: Context) -> dict[str, Any]:
        """Everything the steps need that does not change in time: masks, clamps, matrix exponentials."""
        del context
        return {**parameters.fixed, **parameters.trainable}

    def initial_state(self, prepared: dict[str, Any], *, key: PRNGKey) -> Tree:
        """State before the first step of one trial."""
        raise NotImplementedError

    def input_drive(
        self, prepared: dict[str, Any], input: Float[Array, "input"], *, key: PRNGKey, context: Context
    ) -> Tree:
        """What the input (and noise) adds to the units at one step; computed for many steps at once."""
        if not self.splits_input:
            return input
        return self.input_noise(prepared, self.input_product(prepared, input), key=key, context=context)

    @property
    def splits_input(self) -> bool:
        """Whether the cell tells the product with the input apart from the noise added to it."""
        return type(self).input_product is not Cell.input_product

    @property
    def element_wise(self) -> ElementWise | None:
        """How the step looks to a compiled kernel, if it has that form; ``None``: it runs by the methods below."""
        return None

    @classmethod
    def has_kernel(cls) -> bool:
        """Whether the cell says how its step looks to a kernel."""
        return cls.element_wise is not Cell.element_wise

    def input_product(self, prepared: dict[str, Any], input: Float[Array, "input"]) -> Tree:
        """The part of :meth:`input_drive` that the input alone decides, worked out once where an input lasts for many
        steps. An array; drives that hold more keep it under ``"h"``. Not defined by cells that do not split it off."""
        raise NotImplementedError(f"{type(self).__name__} does not split the input's product off")

    def input_noise(self, prepared: dict[str, Any], product: Tree, *, key: PRNGKey, context: Context) -> Tree:
        """The input drive from its product: noise is added here, once a step."""
        del prepared, key, context
        return product

    def noise_start(self, prepared: dict[str, Any], *, key: PRNGKey) -> Float[Array, "unit"] | None:
        """What noise with a memory is before the first step of a trial; ``None``: the cell has no such noise."""
        del prepared, key
        return None

    def noise_block(
        self, prepared: dict[str, Any], memory: Float[Array, "unit"], white: Float[Array, "time unit"]
    ) -> tuple[Float[Array, "time unit"], Float[Array, "time unit"]]:
        """Noise with a memory for a whole block of steps, which follow the one that left ``memory``.

        What is remembered after every step, and what it adds to the drive there; made of ``white``, N(0, 1). Noise is
        data: no gradient passes.
        """
        raise NotImplementedError

    def recurrent_drive(self, prepared: dict[str, Any], state: Tree) -> Tree | None:
        """What the state adds, to be summed with :meth:`input_drive`; ``None`` if the cell does not split."""
        del prepared, state
        return None

    def update(self, prepared: dict[str, Any], state: Tree, drive: Tree, *, key: PRNGKey, context: Context) -> Tree:
        """Next state from the state and the summed drive, element by element."""
        return self.step(prepared, state, drive, key=key, context=context)

    def step(
        self, prepared: dict[str, Any], state: Tree, input: Float[Array, "input"], *, key: PRNGKey, context: Context
    ) -> Tree:
        """One whole step. Split cells inherit it; simple cells define it instead of the three parts."""
        if type(self).update is Cell.update:
            raise NotImplementedError(f"{type(self).__name__} defines neither step nor update")
        drive_key, update_key = jax.random.split(key)
        drive = self.input_drive(prepared, input, key=drive_key, context=context)
        if (memory := self.noise_start(prepared, key=drive_key)) is not None:  # a step alone knows no step before it
            drive = add_product(
                drive, self.noise_block(prepared, memory, jax.random.normal(key, (1, *memory.shape)))[1][0]
            )
        drive = add_drives(drive, self.recurrent_drive(prepared, state))
        return self.update(prepared, state, drive, key=update_key, context=context)

    def readout(self, prepared: dict[str, Any], state: Tree) -> Float[Array, "output"]:
        """Output at one step."""
        raise NotImplementedError

    def activity(self, state: Tree) -> Float[Array, "unit"]:
        """The units' activity, as penalties and analyses see it. Default: the first real array of the state."""
        return next(a for a in jax.tree.leaves(state) if jnp.issubdtype(a.dtype, jnp.inexact))

    @property
    def is_certified(self) -> bool:
        """Whether contraction is claimed of its dynamics: then :meth:`certificate` is asked at every evaluation."""
        return False

    def certificate(self, parameters: Parameters) -> Any:
        """What the stored arrays of one member are certified for (see ``poprnn.cells._certified.Certified``)."""
        raise NotApplicableError(f"cell '{self.name()}' claims no certificate of contraction")

    @property
    def is_flow(self) -> bool:
        """Whether the cell discretises a differential equation, so that :meth:`derivative` says something."""
        return type(self).derivative is not Cell.derivative

    def derivative(self, prepared: dict[str, Any], state: Tree, drive: Tree) -> Tree:
        """``dt · d(state)/dt``, what one Euler step adds, for cells that discretise a differential equation."""
        raise NotApplicableError(f"cell '{self.name()}' has no time derivative: it is a map, not a flow")

    def from_arrays(self, n_inputs: int, n_outputs: int, arrays: dict[str, Any]) -> Parameters:
        """Parameters of one member from arrays trained elsewhere, under the names that :meth:`init` uses.

        Arrays left out keep their random start; a name or shape that does not fit is a ``ConfigurationError``.
        """
        parameters = self.init(n_inputs, n_outputs, key=jax.random.key(0))
        known = {**parameters.trainable, **parameters.fixed}
        for name, array in arrays.items():
            if name not in known:
                raise ConfigurationError(f"{self.name()}: no array named '{name}'{nearest(name, known)}")
            if jnp.shape(array) != known[name].shape:
                raise ConfigurationError(
                    f"{self.name()}: '{name}' has shape {list(jnp.shape(array))}, must be {list(known[name].shape)}"
                )

        def pick(group: dict[str, Any]) -> dict[str, Any]:
            return {k: jnp.asarray(arrays[k], v.dtype) if k in arrays else v for k, v in group.items()}

        return Parameters(pick(parameters.trainable), pick(parameters.fixed))


def add_drives(drive: Tree, recurrent: Tree | None) -> Tree:
    """Sum of two drives; a dictionary may hold entries (private noise, say) that have no recurrent part."""
    if recurrent is None:
        return drive
    if isinstance(drive, dict):
        return {k: drive[k] + recurrent[k] if k in recurrent else drive[k] for k in drive}
    return jax.tree.map(lambda a, b: a + b, drive, recurrent)


def add_product(drive: Tree, product: Tree) -> Tree:
    """A drive with an input's product added to it."""
    return {**drive, "h": drive["h"] + product} if isinstance(drive, dict) else drive + product
