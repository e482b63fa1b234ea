"""A project as a user has one: a spec on real digits, small enough to be gated in seconds.

The cache is shared by all tests and their processes, as a user's runs share one: what is trained once is found again.
Registries are not: each project has its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Imported here, before any run: what a run in this process imports first, pytester takes away after it, and the
# next run has two of it.
import flax.nnx  # noqa: F401
import jax  # noqa: F401
import optax  # noqa: F401
import orbax.checkpoint  # noqa: F401
import pytest
import qwix  # noqa: F401
import sklearn.datasets  # noqa: F401

import deploycheck
from deploycheck.plugin import gate
from deploycheck.registry.sqlite import SqliteRegistry
from deploycheck.runner.platform import find_platform
from deploycheck.serving import machine_state
from tests.plugin.forking import FORKING

for module in pkgutil.walk_packages(deploycheck.__path__, "deploycheck."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

NET = """
import jax, jax.numpy as jnp
from flax import linen, nnx


class Nnx(nnx.Module):
    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(64, features, rngs=rngs)
        self.out = nnx.Linear(features, 10, rngs=rngs)

    def __call__(self, image):
        return self.out(nnx.relu(self.hidden(image.reshape(image.shape[0], -1))))


class Linen(linen.Module):
    features: int

    @linen.compact
    def __call__(self, image):
        hidden = linen.relu(linen.Dense(self.features)(image.reshape(image.shape[0], -1)))
        return linen.Dense(10)(hidden)


def build_nnx(features, rngs):
    return Nnx(features, rngs)


def build_linen(features):
    return Linen(features)


def build_function(features, key):
    first, second = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(first, (64, features)) / 8,
        "out": jax.random.normal(second, (features, 10)) / 8,
        "bias": jnp.zeros(10),
    }

    def apply(params, image):
        hidden = jax.nn.relu(image.reshape(image.shape[0], -1) @ params["hidden"])
        return hidden @ params["out"] + params["bias"]

    return params, apply
"""

DATA = """
import numpy as np
from sklearn.datasets import load_digits


def digits():
    loaded = load_digits()
    return loaded.images.astype(np.float32), loaded.target.astype(np.int64)


def shuffled():
    images, labels = digits()
    return images, np.random.default_rng(0).permutation(labels)
"""

SPEC = """\
deploycheck: 1
name: digits
model:
  build: net:build_nnx
  with: {features: 64}
  input: {image: {shape: [8, 8], dtype: float32}}
data:
  load: digits_data:digits
  split: {train: 0.5, validation: 0.1, test: 0.4}
  preprocess: [{scale: {by: 0.0625}}]
  expect:
    missing_values: "== 0"
train:
  optimizer: {adam: {learning_rate: 5e-3}}
  epochs: 12
  batch_size: 64
  expect:
    accuracy: ">= 90 %"
    learned: ">= 80 % over majority"
compress:
  variants:
    int8: {quantize: {weights: int8, activations: int8}}
  expect:
    accuracy_drop: "<= 2 pp"
    size_ratio: "<= 0.6"
promote:
  registry: sqlite:registry.db
  model: digits
  to: staging
"""

SERVE = """\
serve:
  variants: [int8]
  batching: {max_size: 2}
  load: {rate: 100 /s, requests: 10000, min_duration: 0 s}
  expect:
    latency.p90: "<= 5 s"
    errors: "== 0"
    parity: "<= 1e-3"
    recompilations: "== 0"
"""

COLLECTOR = SimpleNamespace(enable=gc.enable, disable=gc.disable, get_freeze_count=int, freeze=bool)
"""The garbage collector for runs in this process: what they would freeze, ``tests/conftest.py`` has for all of them."""


@dataclass(frozen=True)
class Project:
    """A user's project, in the folder pytester gives."""

    pytester: pytest.Pytester
    cache: Path

    def write(self, spec: str = SPEC, name: str = "spec.yaml") -> Path:
        path = self.pytester.path / name
        path.write_text(spec)
        return path

    def run(self, *arguments: str | Path, cache: Path | None = None) -> pytest.RunResult:
        options = [f"--deploycheck-cache={cache or self.cache}", "--deploycheck-evidence=evidence.json"]
        return self.pytester.runpytest_inprocess(
            "--deploycheck", *options, "-p", "no:cacheprovider", *map(str, arguments)
        )

    @property
    def evidence(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.pytester.path / "evidence.json").read_text())
        return loaded

    @property
    def spec(self) -> dict[str, Any]:
        """The evidence of the one spec."""
        (spec,) = self.evidence["specs"]
        return dict(spec)

    def verdicts(self) -> dict[str, str]:
        return {check["id"].partition("::")[2]: check["verdict"] for check in self.spec["checks"]}

    @property
    def promoted(self) -> bool:
        return bool(SqliteRegistry(self.pytester.path / "registry.db").history())


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"  # one for all processes
    find_platform(cache)
    return cache


@pytest.fixture
def empty_cache(shared_cache: Path, tmp_path: Path) -> Path:
    """Return a cache that has no artifacts, and only knows the device, which takes seconds to find out."""
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(shared_cache / "devices.json", cache)
    return cache


def copy_of(cache: Path, folder: Path) -> Path:
    """Copy a cache's artifacts, while other tests may be at work in it."""
    copied = folder / "cache"
    unfinished = shutil.ignore_patterns("partial", "work", "locks")
    shutil.copytree(cache / "store", copied / "store", ignore=unfinished)
    shutil.copy(cache / "devices.json", copied)
    return copied


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the processes that gates start share what they compile: the same small models, again and again."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp().parent / "compiled"))
        patched.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patched.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        yield


@pytest.fixture
def project(pytester: pytest.Pytester, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    pytester.makepyfile(net=NET, digits_data=DATA)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=os.pathsep)
    monkeypatch.setattr("deploycheck.runner.process.subprocess", FORKING)
    monkeypatch.setattr(gate, "gc", COLLECTOR)
    monkeypatch.setattr(machine_state, "disturbance", lambda *_: "")  # other tests are at work on the machine
    pytester.makeini("[pytest]\n")
    pytester.syspathinsert()
    return Project(pytester, shared_cache)
