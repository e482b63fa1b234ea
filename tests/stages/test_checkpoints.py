from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.stages.checkpoints import Progress, checkpoints, restore, save
from deploycheck.stages.training import Epoch


def progress(value: float, *epochs: Epoch) -> Progress:
    params = {"kernel": jnp.full((2, 3), value), "layers": [jnp.full(2, value)]}
    return Progress(
        params=params,
        state={"mean": jnp.full(3, value)},
        optimizer={"count": jnp.array(len(epochs))},
        best=(jax.tree.map(lambda leaf: leaf + 1, params), {"mean": jnp.full(3, value + 1)}),
        epochs=epochs,
    )


def assert_same(one: Progress, other: Progress) -> None:
    assert (one.epochs, one.kept, one.finished) == (other.epochs, other.kept, other.finished)
    assert jax.tree.structure(one.arrays()) == jax.tree.structure(other.arrays())
    jax.tree.map(np.testing.assert_array_equal, one.arrays(), other.arrays())


def test_a_run_without_a_checkpoint_is_fresh(tmp_path: Path) -> None:
    fresh = progress(0.0)
    with checkpoints(tmp_path / "run") as manager:
        assert restore(manager, fresh) is fresh


def test_the_last_checkpoint_is_restored_by_another_manager(tmp_path: Path) -> None:
    first, second = Epoch(1.5, 1.25, {"accuracy": 0.5}), Epoch(1.0, 1.75, {"accuracy": 0.25})
    last = replace(progress(2.0, first, second), kept=0, finished=True)
    with checkpoints(tmp_path) as manager:
        save(manager, progress(1.0, first))
        save(manager, last)
    with checkpoints(tmp_path) as manager:
        assert_same(restore(manager, progress(0.0)), last)


def test_only_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    epoch = Epoch(1.0, 1.0, {})
    with checkpoints(tmp_path) as manager:
        for count in (1, 2, 3):
            save(manager, progress(0.0, *[epoch] * count))
        assert list(manager.all_steps()) == [3]
