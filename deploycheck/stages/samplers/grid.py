"""``grid``: every combination of the values, each once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from deploycheck.stages.samplers import Sampler, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

MOST_OBJECTIVES = 4


def make(space: Space, trials: int, seed: int) -> BaseSampler:
    """Return the sampler, which goes through the combinations in the order of the spec; nothing in it is random.

    optuna's own ends a study when it has tried all, which only a study that optuna runs can be.
    """
    from optuna.samplers import BaseSampler

    del trials, seed

    class GridSampler(BaseSampler):
        """Draws the combination that has the trial's number."""

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
            del study, trial
            return dict(space)

        def sample_relative(self, study: Any, trial: Any, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
            del study
            points = itertools.product(*map(_values, search_space.values()))
            return dict(zip(search_space, next(itertools.islice(points, trial.number, None)), strict=True))

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            raise NotImplementedError(f"{param_name} isn't a part of the space")

    return GridSampler()


def _values(distribution: Any) -> tuple[Any, ...]:
    if hasattr(distribution, "choices"):
        return tuple(distribution.choices)
    return tuple(range(distribution.low, distribution.high + 1))


GRID = Sampler("grid", make, ranges=frozenset({"integers", "choice"}), most_objectives=MOST_OBJECTIVES, each_once=True)
