"""The tables of the page, as HTML; every word that comes from outside is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from poprnn.analysis.contract import Result
from poprnn.report import curves, style
from poprnn.report.generic import is_error
from poprnn.report.words import described, duration, operations, show, size
from poprnn.training.run import Run

Claim = Mapping[str, Any]
_VERDICTS = {True: ("passed", "✓ passed"), False: ("failed", "✗ failed"), None: ("open", "– not judged")}


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str, numbers: Iterable[int] = (), tall: bool = False
) -> str:
    """A table from cells that are HTML already; ``numbers`` are the columns to align on the right."""
    right = dict.fromkeys(numbers, ' class="number"')
    words = "".join(f'<th scope="col"{right.get(i, "")}>{escape(word)}</th>' for i, word in enumerate(head))
    body = "\n".join(
        "<tr>"
        + "".join(f'<td data-label="{escape(head[i])}"{right.get(i, "")}>{cell}</td>' for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="card{" tall" * tall}"><table class="{kind}">\n<thead><tr>{words}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def facts(rows: Mapping[str, str]) -> str:
    """A table of names and values; values are HTML already, empty ones are left out."""
    body = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>' for name, value in rows.items() if value
    )
    return f'<div class="card"><table class="facts"><tbody>\n{body}\n</tbody></table></div>'


def summary(run: Run, *, command: bool = True) -> str:
    """What was trained, how, how it ended, on what machine, and (``command``) how to do it again."""
    setup, training, manifest = run.setup, run.setup.training, run.manifest
    machine = manifest.get("machine", {})
    varied = "; ".join(f"{name}: {show(list(values))}" for name, values in setup.population.vary.items())
    seconds, flops = manifest.get("seconds"), manifest.get("flops")
    trained = len(run.history) > 0
    versions = {**machine.get("versions", {}), **({"Python": machine["python"]} if "python" in machine else {})}
    rows = {
        "Task": escape(described(setup.task)),
        "Cell": escape(described(setup.cell)),
        "Members": escape(f"{run.n_members}" + (f"; differing in {varied}" if varied else "")),
        "Outcomes": escape(outcome_words(run)),
        "Training": escape(
            f"{training.batch} trials a step, {training.steps_per_epoch} steps an epoch, "
            f"{len(run.history)} of at most {training.epochs} epochs"
        )
        if trained
        else "",
        "Optimiser": escape(described(training.optimizer)) if trained else "",
        "Curriculum": escape(described(training.curriculum)) if trained else "",
        "Method": escape(described(training.method)) if trained else "",
        "Penalties": escape("; ".join(described(p) for p in training.penalties)),
        "Started from": escape(show(manifest.get("start"))),
        "Time": escape(duration(seconds)) if seconds is not None else "",
        "Operations": escape(operations(flops, seconds)) if flops else "",
        "Peak memory": escape(size(manifest["peak_bytes"], "B")) if manifest.get("peak_bytes") else "",
        "Machine": escape(
            ", ".join(
                filter(
                    None,
                    (
                        machine.get("processor", ""),
                        f"{machine.get('n_devices', '?')} {machine.get('platform', '')} device(s)",
                        f"{machine.get('n_threads', '?')} thread(s)",
                    ),
                )
            )
        )
        if machine
        else "",
        "Versions": escape(", ".join(f"{name} {number}" for name, number in versions.items())),
        "Compiled kernels": escape(str(machine.get("kernels") or "none")) if machine else "",
        "Seed": escape(show(run.seed)),
        "Folder": f"<code>{escape(str(run.path))}</code>" if run.path else "",
        "Command": _command(run) if command else "",
    }
    return facts(rows)


def _command(run: Run) -> str:
    command = run.manifest.get("command")
    if command:
        text = command if isinstance(command, str) else " ".join(map(str, command))
        return f"<code>{escape(text)}</code>"
    if set(run.outcome) == {"brought_in"}:
        return "none: the weights were brought in from elsewhere"
    if run.manifest.get("start"):
        return "made in Python with <code>fit(start=…)</code>; the experiment below needs that run to start from"
    return '<code>poprnn run experiment.toml</code>, with <a href="#experiment">the experiment below</a> as that file'


def outcome_words(run: Run) -> str:
    """``3 solved, 1 diverged``.

    >>> import poprnn as pr
    >>> outcome_words(pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=2), {}))
    '1 brought in'
    """
    counts = {word: run.outcome.count(word) for word in dict.fromkeys(run.outcome)}
    return ", ".join(f"{n} {style.words(word)}" for word, n in counts.items())


def claims(rows: Sequence[Claim]) -> str:
    """The claims and their verdicts, in words and in colour."""
    head = ("id", "claim", "verdict", "measured", "interval", "n", "paper", "note")
    body = []
    for claim in rows:
        passed = claim.get("passed")
        kind, word = _VERDICTS[None if passed is None else bool(passed)]
        cells = {name: escape(show(claim.get(name))) for name in head}
        cells["verdict"] = f'<span class="verdict {kind}">{word}</span>'
        body.append([cells[name] for name in head])
    return table(head, body, kind="claims")


def rules(rows: Iterable[Mapping[str, Any]]) -> str:
    """How each claim is judged, as set down beforehand; empty if nothing says so."""
    cells = {}
    for row in rows:
        if "rule" in row:
            limits = ", ".join(f"{k} = {show(v)}" for k, v in row.items() if k not in ("id", "claim", "paper", "rule"))
            cells[str(row.get("id", ""))] = escape(show(row["rule"]) + (f" ({limits})" if limits else ""))
    return f"<h3>How they are judged, set down beforehand</h3>\n{facts(cells)}" if cells else ""


def claim_words(rows: Sequence[Claim]) -> str:
    """How many passed.

    >>> claim_words([{"passed": True}, {"passed": False}, {"passed": None}])
    '1 of 3 claims passed, 1 failed, 1 not judged'
    """
    passed = [claim.get("passed") for claim in rows]
    counts = {"failed": sum(p is not None and not p for p in passed), "not judged": sum(p is None for p in passed)}
    rest = "".join(f", {n} {word}" for word, n in counts.items() if n)
    return f"{sum(bool(p) for p in passed)} of {len(rows)} claim{'s' * (len(rows) != 1)} passed{rest}"


def populations(runs: Mapping[str, Run]) -> str:
    """One row for each of several populations."""
    rows = []
    for name, run in runs.items():
        reached = sorted(set(member_columns(run).get("largest N", [])), key=lambda n: int(n) if n.isdigit() else -1)
        seconds = run.manifest.get("seconds")
        rows.append(
            [
                escape(cell)
                for cell in (
                    name,
                    run.task.name(),
                    run.cell.name(),
                    run.setup.training.curriculum.name(),
                    str(run.n_members),
                    outcome_words(run),
                    " to ".join(dict.fromkeys([*reached[:1], *reached[-1:]])),
                    "" if seconds is None else duration(seconds),
                )
            ]
        )
    head = ["population", "task", "cell", "curriculum", "members", "outcomes", "largest N", "time"]
    return table(head, rows, kind="members", numbers=(4, 6, 7))


def members(run: Run) -> str:
    """One row for each member: how it ended, how far it came, and in what it differs."""
    columns = member_columns(run)
    numbers = [i for i, name in enumerate(columns) if name != "outcome"]
    rows = [[escape(cell) for cell in row] for row in zip(*columns.values(), strict=True)]
    for row, outcome in zip(rows, run.outcome, strict=True):
        kind = {"solved": "passed", "diverged": "failed"}.get(outcome, "open")
        row[1] = f'<span class="verdict {kind}">{row[1]}</span>'
    return table(list(columns), rows, kind="members", numbers=numbers, tall=run.n_members > 12)


def member_columns(run: Run) -> dict[str, list[str]]:
    """The columns of the members' table as text."""
    out = {"member": [str(k) for k in run.member_index], "outcome": [style.words(word) for word in run.outcome]}
    if len(run.history):
        training = run.setup.training
        n_stages = training.curriculum.n_stages(run.task)
        if n_stages > 1:
            out["stages passed"] = [f"{n} of {n_stages}" for n in run.stages_passed()]
            if (asked := curves.memories(run)) is not None:
                out["largest N"] = [str(n) if n in asked else "none" for n in curves.largest_solved(run)[-1]]
        steps = np.maximum(run.history["n_steps"].max(0), 0)
        out["epochs"] = [show(float(n)) for n in np.round(steps / training.steps_per_epoch, 2)]
        out["final loss"] = _last(run.history["loss"])
        out[f"final {style.words(run.task.score)}"] = _last(curves.mean_score(run))
    short = [name.rsplit(".", 1)[-1] for name in run.varied]
    for word, (name, values) in zip(short, run.varied.items(), strict=True):
        out[style.words(word) if short.count(word) == 1 else name] = [show(v) for v in values.tolist()]
    return out


def _last(values: np.ndarray) -> list[str]:
    out = []
    for line in values.T:
        finite = line[np.isfinite(line)]
        out.append(show(float(finite[-1])) if finite.size else "not finite")
    return out


def numbers(result: Result) -> str:
    """The numbers a result gives for each member (median and range) and as a whole; empty if there are none."""
    rows, data = [], result.data
    for name, variable in data.data_vars.items():
        if variable.dtype.kind not in "biuf" or variable.dims not in ((), ("member",)) or is_error(str(name), data):
            continue
        values = np.atleast_1d(variable.values).astype(float)
        finite = values[np.isfinite(values)]
        three = (np.median(finite), finite.min(), finite.max()) if finite.size else (np.nan, None, None)
        cells = [show(v) for v in three]
        rows.append([escape(style.words(str(name))), *(cells if len(values) > 1 else [cells[0], "", ""])])
    if not rows:
        return ""
    several = any(row[2] for row in rows)
    head = ("", "median", "lowest", "highest") if several else ("", "value")
    return table(head, [row[: len(head)] for row in rows], kind="numbers", numbers=range(1, len(head)))
