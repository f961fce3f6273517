"""CONTRIBUTING.md is true: its skeletons, dropped in as one file each, are found and run; so are the snippets."""

import doctest
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import usually

ROOT = Path(__file__).parent.parent

RUN_THEM = """
import json
import poprnn as pr
from poprnn.core import catalogue
from poprnn.recipes import contract

tiny = dict(epochs=1, steps_per_epoch=3, evaluation_batches=1, batch=4)
task = pr.tasks.NParity(n_max=4)  # what is said by delayed copy is learnt in the recipe
run = pr.fit(task, {"kind": "echo", "n_units": 6}, method="noisy_start", curriculum="backwards", members=2, **tiny)
norm = pr.measure("weight_norm", run, members="all", order=1)
outcome = contract.reproduce(catalogue.find("recipes", "longer_is_harder"), "smoke", "out")
listed = "longer_is_harder" in catalogue.names("recipes") and "delayed_copy" in catalogue.names("tasks")
print(json.dumps({"outcome": run.outcome, "norm": norm.to_xarray().shape, "claim": outcome["claims"][0]["id"],
                  "listed": listed}))
"""


def skeletons():
    """Path and text of every file in CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.S | re.M):
        paths = re.findall(r"`([\w/.]+\.(?:py|toml))`", title)
        blocks = re.findall(r"```(python|toml)\n(.*?)```", body, re.S)
        for path, (_, block) in zip(paths, blocks, strict=True):
            yield (path if "/" in path else str(Path(paths[0]).parent / path)), block


def test_each_new_thing_is_one_new_file(tmp_path, quick_environment):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    added = list(skeletons())
    assert len(added) == 7  # six things, the recipe being two files
    for path, block in added:
        assert not (tmp_path / path).exists()
        (tmp_path / path).write_text(block)
    environment = quick_environment | {"PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(
        [sys.executable, "-c", RUN_THEM],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout.strip().splitlines()[-1]
    assert '"claim": "X1"' in said and '"norm": [2]' in said and '"listed": true' in said


def test_skeletons_examples_run(tmp_path):
    """The doctests in the skeletons."""
    for path, block in skeletons():
        if path.endswith(".py") and ">>>" in block and "recipes" not in path:
            namespace: dict = {"__name__": "skeleton"}
            code = compile(block, path, "exec")
            if "register" not in block:
                exec(code, namespace)  # the file's own text, from this repository
            tests = doctest.DocTestFinder().find(
                next(v for v in namespace.values() if getattr(v, "__module__", "") == "skeleton"), globs=namespace
            )
            for test in tests:
                assert doctest.DocTestRunner().run(test).failed == 0, path


# the analyses that questions.md asks have examples of their own, which always run
PAGES = ["README.md", "docs/own_parts.md", "docs/questions.md"]


@pytest.mark.parametrize("page", usually(PAGES, "README.md", "docs/own_parts.md"))
def test_readme_snippets_run(page, tmp_path, monkeypatch):
    """Every python block of the README and the two pages with code, one after another in one namespace each."""
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "snippet"}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S):
        assert len(block.splitlines()) <= 16, f"{page}: a snippet is longer than it should be"
        exec(compile(block, page, "exec"), namespace)
