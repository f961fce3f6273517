"""All heads from the start."""

from poprnn.training.curricula.contract import Curriculum


class AllHeads(Curriculum):
    """Every head is trained from the start and nothing is added; a curriculum may emerge by itself.

    Khajehabdollahi et al., ICLR 2024, appendix I. For tasks without heads: the plain task.

    >>> from poprnn.tasks import NParity
    >>> AllHeads().heads(NParity(n_max=4), 0)[0].tolist()
    [True, True, True]
    """

    cites = ("khajehabdollahi2024",)
