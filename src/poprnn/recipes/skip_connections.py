"""L1, L2 and L4: what skip connections through time save, cell by cell of a table of tasks and training methods."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from poprnn.core.errors import ConfigurationError, nearest
from poprnn.recipes._long_dependencies import (
    all_of,
    at_least,
    kind_of,
    learning,
    method,
    rise_at_the_end,
    setup,
    steps_needed,
    ten_thousands,
)
from poprnn.recipes.contract import Claim
from poprnn.tasks._cognitive_rules import find_rules
from poprnn.tasks.cognitive import Cognitive
from poprnn.training.run import Run
from poprnn.training.settings import Setup

ALL = "all"
"""Among ``tasks``: one network learns all twenty rules. No claim is judged by it."""
COSTS = ("n_steps", "seconds", "operations")
Table = dict[tuple[str, str], list[xr.Dataset]]
"""What there is of each task and method: one answer for each setting of its hyperparameters."""


class Trained(NamedTuple):
    """One population of the recipe."""

    part: str
    """``table``, or ``rules`` for what L4 compares."""
    task: str
    method: str
    n_increments: int
    base_weight: float
    members: int

    @property
    def label(self) -> str:
        """Its name, with the hyperparameters that its method has."""
        words = [self.task, self.method]
        if kind_of(self.method)[0] != "control":
            words.append(f"n{self.n_increments}")
        if kind_of(self.method)[0] in ("SCTT", "DASC"):
            words.append(f"b{self.base_weight:g}")
        return "-".join(words + (["rules"] if self.part == "rules" else []))


def populations(scale: Mapping[str, Any]) -> list[Trained]:
    """All of a scale: ``tasks`` by ``methods`` but those in ``leave_out``, and each of ``rules`` by ``rules_method``.

    CD is trained once for each of ``n_increments``, SCTT and DASC for each of these and of ``base_weight``. The task
    ``"all"`` has ``all_members``.

    Raises ``ConfigurationError`` for an entry of ``leave_out`` that names no pair of them.
    """
    single = tuple(task for task in scale["tasks"] if task != ALL)
    tasks, rules = (list(find_rules(names)) if names else [] for names in (single, tuple(scale["rules"])))
    tasks += [ALL] * (ALL in scale["tasks"])
    pairs = {f"{task} {name}": (task, name) for task in tasks for name in scale["methods"]}
    for pair in scale["leave_out"]:
        if pair not in pairs:
            raise ConfigurationError(f"leave_out: '{pair}' is no task and method of the table{nearest(pair, pairs)}")
    members = dict.fromkeys(tasks, scale["members"]) | {ALL: scale["all_members"]}
    chosen = [("table", *pairs[p], members[pairs[p][0]]) for p in pairs if p not in scale["leave_out"]]
    chosen += [("rules", rule, scale["rules_method"], scale["rules_members"]) for rule in rules]
    out = [
        Trained(part, task, name, *options, members)
        for part, task, name, members in chosen
        for options in settings(name, scale)
    ]
    if len({p.label for p in out}) < len(out):
        raise ConfigurationError("tasks, methods, rules, n_increments and base_weight must not repeat an entry")
    return out


def settings(name: str, scale: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Step counts and first weights to be tried with a method; one for what it does not have."""
    kind = kind_of(name)[0]
    steps = scale["n_increments"] if kind != "control" else scale["n_increments"][:1]
    weights = scale["base_weight"] if kind in ("SCTT", "DASC") else scale["base_weight"][:1]
    return list(itertools.product(steps, weights))


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """One population for each cell and setting of the table, and one for each rule."""
    return {
        p.label: setup(
            scale,
            Cognitive(rule=p.task, dt=scale["dt"], timing="batch"),  # as released
            method(p.method, scale, n_increments=p.n_increments, base_weight=p.base_weight),
            members=p.members,
        )
        for p in populations(scale)
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """The learning curve of each population, with the operations of its training (of members that did not diverge).

    Where all rules were learnt together also ``by_rule`` (member, rule): performance at the end, on fresh trials.
    """
    out = {}
    for p in populations(scale):
        counted = ask(p.label, "flops", runs[p.label])
        total = float(counted["operations"].sum()) if "operations" in counted else float("nan")
        out[p.label] = learning(runs[p.label]).assign_attrs(operations=total, dt=scale["dt"], **p._asdict())
        if p.task == ALL:
            scored = ask(p.label, "performance", runs[p.label], n_trials=scale["all_trials"])
            if "performance" in scored:
                by_rule = scored["performance"].rename(head="rule").reindex(member=runs[p.label].member_index)
                out[p.label] = out[p.label].assign(by_rule=by_rule)
    return out


def part(answers: Mapping[str, xr.Dataset], name: str) -> Table:
    """The answers of the table or of the rules, by task and method."""
    out: Table = {}
    for answer in answers.values():
        if answer.attrs["part"] == name:
            out.setdefault((answer.attrs["task"], answer.attrs["method"]), []).append(answer)
    return out


def cost(tried: Iterable[xr.Dataset], name: str = "n_steps") -> float:
    """What the setting that needs the fewest steps needed: steps, seconds or operations; infinite where all failed."""
    fastest = best(tried)
    steps = steps_needed(fastest)
    return steps if name == "n_steps" or np.isinf(steps) else float(fastest.attrs[name])


def best(tried: Iterable[xr.Dataset]) -> xr.Dataset:
    """The setting that needs the fewest steps; the first where all failed."""
    return min(tried, key=steps_needed)


# --- verdicts ------------------------------------------------------------------------------------------------------


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on L1, L2 and L4; ``None`` where cells that decide are not filled."""
    rules = {c["id"]: c for c in about["claims"]}
    table, by_rule = part(answers, "table"), part(answers, "rules")
    return [_judge_l1(table, rules["L1"]), _judge_l2(table, rules["L2"]), _judge_l4(by_rule, rules["L4"])]


def _judge_l1(table: Table, rule: dict[str, Any]) -> Claim:
    """Whether a skip method is the fastest, and cheaper than control, on enough tasks."""
    skips = [m for m in rule["methods"] if kind_of(m)[0] in ("SCTT", "DASC")]
    others = [m for m in rule["methods"] if m not in skips]
    needed = [(task, name) for task in rule["tasks"] for name in rule["methods"]]
    used = {pair: table[pair] for pair in needed if pair in table}
    done = {pair: tried for pair, tried in used.items() if not _unfinished(tried, rule["steps"])}
    clauses, words = [], []
    for name, rivals in zip(COSTS, (others, ["control"], ["control"]), strict=True):
        held = [_cheaper(done, task, name, skips, rivals) for task in rule["tasks"]]
        clauses.append(at_least(held, rule["at_least"]))
        than = "others" if name == "n_steps" else "control"
        words.append(
            f"{name.replace('n_', '')}: fewer than {than} on {held.count(True)}, not on {held.count(False)}, "
            f"open on {held.count(None)}"
        )
    words += [f"{t} {m} {ten_thousands(cost(a))}" for (t, m), a in used.items()]
    notes = _missing(used, needed) + _about(used, rule) + _short_of(used, rule["steps"])
    machines = {a.attrs["machine"] for tried in used.values() for a in tried}
    if len(machines) > 1:
        notes.append(f"times are from {len(machines)} kinds of machine: {', '.join(sorted(machines))}")
    return _claim(rule, words, used, all_of(clauses), notes)


def _cheaper(table: Table, task: str, name: str, skips: list[str], rivals: list[str]) -> bool | None:
    """Whether one of the skip methods costs less than all rivals on a task, as far as the cells filled tell."""
    mine = [cost(table[task, m], name) for m in skips if (task, m) in table]
    theirs = [cost(table[task, m], name) for m in rivals if (task, m) in table]
    if not mine or not theirs or np.isnan([*mine, *theirs]).any():
        return None
    if min(mine) < min(theirs):
        return True if len(theirs) == len(rivals) else None
    return False if len(mine) == len(skips) else None


def _judge_l2(table: Table, rule: dict[str, Any]) -> Claim:
    """Who learns to respond after a delay, who does not, and whether these have stopped getting better."""
    clauses: list[bool | None] = []
    words, notes = [], []
    needed = [(task, name) for task in rule["tasks"] for name in (*rule["fail"], *rule["learn"])]
    used = {pair: table[pair] for pair in needed if pair in table}
    short: Table = {}
    for (task, name), tried in used.items():
        steps = cost(tried)
        if name in rule["fail"]:
            holds = _stuck(tried, rule)
            rise = max((rise_at_the_end(a) for a in tried), key=abs)
            tail = f" (performance rises by {rise:.3g} in the last quarter)" if np.isinf(steps) else ""
        else:
            low, high = rule["near"]
            holds, tail = low <= steps <= high, ""
            if np.isinf(steps) and _unfinished(tried, high):
                holds = None
        clauses.append(holds)
        if holds is None:
            short[task, name] = tried
        words.append(f"{task} {name} {ten_thousands(steps)}{tail}")
    clauses += [None] * (len(needed) - len(used))
    notes += _missing(used, needed) + _about(used, rule) + _short_of(short, rule["steps"])
    return _claim(rule, words, used, all_of(clauses), notes)


def _stuck(tried: list[xr.Dataset], rule: dict[str, Any]) -> bool | None:
    """Whether no setting reaches the criterion and all are flat at the end; open where the budget was too small."""
    if np.isfinite(cost(tried)):
        return False
    if _unfinished(tried, rule["steps"]):
        return None
    return all(abs(rise_at_the_end(a)) <= rule["flat"] for a in tried)


def _judge_l4(by_rule: Table, rule: dict[str, Any]) -> Claim:
    """Each task without delay against the fastest with one."""
    used = {pair: tried for pair, tried in by_rule.items() if pair[0] in (*rule["short"], *rule["delayed"])}
    steps = {task: cost(tried) for (task, _), tried in by_rule.items()}
    done = {task: steps[task] for (task, _), tried in used.items() if not _unfinished(tried, rule["steps"])}
    delayed = [done[task] for task in rule["delayed"] if task in done]
    clauses: list[bool | None] = []
    for task in rule["short"]:
        if task not in done or not delayed:
            clauses.append(None)
        elif done[task] < min(delayed):
            # a delay task that is still missing might have been faster
            clauses.append(True if len(delayed) == len(rule["delayed"]) else None)
        else:
            clauses.append(False)
    needed = [(task, "") for task in (*rule["short"], *rule["delayed"])]
    words = [f"{task} {ten_thousands(value)}" for task, value in sorted(steps.items(), key=lambda x: x[1])]
    notes = _missing({(task, ""): [] for task in steps}, needed) + _about(used, rule) + _short_of(used, rule["steps"])
    methods = {name for _, name in used} - {rule["method"]}
    if methods:
        notes.append(f"stand-in: trained with {', '.join(sorted(methods))} instead of {rule['method']}")
    return _claim(rule, words, used, all_of(clauses), notes)


def _unfinished(tried: Iterable[xr.Dataset], steps: float) -> bool:
    """Whether the criterion was missed with fewer steps than there should have been."""
    return any(np.isinf(steps_needed(a)) and a.attrs["budget"] < steps for a in tried)


def _missing(used: Iterable[tuple[str, str]], needed: Iterable[tuple[str, str]]) -> list[str]:
    used = set(used)
    empty = [" ".join(filter(None, pair)) for pair in needed if pair not in used]
    return [f"not filled: {', '.join(empty)}"] if empty else []


def _about(used: Table, rule: dict[str, Any]) -> list[str]:
    """Notes on what is smaller than in the paper, and on what was chosen."""
    found = [a for tried in used.values() for a in tried]
    notes = []
    if members := sorted({a.attrs["members"] for a in found if a.attrs["members"] < rule["members"]}):
        notes.append(f"stand-in: {', '.join(map(str, members))} members instead of {rule['members']}")
    if coarse := sorted({a.attrs["dt"] for a in found if a.attrs["dt"] != rule["dt"]}):
        notes.append(f"stand-in: a step of {', '.join(f'{dt:g}' for dt in coarse)} ms instead of {rule['dt']:g}")
    tried = {len(a) for (_, name), a in used.items() if kind_of(name)[0] in ("SCTT", "DASC")}
    if tried == {1}:
        kinds = {(a.attrs["n_increments"], a.attrs["base_weight"]) for a in found if a.attrs["method"] != "control"}
        words = ", ".join(f"n_increments = {n}, beta from {beta:g}" for n, beta in sorted(kinds))
        notes.append(f"stand-in: one setting of the hyperparameters ({words}) instead of the best of 9")
    elif tried:
        notes.append(f"the best of up to {max(tried)} settings was chosen on the networks it is judged by")
    if gone := sum(a.attrs["diverged"] for a in found):
        notes.append(f"{gone} members diverged and count as performance 0")
    return notes


def _short_of(used: Table, steps: int) -> list[str]:
    short = [" ".join(pair) for pair, tried in used.items() if _unfinished(tried, steps)]
    return [f"not judged, fewer than {steps} steps: {', '.join(short)}"] if short else []


def _claim(rule: dict[str, Any], words: list[str], used: Table, passed: bool | None, notes: list[str]) -> Claim:
    n = sum(a.sizes["member"] for tried in used.values() for a in tried)
    return Claim(rule["id"], rule["claim"], rule["paper"], "; ".join(words), None, n, passed, "; ".join(notes))


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Table 1 (steps, time, operations), figure 1B for every task, figure 1C, and all rules learnt by one network."""
    from poprnn.recipes._long_dependencies_figures import draw_bars, draw_curves, draw_rules, draw_table

    table, by_rule = part(answers, "table"), part(answers, "rules")
    figures: dict[str, Any] = {}
    if table:
        figures["table_1"] = [
            draw_table({pair: cost(tried, name) for pair, tried in table.items()}, name) for name in COSTS
        ]
        figures["figure_1b"] = draw_curves(table)
    if by_rule:
        figures["figure_1c"] = draw_bars({task: cost(tried) for (task, _), tried in by_rule.items()})
    together = {name: best(tried) for (task, name), tried in table.items() if task == ALL}
    if together := {name: answer["by_rule"] for name, answer in together.items() if "by_rule" in answer}:
        figures["all_rules"] = draw_rules(together)
    return figures
