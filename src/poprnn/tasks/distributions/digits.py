"""Small pictures of handwritten digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.core.arrays import Array, Bool, Count, Float, PRNGKey
from poprnn.core.blueprint import NonNegativeInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.distributions.contract import Distribution, kind

N_PICTURES = 1797


class Digits(Distribution):
    """The 1797 pictures of 8 × 8 pixels that come with scikit-learn (which must be installed), the kind their digit.

    Pixels are shifted by their means and scaled by one number, so that they vary by 1 on average. The last
    ``n_held_out`` pictures are for evaluation only (our choice: 297; they are by other writers than most).

    Reference: Alpaydin & Kaynak, Optical recognition of handwritten digits, UCI Machine Learning Repository, 1998.

    >>> Digits().n_dimensions
    64
    """

    n_dimensions, n_kinds = 64, 10

    n_held_out: NonNegativeInt = 297
    """Pictures kept for evaluation; 0: the same ones serve for both."""

    def __post_init__(self) -> None:
        if self.n_held_out >= N_PICTURES:
            raise ConfigurationError(f"Digits: n_held_out = {self.n_held_out}: must be less than {N_PICTURES}")

    def arrays(self) -> dict[str, np.ndarray]:
        """Pictures and digits."""
        pictures, digits = _load()
        return {"pictures": pictures, "digits": digits}

    def sample(
        self, arrays: dict[str, Array], held_out: Bool[Array, ""] | bool, *, key: PRNGKey
    ) -> tuple[Float[Array, "input"], Count]:
        """One of those trained on, or one of those kept."""
        first = N_PICTURES - self.n_held_out
        kept = jnp.asarray(held_out) & (self.n_held_out > 0)
        place = jax.random.randint(key, (), jnp.where(kept, first, 0), jnp.where(kept, N_PICTURES, first))
        return jnp.asarray(arrays["pictures"])[place], kind(jnp.asarray(arrays["digits"])[place])

    def covariance(self) -> Float[np.ndarray, "input input"]:
        """Of the pictures trained on."""
        return np.cov(_load()[0][: N_PICTURES - self.n_held_out].T.astype(float), ddof=0)


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigurationError("distribution 'digits' needs scikit-learn: pip install 'poprnn[digits]'") from None
    pictures, digits = load_digits(return_X_y=True)
    pictures = pictures - pictures.mean(axis=0)
    return (pictures / np.sqrt(pictures.var(axis=0).mean())).astype(np.float32), digits.astype(np.int32)
