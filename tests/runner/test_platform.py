"""JAX is asked for its device once, and again only where something that decides the answer has changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.runner import platform as module
from deploycheck.runner.platform import FILE, find_platform

H100 = {"backend": "gpu", "device": "NVIDIA H100"}


class Jax:
    """Takes the place of the process that asks JAX; it counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = subprocess.CompletedProcess([], 0, f"a warning\n{json.dumps(H100)}\n", "")

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.asked += 1
        return self.answer


@pytest.fixture
def jax(monkeypatch: pytest.MonkeyPatch) -> Jax:
    found = Jax()
    monkeypatch.setattr(module.subprocess, "run", found.run)
    return found


def test_jax_is_asked_once(jax: Jax, tmp_path: Path) -> None:
    first = find_platform(tmp_path)
    assert first.items() >= H100.items()
    assert find_platform(tmp_path) == first
    assert jax.asked == 1


@pytest.mark.parametrize("variable", ["JAX_PLATFORMS", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"])
def test_a_variable_that_decides_the_device_has_it_asked_again(
    variable: str, jax: Jax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    find_platform(tmp_path)
    monkeypatch.setenv(variable, "x")
    find_platform(tmp_path)
    assert jax.asked == 2
    monkeypatch.delenv(variable)
    find_platform(tmp_path)
    assert jax.asked == 2, "the first answer is kept beside the second"


def test_another_jax_has_it_asked_again(jax: Jax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_platform(tmp_path)
    monkeypatch.setattr(module, "versions", lambda *names: dict.fromkeys(names, "0.0.1"))
    find_platform(tmp_path)
    assert jax.asked == 2


def test_any_other_variable_changes_nothing(jax: Jax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_platform(tmp_path)
    monkeypatch.setenv("EDITOR", "ed")
    find_platform(tmp_path)
    assert jax.asked == 1


def test_the_variables_that_decide_a_result_are_part_of_the_platform(
    jax: Jax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    found = find_platform(tmp_path)
    assert found["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"
    assert "CUDA_VISIBLE_DEVICES" not in found


@pytest.mark.parametrize("content", ["", "{", "\x00"])
def test_a_damaged_memory_of_answers_has_it_asked_again(content: str, jax: Jax, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    assert find_platform(tmp_path)["device"] == "NVIDIA H100"
    assert find_platform(tmp_path)["device"] == "NVIDIA H100"
    assert jax.asked == 1


def test_where_jax_does_not_start_its_last_words_are_shown(jax: Jax, tmp_path: Path) -> None:
    jax.answer = subprocess.CompletedProcess([], 1, "", "Traceback\nModuleNotFoundError: No module named 'jax'\n")
    with pytest.raises(DeploycheckError, match="JAX doesn't start: ModuleNotFoundError: No module named 'jax'"):
        find_platform(tmp_path)
    jax.answer = subprocess.CompletedProcess([], -11, "", "")
    with pytest.raises(DeploycheckError, match="JAX doesn't start: exit code -11"):
        find_platform(tmp_path)
    assert not (tmp_path / FILE).exists()


def test_where_jax_does_not_answer_that_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0)
    with pytest.raises(DeploycheckError, match="JAX doesn't start within 0 s"):
        find_platform(tmp_path)


def test_jax_itself_answers(tmp_path: Path) -> None:
    found = find_platform(tmp_path)
    assert found["backend"]
    assert found["device"]
