"""Each step is done once, or found done; a failure is reported once; and a worker that ends is replaced."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from filelock import FileLock

from deploycheck.errors import DeploycheckError
from deploycheck.language import Spec
from deploycheck.language.spec import Data
from deploycheck.plan import Plan, with_needs
from deploycheck.ref import Ref
from deploycheck.runner import execute
from deploycheck.runner.execute import Done, NotReached, Runner, StepFailed, prune_runs
from deploycheck.runner.process import CodeFailed, Worker, WorkerSpent
from deploycheck.runner.tasks import AlreadyFailed, Task
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.data import DATA
from deploycheck.steps.kind import Making, NoBaseline
from deploycheck.steps.training import TRAINING
from tests.planning import HEAD, built_in, plan, spec
from tests.runner.doing import CODE
from tests.runner.fakes import FakeStep

FIRST, SECOND = Ref("first", ("a",)), Ref("second", ("a",))
CPU = {"backend": "cpu", "device": "cpu"}
StartRunner = Callable[..., Runner]


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> FakeStep:
    made = FakeStep("first")
    monkeypatch.setitem(STEP_KINDS, "first", made)  # type: ignore[arg-type]
    monkeypatch.setattr(execute, "find_platform", lambda _: CPU)
    return made


@pytest.fixture
def second(first: FakeStep, monkeypatch: pytest.MonkeyPatch) -> FakeStep:
    made = FakeStep("second")
    made.roles = {"source": FIRST}
    monkeypatch.setitem(STEP_KINDS, "second", made)  # type: ignore[arg-type]
    return made


@pytest.fixture
def made(tmp_path: Path, second: FakeStep) -> Plan:
    """A plan of two steps, of which the second needs the first."""
    return replace(plan(HEAD, tmp_path), steps={FIRST: {}, SECOND: {"source": FIRST}})


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, said: list[str]) -> Iterator[StartRunner]:
    """Return a function that starts a runner: another process of a run, or a run of its own."""
    runners: list[Runner] = []

    def start_runner(run: str = "run") -> Runner:
        runners.append(Runner(tmp_path / "cache", run, built_in(tmp_path), said.append))
        return runners[-1]

    yield start_runner
    for runner in runners:
        runner.close()


def test_a_step_is_done_with_what_it_needs_and_found_by_later_runs(
    made: Plan, first: FakeStep, second: FakeStep, start: StartRunner
) -> None:
    runner = start()
    done = runner.step(made, SECOND)
    assert (done.reused, done.because) == (False, "")
    assert done.artifact.meta["by"] == "second"
    assert runner.step(made, SECOND) is done
    assert set(runner.steps_done(made)) == {FIRST, SECOND}
    again = start("another").step(made, SECOND)
    assert (again.reused, again.artifact.digest) == (True, done.artifact.digest)
    assert (first.made, second.made) == (["a"], ["a"])


def test_a_step_is_given_its_settings_its_inputs_and_folders(made: Plan, second: FakeStep, start: StartRunner) -> None:
    given: list[Making] = []
    second.work = given.append
    runner = start()
    runner.step(made, SECOND)
    (making,) = given
    assert making.settings == second.settings(made.spec, SECOND, ())
    assert making.inputs == {"source": runner.step(made, FIRST).artifact}
    assert making.out != making.scratch
    assert making.extensions is runner.extensions


def test_a_step_that_depends_on_something_else_is_done_again_and_says_why(
    made: Plan, first: FakeStep, second: FakeStep, start: StartRunner, said: list[str]
) -> None:
    start().step(made, SECOND)
    first.value = 2
    runner = start("another")
    done = runner.step(made, SECOND)
    assert runner.step(made, FIRST).because == "setting value changed"
    assert (done.reused, done.because) == (False, "input source changed")
    assert said == ["first[a]: done again: setting value changed", "second[a]: done again: input source changed"]
    assert first.made == ["a", "a"]


def test_the_same_result_of_a_step_done_again_finds_the_next_one_done(
    made: Plan, first: FakeStep, second: FakeStep, start: StartRunner
) -> None:
    start().step(made, SECOND)
    first.value = 2
    first.written = '{"of":"a","value":1}'
    runner = start("another")
    assert runner.step(made, SECOND).reused
    assert not runner.step(made, FIRST).reused


def test_the_same_step_of_two_specs_is_done_once(made: Plan, first: FakeStep, start: StartRunner) -> None:
    runner = start()
    runner.step(made, FIRST)
    assert runner.step(replace(made, id="another.yaml"), FIRST).reused
    assert first.made == ["a"]


def fail(making: Making) -> None:
    raise DeploycheckError("there is no data", hint="look for it")


def test_a_failure_is_reported_once_in_a_run_and_tried_again_in_the_next(
    made: Plan, first: FakeStep, second: FakeStep, start: StartRunner
) -> None:
    first.work = fail
    runner = start()
    with pytest.raises(StepFailed) as failed:
        runner.step(made, FIRST)
    assert str(failed.value) == "spec.yaml: first[a]: there is no data\n  hint: look for it"
    other_process = start()
    for process, ref in ((runner, FIRST), (runner, SECOND), (other_process, FIRST), (other_process, SECOND)):
        with pytest.raises(NotReached) as not_reached:
            process.step(made, ref)
        assert (not_reached.value.step, not_reached.value.what) == ("first[a]", "not reached: first[a] failed")
    assert first.made == ["a"]
    with pytest.raises(StepFailed):
        start("another").step(made, FIRST)
    first.work = lambda _: None
    assert not start("a third").step(made, SECOND).reused


def test_where_what_is_needed_fails_that_is_reported(made: Plan, first: FakeStep, start: StartRunner) -> None:
    first.work = fail
    runner = start()
    with pytest.raises(StepFailed) as failed:
        runner.step(made, SECOND)
    assert (failed.value.step, failed.value.where) == ("first[a]", "spec.yaml: first[a]")
    with pytest.raises(NotReached, match=r"not reached: first\[a\] failed"):
        runner.step(made, SECOND)


def test_an_error_that_nobody_expected_is_raised_as_it_is_and_once(
    made: Plan, first: FakeStep, start: StartRunner
) -> None:
    first.work = lambda _: 1 / 0
    runner = start()
    with pytest.raises(ZeroDivisionError):
        runner.step(made, FIRST)
    with pytest.raises(NotReached):
        runner.step(made, FIRST)


def test_a_damaged_artifact_fails_its_step_by_name(made: Plan, start: StartRunner) -> None:
    artifact = start().step(made, FIRST).artifact
    artifact.file("made.json").write_text("{}")
    with pytest.raises(StepFailed, match=r"made\.json is damaged") as failed:
        start("another").step(made, FIRST)
    assert str(artifact.path) in failed.value.where


def test_what_is_timed_is_shared_by_the_processes_of_a_run_and_by_no_other_run(
    made: Plan, monkeypatch: pytest.MonkeyPatch, start: StartRunner, tmp_path: Path, said: list[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    timed = FakeStep("timed", timed=True)
    monkeypatch.setitem(STEP_KINDS, "timed", timed)  # type: ignore[arg-type]
    ref = Ref("timed", ("a",))
    plan = replace(made, steps={ref: {}})
    assert not start().step(plan, ref).reused
    assert start().step(plan, ref).reused
    done = start("another").step(plan, ref)
    assert (done.reused, done.because, said) == (False, "", [])
    assert timed.made == ["a", "a"]
    assert done.artifact.path.is_relative_to(tmp_path / "cache" / "runs" / "another")


def test_a_missing_baseline_is_no_failure(made: Plan, first: FakeStep, start: StartRunner) -> None:
    first.roles = {"model": Ref("baseline")}
    promoting = spec(HEAD + "promote: {model: digits, to: staging}\n", made.spec.path.parent)
    plan = replace(made, spec=promoting, steps={Ref("baseline"): {}, FIRST: first.roles})
    runner = start()
    for _ in range(2):
        with pytest.raises(NoBaseline, match="nothing is promoted as digits@staging yet"):
            runner.step(plan, FIRST)


def test_a_step_that_another_process_does_is_waited_for(
    made: Plan, first: FakeStep, start: StartRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = start().step(made, FIRST).artifact
    kept = shutil.copytree(artifact.path, tmp_path / "kept")
    runner = start("another")
    waits = threading.Event()
    monkeypatch.setattr(
        runner, "progress", lambda line: waits.set() if "another process is making it" in line else None
    )
    lock = FileLock(tmp_path / "cache" / "store" / "locks" / f"first-{artifact.key}.lock", thread_local=False)
    found: list[Done] = []
    with lock:
        shutil.rmtree(artifact.path)
        thread = threading.Thread(target=lambda: found.append(runner.step(made, FIRST)), daemon=True)
        thread.start()
        assert waits.wait(60)
        kept.rename(artifact.path)
    thread.join(60)
    assert [done.reused for done in found] == [True]
    assert first.made == ["a"]


def test_only_the_latest_runs_are_kept(tmp_path: Path) -> None:
    for number in range(execute.RUNS_KEPT + 2):
        folder = tmp_path / "runs" / f"run{number}"
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    (tmp_path / "runs" / "a file").write_text("")
    prune_runs(tmp_path)
    left = sorted(path.name for path in (tmp_path / "runs").glob("run*"))
    assert left == [f"run{number}" for number in range(2, execute.RUNS_KEPT + 2)]
    prune_runs(tmp_path / "nothing here")


# With a worker


class SharedWorker:
    """Stands in for ``Worker``: one real process serves every runner, until it dies or is spent."""

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
    """Stands in for ``Worker``: it says that another process has failed, and counts its starts and ends."""

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
