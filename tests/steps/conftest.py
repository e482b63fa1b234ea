"""A chain of steps, each done once for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest

from deploycheck.steps.model import ModelSettings
from deploycheck.store import Artifact
from tests.steps.making import USES, Steps, data_settings, training_settings


@pytest.fixture(scope="session", autouse=True)
def _shared_compilations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Share what JAX compiles among the steps, as a run does (``runner/execute.py``)."""
    shared = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in shared}
    for name, value in shared.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return Steps(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def data(chain: Steps) -> Artifact:
    return chain.make("data", data_settings())


@pytest.fixture(scope="session")
def trained(chain: Steps, data: Artifact) -> Artifact:
    return chain.make("training", training_settings(), data=data)


@pytest.fixture(scope="session")
def model(chain: Steps, trained: Artifact) -> Artifact:
    return chain.make("model", ModelSettings(model="clusters", runtime="xla", uses=USES), weights=trained)
