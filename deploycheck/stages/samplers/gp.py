"""``gp``: where a Gaussian process, fitted to the trials, expects the largest improvement.

optuna's own needs PyTorch, half a gigabyte; this one needs scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.stages.samplers import Sampler, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def make(space: Space, trials: int, seed: int) -> BaseSampler:
    """Return the sampler; its first trials are random."""
    from deploycheck.stages.samplers._gp_sampler import GaussianProcessSampler

    return GaussianProcessSampler(space, trials, seed)


GP = Sampler("gp", make)
