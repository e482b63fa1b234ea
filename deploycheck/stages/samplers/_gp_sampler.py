"""The arithmetic of ``gp``: a Gaussian process over the unit cube, and the point of largest expected improvement.

Jones, Schonlau and Welch, Efficient Global Optimization of Expensive Black-Box Functions, Journal of Global
Optimization 13, 1998. The kernel is that of Snoek, Larochelle and Adams, Practical Bayesian Optimization of Machine
Learning Algorithms, NeurIPS 2012.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from threadpoolctl import threadpool_limits

from deploycheck.stages.samplers import Space

FIRST_SHARE, FEWEST_FIRST, MOST_FIRST = 4, 2, 10
"""One of so many trials is drawn at random, before there are enough to learn from; at least two, at most ten."""
ANYWHERE, NEARBY = 2000, 500
"""How many candidates are looked at: anywhere in the space, and near the best trial."""
STEP = 0.1
"""How far candidates are from the best trial: a standard deviation, as a share of a range."""
FLOOR = 1e-9
"""A standard deviation that counts as none."""


class GaussianProcessSampler(BaseSampler):
    """Draws all parameters of a trial together."""

    def __init__(self, space: Space, trials: int, seed: int) -> None:
        self._space = dict(space)
        self._first = min(MOST_FIRST, max(FEWEST_FIRST, trials // FIRST_SHARE))
        self._random = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space."""
        del study, trial
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the most promising of many points, or a random one where there are few trials."""
        del trial
        candidates = self._random.random((ANYWHERE, len(search_space)))
        points, losses = _observed(study, search_space)
        if len(losses) < self._first:
            return _decode(candidates[0], search_space)
        best = points[np.argmin(losses)]
        near = np.clip(best + STEP * self._random.standard_normal((NEARBY, len(best))), 0, 1)
        candidates = np.concatenate([candidates, near])
        seen, offered = _features(points, search_space), _features(candidates, search_space)
        gain = expected_improvement(seen, losses, offered, int(self._random.integers(2**31)))
        return _decode(candidates[np.argmax(gain)], search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refuse what isn't a part of the space."""
        raise NotImplementedError(f"{param_name} isn't a part of the space")


def expected_improvement(points: np.ndarray, losses: np.ndarray, candidates: np.ndarray, seed: int) -> np.ndarray:
    """Return by how much the loss at each candidate is expected to be below the lowest one.

    ``points``, ``[n, d]``, have the ``losses``, ``[n]``; candidates are ``[m, d]``.
    """
    kernel = Matern(np.full(points.shape[1], 0.5), (0.05, 20.0), nu=2.5) + WhiteKernel(1e-2, (1e-6, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    with threadpool_limits(1), warnings.catch_warnings():  # several threads are slower on matrices this small
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at the end of its bounds: no parameter matters
        process.fit(points, losses)
    mean, deviation = process.predict(candidates, return_std=True)
    deviation = np.maximum(deviation, FLOOR)
    better = process.predict(points).min() - mean  # of the fitted losses: a lucky training is no lower limit
    gain: np.ndarray = better * norm.cdf(better / deviation) + deviation * norm.pdf(better / deviation)
    return gain


def _observed(study: Study, space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Return the trials as points of the unit cube, ``[n, d]``, and what each lost; one without values lost most."""
    sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    values = {trial.number: sign * trial.values[0] for trial in ended if trial.state == TrialState.COMPLETE}
    if not values:
        return np.zeros((0, len(space))), np.zeros(0)
    losses = [values.get(trial.number, max(values.values())) for trial in ended]
    points = [[_position(trial.params[path], each) for path, each in space.items()] for trial in ended]
    return np.array(points), np.array(losses)


def _position(value: Any, distribution: Any) -> float:
    """Return where a value is in its range, 0..1; a choice is in the middle of its part."""
    if isinstance(distribution, CategoricalDistribution):
        return (float(value) + 0.5) / len(distribution.choices)
    low, high = distribution.low, distribution.high
    if distribution.log:
        return float(np.log(value / low) / np.log(high / low))
    return float((value - low) / (high - low))


def _decode(point: Sequence[float] | np.ndarray, space: Space) -> dict[str, Any]:
    """Return the parameters at a point of the unit cube."""
    return {path: _value(float(at), each) for at, (path, each) in zip(point, space.items(), strict=True)}


def _value(position: float, distribution: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[min(int(position * len(distribution.choices)), len(distribution.choices) - 1)]
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** position if distribution.log else low + position * (high - low)
    return round(value) if isinstance(low, int) else min(max(value, low), high)


def _features(points: np.ndarray, space: Space) -> np.ndarray:
    """Return points as the process sees them: integers at their own place, a choice as one axis for each value."""
    columns = []
    for at, each in zip(points.T, space.values(), strict=True):
        distribution: Any = each
        if isinstance(distribution, CategoricalDistribution):
            count = len(distribution.choices)
            chosen = np.minimum((at * count).astype(int), count - 1)
            columns.append(np.eye(count)[chosen] / np.sqrt(2))
        elif isinstance(distribution.low, int):
            steps = distribution.high - distribution.low
            columns.append((np.round(at * steps) / steps)[:, None])
        else:
            columns.append(at[:, None])
    return np.concatenate(columns, axis=1)
