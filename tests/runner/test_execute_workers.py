"""Steps that run the user's code: in a worker, which is replaced when it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from deploycheck.runner.process import CodeFailed, Worker
from deploycheck.runner.tasks import AlreadyFailed, Task
from deploycheck.steps.data import DATA
from deploycheck.steps.training import TRAINING
from tests.planning import HEAD, built_in, spec
from tests.runner.doing import CODE, Steps

StartRunner = Callable[..., Runner]


@pytest.fixture
def said() -> list[str]:
    return []


class SharedWorker:
    """Takes the place of ``Worker``: one real process serves every runner, until it dies."""

    process: ClassVar[Worker | None] = None
    started: ClassVar[int] = 0

    def __init__(self, root: Path, cache: Path, log: Path, environment: Mapping[str, str], path: Sequence[str]) -> None:
        if SharedWorker.process is None:
            SharedWorker.process = Worker(root, cache, log, environment, path)
            SharedWorker.started += 1

    def do(self, task: Task, progress: Callable[[str], None]) -> tuple[str, bool]:
        assert SharedWorker.process is not None
        try:
            return SharedWorker.process.do(task, progress)
        except CodeFailed:
            raise
        except DeploycheckError:
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


def test_a_step_whose_file_has_changed_is_done_again_and_found_when_it_is_changed_back(
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
    first = runner.step(plan, DATA)
    assert not first.reused
    assert runner.find(plan, DATA) == first.artifact
    assert start_beside("used 2").step(plan, DATA).reused

    table.write_text("a,c\n")
    runner = start_beside("used 3")
    assert runner.find(plan, DATA) is None
    second = runner.step(plan, DATA)
    assert (second.reused, second.because) == (False, "file table.csv changed")
    assert "data: done again: file table.csv changed" in said
    assert first.artifact.file("test.safetensors").exists()
    runner = start_beside("used 4")
    assert runner.find(plan, DATA) == second.artifact
    assert runner.step(plan, DATA).reused

    table.write_text("a,b\n")
    third = start_beside("used 5").step(plan, DATA)
    assert (third.reused, third.artifact) == (True, first.artifact)


@pytest.mark.parametrize("other", ["other.yaml", "disturb.yaml[seed=1]"])
def test_what_a_step_changes_reaches_no_step_of_another_spec_or_cell(
    other: str, root: Path, start_beside: StartRunner, loading: Callable[..., Plan]
) -> None:
    def report(function: str, name: str, plan_id: str) -> Plan:
        return replace(loading(function, report=str(root / f"{name} {other}.json")), id=plan_id)

    runner, steps = start_beside(f"state {other}"), Steps(root)
    runner.step(report("state", "before", other), DATA)
    runner.step(report("disturb", "disturbed", "disturb.yaml"), DATA)
    runner.step(report("state", "after", f"{other} again"), DATA)
    before, disturbed, after = (steps.read(f"{name} {other}.json") for name in ("before", "disturbed", "after"))
    assert after == before
    assert [part for part in before if disturbed[part] == before[part]] == []


def test_what_a_metric_sets_in_this_process_reaches_no_worker(
    root: Path, loading: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(root / "cache", "metrics", built_in(root), print)
    monkeypatch.setenv("ADDED", "by a metric")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setattr(sys, "path", ["/of/a/metric", *sys.path])
    try:
        runner.step(loading("state", report=str(root / "metrics.json")), DATA)
    finally:
        runner.close()
    state = Steps(root).read("metrics.json")
    assert "ADDED" not in state["variables"]
    assert "JAX_ENABLE_X64" not in state["variables"]
    assert not state["x64"]
    assert "/of/a/metric" not in state["path"]


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


@pytest.mark.parametrize("function", ["kill", "kill_worker"])
def test_a_process_that_dies_fails_its_step_for_all_processes_and_not_the_next_step(
    function: str, start_beside: StartRunner, loading: Callable[..., Plan]
) -> None:
    runner = start_beside(f"dies {function}")
    with pytest.raises(StepFailed, match="ended with signal 9"):
        runner.step(loading(function), DATA)
    started = SharedWorker.started
    with pytest.raises(NotReached, match="not reached: data failed"):
        start_beside(f"dies {function}").step(loading(function), DATA)
    assert SharedWorker.started == started
    assert not runner.step(loading("say", line=function), DATA).reused


class OnlyAsked:
    """Takes the place of ``Worker``: it does what a test says, and counts its starts and ends."""

    error: ClassVar[BaseException]
    started: ClassVar[int]
    closed: ClassVar[int]

    def __init__(self, *_: object) -> None:
        OnlyAsked.started += 1

    def do(self, task: Task, progress: Callable[[str], None]) -> tuple[str, bool]:
        raise OnlyAsked.error

    def close(self) -> None:
        OnlyAsked.closed += 1


@pytest.fixture
def only_asked(monkeypatch: pytest.MonkeyPatch) -> type[OnlyAsked]:
    monkeypatch.setattr(execute, "Worker", OnlyAsked)
    OnlyAsked.error, OnlyAsked.started, OnlyAsked.closed = AlreadyFailed("data"), 0, 0
    return OnlyAsked


def test_a_process_of_a_run_has_one_worker_and_keeps_it_where_another_process_failed(
    root: Path, start_beside: StartRunner, loading: Callable[..., Plan], only_asked: type[OnlyAsked]
) -> None:
    runner = start_beside("files")
    plan = loading("load", a=1)
    other_file = replace(plan, id="other", spec=replace(plan.spec, path=root / "other.yaml"))
    for asked in (plan, replace(plan, id="again"), other_file):
        with pytest.raises(NotReached):
            runner.step(asked, DATA)
    assert (only_asked.started, only_asked.closed) == (1, 0)
    runner.close()
    assert (only_asked.started, only_asked.closed) == (1, 1)


def test_a_worker_is_closed_at_once_where_the_run_is_interrupted(
    start_beside: StartRunner, loading: Callable[..., Plan], only_asked: type[OnlyAsked]
) -> None:
    only_asked.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        start_beside("interrupted").step(loading("load", a=2), DATA)
    assert (only_asked.started, only_asked.closed) == (1, 1)
