"""Steps that run the user's code: in a worker, which is replaced when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.language import Spec
from deploycheck.language.spec import Data
from deploycheck.plan import Plan, with_needs
from deploycheck.runner import execute
from deploycheck.runner.execute import NotReached, Runner, StepFailed
from deploycheck.runner.process import CodeFailed, Worker, WorkerSpent
from deploycheck.runner.tasks import AlreadyFailed, Task
from deploycheck.steps.data import DATA
from deploycheck.steps.training import TRAINING
from tests.planning import HEAD, built_in, spec
from tests.runner.doing import CODE

StartRunner = Callable[..., Runner]


@pytest.fixture
def said() -> list[str]:
    return []


class SharedWorker:
    """Takes the place of ``Worker``: one real process serves every runner, until it dies or is spent."""

    process: ClassVar[Worker | None] = None
    started: ClassVar[int] = 0

    def __init__(self, root: Path, cache: Path, log: Path) -> None:
        if SharedWorker.process is None:
            SharedWorker.process = Worker(root, cache, log)
            SharedWorker.started += 1

    def do(self, task: Task, progress: Callable[[str], None]) -> bool:
        assert SharedWorker.process is not None
        try:
            return SharedWorker.process.do(task, progress)
        except (WorkerSpent, DeploycheckError) as error:
            if not isinstance(error, CodeFailed):
                self.end()
            raise

    def close(self) -> None:
        """Leave it to the next runner."""

    @staticmethod
    def end() -> None:
        if SharedWorker.process:
            SharedWorker.process.close()
        SharedWorker.process = None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project that the worker does the steps of."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "users_code.py").write_text(CODE)
    (folder / "specs").mkdir()
    for name in ("models", "data"):
        source = "def conv_classifier(shape, features, classes): ...\ndef digits(): ...\n"
        (folder / "specs" / f"{name}.py").write_text(source)
    yield folder
    SharedWorker.end()


@pytest.fixture
def start_beside(root: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[StartRunner]:
    """Return a function that starts a runner, whose worker goes on from one runner to the next."""
    monkeypatch.setattr(execute, "Worker", SharedWorker)
    runners: list[Runner] = []

    def start_runner(run: str) -> Runner:
        runners.append(Runner(root / "cache", run, built_in(root), said.append))
        return runners[-1]

    yield start_runner
    for runner in runners:
        runner.close()


@pytest.fixture
def loading(root: Path) -> Callable[..., Plan]:
    """Return a function that makes a plan whose data are loaded by a function of the user's."""
    base: Spec = spec(HEAD, root, built_in(root))
    x = {"x": base.model.input["image"].model_copy(update={"shape": (2,)})}

    def make(function: str, **arguments: object) -> Plan:
        data = Data.model_validate({"load": f"users_code:{function}", "with": arguments})
        changed = replace(base, data=data, model=base.model.model_copy(update={"input": x}))
        return Plan(
            spec=changed,
            id=f"{function}.yaml",
            steps=with_needs(changed, [TRAINING], built_in(root)),
            checks=(),
            candidates=("trained",),
        )

    return make


def test_the_users_code_is_run_in_a_worker_and_what_it_used_is_watched(
    root: Path, start_beside: StartRunner, loading: Callable[..., Plan], said: list[str]
) -> None:
    table = root / "table.csv"
    table.write_text("a,b\n")
    (root / "users_table.py").write_text(
        "from users_code import load as examples\n"
        f"def load():\n    open({str(root)!r} + '/tab' + 'le.csv').close()\n    return examples()\n"
    )
    plan = loading("load")
    data = Data.model_validate({"load": "users_table:load"})
    plan = replace(plan, spec=replace(plan.spec, data=data))
    runner = start_beside("used 1")
    assert not runner.step(plan, DATA).reused
    assert runner.find(plan, DATA) == runner.step(plan, DATA).artifact
    assert start_beside("used 2").step(plan, DATA).reused
    table.write_text("a,c\n")
    runner = start_beside("used 3")
    assert runner.find(plan, DATA) is None
    done = runner.step(plan, DATA)
    assert (done.reused, done.because) == (False, "file table.csv changed")
    assert "data: done again: file table.csv changed" in said


def test_a_changed_source_is_why_a_step_is_done_again(
    root: Path, start_beside: StartRunner, loading: Callable[..., Plan]
) -> None:
    plan = loading("load")
    start_beside("source 1").step(plan, DATA)
    (root / "users_code.py").write_text(CODE + "\nCHANGED = 1\n")
    done = start_beside("source 2").step(plan, DATA)
    (root / "users_code.py").write_text(CODE)
    assert (done.reused, done.because) == (False, "source users_code changed")


def test_nothing_is_found_in_a_new_cache_and_jax_is_not_asked(tmp_path: Path, loading: Callable[..., Plan]) -> None:
    runner = Runner(tmp_path, "run", built_in(tmp_path), print)
    assert runner.find(loading("load"), DATA) is None
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_of_the_users_code_reaches_the_check_whichever_step_is_asked_first(
    start_beside: StartRunner, loading: Callable[..., Plan]
) -> None:
    plan = loading("fail")
    with pytest.raises(StepFailed) as failed:
        start_beside("trace").step(plan, TRAINING)
    assert (failed.value.what, failed.value.where) == ("ValueError: the data are gone", "fail.yaml: data")
    assert "in inner" in failed.value.trace
    other_process = start_beside("trace")
    with pytest.raises(NotReached, match="not reached: data failed"):
        other_process.step(plan, TRAINING)


def test_a_worker_that_dies_fails_its_step_for_all_processes_and_is_replaced(
    start_beside: StartRunner, loading: Callable[..., Plan]
) -> None:
    runner = start_beside("dies")
    with pytest.raises(StepFailed, match="ended with signal 9"):
        runner.step(loading("kill"), DATA)
    started = SharedWorker.started
    with pytest.raises(NotReached, match="not reached: data failed"):
        start_beside("dies").step(loading("kill"), DATA)
    assert SharedWorker.started == started
    assert not runner.step(loading("say", line="after"), DATA).reused


def test_a_worker_that_is_spent_is_replaced_and_the_step_done(
    start_beside: StartRunner, loading: Callable[..., Plan]
) -> None:
    runner = start_beside("spent")
    runner.step(loading("set_variable"), DATA)
    started = SharedWorker.started
    assert not runner.step(loading("disturb"), DATA).reused
    assert SharedWorker.started == started + 1


class OnlyAsked:
    """Takes the place of ``Worker``: it says that another process has failed, and counts its starts and ends."""

    started: ClassVar[int] = 0
    closed: ClassVar[int] = 0

    def __init__(self, *_: object) -> None:
        OnlyAsked.started += 1

    def do(self, task: Task, progress: Callable[[str], None]) -> bool:
        raise AlreadyFailed(task.name)

    def close(self) -> None:
        OnlyAsked.closed += 1


def test_each_spec_file_has_a_worker_of_its_own_and_keeps_it_where_another_process_failed(
    root: Path, start_beside: StartRunner, loading: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "Worker", OnlyAsked)
    runner = start_beside("files")
    plan = loading("load", a=1)
    other_file = replace(plan, id="other", spec=replace(plan.spec, path=root / "other.yaml"))
    for asked in (plan, replace(plan, id="again"), other_file):
        with pytest.raises(NotReached):
            runner.step(asked, DATA)
    assert (OnlyAsked.started, OnlyAsked.closed) == (2, 1)
