"""A real worker: what it does, what its steps can't leave behind, and how it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import FileIO
from pathlib import Path

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.runner.process import CodeFailed, Worker
from deploycheck.runner.tasks import AlreadyFailed, Task
from deploycheck.store import fingerprint
from tests.runner.doing import Steps, make_steps

Captured = pytest.CaptureFixture[str]
Pipe = tuple[str, FileIO]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return make_steps(tmp_path_factory.mktemp("project"))


def start(steps: Steps) -> Worker:
    log, path = steps.cache / "worker.log", [str(steps.root), *sys.path]
    return Worker(steps.root, steps.cache, log, dict(os.environ), path)


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
    """Have a task done; return whether it was done already."""
    _, reused = worker.do(task, lambda _: None)
    return reused


def test_a_step_is_done_once_and_then_found(worker: Worker, steps: Steps) -> None:
    task, said = steps.task("load"), list[str]()
    assert worker.do(task, said.append) == (task.key, False)
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
    for function, report in (("state", "before"), ("disturb", "disturbed"), ("state", "after")):
        do(worker, steps.task(function, report=str(steps.root / f"{report}.json")))
    before, disturbed = steps.read("before.json"), steps.read("disturbed.json")
    assert steps.read("after.json") == before
    assert [part for part in before if disturbed[part] == before[part]] == []
    assert before["folder"] == str(steps.root)
    assert before["path"][0] == str(steps.root)


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


def test_an_input_that_was_replaced_in_the_cache_is_refused_by_name(worker: Worker, steps: Steps) -> None:
    source = steps.task("load", a="source")
    address, _ = worker.do(source, lambda _: None)
    artifact = steps.store.find("data", address)
    assert artifact is not None
    inputs = {"source": artifact.path}
    meant = replace(steps.task("load", a="meant"), inputs=inputs, digests={"source": artifact.digest})
    assert do(worker, meant) is False
    other = replace(steps.task("load", a="other"), inputs=inputs, digests={"source": "sha256:other"})
    with pytest.raises(CodeFailed, match=f"its digest is {artifact.digest}, expected sha256:other") as raised:
        do(worker, other)
    assert raised.value.where == str(artifact.path)
    assert steps.found(other) is None


@pytest.mark.parametrize(
    ("function", "ended", "hint"),
    [
        ("leave", "exit code 3", ""),
        ("leave_without_an_error", "exit code 0", ""),
        ("end_at_once", "exit code 0", ""),
        ("kill", "signal 9", "signal 9 usually means that the machine ran out of memory"),
    ],
)
def test_code_that_ends_its_process_fails_its_step_and_not_the_next(
    function: str, ended: str, hint: str, worker: Worker, steps: Steps
) -> None:
    with pytest.raises(DeploycheckError, match=f"the process that runs the spec's code ended with {ended}") as raised:
        do(worker, steps.task(function))
    assert not isinstance(raised.value, CodeFailed)
    assert raised.value.hint == hint
    assert do(worker, steps.task("load", after=function)) is False


def test_what_was_printed_before_the_end_is_in_the_error_and_nothing_older(worker: Worker, steps: Steps) -> None:
    do(worker, steps.task("say", line="long ago"))
    with pytest.raises(DeploycheckError) as raised:
        do(worker, steps.task("kill"))
    assert raised.value.what == (
        "the process that runs the spec's code ended with signal 9; it last said:\n    before the end"
    )


def test_a_worker_that_is_killed_is_reported_and_can_do_no_more(own_worker: Worker, steps: Steps) -> None:
    for function in ("kill_worker", "load"):
        with pytest.raises(DeploycheckError, match="the process that runs the spec's code ended with signal 9"):
            do(own_worker, steps.task(function))


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    """A named pipe for a step to write to: its path, and the end to read."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as said:
        yield str(path), said


def read(said: FileIO) -> bytes:
    """Wait for what a step says; it is empty once every process that could say more has ended."""
    assert select.select([said], [], [], 60)[0], "the step says nothing, and doesn't end"
    return said.read(100)


def test_a_child_that_outlives_its_step_is_killed_and_not_waited_for(worker: Worker, steps: Steps, pipe: Pipe) -> None:
    path, said = pipe
    assert do(worker, steps.task("leave_child", pipe=path)) is False
    assert read(said) == b"begun\n"
    assert read(said) == b""


@pytest.mark.parametrize("function", ["fork_and_return", "fork_and_raise"])
def test_a_forked_child_that_comes_back_ends_and_does_not_do_the_step(
    function: str, worker: Worker, steps: Steps
) -> None:
    task = steps.task(function)
    assert do(worker, task) is False
    assert steps.found(task) is not None
    assert not task.failed.exists()


def test_a_killed_step_goes_on_from_its_scratch_unless_a_file_it_used_has_changed(
    worker: Worker, steps: Steps, capsys: Captured
) -> None:
    key = fingerprint("a step that is killed")
    scratch, table = steps.store.root / "work" / f"data-{key}", steps.root / "table.csv"
    table.write_text("a\n")
    task = replace(steps.task("resume", scratch=str(scratch), table=str(table)), key=key)
    with pytest.raises(DeploycheckError, match="signal 9"):
        do(worker, task)
    table.write_text("a,b\n")
    with pytest.raises(DeploycheckError, match="signal 9"):  # it begins again
        do(worker, task)
    assert do(worker, task) is False
    assert capsys.readouterr().out == "resumed\n"
    assert not scratch.exists()


def test_modules_of_the_project_do_not_replace_those_of_python(tmp_path: Path) -> None:
    steps = make_steps(tmp_path)
    for name in ("queue", "json"):
        (tmp_path / f"{name}.py").write_text("raise ValueError('not the one that was meant')\n")
    worker = start(steps)
    try:
        assert do(worker, steps.task("load")) is False
    finally:
        worker.close()


NEVER_ENDING = ["wait", "hold_the_interpreter"]


@pytest.mark.parametrize("function", NEVER_ENDING)
def test_closing_a_worker_ends_the_step_that_it_does(
    function: str, own_worker: Worker, steps: Steps, pipe: Pipe
) -> None:
    path, said = pipe

    def interrupt(_: str) -> None:
        assert read(said) == b"begun\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_worker.do(steps.task(function, pipe=path), interrupt)
    own_worker.close()
    assert own_worker._process.returncode == 1, "it was killed, and did not end by itself"
    assert read(said) == b""


PARENT = """
import os, sys
from pathlib import Path
from deploycheck.runner.process import Worker
from deploycheck.runner.tasks import Task
root, cache = Path(sys.argv[1]), Path(sys.argv[2])
worker = Worker(root, cache, cache / "orphan.log", dict(os.environ), [str(root), *sys.path])
worker.do(Task.from_json(sys.argv[3]), print)
"""


@pytest.mark.parametrize("function", NEVER_ENDING)
def test_a_killed_parent_leaves_no_process(function: str, steps: Steps, pipe: Pipe) -> None:
    path, said = pipe
    task = steps.task(function, pipe=path).to_json()
    command = [sys.executable, "-c", PARENT, str(steps.root), str(steps.cache), task]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as parent:
        assert read(said) == b"begun\n"
        parent.send_signal(signal.SIGKILL)
    assert read(said) == b""
