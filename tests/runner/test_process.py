"""A real worker: what it does, what its steps can't leave behind, and how it ends."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.runner.process import CodeFailed, Worker, WorkerSpent
from deploycheck.runner.tasks import AlreadyFailed, Task
from tests.runner.doing import Steps, make_steps

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return make_steps(tmp_path_factory.mktemp("project"))


def start(steps: Steps) -> Worker:
    return Worker(steps.root, steps.cache, steps.cache / "worker.log")


@pytest.fixture(scope="module")
def worker(steps: Steps) -> Iterator[Worker]:
    """One worker for all tests that don't end it."""
    worker = start(steps)
    yield worker
    worker.close()


@pytest.fixture
def own_worker(steps: Steps) -> Iterator[Worker]:
    """A worker that a test may end."""
    worker = start(steps)
    yield worker
    worker.close()


def do(worker: Worker, task: Task) -> bool:
    return worker.do(task, lambda _: None)


def test_a_step_is_done_once_and_then_found(worker: Worker, steps: Steps) -> None:
    task, said = steps.task("load"), list[str]()
    assert worker.do(task, said.append) is False
    assert said == ["data: loading"]
    artifact = steps.found(task)
    assert artifact is not None
    assert artifact.meta["examples"] == {"train": 16, "validation": 2, "test": 2}
    assert set(artifact.meta["used"]["modules"]) == {"users_code"}
    assert do(worker, task) is True


def test_an_error_of_the_users_code_is_shown_from_where_that_begins(worker: Worker, steps: Steps) -> None:
    with pytest.raises(CodeFailed) as raised:
        do(worker, steps.task("fail"))
    assert raised.value.what == "ValueError: the data are gone"
    lines = raised.value.trace.splitlines()
    files = [line.strip() for line in lines if line.strip().startswith("File ")]
    assert [line.rpartition(", in ")[2] for line in files] == ["fail", "inner"]
    assert all(str(steps.root / "users_code.py") in line for line in files)
    assert lines[-2:] == ["ValueError: the data are gone", "more lines"]


def test_an_error_of_ours_carries_its_hint_and_no_traceback(worker: Worker, steps: Steps) -> None:
    with pytest.raises(CodeFailed) as raised:
        do(worker, steps.task("no_such_module:load"))
    assert raised.value.what.startswith("can't import no_such_module:load: ModuleNotFoundError")
    assert raised.value.hint == "python -c 'import no_such_module' shows the whole traceback"
    assert raised.value.trace == ""


def test_a_step_that_failed_is_not_tried_again_in_its_run(worker: Worker, steps: Steps) -> None:
    task = steps.task("fail", message="once")
    with pytest.raises(CodeFailed, match="ValueError: once"):
        do(worker, task)
    with pytest.raises(AlreadyFailed, match=r"^data$"):
        do(worker, task)
    assert steps.found(task) is None


def test_what_the_users_code_prints_is_printed_here(worker: Worker, steps: Steps, capsys: Captured) -> None:
    do(worker, steps.task("say", line="hello"))
    out = capsys.readouterr().out.splitlines()
    assert out == ["hello", "hello on stderr", "and on the descriptor"]
    do(worker, steps.task("load"))
    assert capsys.readouterr().out == ""


def test_the_users_code_cannot_read_the_tasks(worker: Worker, steps: Steps) -> None:
    with pytest.raises(CodeFailed, match="EOFError"):
        do(worker, steps.task("ask"))


def test_what_a_step_changes_does_not_reach_the_next(worker: Worker, steps: Steps) -> None:
    do(worker, steps.task("state", report=str(steps.root / "before.json")))
    do(worker, steps.task("disturb"))
    do(worker, steps.task("state", report=str(steps.root / "after.json")))
    assert steps.read("after.json") == steps.read("before.json")
    assert steps.read("after.json")["folder"] == str(Path.cwd())
    assert str(steps.root) in steps.read("after.json")["path"]


def test_a_changed_source_is_imported_again(worker: Worker, steps: Steps, capsys: Captured) -> None:
    file = steps.root / "edited.py"
    for text in ("first", "the second"):
        file.write_text(
            f"from users_code import load\ndef {text.split()[-1]}():\n    print({text!r})\n    return load()\n"
        )
        do(worker, steps.task(f"edited:{text.split()[-1]}"))
        assert capsys.readouterr().out == f"{text}\n"


def test_a_plugins_file_brings_what_a_step_uses_by_name(worker: Worker, steps: Steps) -> None:
    file = steps.root / "conftest.py"
    file.write_text(
        "import numpy as np\nfrom deploycheck.stages.loaders import Loader\n"
        "def load():\n    return np.zeros((20, 2), np.float32), np.arange(20) % 2\n"
        "def pytest_deploycheck_extensions():\n    return [Loader('mine', load)]\n"
    )
    task = steps.task("mine", extensions=(file,))
    do(worker, task)
    artifact = steps.found(task)
    assert artifact is not None
    assert "conftest.py" in artifact.meta["used"]["files"]


@pytest.mark.parametrize("function", ["set_device_count", "set_variable"])
def test_a_setting_that_cannot_be_put_back_ends_the_worker_before_the_next_step(
    function: str, own_worker: Worker, steps: Steps
) -> None:
    task = steps.task("state", report=str(steps.root / f"{function}.json"))
    do(own_worker, steps.task(function))
    with pytest.raises(WorkerSpent):
        do(own_worker, task)
    assert steps.found(task) is None
    assert not task.failed.exists()


def test_a_worker_that_is_killed_says_by_what_and_what_it_printed_last(own_worker: Worker, steps: Steps) -> None:
    do(own_worker, steps.task("say", line="long ago"))
    with pytest.raises(DeploycheckError) as raised:
        do(own_worker, steps.task("kill"))
    assert not isinstance(raised.value, CodeFailed)
    assert raised.value.what == (
        "the process that runs the spec's code ended with signal 9; it last said:\n    before the end"
    )
    assert raised.value.hint == "signal 9 usually means that the machine ran out of memory"
    with pytest.raises(DeploycheckError, match="ended with signal 9"):
        do(own_worker, steps.task("load"))


def test_code_that_leaves_the_process_ends_the_worker(own_worker: Worker, steps: Steps) -> None:
    with pytest.raises(DeploycheckError, match="the process that runs the spec's code ended with exit code 3"):
        do(own_worker, steps.task("leave"))


def test_a_worker_ends_in_the_middle_of_a_step_when_its_parent_is_gone(own_worker: Worker, steps: Steps) -> None:
    pipe = steps.root / "pipe"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as said:
        own_worker._send(steps.task("wait", pipe=str(pipe)).to_json())
        assert select.select([said], [], [], 60)[0], "the step doesn't begin"
        assert said.read(100) == b"begun\n"
        assert own_worker._process.stdin is not None
        own_worker._process.stdin.close()
        # The pipe has an end once the process that would write to it has ended.
        assert select.select([said], [], [], 60)[0], "the worker goes on"
        assert said.read(100) == b""
