"""B1, B2, B4: sequential against parallel transmission through a continuous bottleneck, by its width."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import spearmanr, ttest_rel

from poprnn.recipes._bottleneck import gains, population
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.tasks.distributions.gaussian import Gaussian
from poprnn.tasks.static_vectors import StaticVectors
from poprnn.training.run import Run
from poprnn.training.settings import Setup


def label(d: int, k: int, steps: int, feedback: bool = True) -> str:
    """Of a population."""
    return f"d{d}-k{k}-" + (f"T{steps}" if feedback else "forward")


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Every width, number of steps and dimension; beside each width the feed-forward autoencoder.

    Only those with feedback start from large gains: a feed-forward one has nothing to gate.
    """
    out = {}
    for d in scale["dimensions"]:
        inputs = Gaussian(n_dimensions=d)
        for k in [k for k in scale["widths"] if k <= d]:
            for steps in scale["n_steps"]:
                task = StaticVectors(inputs=inputs, n_steps=steps)
                out[label(d, k, steps)] = population(scale, task, {"width": k} | gains(scale))
            task = StaticVectors(inputs=inputs, n_steps=1)
            out[label(d, k, 1, False)] = population(scale, task, {"width": k, "feedback": False})
    return out


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Errors of all, and the serial index of those with feedback."""
    out = {}
    for name, run in runs.items():
        out[f"{name}/errors"] = ask(name, "rate_distortion", run, n_trials=scale["trials"])
        if not name.endswith("forward"):
            out[f"{name}/index"] = ask(name, "serial_index", run, n_trials=scale["trials"])
    return out


class Cell(NamedTuple):
    """One cell of the map."""

    d: int
    k: int
    steps: int
    name: str


def cells_of(answers: dict[str, xr.Dataset]) -> list[Cell]:
    """Those of which a member is left, the longest trials last."""
    found = []
    for name, answer in answers.items():
        if name.endswith("/index") and "index" in answer:
            d, k, steps = (int(part[1:]) for part in name.removesuffix("/index").split("-"))
            found.append(Cell(d, k, steps, name.removesuffix("/index")))
    return sorted(found)


def longest(answers: dict[str, xr.Dataset]) -> Iterator[Cell]:
    """For every dimension and width the population with the most steps."""
    by_width = {(cell.d, cell.k): cell for cell in cells_of(answers)}
    yield from by_width.values()


def _verdict(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Verdict:
    """A verdict to be filled, open where a population has nobody left."""
    verdict = Verdict(rule)
    for name, answer in answers.items():
        if name.endswith("/errors") and "error" not in answer:
            verdict.unjudged(f"{name.removesuffix('/errors')}: all members diverged")
    return verdict


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on B1, B2 and B4."""
    rules = {rule["id"]: rule for rule in about["claims"]}
    return [_judge_b1(answers, rules["B1"]), _judge_b2(answers, rules["B2"]), _judge_b4(answers, rules["B4"])]


def _judge_b1(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = _verdict(answers, rule)
    for cell in longest(answers):
        forward = answers.get(f"{label(cell.d, cell.k, 1, False)}/errors")
        if cell.k >= cell.d or cell.steps < 2 or forward is None or "error" not in forward:
            continue
        error, base = answers[f"{cell.name}/errors"]["error"].values, forward["error"].values[:, -1]
        if len(error) != len(base) or len(base) < 2:
            verdict.unjudged(f"k = {cell.k}: members do not pair up")
            continue
        gained = base - error[:, -1]
        p = 0.0 if np.ptp(gained) == 0 and gained.all() else float(ttest_rel(base, error[:, -1]).pvalue)
        full = min(cell.d // cell.k, cell.steps)
        fall = -np.diff(np.median(error, axis=0), prepend=1.0)[:full]
        verdict.clause(
            gained.mean() > 0 and p < rule["p"] and bool((fall >= rule["fall"] / cell.d).all()),
            f"d = {cell.d}, k = {cell.k}: {base.mean():.3f} without recurrence, {error[:, -1].mean():.3f} after "
            f"{cell.steps} steps (p = {p:.1g}); least fall in {full} steps {fall.min() * cell.d:.2f}/d",
        )
        verdict.interval = verdict.interval or bootstrap(np.mean, gained)
        verdict.members += len(base)
    return verdict.claim()


def _judge_b2(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = _verdict(answers, rule)
    for cell in cells_of(answers):
        found = answers[f"{cell.name}/errors"]
        away = np.median(found["error"].values, axis=0) - found["reference"].sel(line="linear").values
        worst = away[np.abs(away).argmax()]
        verdict.clause(abs(worst) <= rule["within"], f"{cell.name}: {worst:+.3f}")
        verdict.members += found.sizes["member"]
    return verdict.claim()


def _judge_b4(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = _verdict(answers, rule)
    for d in sorted({cell.d for cell in cells_of(answers)}):
        cells = [cell for cell in longest(answers) if cell.d == d and cell.steps >= d]
        if len(cells) < rule["at_least_widths"]:
            verdict.unjudged(f"d = {d}: fewer than {rule['at_least_widths']} widths with T >= d")
            continue
        found = {cell.k: answers[f"{cell.name}/index"] for cell in cells}
        index = {k: a["index"].values for k, a in found.items()}
        away = {k: float(np.median(index[k]) - a["expected"]) for k, a in found.items()}
        width = np.concatenate([np.full(len(v), k) for k, v in index.items()])
        rank = float(spearmanr(width, np.concatenate(list(index.values()))).statistic)
        words = ", ".join(
            f"k = {k}: {np.median(v):.2f} (expected {float(found[k]['expected']):.2f})" for k, v in index.items()
        )
        verdict.clause(
            all(abs(a) <= rule["within"] for a in away.values()) and rank <= rule["spearman"],
            f"d = {d}: {words}; Spearman(k, index) {rank:.2f}",
        )
        verdict.members += len(width)
    return verdict.claim()


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Errors step by step beside the benchmark; the serial index against the width; the map of widths and steps."""
    from poprnn.report.panels import matrix, over

    figures: dict[str, Any] = {}
    for d in sorted({cell.d for cell in cells_of(answers)}):
        cells = [cell for cell in longest(answers) if cell.d == d]
        errors = {cell.k: answers[f"{cell.name}/errors"] for cell in cells}
        shown = dict(list(errors.items())[:: -(-len(errors) // 4)])
        mine = [
            over(
                f"errors_d{d}",
                {f"k = {k}": (a["time"].values, a["error"].values) for k, a in shown.items()},
                "step",
                "squared error / variance",
                "Error of the reconstruction at each step. Thin lines: k t numbers sent, 1 - k t / d, a benchmark; "
                "no limit.",
                whole_x=True,
                lines={f"benchmark, k = {k}": (a["time"].values, a["reference"].values[0]) for k, a in shown.items()},
            )
        ]
        width = np.array([cell.k for cell in cells])
        index = [answers[f"{cell.name}/index"] for cell in cells]
        mine.append(
            over(
                f"serial_index_d{d}",
                {"networks": (width, np.stack([a["index"].values for a in index], axis=1))},
                "width k of the bottleneck",
                "effective number of steps",
                "Serial index: 1, all information passes at one step (parallel); as many as there are steps: serial.",
                whole_x=True,
                lines={"used in full until nothing is left": (width, np.array([float(a["expected"]) for a in index]))},
            )
        )
        steps = sorted({cell.steps for cell in cells_of(answers) if cell.d == d})
        if len(steps) > 1:
            last = {
                (c.steps, c.k): np.median(answers[f"{c.name}/errors"]["error"].values[:, -1])
                for c in cells_of(answers)
                if c.d == d
            }
            values = np.array([[last.get((t, k), np.nan) for k in width] for t in steps])
            caption = "Error after the last step, median over members, of networks trained for that many steps."
            mine.append(
                matrix(f"map_d{d}", values, width, np.array(steps), "width k", "steps T", "error / variance", caption)
            )
        figures[f"d = {d}"] = mine
    return figures
