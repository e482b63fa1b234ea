"""Checkpoints of a training run, through orbax: a run that was killed continues from the latest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from deploycheck.stages.model import PyTree
from deploycheck.stages.training import Epoch


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A run between two epochs; ``best`` are the weights of epoch ``kept``."""

    params: PyTree
    state: PyTree
    optimizer: PyTree
    best: tuple[PyTree, PyTree]
    epochs: tuple[Epoch, ...] = ()
    kept: int = 0
    finished: bool = False

    def arrays(self) -> dict[str, Any]:
        """Return everything that is an array, by name."""
        best_params, best_state = self.best
        return {
            "params": self.params,
            "state": self.state,
            "optimizer": self.optimizer,
            "best_params": best_params,
            "best_state": best_state,
        }


@contextmanager
def checkpoints(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """Keep the latest checkpoint of a run in ``folder``."""
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder.resolve(), options=options) as manager:
        yield manager


def save(manager: ocp.CheckpointManager, progress: Progress) -> None:
    """Write a checkpoint; when this returns, all of it is on disk."""
    epochs = [asdict(epoch) for epoch in progress.epochs]
    facts = {"epochs": epochs, "kept": progress.kept, "finished": progress.finished}
    manager.save(
        len(progress.epochs),
        args=ocp.args.Composite(arrays=ocp.args.StandardSave(progress.arrays()), facts=ocp.args.JsonSave(facts)),
    )


def restore(manager: ocp.CheckpointManager, fresh: Progress) -> Progress:
    """Return the run as it was last saved, or ``fresh`` where nothing was saved."""
    latest = manager.latest_step()
    if latest is None:
        return fresh
    target = ocp.args.StandardRestore(fresh.arrays())
    saved = manager.restore(latest, args=ocp.args.Composite(arrays=target, facts=ocp.args.JsonRestore()))
    arrays, facts = saved["arrays"], saved["facts"]
    return Progress(
        params=arrays["params"],
        state=arrays["state"],
        optimizer=arrays["optimizer"],
        best=(arrays["best_params"], arrays["best_state"]),
        epochs=tuple(Epoch(**epoch) for epoch in facts["epochs"]),
        kept=facts["kept"],
        finished=facts["finished"],
    )
