"""One small real artifact, and one server process for all the tests that don't harm it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from deploycheck.serving.process import ServerProcess
from tests.serving.models import write_artifact

OPTIONS = ["--max-batch=8", "--max-delay-ms=5", "--max-body-mb=1", "--body-timeout=0.5", "--header-timeout=0.5"]


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifact"))


@pytest.fixture(scope="session")
def server(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(artifact, OPTIONS, tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype(np.float32)


@pytest.fixture(autouse=True, scope="session")
def on_the_cpu() -> None:
    assert jax.default_backend() == "cpu", "these tests compare answers with numpy: run them with JAX_PLATFORMS=cpu"
