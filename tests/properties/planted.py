"""Models with planted faults, as pure functions of arrays, and the data that they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploycheck.properties import Domain, Property
from deploycheck.properties.domain import make_domain
from deploycheck.properties.search import Found, search

EXAMPLES = np.random.default_rng(0).uniform(-1, 1, (40, 4)).astype(np.float32)
WEIGHTS = np.array([[1, -1, 0], [0.5, 0, 1], [-1, 2, 0], [0, 0.25, -1]], np.float32)


@dataclass(frozen=True)
class Planted:
    """A model of one input ``x`` and one output ``y`` that a function gives."""

    function: Callable[[np.ndarray], np.ndarray]

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": self.function(inputs["x"])}


GOOD = Planted(lambda x: x @ WEIGHTS)


def domain(examples: np.ndarray = EXAMPLES, largest: int = 8) -> Domain:
    return make_domain({"x": examples}, [], largest)


def tried(
    property: Property, model: Planted, folder: Path, data: Domain | None = None, key: str = "key", **settings: Any
) -> Found:
    """Search for a violation of a property, with settings as a spec gives them."""
    given = property.settings.model_validate(settings)
    return search(property, model, data or domain(), given, saved=folder, key=key)
