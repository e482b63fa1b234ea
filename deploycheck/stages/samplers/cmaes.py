"""``cmaes``: a normal distribution that moves towards the good trials and learns how the parameters go together.

Hansen and Ostermeier, Completely Derandomized Self-Adaptation in Evolution Strategies, Evolutionary Computation 9(2),
2001.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.stages.samplers import RANGES, Sampler, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def make(space: Space, trials: int, seed: int) -> BaseSampler:
    """Return the sampler; its first trial is random."""
    from optuna.samplers import CmaEsSampler

    del space, trials
    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


CMAES = Sampler("cmaes", make, ranges=RANGES - {"choice"}, fewest_parameters=2)
