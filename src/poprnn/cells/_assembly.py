"""The cell of all assemblies of contracting modules."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.cells._activations import Activation, ActivationName, activation, largest_slope
from poprnn.cells._couplings import Couplings
from poprnn.cells._drives import noisy
from poprnn.cells._layout import DENSE_UNITS, Layout, layout_of, leaves_of, strips_of
from poprnn.cells._network import Network, build_network, dense_couplings, init_network, norm_bound
from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import Finite, NonNegative, Positive
from poprnn.core.errors import ConfigurationError

STEP_MARGIN = 1e-3
"""Enforced Euler steps stay that share below the largest certified one."""


class AssemblyCell(Cell):
    """Base of assemblies: :meth:`body` says of which modules, coupled how.

        voltage   x <- x + a (-x + W phi(x) + L x + W_in u + b + noise)         a = dt / tau
        rate      x <- x + a (-x + phi(W x + W_in u + b + noise) + L x)
        y = W_out x + b_out,   x(0) = 0

    W is block-diagonal. Only what is not zero is multiplied: W module by module, L as a whole where most of it exists
    and else in stacks of rows.
    """

    cites = ("kozachkov2022",)
    static = frozenset({"negative_slope"})

    activation: ActivationName = "relu"
    """phi (Kozachkov et al.: ReLU); its largest slope is g."""
    negative_slope: Finite = 0.1
    """Slope of ``leaky_relu`` below zero, at least 0."""
    form: Literal["voltage", "rate"] = "voltage"
    """Whether W and the input stand outside phi or inside; a module's metrics are those of the form."""
    dt: Positive = 0.03
    """Euler step, in the units of tau; a task may draw another one for each batch (0.03: our choice)."""
    tau: Positive = 1.0
    """Time constant of all units."""
    noise: NonNegative = 0.0
    """Standard deviation of white noise added to every unit's input at every step; it is scaled by a with it."""
    metric: Literal["certified", "identity"] = "certified"
    """Metrics used in the couplings; ``identity`` is an ablation, which certifies nothing: L = B - B^T."""
    certify: Literal["flow", "euler"] = "flow"
    """What every gradient step keeps certified: the differential equation, or the Euler steps of length dt too, for
    which L is scaled down where it must be (feedback couplings of modules under theorems 1 and 5)."""
    input_gain: NonNegative = 1.0
    """W_in and bias start from U(±gain / sqrt(inputs)) (PyTorch's linear layers: 1)."""

    def __post_init__(self) -> None:
        name, body = type(self).__name__, self.body
        largest_slope(self.activation, self.negative_slope)
        if self.dt > self.tau:
            raise ConfigurationError(f"{name}: dt = {self.dt}: must not exceed tau = {self.tau}")
        if self.certify == "euler":
            singular = all(leaf.is_singular for leaf in leaves_of(body))
            if not (singular and layout_of(body).is_feedback and self.metric == "certified"):
                raise ConfigurationError(
                    f"{name}: certify = 'euler': must have feedback couplings in the certified metric, and modules "
                    "'absolute_value' or 'singular_value' only"
                )

    @property
    def body(self) -> Couplings:
        """Modules and couplings."""
        raise NotImplementedError

    @property
    def layout(self) -> Layout:
        """Where everything stands."""
        return layout_of(self.body)

    @property
    def n_units(self) -> int:
        """Units of all modules."""
        return self.layout.n_units

    @property
    def is_certified(self) -> bool:
        """Whether contraction is claimed: no unconstrained part, and the true metric."""
        coupled = all(group.node.coupling != "unconstrained" for group in self.layout.groups)
        known = all(leaf.theorem is not None for leaf in leaves_of(self.body))
        return coupled and known and self.metric == "certified"

    @property
    def slope(self) -> float:
        """g."""
        return largest_slope(self.activation, self.negative_slope)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:  # type: ignore[override]
        """Sets of arrays: all recurrent ones, couplings and modules apart, input and readout."""
        shapes = jax.eval_shape(lambda: init_network(self.body, self.slope, key=jax.random.key(0)))
        couplings = tuple(n for n in shapes.trainable if n == "B" or n.startswith("B_"))
        modules = tuple(n for n in shapes.trainable if n not in couplings)
        return {
            "recurrent": (*couplings, *modules),
            "couplings": couplings,
            "modules": modules,
            "input": ("W_in", "bias"),
            "readout": ("W_out", "b_out"),
        }

    def init(self, n_inputs: int, n_outputs: int, *, key: PRNGKey) -> Parameters:
        """Random parameters of one member."""
        keys, n = jax.random.split(key, 5), self.n_units
        network = init_network(self.body, self.slope, key=keys[0])

        def uniform(key: PRNGKey, n_from: int, gain: Any, *shape: int) -> Array:
            return gain / n_from**0.5 * jax.random.uniform(key, shape, minval=-1.0)

        ends = {
            "W_in": uniform(keys[1], max(n_inputs, 1), self.input_gain, n, n_inputs),
            "bias": uniform(keys[2], max(n_inputs, 1), self.input_gain, n),
            "W_out": uniform(keys[3], n, 1.0, n_outputs, n),
            "b_out": uniform(keys[4], n, 1.0, n_outputs),
        }
        return Parameters(network.trainable | ends, network.fixed)

    def network(self, parameters: Parameters, alpha: Any = None) -> Network:
        """Weights and metrics as the dynamics have them, L scaled for steps of ``alpha`` where that is enforced."""
        arrays = {**parameters.fixed, **parameters.trainable}
        network = build_network(
            self.body, arrays, self.slope, rate_form=self.form == "rate", identity=self.metric == "identity"
        )
        if self.certify == "flow":
            return network
        alpha = self.dt / self.tau if alpha is None else alpha
        return network._replace(couplings=network.couplings * self._step_share(network, alpha))

    def certificate(self, parameters: Parameters) -> Any:
        """What the stored arrays of one member are certified for."""
        from poprnn.cells._certified import certify

        return certify(self, parameters)

    def _step_share(self, network: Network, alpha: Any) -> Array:
        """What L is multiplied by so that Euler steps contract: alpha (1 + s² - rho²) < 2 (1 - rho)."""
        units = jnp.sqrt(
            jnp.concatenate([jnp.diagonal(m.metric, axis1=1, axis2=2).ravel() for m in network.modules])
        ) * jnp.repeat(network.scale, self.layout.sizes, total_repeat_length=self.n_units)
        L = dense_couplings(self.layout, network.couplings)
        norm = norm_bound(units[:, None] * L / units[None, :])
        rho = jnp.max(jnp.concatenate([m.norm for m in network.modules]))
        largest = jnp.sqrt(jnp.maximum((1 - STEP_MARGIN) * 2 * (1 - rho) / alpha - 1 + rho**2, 0.0))
        return jnp.minimum(1.0, largest / jnp.maximum(norm, 1e-30))

    def prepare(self, parameters: Parameters, context: Context) -> dict[str, Any]:
        """What a step multiplies by: alpha W, W_in and b times alpha, and ``1 - alpha + alpha L``."""
        dt = self.dt if context.dt is None else context.dt
        alpha = dt / self.tau
        network = self.network(parameters, alpha)
        inside = 1.0 if self.form == "rate" else alpha
        p = {**parameters.fixed, **parameters.trainable}
        out = {"W_in": inside * p["W_in"], "bias": inside * p["bias"], "W_out": p["W_out"], "b_out": p["b_out"]}
        out |= {"alpha": alpha, "noise_scale": inside * self.noise}
        if self.n_units <= DENSE_UNITS:
            out["W"] = jax.scipy.linalg.block_diag(*(inside * W for m in network.modules for W in m.W))
        else:
            out |= {f"W_{k}": inside * m.W for k, m in enumerate(network.modules)}
        if self.layout.is_dense:
            out["A"] = (1 - alpha) * jnp.eye(self.n_units) + alpha * dense_couplings(self.layout, network.couplings)
        else:
            strips, _ = strips_of(self.body)
            out |= {f"A_{k}": alpha * network.couplings[strip.entries] for k, strip in enumerate(strips)}
        return out

    def initial_state(self, prepared: dict[str, Any], *, key: PRNGKey) -> Float[Array, "unit"]:
        """Zero."""
        return jnp.zeros(self.n_units)

    @property
    def phi(self) -> Activation:
        """The activation function."""
        return activation(self.activation, self.negative_slope)

    def input_product(self, prepared: dict[str, Any], input: Float[Array, "input"]) -> Any:
        """W_in u + b."""
        product = input @ prepared["W_in"].T + prepared["bias"]
        return {"h": product, "coupled": jnp.zeros_like(product)} if self.form == "rate" else product

    def input_noise(self, prepared: dict[str, Any], product: Any, *, key: PRNGKey, context: Context) -> Any:
        """White noise added."""
        noise = 0.0 if isinstance(self.noise, int | float) and self.noise == 0 else prepared["noise_scale"]
        if self.form == "rate":
            return product | {"h": noisy(product["h"], noise, key=key)}
        return noisy(product, noise, key=key)

    def recurrent_drive(self, prepared: dict[str, Any], state: Float[Array, "unit"]) -> Any:
        """W phi(x) and (1 - a) x + a L x, apart where W stands inside phi."""
        coupled = self._coupled(prepared, state)
        if self.form == "rate":
            return {"h": self._within(prepared, state), "coupled": coupled}
        return self._within(prepared, self.phi(state)) + coupled

    def _within(self, prepared: dict[str, Any], x: Float[Array, "unit"]) -> Float[Array, "unit"]:
        """The modules' own product."""
        if "W" in prepared:
            return x @ prepared["W"].T
        parts = [
            jnp.einsum("cij,cj->ci", prepared[f"W_{k}"], x[stack.units].reshape(stack.n_modules, stack.n_units)).ravel()
            for k, stack in enumerate(self.layout.stacks)
        ]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    def _coupled(self, prepared: dict[str, Any], x: Float[Array, "unit"]) -> Float[Array, "unit"]:
        """The leak, and the product of the couplings."""
        if "A" in prepared:
            return x @ prepared["A"].T
        strips, order = strips_of(self.body)
        parts = [
            jnp.einsum("cij,cj->ci", prepared[f"A_{k}"], x[strip.sources]).ravel() for k, strip in enumerate(strips)
        ]
        n_silent = self.n_units - sum(strip.entries.shape[0] * strip.entries.shape[1] for strip in strips)
        received = jnp.concatenate([*parts, jnp.zeros(n_silent, x.dtype)])
        received = received if (order == np.arange(self.n_units)).all() else received[order]
        return (1 - prepared["alpha"]) * x + received

    def update(
        self, prepared: dict[str, Any], state: Float[Array, "unit"], drive: Any, *, key: PRNGKey, context: Context
    ) -> Float[Array, "unit"]:
        """The drive, which holds the leak already; phi where it stands outside of W."""
        if self.form == "rate":
            return prepared["alpha"] * self.phi(drive["h"]) + drive["coupled"]
        return drive

    def derivative(self, prepared: dict[str, Any], state: Float[Array, "unit"], drive: Any) -> Float[Array, "unit"]:
        """``dt · dx/dt``."""
        new = prepared["alpha"] * self.phi(drive["h"]) + drive["coupled"] if self.form == "rate" else drive
        return new - state

    def readout(self, prepared: dict[str, Any], state: Float[Array, "unit"]) -> Float[Array, "output"]:
        """W_out x + b_out."""
        return state @ prepared["W_out"].T + prepared["b_out"]
