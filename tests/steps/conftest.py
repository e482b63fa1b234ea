"""A chain of steps, each done once for all tests."""

from __future__ import annotations

import pytest

from deploycheck.steps.model import ModelSettings
from deploycheck.store import Artifact
from tests.steps.making import USES, Steps, data_settings, training_settings


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
