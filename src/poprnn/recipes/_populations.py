"""Trained populations, kept where any recipe that asks for the same ones finds them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from poprnn.core import storage
from poprnn.core.blueprint import build
from poprnn.core.errors import ConfigurationError
from poprnn.experiment import load
from poprnn.training.folder import RunFolder
from poprnn.training.run import Run
from poprnn.training.settings import Setup
from poprnn.training.trainer import Trainer


class Populations:
    """A folder of run folders, each named after its resolved experiment: the same experiment is trained once.

    >>> import poprnn as pr
    >>> from poprnn.training.settings import Setup
    >>> Populations("runs/populations").key(Setup(task=pr.tasks.NParity(), cell=pr.cells.LeakyRNN()))
    'n_parity-leaky_rnn-all_heads-197043a5e3d3'
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def key(self, setup: Setup) -> str:
        """What it is, for people, and a digest of every option that is not at its default."""
        digest = hashlib.sha256(json.dumps(setup.chosen(), sort_keys=True).encode()).hexdigest()[:12]
        return f"{setup.task.name()}-{setup.cell.name()}-{setup.training.curriculum.name()}-{digest}"

    def train_or_find(self, setup: Setup, watch: Any = None) -> Run:
        """The finished run, or the interrupted one carried on, or a new one.

        Raises ``KeyboardInterrupt`` if training was interrupted (it goes on from its checkpoint the next time).
        """
        folder = RunFolder(self.folder / self.key(setup))
        resume = folder.experiment.is_file()
        # options that came into being since, and stand at their defaults, do not make it another experiment
        if resume and build(Setup, storage.load_toml(folder.experiment)) != setup:
            raise ConfigurationError(f"{folder.path} does not hold the experiment it is named after; remove it")
        if resume and folder.is_finished():
            run = load(folder.path)
            if "training" not in run.outcome:
                return run
        trainer = Trainer(setup, out=folder.path, resume=resume)
        with trainer.stop_at_boundary():
            for update in trainer.updates():
                if watch:
                    watch(update)
        run = trainer.run()
        if "training" in run.outcome:
            raise KeyboardInterrupt
        return run
