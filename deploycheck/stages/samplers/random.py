"""``random``: every trial is drawn without regard to the others.

Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13, 2012.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.stages.samplers import Sampler, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

MOST_OBJECTIVES = 4


def make(space: Space, trials: int, seed: int) -> BaseSampler:
    """Return the sampler."""
    from optuna.samplers import RandomSampler

    del space, trials
    return RandomSampler(seed=seed)


RANDOM = Sampler("random", make, most_objectives=MOST_OBJECTIVES)
