"""The twenty rules of the cognitive battery as rows of a table: what differs between them, and nothing else."""

from typing import Any, NamedTuple

import numpy as np

from poprnn.core.errors import ConfigurationError, canonical, nearest

SCHEDULES = ("go", "reaction", "delayed_go", "decision", "delayed_decision", "sample", "category")
"""Rules of one schedule have the same periods."""


class Rule(NamedTuple):
    """One row; in :data:`COLUMNS` one array a field, and in a trial one number a field."""

    schedule: Any
    """Place in :data:`SCHEDULES`."""
    anti: Any = False
    """Answer opposite to the stimulus."""
    rings: Any = (True, True)
    """Decisions: the rings that show the stimuli."""
    decisive: Any = (True, True)
    """Decisions: the rings whose strengths decide."""
    split: Any = False
    """Decisions: one strength a stimulus is split over the rings; else the rings' strengths are independent."""
    go_if_match: Any = True
    """Matching: answer if the two match and hold if they do not, or the other way round."""

    @property
    def decides(self) -> Any:
        """Whether the stronger of two stimuli is asked for."""
        return (self.schedule == DECISION) | (self.schedule == DELAYED_DECISION)

    @property
    def matches(self) -> Any:
        """Whether two stimuli are to be compared."""
        return (self.schedule == SAMPLE) | (self.schedule == CATEGORY)


GO, REACTION, DELAYED_GO, DECISION, DELAYED_DECISION, SAMPLE, CATEGORY = range(len(SCHEDULES))
FIRST, SECOND = (True, False), (False, True)

RULES: dict[str, Rule] = {
    "go": Rule(GO),
    "rtgo": Rule(REACTION),
    "dlygo": Rule(DELAYED_GO),
    "anti": Rule(GO, anti=True),
    "rtanti": Rule(REACTION, anti=True),
    "dlyanti": Rule(DELAYED_GO, anti=True),
    "dm1": Rule(DECISION, rings=FIRST, decisive=FIRST),
    "dm2": Rule(DECISION, rings=SECOND, decisive=SECOND),
    "ctxdm1": Rule(DECISION, decisive=FIRST),
    "ctxdm2": Rule(DECISION, decisive=SECOND),
    "multsendm": Rule(DECISION, split=True),
    "dlydm1": Rule(DELAYED_DECISION, rings=FIRST, decisive=FIRST),
    "dlydm2": Rule(DELAYED_DECISION, rings=SECOND, decisive=SECOND),
    "ctxdlydm1": Rule(DELAYED_DECISION, decisive=FIRST),
    "ctxdlydm2": Rule(DELAYED_DECISION, decisive=SECOND),
    "multsendlydm": Rule(DELAYED_DECISION, split=True),
    "dms": Rule(SAMPLE),
    "dnms": Rule(SAMPLE, go_if_match=False),
    "dmc": Rule(CATEGORY),
    "dnmc": Rule(CATEGORY, go_if_match=False),
}
"""By name, in the order of the rule inputs."""

ALIASES = {
    "dgo": "dlygo",
    "danti": "dlyanti",
    "ddm": "dlydm1",
    "ddmd": "ctxdlydm1",
    "msddm": "multsendlydm",
    "dmd": "ctxdm1",
    "msdm": "multsendm",
}
"""What the tables of Soo et al. call some of them."""

COLUMNS = Rule(*(np.array(column) for column in zip(*RULES.values(), strict=True)))


def find_rules(rule: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names as in :data:`RULES` of one name, of several, or of ``"all"``.

    Raises ``ConfigurationError`` for an unknown name, for none, and for one given twice.

    >>> find_rules(("dgo", "ctxdm1"))
    ('dlygo', 'ctxdm1')
    """
    if isinstance(rule, str) and canonical(rule) == "all":
        return tuple(RULES)
    found = []
    for name in (rule,) if isinstance(rule, str) else rule:
        known = ALIASES.get(canonical(name), canonical(name))
        if known not in RULES:
            raise ConfigurationError(
                f"Cognitive: rule = '{name}': no such rule{nearest(name, [*RULES, *ALIASES, 'all'])}"
            )
        if known in found:
            raise ConfigurationError(f"Cognitive: rule = {list(rule)}: '{known}' stands there twice")
        found.append(known)
    if not found:
        raise ConfigurationError("Cognitive: rule = []: must name at least one rule")
    return tuple(found)
