"""``tpe``: where the good trials were denser than the others (tree-structured Parzen estimator).

Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.stages.samplers import Sampler, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

FIRST_SHARE, MOST_FIRST = 4, 10
"""One of so many trials is drawn at random, before there are enough to learn from; at most ten, as is usual."""
MOST_OBJECTIVES = 4


def make(space: Space, trials: int, seed: int) -> BaseSampler:
    """Return the sampler; its first trials are random."""
    from optuna.samplers import TPESampler

    del space
    return TPESampler(seed=seed, n_startup_trials=min(MOST_FIRST, max(1, trials // FIRST_SHARE)))


TPE = Sampler("tpe", make, most_objectives=MOST_OBJECTIVES)
