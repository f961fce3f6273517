"""The ``poprnn`` command. Heavy imports happen inside the commands, so that ``--help`` and ``list`` answer at once."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from poprnn.core import catalogue
from poprnn.core.errors import ConfigurationError, PoprnnError, nearest

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train populations of recurrent networks on tasks, constrain them, take them apart, compare them.",
)

# typer does not export the base of its usage errors, and from which package it comes depends on its version
_UsageError: Any = typer.BadParameter.__mro__[1]
Out = Annotated[Path | None, typer.Option("--out", help="New folder to write to.")]
Plugin = Annotated[list[Path] | None, typer.Option("--plugin", help="Python file that registers entries of your own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Folder = Annotated[Path, typer.Argument(help="A run folder.")]
Watching = Annotated[bool | None, typer.Option("--progress/--quiet", help="Show progress; default: on a terminal.")]


def main() -> None:
    """Entry point: errors that poprnn raises on purpose become one or two lines and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except PoprnnError as error:
        _fail("\n".join(str(error).splitlines()[:2]))
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            raise SystemExit(2) from None
        _fail(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        print("poprnn: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    print(f"poprnn: {message}", file=sys.stderr)
    raise SystemExit(2) from None


def _plugins(plugins: list[Path] | None) -> None:
    for path in plugins or ():
        catalogue.load_plugin(path)


def _print_json(value: Any) -> None:
    from poprnn.core.storage import to_json

    print(to_json(value))


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="Experiment file (TOML).")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override an option: training.epochs=5.")] = None,
    out: Out = None,
    plugin: Plugin = None,
    json_: Annotated[bool, typer.Option("--json")] = False,
    debug: Annotated[bool, typer.Option(help="Step by step, without compilation.")] = False,
    progress: Watching = None,
) -> None:
    """Train the population an experiment file describes, and put its questions to it."""
    _plugins(plugin)
    from poprnn import experiment
    from poprnn._progress import Watcher

    described = experiment.read(file, set_ or ())
    target = out or _free_folder(Path("runs") / file.stem)
    with Watcher(progress) as watch:
        result = experiment.run(described, target, watch=watch, debug=debug)
    _say_done(result, json_)


@app.command()
def resume(
    folder: Folder,
    plugin: Plugin = None,
    json_: Annotated[bool, typer.Option("--json")] = False,
    progress: Watching = None,
) -> None:
    """Go on with an interrupted run from its newest checkpoint, bit for bit."""
    _plugins(plugin)
    import warnings

    from poprnn import experiment
    from poprnn._progress import Watcher

    with warnings.catch_warnings(record=True) as caught, Watcher(progress) as watch:
        warnings.simplefilter("always")
        result = experiment.resume(folder, watch=watch)
    for warning in caught:
        if warning.category is UserWarning:
            print(f"poprnn: {warning.message}", file=sys.stderr)
    _say_done(result, json_)


def _free_folder(path: Path) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, … that is free."""
    candidate, i = path, 1
    while candidate.exists():
        i += 1
        candidate = path.with_name(f"{path.name}-{i}")
    return candidate


def _say_done(result: Any, as_json: bool) -> None:
    if as_json:
        _print_json(
            {
                "folder": result.path,
                "outcome": result.outcome,
                "stages_passed": result.stages_passed(),
                "manifest": result.manifest,
            }
        )
        return
    counts = {word: result.outcome.count(word) for word in dict.fromkeys(result.outcome)}
    print(f"{result.path}: " + ", ".join(f"{n} {word}" for word, n in counts.items()))
    if "training" in counts:
        print(f"interrupted; go on with: poprnn resume {result.path}")


@app.command()
def reproduce(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (poprnn list recipes).")],
    scale: Annotated[str, typer.Option(help="smoke, demo, laptop or paper.")] = "laptop",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override an entry of the scale: 'tasks=[\"n_dms\"]'.")
    ] = None,
    out: Out = None,
    populations: Annotated[
        Path | None, typer.Option(help="Where trained networks are shared; default: beside --out.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only estimate.")] = False,
    json_: Annotated[bool, typer.Option("--json")] = False,
    progress: Watching = None,
) -> None:
    """Train and judge a published result; a second call goes on where the first one stopped."""
    about = catalogue.find("recipes", recipe)
    from poprnn._progress import Watcher
    from poprnn.recipes import contract

    if dry_run:
        estimate = contract.estimate(about, scale, set_ or ())
        if json_:
            _print_json(estimate)
        else:
            for name, value in estimate.items():
                print(f"{name:>24}: {value}")
        return
    target = out or Path("runs") / f"{contract.name_of(about)}-{scale}"
    with Watcher(progress) as watch:
        outcome = contract.reproduce(
            about, scale, target, overrides=set_ or (), populations=populations, watch=watch, say=watch.say
        )
    if json_:
        _print_json(outcome)
        return
    for claim in outcome["claims"]:
        verdict = {True: "passed", False: "FAILED", None: "not judged"}[claim["passed"]]
        print(
            f"{claim['id']:>4}  {verdict:10}  {claim['claim']}\n      measured: {claim['measured']}   "
            f"paper: {claim['paper']}"
        )
    print(f"report: {outcome['report']}")


@app.command()
def claims(
    folders: Annotated[list[Path], typer.Argument(help="Folders of recipes (poprnn reproduce).")], json_: Json = False
) -> None:
    """Verdicts of several recipes in one Markdown table, ready for a results page."""
    from poprnn.recipes import contract

    rows = contract.verdicts(folders)
    if json_:
        _print_json(rows)
        return
    print("| claim | paper | measured | interval | members | verdict | note | recipe | minutes |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda r: (r["id"].rstrip("0123456789"), int("0" + r["id"].lstrip("ABCDLT")))):
        verdict = {True: "passed", False: "**failed**", None: "not judged"}[row["passed"]]
        interval = "" if row["interval"] is None else "[{:.3g}, {:.3g}]".format(*row["interval"])
        minutes = f"{row['training_minutes']:.0f} + {row['measuring_minutes']:.0f}"
        cells = [f"{row['id']}: {row['claim']}", row["paper"], row["measured"], interval, row["n"], verdict]
        cells += [row["note"], f"`{row['recipe']}`, {row['scale']}", minutes]
        print("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")


@app.command()
def measure(
    folder: Folder,
    analysis: Annotated[list[str], typer.Argument(help="Analyses (poprnn list analyses).")],
    members: Annotated[str, typer.Option(help="solved, all, or numbers: 0,3,5.")] = "solved",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of the analysis: n_trials=500.")] = None,
    plugin: Plugin = None,
    json_: Json = False,
) -> None:
    """Put questions to a trained population; the answers are kept in its folder."""
    _plugins(plugin)
    from poprnn import experiment

    loaded = experiment.load(folder)
    options: dict[str, Any] = {}
    for override in set_ or ():
        experiment.override(options, override)
    for name in ("kind", "members"):
        if name in options:
            raise ConfigurationError(f"--set {name}: not an option of an analysis (members are chosen with --members)")
    which = members if members in ("solved", "all") else _numbers(members)
    answers = []
    for name in analysis:
        result = experiment.ask(loaded, {"kind": name, "members": which, **options})
        result.save(folder / "results")
        answers.append(result)
    if json_:
        _print_json([a.to_dict() for a in answers])
        return
    for answer in answers:
        print(f"{answer.name} ({len(answer.left_out)} members left out)" if answer.left_out else answer.name)
        print(answer.data)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--members {text}: must be solved, all, or numbers like 0,3,5") from None


@app.command()
def report(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", help="Page to write.")] = None,
    plugin: Plugin = None,
) -> None:
    """Write one HTML page about a run, and its figures."""
    _plugins(plugin)
    from poprnn import experiment
    from poprnn.report.figures import save_figures
    from poprnn.report.page import report as write

    loaded, results = experiment.load(folder), experiment.results(folder)
    save_figures(loaded, folder / "figures", results)
    print(write(loaded, out or folder / "report.html", results=results))


@app.command("list")
def list_(
    family: Annotated[str | None, typer.Argument(help="tasks, cells, methods, curricula, …")] = None,
    json_: Json = False,
) -> None:
    """What there is."""
    if family is not None and family not in catalogue.FAMILIES:
        raise ConfigurationError(f"unknown family '{family}'{nearest(family, catalogue.FAMILIES)}")
    if family == "recipes":
        _list_recipes(json_)
        return
    families = {f: catalogue.names(f) for f in ([family] if family else catalogue.FAMILIES)}
    if json_:
        print(json.dumps(families[family] if family else families))
        return
    for name, entries in families.items():
        print(f"{name:>12}  {', '.join(entries)}")


def _list_recipes(as_json: bool) -> None:
    from poprnn.core.recipe_files import summaries

    found = summaries()
    if as_json:
        print(json.dumps(found))
        return
    for entry in found:
        minutes = ", ".join(f"{scale} {spec['minutes']:g} min" for scale, spec in entry["scales"].items())
        print(f"{entry['name']}  [{', '.join(entry['claims'])}]", entry["title"], entry["paper"], minutes, sep="\n    ")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Any name from poprnn list.")], json_: Json = False) -> None:
    """Where something is defined, what it does, its options and their defaults."""
    from poprnn.core.show import describe, render

    about = describe(name)
    if json_:
        _print_json(about)
    else:
        print(render(about))


@app.command()
def cite(folder: Folder, plugin: Plugin = None) -> None:
    """BibTeX for what a run used."""
    _plugins(plugin)
    from poprnn import experiment
    from poprnn.core.references import bibtex

    print(bibtex(experiment.references(folder)))
