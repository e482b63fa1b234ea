"""The report of a training: every seed's epochs, and which seed is deployed. Doesn't import JAX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

REPORT = "training.json"


@dataclass(frozen=True)
class Epoch:
    """One epoch: the mean loss on the training split, and loss and scores on the validation split after it.

    ``scores`` are the task's (``accuracy``, 0..1), by name; higher is better. Some tasks have none.
    """

    loss: float
    validation_loss: float
    scores: Mapping[str, float]

    @property
    def merit(self) -> tuple[float, ...]:
        """The order of epochs of one task: by their scores, in the task's order, then by the lower loss."""
        return (*self.scores.values(), -self.validation_loss)

    @property
    def values(self) -> Mapping[str, float]:
        """All that was measured, by its name in words."""
        scores = {f"validation {name}": value for name, value in self.scores.items()}
        return {"training loss": self.loss, "validation loss": self.validation_loss, **scores}

    @property
    def validation(self) -> str:
        """The scores on the validation split, or the loss, in words."""
        if not self.scores:
            return f"a loss of {self.validation_loss:.4g}"
        return ", ".join(f"{name} {value:.1%}" for name, value in self.scores.items())


@dataclass(frozen=True)
class SeedReport:
    """One seed's run. ``kept`` is the index of the epoch whose weights it ended with."""

    seed: int
    epochs: tuple[Epoch, ...]
    kept: int

    @property
    def kept_epoch(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.epochs[self.kept]


@dataclass(frozen=True)
class TrainingReport:
    """All runs of a training, and the seed of the one that is deployed."""

    seeds: tuple[SeedReport, ...]
    deployed_seed: int

    @property
    def deployed(self) -> SeedReport:
        """The run that is deployed."""
        return next(report for report in self.seeds if report.seed == self.deployed_seed)

    @property
    def spread(self) -> str:
        """The worst and the best of the seeds on validation, in words."""
        if len(self.seeds) == 1:
            return f"seed {self.deployed_seed}"
        reached = sorted((report.kept_epoch for report in self.seeds), key=lambda epoch: epoch.merit)
        worst, best = reached[0].validation, reached[-1].validation
        return f"seed {self.deployed_seed} of {len(reached)}, from {worst} to {best} on validation"


def write(report: TrainingReport, folder: Path) -> None:
    """Write the report into ``folder``."""
    (folder / REPORT).write_text(json.dumps(asdict(report), indent=1) + "\n")


def read(folder: Path) -> TrainingReport:
    """Read what ``write`` wrote."""
    loaded = json.loads((folder / REPORT).read_text())
    seeds = tuple(
        SeedReport(entry["seed"], tuple(Epoch(**epoch) for epoch in entry["epochs"]), entry["kept"])
        for entry in loaded["seeds"]
    )
    return TrainingReport(seeds, loaded["deployed_seed"])
