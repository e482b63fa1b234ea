"""Each step is done once, or found done, and a failure is reported once."""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from deploycheck.errors import DeploycheckError
from deploycheck.plan import Plan
from deploycheck.ref import Ref
from deploycheck.runner import execute
from deploycheck.runner.execute import Done, NotReached, Runner, StepFailed, prune_runs
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.kind import Making, NoBaseline
from deploycheck.store import write_manifest
from tests.planning import HEAD, built_in, plan, spec
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

    def start_runner(run: str = "run", *, fresh: bool = False) -> Runner:
        runners.append(Runner(tmp_path / "cache", run, built_in(tmp_path), said.append, fresh=fresh))
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


def test_an_input_that_was_replaced_in_the_cache_is_refused_by_name(
    made: Plan, second: FakeStep, start: StartRunner
) -> None:
    runner = start()
    artifact = runner.step(made, FIRST).artifact
    artifact.file("made.json").write_text("another")
    other = write_manifest(artifact.path, artifact.kind, artifact.key, artifact.meta)
    with pytest.raises(StepFailed, match=f"its digest is {other.digest}, expected {artifact.digest}") as failed:
        runner.step(made, SECOND)
    assert failed.value.where == str(artifact.path)
    assert second.made == []


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


def test_what_is_repeated_is_done_once_in_each_run(
    made: Plan, monkeypatch: pytest.MonkeyPatch, start: StartRunner
) -> None:
    step = FakeStep("searched")
    step.repeated = True
    monkeypatch.setitem(STEP_KINDS, "searched", step)  # type: ignore[arg-type]
    ref = Ref("searched", ("a",))
    plan = replace(made, steps={ref: {}})
    for run in ("first", "first", "second"):
        start(run).step(plan, ref)
    assert step.made == ["a", "a"]


def test_a_fresh_run_makes_all_but_products_itself_once(
    made: Plan, second: FakeStep, first: FakeStep, start: StartRunner, said: list[str]
) -> None:
    first.product = True
    start("before").step(made, SECOND)
    fresh = start("fresh", fresh=True)
    assert not fresh.step(made, SECOND).reused
    assert fresh.step(made, FIRST).reused
    assert not start("fresh", fresh=True).step(made, SECOND).reused
    assert start("after").step(made, SECOND).reused
    assert (len(first.made), len(second.made)) == (1, 2)
    assert said == []


def test_what_was_put_into_the_store_decides_nothing_in_a_fresh_run(
    made: Plan, second: FakeStep, start: StartRunner
) -> None:
    stored = start("before").step(made, SECOND).artifact
    stored.file("made.json").write_text("what passes every check")
    write_manifest(stored.path, stored.kind, stored.key, stored.meta)
    read = second.subjects["what"].read
    assert read(start("another").step(made, SECOND).artifact, None) == "what passes every check"
    assert read(start("fresh", fresh=True).step(made, SECOND).artifact, None) != "what passes every check"


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


def test_a_run_that_goes_on_keeps_its_folder_until_it_is_closed(made: Plan, start: StartRunner, tmp_path: Path) -> None:
    runner = start("ours")
    runner.step(made, FIRST)
    os.utime(runner.folder, (0, 0))
    for number in range(execute.RUNS_KEPT):
        (tmp_path / "cache" / "runs" / f"later{number}").mkdir()
    prune_runs(tmp_path / "cache")
    assert runner.folder.exists()
    runner.close()
    prune_runs(tmp_path / "cache")
    assert not runner.folder.exists()


def test_folders_that_another_process_removes_meanwhile_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "runs" / f"run{number}" for number in range(execute.RUNS_KEPT + 3)]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    last_change, remove = execute._last_change, execute.remove_unless_held

    def vanish_before_it_is_asked(folder: Path) -> float:
        if folder == folders[0]:
            folder.rmdir()
        return last_change(folder)

    def vanish_before_it_is_removed(folder: Path) -> None:
        if folder == folders[1]:
            folder.rmdir()
        remove(folder)

    monkeypatch.setattr(execute, "_last_change", vanish_before_it_is_asked)
    monkeypatch.setattr(execute, "remove_unless_held", vanish_before_it_is_removed)
    prune_runs(tmp_path)
    assert [folder.exists() for folder in folders] == [False] * 3 + [True] * execute.RUNS_KEPT


def test_what_a_metric_sets_in_this_processs_environment_reaches_no_step(
    made: Plan, first: FakeStep, start: StartRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOVED", "before")
    seen: list[tuple[str | None, str | None]] = []
    first.work = lambda _: seen.append((os.environ.get("ADDED"), os.environ.get("REMOVED")))
    runner = start()
    monkeypatch.setenv("ADDED", "by a metric")
    monkeypatch.delenv("REMOVED")
    runner.step(made, FIRST)
    assert seen == [(None, "before")]
    assert (os.environ.get("ADDED"), os.environ.get("REMOVED")) == ("by a metric", None)


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that makes the cache read-only, as a file system can be, for root too."""
    os_open, os_mkdir, io_open = os.open, os.mkdir, io.open

    def refuse(path: Any) -> None:
        if isinstance(path, str | os.PathLike) and Path(path).is_relative_to(tmp_path / "cache"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))

    def open_descriptor(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            refuse(path)
        return os_open(path, flags, *rest, **named)

    def make_folder(path: Any, *rest: Any, **named: Any) -> None:
        if not Path(path).exists():
            refuse(path)
        os_mkdir(path, *rest, **named)

    def open_file(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if set(mode) & set("wax+"):
            refuse(path)
        return io_open(path, mode, *rest, **named)

    def make_read_only() -> None:
        monkeypatch.setattr(os, "open", open_descriptor)
        monkeypatch.setattr(os, "mkdir", make_folder)
        monkeypatch.setattr(io, "open", open_file)

    return make_read_only


def test_a_read_only_cache_is_enough_where_all_is_found(
    made: Plan, start: StartRunner, read_only: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("first").step(made, SECOND)
    shutil.rmtree(tmp_path / "cache" / "last")
    read_only()
    runner = start("another")
    assert runner.step(made, SECOND).reused
    with runner.machine.working():
        pass
    runner.digests.content(tmp_path / "spec.yaml")
    runner.close()
    assert not (tmp_path / "cache" / "last").exists()
    assert not (tmp_path / "cache" / "digests.json").exists()


def test_a_step_that_a_read_only_cache_does_not_have_fails_and_says_where(
    made: Plan, first: FakeStep, start: StartRunner, read_only: Callable[[], None], tmp_path: Path
) -> None:
    start("first").step(made, FIRST)
    read_only()
    with pytest.raises(StepFailed, match="can't be written: Read-only file system") as failed:
        start("another").step(made, SECOND)
    assert failed.value.where.startswith(str(tmp_path / "cache"))
    assert failed.value.hint == "the file system is read-only: choose a folder that can be written"
