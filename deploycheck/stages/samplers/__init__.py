"""Samplers, one file each: how a search chooses what its next trial tries. The arithmetic is optuna's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploycheck.language import SamplerWord

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

RANGES = frozenset({"log", "uniform", "integers", "choice"})

Space = Mapping[str, "BaseDistribution"]
"""What is varied, by its path; a choice is varied by the index of its value."""


@dataclass(frozen=True)
class Sampler:
    """A sampler that a spec can name.

    ``make(space, trials, seed)`` returns optuna's sampler for a search of so many trials. It must draw the same where
    it is given the same seed and sees the same results: a search that was killed draws again what it had drawn. The
    other fields are described at ``language.SamplerWord``.
    """

    name: str
    make: Callable[[Space, int, int], BaseSampler]
    ranges: frozenset[str] = RANGES
    most_objectives: int = 1
    fewest_parameters: int = 1
    each_once: bool = False

    @property
    def word(self) -> SamplerWord:
        """What the language knows of it."""
        return SamplerWord(
            name=self.name,
            ranges=self.ranges,
            most_objectives=self.most_objectives,
            fewest_parameters=self.fewest_parameters,
            each_once=self.each_once,
        )
