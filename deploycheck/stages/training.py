"""What a training left to look at: every seed's epochs, and which seed is deployed. Imports no JAX."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

REPORT = "training.json"


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: mean losses (nats, or squared errors) and the validation accuracy (0..1) after it.

    Where the model answers with numbers there is no accuracy.
    """

    loss: float
    validation_loss: float
    validation_accuracy: float | None


@dataclass(frozen=True)
class SeedReport:
    """One seed's run. ``kept`` is the index of the epoch whose weights it ended with."""

    seed: int
    epochs: tuple[Epoch, ...]
    kept: int

    @property
    def validation(self) -> Epoch:
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
        """How far the seeds lie apart on validation, in words."""
        if len(self.seeds) == 1:
            return f"seed {self.deployed_seed}"
        reached = [report.validation for report in self.seeds]
        accuracies = [epoch.validation_accuracy for epoch in reached if epoch.validation_accuracy is not None]
        losses = [epoch.validation_loss for epoch in reached]
        lowest, highest = (
            (f"{min(accuracies):.1%}", f"{max(accuracies):.1%}")
            if accuracies
            else (f"a loss of {min(losses):.4g}", f"{max(losses):.4g}")
        )
        return f"seed {self.deployed_seed} of {len(reached)}, which reach {lowest} to {highest} on validation"


def write(report: TrainingReport, folder: Path) -> None:
    """Write the report into ``folder``."""
    (folder / REPORT).write_text(json.dumps(asdict(report), indent=1, sort_keys=True) + "\n")


def read(folder: Path) -> TrainingReport:
    """Read what ``write`` wrote."""
    loaded = json.loads((folder / REPORT).read_text())
    seeds = tuple(
        SeedReport(entry["seed"], tuple(Epoch(**epoch) for epoch in entry["epochs"]), entry["kept"])
        for entry in loaded["seeds"]
    )
    return TrainingReport(seeds, loaded["deployed_seed"])
