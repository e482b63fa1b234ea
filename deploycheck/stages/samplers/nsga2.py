"""``nsga2``: generations of trials, each bred from the best of those before it; for several objectives.

Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE Transactions on Evolutionary Computation
6(2), 2002.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.stages.samplers import Sampler, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

GENERATIONS = 4
SMALLEST, LARGEST = 4, 50
"""The trials of one generation: the usual 50, or fewer so that there are four generations."""
MOST_OBJECTIVES = 4


def make(space: Space, trials: int, seed: int) -> BaseSampler:
    """Return the sampler; its first generation is random."""
    from optuna.samplers import NSGAIISampler

    del space
    return NSGAIISampler(seed=seed, population_size=min(LARGEST, max(SMALLEST, trials // GENERATIONS)))


NSGA2 = Sampler("nsga2", make, most_objectives=MOST_OBJECTIVES)
