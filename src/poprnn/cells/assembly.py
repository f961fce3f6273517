"""Assemblies of contracting modules, of any kinds and nested to any depth."""

from poprnn.cells._assembly import AssemblyCell
from poprnn.cells._couplings import Couplings


class Assembly(AssemblyCell, Couplings):
    """A network of recurrent networks that contracts whatever training does to its weights.

        voltage   tau dx_i/dt = -x_i + W_i phi(x_i) + sum_j L_ij x_j + W_in u + b        (default)
        rate      tau dx_i/dt = -x_i + phi(W_i x_i + W_in u + b) + sum_j L_ij x_j
        y = W_out x + b_out,   x(0) = 0

    in Euler steps. Each module W_i contracts in a metric M_i of its own, by the theorem that its kind stands for
    (``poprnn list modules``); the couplings L keep that: negative feedback ``L_ij = B_ij - M_i^-1 B_ji^T M_j`` for any
    B, or one-way couplings. A group of modules is a module, so assemblies nest. Certificates are checked on the stored
    arrays, in float64, at every evaluation (:mod:`poprnn.training.monitors.certificate_broken`); ``measure(
    "contraction", run)`` says what they are.

    Arrays: W_in [unit, input], bias [unit], W_out [output, unit], b_out [output]; B [coupling], the entries of B_ij,
    i < j, module pair by module pair; those of the modules with the place of the module in the list behind their
    names, ``W_0``; those of nested groups as ``B_0``, .... Only feedback's B_ij with i < j are stored: the others would
    add nothing. Default modules: Kozachkov, Ennis & Slotine, NeurIPS 2022 (16 of 32 units under theorem 1).

    >>> import jax, poprnn as pr
    >>> one = pr.modules.Symmetric(n_units=4, count=2)
    >>> pair = pr.modules.Group(modules=(one,), coupling="hierarchical")
    >>> cell = Assembly(modules=(pair, pr.modules.SingularValue(n_units=3)), topology="chain")
    >>> cell.n_units, {k: v.shape for k, v in cell.init(1, 1, key=jax.random.key(0)).trainable.items() if k[0] == "B"}
    (11, {'B_0': (16,), 'B': (24,)})
    """

    def __post_init__(self) -> None:
        Couplings.__post_init__(self)
        AssemblyCell.__post_init__(self)

    @property
    def body(self) -> Couplings:
        """Itself."""
        return self
