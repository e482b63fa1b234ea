"""Every example of docs/extending.md, used as a user would: through pytest, and through the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from deploycheck.cli import main
from deploycheck.store.weights import read_weights
from tests.plugin.conftest import SPEC, Project

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(?:python|yaml) (conftest\.py|spec\.yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

COUNTER = """
import jax, jax.numpy as jnp


def build_counter(key):
    params = {"w": jax.random.normal(key, (64, 1)) / 80, "b": jnp.ones(1)}
    return params, lambda params, image: image.reshape(-1, 64) @ params["w"] + params["b"]
"""


def examples() -> dict[str, dict[str, str]]:
    """Return the files that each section shows, by its heading."""
    found = {title: dict(BLOCK.findall(body)) for title, body in SECTION.findall(PAGE.read_text())}
    return {title: files for title, files in found.items() if files}


EXAMPLES = examples()


def overlaid(under: Any, over: Any) -> Any:
    """Return ``over`` laid over ``under``; what ``expect`` and ``variants`` show is all that is there."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    whole = ("expect", "variants", "with")
    return {**under, **{key: value if key in whole else overlaid(under.get(key), value) for key, value in over.items()}}


def written(project: Project, title: str, change: Callable[[dict[str, Any]], None] = lambda spec: None) -> None:
    """Have a project with the example's file, and a spec that uses it."""
    files = EXAMPLES[title]
    project.pytester.makeconftest(files["conftest.py"])
    spec = overlaid(yaml.safe_load(SPEC), yaml.safe_load(files.get("spec.yaml", "{}")))
    change(spec)
    project.write(yaml.safe_dump(spec))


def command(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploycheck.cli", *arguments],
        cwd=project.pytester.path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(project.pytester.path)])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def check_lint(project: Project, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], None]]:
    """Return a function that fails unless ``deploycheck lint`` knows what the project adds."""

    def check() -> None:
        capsys.readouterr()
        assert main(["lint", "--cache", str(project.cache), "spec.yaml"]) == 0
        assert "0 errors" in capsys.readouterr().out

    yield check
    sys.modules.pop("conftest", None)  # the next test's project has another


def test_there_is_an_example_of_each_kind() -> None:
    kinds = (
        *("metric", "loader", "format of weights", "preprocessing step", "compression method that trains"),
        *("runtime", "task", "registry", "report", "sampler", "property"),
    )
    assert [title.removeprefix("A ") for title in EXAMPLES] == list(kinds)


def test_a_metric(project: Project, check_lint: Callable[[], None]) -> None:
    written(project, "A metric")
    project.run("spec.yaml::train::recall_of_threes")
    assert project.verdicts() == {"train::recall_of_threes": "pass"}
    check_lint()


def test_a_loader(project: Project, check_lint: Callable[[], None]) -> None:
    digits = load_digits()
    rows = [
        bytes([label]) + image.astype("uint8").tobytes()
        for label, image in zip(digits.target, digits.images, strict=True)
    ]
    (project.pytester.path / "digits.raw").write_bytes(b"".join(rows))
    written(project, "A loader")
    project.run("spec.yaml::data")
    assert project.verdicts() == {"data::completes": "pass", "data::missing_values": "pass"}
    check_lint()


def test_a_format_of_weights(project: Project, check_lint: Callable[[], None]) -> None:
    random = np.random.default_rng(0)
    for layer, shape in (("hidden", (64, 64)), ("out", (64, 10))):
        folder = project.pytester.path / "weights" / layer
        folder.mkdir(parents=True)
        np.save(folder / "kernel.npy", random.normal(size=shape).astype("float32"))
        np.save(folder / "bias.npy", np.zeros(shape[1], "float32"))

    def untrained(spec: dict[str, Any]) -> None:
        spec["train"] = {"expect": {"accuracy": ">= 90 %"}}

    written(project, "A format of weights", untrained)
    project.run("spec.yaml::train")
    assert project.verdicts() == {"train::completes": "pass", "train::accuracy": "fail"}
    check_lint()


def test_a_preprocessing_step(project: Project, check_lint: Callable[[], None]) -> None:
    written(project, "A preprocessing step")
    project.run("spec.yaml::train::accuracy")
    assert project.verdicts() == {"train::accuracy": "pass"}
    check_lint()


def test_a_compression_method_that_trains(project: Project, check_lint: Callable[[], None]) -> None:
    written(project, "A compression method that trains")
    project.run("spec.yaml::compress[sparse]")
    assert set(project.verdicts().values()) == {"pass"}
    variant = next(step for step in project.spec["steps"] if step["step"] == "variant[sparse]")
    weights = read_weights(project.cache.parent / variant["path"] / "weights.safetensors")
    kernel = weights["params/hidden/kernel"]
    assert (kernel == 0).mean() == pytest.approx(0.5, abs=0.01)
    check_lint()


def test_a_mistake_in_a_methods_options_is_placed(project: Project) -> None:
    written(project, "A compression method that trains")
    text = (project.pytester.path / "spec.yaml").read_text()
    project.write(text.replace("share: 0.5", "shar: 0.5"))
    result = project.run("spec.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["spec.yaml:*unknown key 'shar' in `compress.variants.sparse.sparse`", "*'share'?"])


def test_a_runtime(project: Project, check_lint: Callable[[], None]) -> None:
    written(project, "A runtime")
    assert project.run("spec.yaml::serve[trained]").ret == 0
    assert set(project.verdicts().values()) == {"pass"}
    check_lint()


def test_a_task(project: Project, check_lint: Callable[[], None]) -> None:
    project.pytester.makepyfile(counter=COUNTER)

    def counting(spec: dict[str, Any]) -> None:
        spec["model"] = {**spec["model"], "build": "counter:build_counter"}
        del spec["model"]["with"], spec["compress"], spec["promote"]

    written(project, "A task", counting)
    project.run("spec.yaml::train")
    assert set(project.verdicts().values()) == {"pass"}
    check_lint()


def test_a_registry(project: Project, check_lint: Callable[[], None]) -> None:
    written(project, "A registry")
    assert project.run("--deploycheck-promote", "spec.yaml").ret == 0
    assert "digits@staging sha256:" in (project.pytester.path / "models.log").read_text()
    shown = command(project, "registry", "--registry", "announcing:models.db", "history")
    assert shown.returncode == 0, shown.stderr
    assert "digits@staging" in shown.stdout
    again = command(project, "promote", "evidence.json", "--cache", str(project.cache))
    assert again.returncode == 0, again.stdout + again.stderr
    check_lint()


def test_a_report(project: Project, check_lint: Callable[[], None]) -> None:
    written(project, "A report")
    project.run("--deploycheck-evidence=checks.csv", "spec.yaml::data")
    text = (project.pytester.path / "checks.csv").read_text()
    assert "spec.yaml::data::completes,pass,,\n" in text
    check_lint()


def test_a_sampler(project: Project, check_lint: Callable[[], None]) -> None:
    written(project, "A sampler")
    project.run("spec.yaml::optimize", "spec.yaml::train::completes")
    assert set(project.verdicts().values()) == {"pass"}
    (found,) = [check["reason"] for check in project.spec["checks"] if check["stage"] == "optimize"]
    assert "train.optimizer.adam.learning_rate = 0.00" in found
    assert "on the Pareto front of 3 trials" in found
    check_lint()


def test_a_property(project: Project, check_lint: Callable[[], None]) -> None:
    written(project, "A property")
    project.run("spec.yaml::compress[int8]::spread")
    assert project.verdicts() == {"compress[int8]::spread": "pass"}
    check_lint()
