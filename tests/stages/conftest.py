"""The small classifier by its form, and data that it can learn."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from deploycheck.stages.examples import Examples
from deploycheck.stages.model import Model
from tests.stages.networks import BUILDERS, CLASSES, build

Stripes = tuple[np.ndarray, np.ndarray]


@pytest.fixture(params=list(BUILDERS))
def builder(request: pytest.FixtureRequest) -> Callable[[int], Model]:
    """Build the classifier in one of the forms, by seed."""
    return functools.partial(build, request.param)


@pytest.fixture(scope="session")
def stripes() -> Stripes:
    """300 noisy images; the class is the row of a bright stripe: learnable in a few epochs."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 300)
    images = random.normal(0, 0.3, (300, 6, 6, 1)).astype(np.float32)
    images[np.arange(300), labels * 2] += 2.0
    return images, labels


@pytest.fixture(scope="session")
def examples(stripes: Stripes) -> dict[str, Examples]:
    """The images as 200 training and 100 validation examples."""
    images, labels = stripes
    return {
        "train": Examples({"image": images[:200]}, labels[:200]),
        "validation": Examples({"image": images[200:]}, labels[200:]),
    }
