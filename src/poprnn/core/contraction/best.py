"""The best certificate that can be found for given weights."""

import numpy as np

from poprnn.core.contraction.certificate import Certificate, Matrix, rate_form
from poprnn.core.contraction.inequalities import searched
from poprnn.core.contraction.theorems import theorem_1, theorem_2, theorem_3, theorem_4, theorem_5

THEOREMS = ("1", "2", "3", "4", "5")


def certificates(
    weights: Matrix, slope: float = 1.0, *, in_rate_form: bool = False, search: bool = False
) -> list[Certificate]:
    """What theorems 1 to 5 say of one module, and with ``search`` what matrix inequalities add.

    >>> [c.theorem for c in certificates(np.array([[0.0, 0.5], [0.5, 0.0]])) if c.holds]
    ['1', '2', '5']
    """
    W = np.ascontiguousarray(np.asarray(weights, np.float64).T if in_rate_form else weights, dtype=np.float64)
    found = [ask(W, slope) for ask in (theorem_1, theorem_2, theorem_3, theorem_4, theorem_5)]
    if search:
        found += searched(W.tobytes(), len(W), slope)
    return [rate_form(c) for c in found] if in_rate_form else found


def best(found: list[Certificate]) -> Certificate:
    """The one that holds at the largest rate; if none holds, the one nearest to holding.

    >>> best(certificates(np.array([[0.0, 0.5], [0.0, 0.0]]))).theorem
    '1'
    """
    holding = [c for c in found if c.holds]
    return max(holding, key=lambda c: c.rate) if holding else max(found, key=lambda c: c.margin)
