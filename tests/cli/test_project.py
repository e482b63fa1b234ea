"""The command sees what pytest sees. As processes: pytest inside pytest would share modules with it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.cli.asking import run

EXTENDING = Path(__file__).parents[2] / "docs" / "extending.md"
NET = """
def net(key):
    return {}, lambda params, x: x
"""
DATA = """
def blobs():
    raise NotImplementedError
"""
SPEC = """\
deploycheck: 1
name: plain
model: {{build: "{package}models:net", input: {{x: {{shape: [4], dtype: float32}}}}}}
data: {{load: "{package}data:blobs", expect: {{missing_values: "== 0"}}}}
train:
  optimizer: {{adam: {{learning_rate: 1e-2}}}}
  epochs: 4
  batch_size: 64
  expect:
    accuracy: ">= 80 %"
    {more}
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))


def spec(package: str = "", more: str = "") -> str:
    return SPEC.format(package=package, more=more)


def test_modules_are_found_where_pytests_configuration_says(folder: Path) -> None:
    write(folder, {"specs/spec.yaml": spec("acme."), "src/acme/models.py": NET, "src/acme/data.py": DATA})
    lost = run("lint", "specs")
    assert lost.returncode == 1
    assert "acme" in lost.stdout
    write(folder, {"pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["src"]\n'})
    found = run("lint", "specs")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.endswith("0 errors, 0 warnings\n")


def test_the_projects_root_is_pytests_wherever_the_command_is_called(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"pytest.ini": "[pytest]\n", "specs/spec.yaml": spec(), "models.py": NET, "data.py": DATA})
    monkeypatch.chdir(folder / "specs")
    done = run("lint", ".")
    assert (done.returncode, done.stderr) == (0, "")
    assert "specs/spec.yaml" in done.stdout


@pytest.mark.parametrize("conftest", ["conftest.py", "specs/conftest.py"])
def test_the_metric_of_the_documentation_is_known_where_a_conftest_declares_it(folder: Path, conftest: str) -> None:
    examples = re.findall(r"^```python conftest.py\n(.*?)^```$", EXTENDING.read_text(), re.MULTILINE | re.DOTALL)
    (example,) = [text for text in examples if "@metric" in text and "recall_of_threes" in text]
    files = {"specs/spec.yaml": spec(more='recall_of_threes: ">= 90 %"'), "models.py": NET, "data.py": DATA}
    write(folder, {"pytest.ini": "[pytest]\n", **files})
    assert "recall_of_threes" in run("lint", "specs").stdout
    (folder / conftest).write_text(example)
    done = run("lint", "specs")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("0 errors, 0 warnings\n")


def test_options_of_the_project_that_concern_tests_do_not_disturb(folder: Path) -> None:
    files = {"specs/spec.yaml": spec(), "models.py": NET, "data.py": DATA}
    options = 'addopts = ["-ra", "--ff", "-v"]\nfilterwarnings = ["error"]\n'
    write(folder, {**files, "pyproject.toml": f"[tool.pytest.ini_options]\n{options}"})
    done = run("lint", "specs")
    assert (done.returncode, done.stderr) == (0, "")
    assert "passed" not in done.stdout
    assert "===" not in done.stdout
    assert not (folder / ".pytest_cache").exists()


def test_a_conftest_that_cannot_be_imported_is_pytests_own_error(folder: Path) -> None:
    write(folder, {"conftest.py": "import nowhere_to_be_found\n"})
    done = run("registry", "history")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere_to_be_found" in done.stderr


def test_an_option_that_pytest_does_not_know_is_pytests_own_error(folder: Path) -> None:
    write(folder, {"pytest.ini": "[pytest]\naddopts = --no-such-option\n"})
    done = run("registry", "history")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--no-such-option" in done.stderr


def test_what_the_command_refuses_is_said_without_a_traceback(folder: Path) -> None:
    write(folder, {"pytest.ini": "[pytest]\n", "conftest.py": ""})
    done = run("registry", "current", "letters", "staging")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
