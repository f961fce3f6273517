"""D11: what networks settle into, task by task: corners of a cube, a value remembered, cycles, a map of the arena."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._conditional import wilson
from poprnn.recipes._degeneracy import ARENA, notes_on, principal_coordinates, setup, solved_members
from poprnn.recipes._timescales import brackets
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.tasks.delayed_discrimination import DelayedDiscrimination
from poprnn.tasks.flip_flop import FlipFlop
from poprnn.tasks.path_integration import PathIntegration
from poprnn.tasks.sine_wave import SineWave
from poprnn.training.run import Run
from poprnn.training.settings import Setup


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """One population for each task."""
    tasks = {
        "flip_flop": FlipFlop(n_channels=scale["n_bits"]),
        "delayed_discrimination": DelayedDiscrimination(n_amplitudes=scale["n_amplitudes"]),
        "sine_wave": SineWave(n_frequencies=scale["n_frequencies"]),
        "path_integration": PathIntegration(**ARENA),
    }
    return {name: setup(scale, task) for name, task in tasks.items()}


# --- questions -----------------------------------------------------------------------------------------------------


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """What was found in the members that reached the loss; without variables where none did."""
    out = {}
    for label, run in runs.items():
        solved = solved_members(run)
        counts = {"members": run.n_members, "solved": len(solved)}
        found = _OF[label](ask, label, run.select(solved), scale) if len(solved) else xr.Dataset()
        out[label] = found.assign_attrs(counts)
    return out


def _flip_flop(ask: Any, label: str, run: Run, scale: dict[str, Any]) -> xr.Dataset:
    """Stable points without input, and how far what is read out there lies from corners of its own."""
    found = ask(label, "fixed_points", run, n_starts=scale["n_starts"], n_trials=scale["n_trials"])
    stable = found["kind"].values == "stable"
    read = found["readout"].values
    n_corners = 2 ** read.shape[-1]
    corners, apart = np.zeros(run.n_members, int), np.full(run.n_members, np.nan)
    for k in range(run.n_members):  # members have different numbers of points
        mine = read[k][stable[k]]
        if len(mine):
            corners[k] = len(np.unique(np.sign(mine), axis=0))
            apart[k] = np.abs(mine - np.sign(mine)).max()
    variables = {"n_stable": found["n_stable"].values, "n_corners": corners, "from_corner": apart}
    points = {"point": (("member", "place", "output"), read), "stable": (("member", "place"), stable)}
    there = xr.Dataset({name: ("member", v) for name, v in variables.items()} | points, {"member": run.member_index})
    return there.assign_attrs(expected=n_corners)


def _delayed_discrimination(ask: Any, label: str, run: Run, scale: dict[str, Any]) -> xr.Dataset:
    """Stable points without input, from states of the delay."""
    found = ask(label, "fixed_points", run, period="delay", n_starts=scale["n_starts"], n_trials=scale["n_trials"])
    variables = {"n_stable": found["n_stable"].values, "n_slow": found["n_slow"].values}
    there = xr.Dataset({name: ("member", v) for name, v in variables.items()}, {"member": run.member_index})
    return there.assign_attrs(expected=run.task.n_amplitudes)  # type: ignore[attr-defined]


def _sine_wave(ask: Any, label: str, run: Run, scale: dict[str, Any]) -> xr.Dataset:
    """For each frequency, whether all starts end on a cycle, and its period beside the task's."""
    task: Any = run.task
    found = ask(
        label,
        "limit_cycles",
        run,
        inputs=[[float(task.input_per_hz * f)] for f in np.asarray(task.frequencies())],
        n_starts=scale["n_orbits"],
        n_trials=scale["n_trials"],
        burn_in=scale["burn_in"],
        n_steps=scale["burn_in"],
    )
    cycling = (found["kind"].values == "cycle").mean(axis=-1)
    with np.errstate(all="ignore"):
        periods = np.array(
            [[np.nanmedian(p) if np.isfinite(p).any() else np.nan for p in m] for m in found["period"].values]
        )
    wanted = task.rate_hz / np.asarray(task.frequencies())
    return xr.Dataset(
        {
            "cycling": (("member", "frequency"), cycling),
            "period": (("member", "frequency"), periods),
            "wanted": ("frequency", wanted),
        },
        {"member": run.member_index},
    )


def _path_integration(ask: Any, label: str, run: Run, scale: dict[str, Any]) -> xr.Dataset:
    """Slow points without input: the share of their first two components, and how well these tell where one is."""
    found = ask(label, "fixed_points", run, n_starts=scale["n_starts"], n_trials=scale["n_trials"])
    states, read = found["slow_state"].values, found["slow_readout"].values
    there = np.isfinite(found["slow_q"].values)
    plane, fit, span = (np.full(run.n_members, np.nan) for _ in range(3))
    for k in range(run.n_members):  # members have different numbers of points
        points, place = states[k][there[k]], read[k][there[k]]
        if len(points) < 4:
            continue
        coordinates, plane[k] = principal_coordinates(points, 2)
        coordinates = np.column_stack([coordinates, np.ones(len(points))])
        residual = place - coordinates @ np.linalg.lstsq(coordinates, place, rcond=None)[0]
        fit[k] = 1 - (residual**2).sum() / ((place - place.mean(axis=0)) ** 2).sum()
        span[k] = np.ptp(place, axis=0).min() / run.task.side  # type: ignore[attr-defined]
    variables = {"plane": plane, "fit": fit, "span": span, "n_slow": found["n_slow"].values}
    points = {"point": (("member", "place", "output"), np.where(there[..., None], read, np.nan))}
    return xr.Dataset({name: ("member", v) for name, v in variables.items()} | points, {"member": run.member_index})


_OF = {
    "flip_flop": _flip_flop,
    "delayed_discrimination": _delayed_discrimination,
    "sine_wave": _sine_wave,
    "path_integration": _path_integration,
}


# --- verdict -------------------------------------------------------------------------------------------------------


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """The verdict on D11; ``None`` where no member of some task reached the loss."""
    notes, _ = notes_on(answers)
    verdict = Verdict(about["claims"][0], notes)
    missing = [label for label in _OF if label not in answers or not answers[label].data_vars]
    if missing:
        verdict.unjudged("nobody reached the loss in " + ", ".join(missing))
        return [verdict.claim()]
    for label, as_claimed in _AS_CLAIMED.items():
        right, more = as_claimed(answers[label], verdict.rule)
        interval = list(wilson(int(right.sum()), len(right)))
        share = float(right.mean())
        verdict.clause(share >= verdict.rule["share"], f"{label} {share:.0%} {brackets(interval)} ({more})")
        verdict.members += len(right)
        verdict.interval = verdict.interval or interval
    return [verdict.claim()]


def _corners(a: xr.Dataset, rule: dict[str, Any]) -> tuple[np.ndarray, str]:
    n = a.attrs["expected"]
    good = (a["n_stable"].values == n) & (a["n_corners"].values == n) & (a["from_corner"].values <= rule["corner"])
    return good, f"stable points {_range(a['n_stable'])} of {n}, at most {_most(a['from_corner'])} from a corner"


def _memories(a: xr.Dataset, rule: dict[str, Any]) -> tuple[np.ndarray, str]:
    del rule
    n = a.attrs["expected"]
    return a["n_stable"].values == n, f"stable points {_range(a['n_stable'])} of {n}, slow points {_range(a['n_slow'])}"


def _cycles(a: xr.Dataset, rule: dict[str, Any]) -> tuple[np.ndarray, str]:
    off = np.abs(a["period"].values / a["wanted"].values - 1)
    right = (a["cycling"].values == 1) & (off <= rule["period"])
    by_frequency = ", ".join(f"{s:.0%}" for s in right.mean(axis=0))
    return right.all(axis=1), f"right cycles by frequency, rising: {by_frequency}"


def _map(a: xr.Dataset, rule: dict[str, Any]) -> tuple[np.ndarray, str]:
    parts = {name: a[name].values for name in ("plane", "fit", "span")}
    good = np.all([np.nan_to_num(parts[name], nan=-1.0) >= rule[name] for name in parts], axis=0)
    middles = ", ".join(f"{name} {np.nanmedian(v):.2f}" for name, v in parts.items() if np.isfinite(v).any())
    return good, f"slow points {_range(a['n_slow'])}; medians: {middles}"


_AS_CLAIMED = {
    "flip_flop": _corners,
    "delayed_discrimination": _memories,
    "sine_wave": _cycles,
    "path_integration": _map,
}


def _range(values: xr.DataArray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _most(values: xr.DataArray) -> str:
    found = values.values[np.isfinite(values.values)]
    return f"{found.max():.2g}" if len(found) else "-"


# --- figures -------------------------------------------------------------------------------------------------------


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figure 2E: what is read out at the points of the first member, periods of cycles beside those asked for."""
    from poprnn.report.panels import scatter

    drawn = []
    there = {label: a for label, a in answers.items() if a.data_vars}
    if "flip_flop" in there:
        a = there["flip_flop"].isel(member=0)
        read, stable = a["point"].values, a["stable"].values
        other = np.isfinite(read).all(axis=-1) & ~stable
        sets = {"stable": tuple(read[stable].T[:2]), "other fixed points": tuple(read[other].T[:2])}
        drawn.append(
            scatter(
                "flip_flop",
                sets,
                "first output",
                "second output",
                "Figure 2E: outputs at the fixed points of one network, two of its channels.",
                title="flip-flop",
            )
        )
    if "path_integration" in there:
        read = there["path_integration"].isel(member=0)["point"].values
        read = read[np.isfinite(read).all(axis=-1)]
        drawn.append(
            scatter(
                "path_integration",
                {"slow points": tuple(read.T[:2])},
                "first coordinate",
                "second coordinate",
                "Figure 2E: places read out at the slow points of one network.",
                title="path integration",
            )
        )
    if "sine_wave" in there:
        a = there["sine_wave"]
        wanted = np.broadcast_to(a["wanted"].values, a["period"].shape)
        drawn.append(
            scatter(
                "sine_wave",
                {"members": (wanted.ravel(), a["period"].values.ravel())},
                "period asked for (steps)",
                "period of the cycle (steps)",
                "Figure 2E: cycles in the long run, a mark for each network and frequency.",
                title="sine wave",
            )
        )
    return {"all": drawn} if drawn else {}
