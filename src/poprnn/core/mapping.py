"""Running one member's function over a population: the one place that knows about devices.

CPU: members run one after another on each core, which keeps a member's working set in its cache (a factor of two
over ``vmap``). Accelerators: the members of a device are vmapped. Either way members are sharded over all devices,
and members that are not active cost nothing: they are never entered (CPU) or gathered away (accelerators, with
powers of two so that few programs are compiled). Where a member's own work comes in parts (its trials), several
devices may share one member, so that a lone network, or the last one still training, keeps every core busy.
"""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from poprnn.core import backend, loops, trees
from poprnn.core.arrays import Count, Tree

AXIS, PART_AXIS = "member", "part"


def is_vmapped() -> bool:
    """Whether the code being traced runs under ``vmap`` over members (accelerators)."""
    return _vmapping[-1]


_vmapping = [False]


class _Share(NamedTuple):
    """Which parts of a member's work this device does."""

    n_parts: int
    first: Count
    n_mine: Count
    """A traced number on purpose, as the number of members is: see :meth:`MemberMap._sequential`."""
    n_devices: int


_share: ContextVar[_Share | None] = ContextVar("share", default=None)


def population_maximum(value: Count) -> Count:
    """The largest value over the members that run together, so that a loop bound stays one number under ``vmap``."""
    return lax.pmax(value, AXIS) if is_vmapped() else value


def mean_of_parts(function: Callable[[Count, Tree], tuple[Tree, Tree]], n_parts: int, carry: Tree) -> tuple[Tree, Tree]:
    """Mean of ``value`` in ``value, carry = function(part, carry)``, the parts shared by the devices of this member.

    The sum is taken in the order of the parts on whatever device they were computed, so that the number of devices
    does not show in its bits.

    >>> mean, n = mean_of_parts(lambda i, n: (jnp.float32(i), n + 1), 4, 0)
    >>> float(mean), int(n)
    (1.5, 4)
    """
    if n_parts == 1 or loops.are_python():  # step by step, no shape is known before the first part is done
        total, carry = function(0, carry)
        for i in range(1, n_parts):
            value, carry = function(i, carry)
            total = jax.tree.map(jnp.add, total, value)
        return (total if n_parts == 1 else jax.tree.map(lambda a: a / n_parts, total)), carry
    share = _share.get()
    if share is None or share.n_parts != n_parts:  # the map cuts members in no such parts: they are all done here
        share = _Share(n_parts, 0, n_parts, 1)
    shapes = jax.eval_shape(function, jnp.int32(0), carry)[0]
    # values lie one after another in one array: devices that share a member meet once, not once for every array
    zeros, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, shapes))

    def one(i: Count, loop: Tree) -> Tree:
        carry, buffer = loop
        value, carry = function(share.first + i, carry)
        return carry, trees.put(buffer, ravel_pytree(value)[0], i)

    start = (carry, jnp.zeros((n_parts // share.n_devices, zeros.size), zeros.dtype))
    carry, buffer = loops.fori_loop(0, share.n_mine, one, start)
    if share.n_devices > 1:
        buffer = lax.all_gather(buffer, PART_AXIS, tiled=True)
    total = loops.fori_loop(1, n_parts, lambda i, total: total + trees.row(buffer, i), trees.row(buffer, 0))
    return unravel(total / n_parts), carry


class MemberMap:
    """``(state, extra) = map(states, shared, active)`` for ``function(state, shared) -> (state, extra)``.

    ``states`` has a leading member axis in every leaf, ``shared`` none. Rows of inactive members come back as they
    went in (``extra``: zeros). Compiled once per shape; neither the number of active members nor which ones they are
    causes another compilation on the CPU.

    >>> import numpy as np
    >>> double = MemberMap(lambda x, s: (x * s, x.sum()), 3)
    >>> states, sums = double(np.ones((3, 2), "float32"), np.float32(2), np.array([True, False, True]))
    >>> states.tolist(), sums.tolist()
    ([[2.0, 2.0], [1.0, 1.0], [2.0, 2.0]], [2.0, 0.0, 2.0])
    """

    def __init__(
        self,
        function: Callable[[Tree, Tree], tuple[Tree, Tree]],
        n_members: int,
        *,
        n_parts: int = 1,
        mode: str | None = None,
        n_devices: int | None = None,
        debug: bool = False,
    ) -> None:
        devices = backend.devices()[: n_devices or None]
        self.mode = "debug" if debug else mode or ("sequential" if backend.is_cpu() else "vmap")
        self.n_members = n_members
        self.n_parts = n_parts if self.mode == "sequential" else 1
        self.n_sharing = _devices_a_member(len(devices), n_members, self.n_parts)
        self.parts_each = self.n_parts // self.n_sharing
        self.n_devices = min(len(devices) // self.n_sharing, n_members)
        self.per_device = -(-n_members // self.n_devices)
        n_used = self.n_devices * self.n_sharing
        self.mesh = jax.make_mesh(
            (self.n_devices, self.n_sharing),
            (AXIS, PART_AXIS),
            axis_types=(jax.sharding.AxisType.Auto,) * 2,
            devices=devices[:n_used],
        )
        self.function = function
        self._jitted = jax.jit(
            self._sequential if self.mode == "sequential" else self._vmapped, static_argnames="n_rows"
        )

    def __call__(self, states: Tree, shared: Tree, active: np.ndarray | None = None) -> tuple[Tree, Tree]:
        """Run all active members; the results stand on every device in full."""
        active = np.ones(self.n_members, bool) if active is None else np.asarray(active, bool)
        if self.mode == "debug":
            return self._eager(states, shared, active)
        order, counts = self._places(active)
        n_rows = self.per_device if self.mode == "sequential" else min(self.per_device, _power_of_two(counts.max()))
        # always the same placement on the way in, or a second call with the first one's results compiles again
        states, shared = jax.device_put((states, shared), NamedSharding(self.mesh, PartitionSpec()))
        return self._jitted(states, shared, order[:, :n_rows], counts, np.int32(self.parts_each), n_rows=n_rows)

    def lower(self, states: Tree, shared: Tree) -> Any:
        """The lowered program (for cost analysis and compile-time checks)."""
        order, counts = self._places(np.ones(self.n_members, bool))
        return self._jitted.lower(states, shared, order, counts, np.int32(self.parts_each), n_rows=self.per_device)

    def _places(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which member stands in which row of which device: active ones first, dealt out evenly."""
        members = np.concatenate([np.flatnonzero(active), np.flatnonzero(~active)])
        padded = np.full(self.n_devices * self.per_device, -1)
        padded[: self.n_members] = members
        order = padded.reshape(self.per_device, self.n_devices).T
        n_active = int(active.sum())
        counts = np.array([len(range(d, n_active, self.n_devices)) for d in range(self.n_devices)])
        return order.astype(np.int32), counts.astype(np.int32)

    def _spread(
        self,
        body: Callable[..., Tree],
        states: Tree,
        shared: Tree,
        order: jax.Array,
        counts: jax.Array,
        parts_each: jax.Array,
    ) -> Tree:
        """Gather rows by ``order``, run ``body`` on every device, put the rows back where they came from."""
        flat = order.reshape(-1)
        rows = jax.tree.map(lambda a: jnp.take(a, jnp.maximum(flat, 0), axis=0), states)
        by_member, everywhere = PartitionSpec(AXIS), PartitionSpec()
        rows = lax.with_sharding_constraint(rows, NamedSharding(self.mesh, by_member))
        run = jax.shard_map(
            body,
            mesh=self.mesh,
            in_specs=(by_member, everywhere, by_member, everywhere),
            out_specs=by_member,
            check_vma=False,
        )
        new, extra = run(rows, shared, counts, parts_each)
        real = jnp.where(flat < 0, self.n_members, flat)
        new = jax.tree.map(lambda old, row: old.at[real].set(row, mode="drop"), states, new)
        extra = jax.tree.map(
            lambda row: jnp.zeros((self.n_members, *row.shape[1:]), row.dtype).at[real].set(row, mode="drop"), extra
        )
        return lax.with_sharding_constraint((new, extra), NamedSharding(self.mesh, everywhere))

    def _sequential(
        self, states: Tree, shared: Tree, order: jax.Array, counts: jax.Array, parts_each: jax.Array, *, n_rows: int
    ) -> Tree:
        def body(rows: Tree, shared: Tree, count: jax.Array, parts_each: jax.Array) -> Tree:
            first = lax.axis_index(PART_AXIS) * parts_each if self.n_sharing > 1 else 0
            token = _share.set(_Share(self.n_parts, first, parts_each, self.n_sharing))
            try:
                return members(rows, shared, count)
            finally:
                _share.reset(token)

        def members(rows: Tree, shared: Tree, count: jax.Array) -> Tree:
            # traced once, for the shapes and for the loop; a new function, or a trace might outlive its surroundings
            function = jax.jit(lambda row, shared: self.function(row, shared), inline=True)  # noqa: PLW0108
            _, extra = jax.eval_shape(lambda: function(trees.row(rows, 0), shared))
            buffer = jax.tree.map(lambda s: jnp.zeros((n_rows, *s.shape), s.dtype), extra)

            # the trip count is a traced number on purpose: a population of one compiles to the same loop body as
            # one of a hundred, and so gives the same bits
            def member(i: jax.Array, carry: Tree) -> Tree:
                rows, buffer = carry
                row, extra = function(trees.row(rows, i), shared)
                return trees.put(rows, row, i), trees.put(buffer, extra, i)

            return lax.fori_loop(0, count[0], member, (rows, buffer))

        return self._spread(body, states, shared, order, counts, parts_each)

    def _vmapped(
        self, states: Tree, shared: Tree, order: jax.Array, counts: jax.Array, parts_each: jax.Array, *, n_rows: int
    ) -> Tree:
        def body(rows: Tree, shared: Tree, count: jax.Array, parts_each: jax.Array) -> Tree:
            del count, parts_each  # every row runs; rows beyond the active ones are cut below
            _vmapping.append(True)
            try:
                return jax.vmap(self.function, in_axes=(0, None), axis_name=AXIS)(rows, shared)
            finally:
                _vmapping.pop()

        place = jnp.arange(n_rows)[None, :] < counts[:, None]
        return self._spread(body, states, shared, jnp.where(place, order, -1), counts, parts_each)

    def _eager(self, states: Tree, shared: Tree, active: np.ndarray) -> tuple[Tree, Tree]:
        """One member after another without compilation, for debugging."""
        new, extras = [], []
        with loops.in_python():
            for k in range(self.n_members):
                row = jax.tree.map(lambda a, k=k: jnp.asarray(a)[k], states)
                out, extra = self.function(row, shared) if active[k] else (row, None)
                new.append(out)
                extras.append(extra)
        zero = jax.tree.map(jnp.zeros_like, next(e for e in extras if e is not None))
        stack = functools.partial(jax.tree.map, lambda *a: jnp.stack(a))
        return stack(*new), stack(*[zero if e is None else e for e in extras])


def _devices_a_member(n_devices: int, n_members: int, n_parts: int) -> int:
    """How many devices share a member: what takes the least time; if equal, more, for an even end."""
    choices = [p for p in range(1, n_devices + 1) if n_parts % p == 0]
    return min(choices, key=lambda p: (-(-n_members // (n_devices // p)) / p, -p))


def _power_of_two(n: int) -> int:
    return 1 << max(int(n) - 1, 0).bit_length()
