"""One self-contained HTML page about a run."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import tomli_w

import poprnn
from poprnn.analysis.contract import Result
from poprnn.core import storage
from poprnn.core.errors import ConfigurationError
from poprnn.core.references import bibtex
from poprnn.report import curves, style, tables
from poprnn.report import figures as figures_
from poprnn.report import results as results_
from poprnn.report.style import Drawing
from poprnn.report.words import show
from poprnn.training.run import Run


def report(
    run_or_folder: Run | str | Path,
    path: str | Path,
    *,
    results: Iterable[Result] = (),
    claims: Sequence[tables.Claim] | None = None,
    figures: figures_.Given = None,
    title: str | None = None,
) -> Path:
    """Write one HTML file with everything about a run inside: style, figures, tables, the experiment.

    Args:
        run_or_folder: a run, or the folder of one.
        path: the file to write; what it held before is replaced in one step.
        results: answers of analyses. Default: those in the run's folder, if it has one.
        claims: ``{id, claim, paper, measured, interval, n, passed, note}`` each; ``passed`` may be ``None`` for
            one that was not judged. Default: the folder's ``claims.json``, if there is one.
        figures: figures of your own: drawings, or matplotlib figures by caption (shown on white as they are).
        title: heading; default: task, cell and number of members.

    Returns:
        The file.

    Raises:
        StorageError: the folder is no run, or the file cannot be written. ConfigurationError: a claim is no mapping.

    >>> import tempfile, poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     "budget spent" in report(run, folder + "/report.html").read_text(encoding="utf-8")
    True
    """
    run = run_or_folder if isinstance(run_or_folder, Run) else _load(run_or_folder)
    answers, claimed = _results(run, results), _claims(run, claims)
    members = f"{run.n_members} member{'s' * (run.n_members != 1)}"
    sections = {
        "Summary": tables.summary(run),
        "Claims": tables.claims(claimed) if claimed else "",
        "Figures": _grid("given", figures_.given(figures)),
        "Training": _grid("training", curves.draw(run)),
        "Results": "\n".join(_answer(f"result{i}", result) for i, result in enumerate(answers)),
        "Members": tables.members(run),
        "Experiment": _experiment(run),
        "How to cite": _cite(_keys(run)),
    }
    lead = [tables.outcome_words(run), *([tables.claim_words(claimed)] if claimed else [])]
    return _write(path, title or f"{run.task.name()} · {run.cell.name()} · {members}", "; ".join(lead) + ".", sections)


def recipe_report(
    about: Mapping[str, Any],
    scale: str,
    runs: Mapping[str, Run],
    claims: Sequence[tables.Claim],
    figures: figures_.Given,
    path: str | Path,
    *,
    name: str | None = None,
) -> Path:
    """Write one HTML file about a reproduced result: its verdicts, its figures, and every population behind them.

    Args:
        about: what the recipe's TOML says (``title``, ``paper``, ``cites``, ``claims`` with their ``rule``).
        scale: at which of its scales it was carried out.
        runs: the populations by label.
        claims: the verdicts, as for :func:`report`.
        figures: the recipe's figures, as for :func:`report`.
        path: the file to write.
        name: the recipe's name, for the command that does it again.

    Returns:
        The file.

    Raises:
        StorageError: the file cannot be written.

    >>> import tempfile, poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> verdict = {"id": "T1", "claim": "More is more", "passed": False}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = recipe_report({"title": "Parity"}, "smoke", {"plain": run}, [verdict], None, folder + "/report.html")
    ...     "✗ failed" in page.read_text(encoding="utf-8")
    True
    """
    claimed = _claims(None, claims)
    command = f"poprnn reproduce {name} --scale {scale}" if name else ""
    used = [key for run in runs.values() for key in _keys(run)]
    keys = list(dict.fromkeys(["poprnn", *about.get("cites", ()), *used]))
    sections = {
        "Claims": tables.claims(claimed) + tables.rules(about.get("claims", ())) if claimed else "",
        "Figures": _grid("given", figures_.given(figures)),
        "Populations": tables.populations(runs),
        "Details": "\n".join(_population(f"run{i}", label, run) for i, (label, run) in enumerate(runs.items())),
        "How to repeat": f"<pre>{escape(command)}</pre>" if command else "",
        "How to cite": _cite(keys),
    }
    lead = [f"{about['paper']}." if "paper" in about else "", f"Scale: {scale}.", tables.claim_words(claimed) + "."]
    return _write(path, str(about.get("title", name or "Recipe")), " ".join(filter(None, lead)), sections)


# --- what goes in --------------------------------------------------------------------------------------------------


def _load(folder: str | Path) -> Run:
    from poprnn import experiment

    return experiment.load(folder)


def _results(run: Run, results: Iterable[Result]) -> list[Result]:
    given = list(results)
    if given or run.path is None:
        return given
    from poprnn import experiment

    return experiment.results(run.path)


def _claims(run: Run | None, claims: Any) -> list[tables.Claim]:
    """The rows, also out of ``{"commit": …, "claims": […]}``."""
    if claims is None and run is not None and run.path is not None and (run.path / "claims.json").is_file():
        claims = storage.load_json(run.path / "claims.json")
    rows = claims.get("claims", []) if isinstance(claims, Mapping) else list(claims or ())
    for row in rows:
        if not isinstance(row, Mapping):
            raise ConfigurationError(f"claims: {row!r}: must be a mapping with id, claim, passed, …")
    return rows


def _grid(place: str, drawings: Iterable[Drawing], first: str = "") -> str:
    """Figures (after a table, perhaps) side by side where there is room; ids begin with the ``place`` in the page."""
    cells = [first] if first else []
    for drawing in figures_.unique(drawings):
        width, height = drawing.figure.get_size_inches()
        wide = bool(width > 1.9 * height and width > 6)
        classes = " ".join(filter(None, ("wide" * wide, "foreign" * (not drawing.themed))))
        svg = dataclasses.replace(drawing, name=f"{place}.{drawing.name}").svg()
        svg = svg.replace("<svg", f'<svg aria-label="{escape(drawing.caption)}"', 1)
        caption = f"<figcaption>{escape(drawing.caption)}</figcaption>" if drawing.caption else ""
        cells.append(f'<figure class="{classes}">\n{svg}\n{caption}</figure>')
    return f'<div class="figures">\n{"".join(cells)}\n</div>' if cells else ""


def _answer(place: str, result: Result) -> str:
    """A result: how it was made, whom it leaves out, its numbers, its figures."""
    options = ", ".join(f"{name} = {show(value) or 'default'}" for name, value in result.options.items())
    by_reason: dict[str, list[str]] = {}
    for member, reason in result.left_out.items():
        by_reason.setdefault(reason, []).append(str(member))
    left_out = "; ".join(f"{style.words(reason)}: {', '.join(who)}" for reason, who in by_reason.items())
    lines = [f"Options: {options}." if options else "", f"Members left out ({left_out})." if left_out else ""]
    text = "".join(f'<p class="lead">{escape(line)}</p>' for line in lines if line)
    return f"<h3>{escape(result.name)}</h3>\n{text}\n{_grid(place, results_.draw(result), tables.numbers(result))}"


def _population(place: str, label: str, run: Run) -> str:
    """One of several populations, folded away."""
    return (
        f"<details><summary>{escape(label)}</summary>\n{tables.summary(run, command=False)}\n"
        f"{_grid(place, curves.draw(run))}\n<h3>Members</h3>\n{tables.members(run)}\n"
        f"<h3>Experiment</h3>\n<pre>{escape(_toml(run))}</pre></details>"
    )


def _experiment(run: Run) -> str:
    return (
        "<details><summary>All options as they were resolved (TOML)</summary>\n"
        f"<pre>{escape(_toml(run))}</pre></details>"
    )


def _toml(run: Run) -> str:
    stored = None if run.path is None else run.path / "experiment.toml"
    if stored is not None and stored.is_file():
        return stored.read_text(encoding="utf-8")
    return tomli_w.dumps(run.setup.to_dict())


def _keys(run: Run) -> list[str]:
    """Keys of the papers behind what a run used."""
    training = run.setup.training
    parts = (run.task, run.cell, training.curriculum, training.method, training.optimizer, *training.penalties)
    return list(dict.fromkeys(["poprnn", *(key for part in parts for key in type(part).cites)]))


def _cite(keys: Iterable[str]) -> str:
    """BibTeX; a key that is not ours (of a plug-in) stands there bare."""
    entries = []
    for key in keys:
        try:
            entries.append(bibtex([key]))
        except KeyError:
            entries.append(f"% {key}: see the plug-in that brought it")
    return (
        "<p>The software, and the papers behind the parts that were used:</p>\n"
        f"<pre>{escape(chr(10).join(entries))}</pre>"
    )


# --- the file ------------------------------------------------------------------------------------------------------


def _write(path: str | Path, title: str, lead: str, sections: Mapping[str, str]) -> Path:
    """Fill the template; sections without content are left out."""
    there = {_anchor(word): (word, html) for word, html in sections.items() if html}
    template = Template(resources.files("poprnn.report").joinpath("page.html").read_text(encoding="utf-8"))
    text = template.substitute(
        title=escape(title),
        version=escape(poprnn.__version__),
        lead=escape(lead),
        nav=" ".join(f'<a href="#{anchor}">{word}</a>' for anchor, (word, _) in there.items()),
        body="\n".join(
            f'<section id="{anchor}">\n<h2>{word}</h2>\n{html}\n</section>' for anchor, (word, html) in there.items()
        ),
    )
    path = Path(path)
    with storage.atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def _anchor(word: str) -> str:
    return word.lower().replace(" ", "-")
