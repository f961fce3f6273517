"""A certificate of contraction that no longer holds."""

from typing import Any, ClassVar, Literal

import numpy as np

from poprnn.core.arrays import Tree
from poprnn.training.monitors.contract import Monitor, Observation


class CertificateBroken(Monitor):
    """A member whose stored arrays are no longer certified ends. Always on for cells that claim a certificate.

    At every evaluation each module's theorem is asked about the stored weights in float64, and the metric is carried
    up through the couplings; the float32 matrices that are run are asked in the same metric
    (:class:`poprnn.cells.assembly.Assembly`). Parameterisations keep the certificate by construction, so this ends
    members only where arithmetic fails it, or a construction is wrong. The history keeps ``certificate/rate``,
    ``certificate/rate_as_run`` (both in units of 1/tau), ``certificate/largest_step`` (of a certified Euler step, in
    units of tau) and ``certificate/holds``. Where a cell enforces certified steps, a step beyond the largest ends a
    member too.

    Its word goes before any other's: a network that has solved its task with a broken certificate is not ``solved``.

    >>> CertificateBroken.outcome
    'certificate_broken'
    """

    outcome: ClassVar[str] = "certificate_broken"
    on: ClassVar[Literal["device", "host", "population"]] = "host"
    overrules: ClassVar[bool] = True

    def init(self) -> Tree:
        """Nothing known yet."""
        nothing = np.full((), np.nan, np.float32)
        return {"rate": nothing, "rate_as_run": nothing, "largest_step": nothing, "holds": np.array(False)}

    def update(self, state: Tree, observation: Observation) -> tuple[Tree, bool]:
        """Ask the cell."""
        answer = observation.cell.certificate(observation.parameters)  # type: ignore[union-attr]
        numbers = {"rate": answer.certificate.rate, "rate_as_run": answer.rate_as_run}
        numbers["largest_step"] = answer.largest_step
        state = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
        return state | {"holds": np.array(bool(answer.holds))}, not answer.holds

    def recorded(self, state: Tree) -> dict[str, Any]:
        """Rates, the largest step, and whether it holds."""
        return {f"certificate/{name}": value for name, value in state.items()}
