"""Executing a plan: each step is done once, or its artifact is found in the store."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError, located
from deploycheck.extensions import Extensions
from deploycheck.plan import Plan, checks_of
from deploycheck.ref import Ref
from deploycheck.registry import Version
from deploycheck.runner.digests import Digests
from deploycheck.runner.keys import Content, key_content, why_different
from deploycheck.runner.machine import Machine, remove_unless_held
from deploycheck.runner.platform import find_platform
from deploycheck.runner.process import CodeFailed, Worker
from deploycheck.runner.recording import find_changed
from deploycheck.runner.tasks import KEPT, AlreadyFailed, Task, addresses, lasts
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.kind import BASELINE, FoundElsewhere, Making, NoBaseline, is_repeated
from deploycheck.store import Artifact, Building, Store, explained, fingerprint
from deploycheck.store.disk import write_whole

RUNS_KEPT = 5
EXPIRED = "the exported program can't be loaded for much longer"


class StepFailed(DeploycheckError):
    """A step failed; the first check that needs it reports this.

    ``step`` is its name; ``trace`` is the traceback from where the user's code began, if the user's code raised.
    """

    def __init__(self, what: str, *, step: str, where: str, hint: str = "", trace: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.step = step
        self.trace = trace


class NotReached(DeploycheckError):
    """A check could not be measured, because ``step`` failed, which another check reports."""

    def __init__(self, step: str) -> None:
        super().__init__(f"not reached: {step} failed")
        self.step = step


@dataclass(frozen=True, kw_only=True)
class Done:
    """A step that is done: its artifact, whether it was reused, how long this took, and why it was done again."""

    artifact: Artifact
    reused: bool
    seconds: float
    because: str = ""


class Runner:
    """Does steps, in one process of a run; several processes of a run share its store and its folder.

    ``run`` is the run's id; ``progress`` is called with lines to show. A ``fresh`` run takes from the store only what
    the checks are about (``StepKind.product``). It starts processes: close it at the end.
    """

    def __init__(
        self, cache: Path, run: str, extensions: Extensions, progress: Callable[[str], None], *, fresh: bool = False
    ) -> None:
        self.fresh = fresh
        self.extensions = extensions
        self.root = extensions.root
        self.cache = cache
        self.progress = progress
        self.store = Store(cache / "store")
        self.folder = cache / "runs" / run
        self.of_this_run = Store(self.folder)
        self.machine = Machine(self.folder, progress)
        self.digests = Digests(cache / "digests.json")
        self._done: dict[tuple[str, Ref], Done] = {}
        self._failed: dict[tuple[str, Ref], str] = {}
        self._looked_up: dict[str, Version | None] = {}
        self._worker: Worker | None = None
        # As they are before any of the user's code runs in this process: a spec's own metrics do.
        self._environment = dict(os.environ)
        self._path = [str(self.root), *(entry for entry in sys.path if entry != str(self.root))]

    def step(self, plan: Plan, ref: Ref) -> Done:
        """Do a step, or find its artifact in the store; the steps that it needs are done first.

        Raises ``StepFailed`` the first time it fails in this run, ``NotReached`` from then on and where another
        step failed before it; ``NoBaseline`` where it needs a baseline and there is none.
        """
        known = (plan.id, ref)
        if known in self._failed:
            raise NotReached(self._failed[known])
        if known not in self._done:
            try:
                with located(f"{plan.id}: {ref}"), explained(self.cache):
                    self._done[known] = self._do(plan, ref)
            except NoBaseline:
                raise
            except (NotReached, StepFailed) as error:  # of a step that it needs
                self._failed[known] = error.step
                raise
            except AlreadyFailed as error:
                self._failed[known] = str(error)
                raise NotReached(str(error)) from None
            except DeploycheckError as error:
                self._failed[known] = str(ref)
                trace = error.trace if isinstance(error, CodeFailed) else ""
                raise StepFailed(error.what, step=str(ref), where=error.where, hint=error.hint, trace=trace) from error
            except Exception:
                self._failed[known] = str(ref)
                raise
        return self._done[known]

    def steps_done(self, plan: Plan) -> dict[Ref, Done]:
        """Return the plan's steps that this process has done or found in the store."""
        return {ref: done for ref in plan.steps if (done := self._done.get((plan.id, ref)))}

    def replaced_by(self, plan: Plan) -> str | None:
        """Return the digest that a candidate of this plan replaces, or None: where its alias pointed when first asked.

        Raises ``DeploycheckError`` where the registry can't be read.
        """
        kind = STEP_KINDS[BASELINE]
        if not isinstance(kind, FoundElsewhere):
            raise TypeError(f"{BASELINE} is not found in a registry")
        version = self._look_up(plan, kind, Ref(BASELINE))
        return version.digest if version else None

    def find(self, plan: Plan, ref: Ref) -> Artifact | None:
        """Return the artifact of a step that needs no other, if it is in the store and still valid."""
        if not (self.store.root / ref.kind).exists():
            return None
        found, why_not = self._find(self.store, ref.kind, fingerprint(self._key_content(plan, ref, {})))
        return None if why_not else found

    def close(self) -> None:
        """End the processes that it started, and save the digests of files for later runs, where they can be saved."""
        self._close_worker()
        self.machine.close()
        with suppress(OSError):
            self.digests.save()

    def _do(self, plan: Plan, ref: Ref) -> Done:
        kind = STEP_KINDS[ref.kind]
        began = time.monotonic()
        if isinstance(kind, FoundElsewhere):
            baseline = kind.find(kind.settings(plan.spec, ref, ()), self._look_up(plan, kind, ref))
            return Done(artifact=baseline, reused=True, seconds=0.0)
        inputs = {role: self.step(plan, need).artifact for role, need in plan.steps[ref].items()}
        content = self._key_content(plan, ref, inputs)
        key = fingerprint(content)
        firsthand = self.fresh and not kind.product and not is_repeated(kind)
        store = self.of_this_run if is_repeated(kind) or firsthand else self.store
        found, why_not = self._find(store, ref.kind, key)
        if found and not why_not:
            self._remember(plan, ref, content)
            return Done(artifact=found, reused=not firsthand, seconds=time.monotonic() - began)
        why_not = why_not or self._why_new(plan, ref, content)
        self.machine.hold_folder()
        task = Task(
            kind=ref.kind,
            key=key,
            settings=content["settings"],
            inputs={role: artifact.path for role, artifact in inputs.items()},
            digests={role: artifact.digest for role, artifact in inputs.items()},
            extensions=self._files_of(plan, ref),
            store=store.root,
            failed=self.folder / "failed" / key,
            name=str(ref),
        )
        task.check_not_failed()
        if why_not:
            self.progress(f"{ref}: done again: {why_not}")
        address, reused = self._do_in_worker(task) if kind.isolated else self._do_here(task)
        artifact = store.find(ref.kind, address)
        if artifact is None:
            raise DeploycheckError("its artifact is gone", hint="another process removes files of the cache: run again")
        self._remember(plan, ref, content)
        because = "" if reused or is_repeated(kind) else why_not
        reused = reused and not firsthand
        return Done(artifact=artifact, reused=reused, seconds=time.monotonic() - began, because=because)

    def _look_up(self, plan: Plan, kind: FoundElsewhere, ref: Ref) -> Version | None:
        """Return what the registry had when it was first asked: a later answer could differ from what was compared."""
        if plan.id not in self._looked_up:
            settings = kind.settings(plan.spec, ref, ())
            self._looked_up[plan.id] = kind.look_up(settings, self.extensions, self.cache)
        return self._looked_up[plan.id]

    def _find(self, store: Store, kind: str, key: str) -> tuple[Artifact | None, str]:
        """Return the artifact of a key that can be used again, or the last one and why it can't."""
        last, why_not = None, ""
        for address in addresses(key):
            found = store.find(kind, address)
            if found is None:
                break
            last, why_not = found, self._why_not(found)
            if not why_not:
                break
        return last, why_not

    def _key_content(self, plan: Plan, ref: Ref, inputs: Mapping[str, Artifact]) -> Content:
        settings = STEP_KINDS[ref.kind].settings(plan.spec, ref, checks_of(plan, ref))
        return key_content(
            ref.kind,
            settings,
            inputs=inputs,
            extensions=self.extensions,
            platform=self._platform,
            digests=self.digests,
        )

    @cached_property
    def _platform(self) -> dict[str, str]:
        return find_platform(self.cache)

    def _files_of(self, plan: Plan, ref: Ref) -> tuple[Path, ...]:
        """Return the files that declare what a step uses by name."""
        kind = STEP_KINDS[ref.kind]
        sources = kind.sources(kind.settings(plan.spec, ref, checks_of(plan, ref)))
        origins = self.extensions.origins
        return tuple(dict.fromkeys(origins[source] for source in sources if source in origins))

    def _do_in_worker(self, task: Task) -> tuple[str, bool]:
        """Have a step done by the worker; return its address, and whether another process had done it."""
        with self.machine.working():
            if self._worker is None:
                log = self.folder / f"worker-{os.getpid()}.log"
                environment = {**shared_compilations(self.folder), **self._environment}
                self._worker = Worker(self.root, self.cache, log, environment, self._path)
            try:
                return self._worker.do(task, self.progress)
            except (CodeFailed, AlreadyFailed):
                raise
            except DeploycheckError:  # the process that did it died
                task.mark_failed()
                self._close_worker()
                raise
            except BaseException:  # this process is being ended
                self._close_worker()
                raise

    def _close_worker(self) -> None:
        if self._worker:
            self._worker.close()
            self._worker = None

    def _do_here(self, task: Task) -> tuple[str, bool]:
        """Do a step that doesn't run the user's code; return its address, and whether another process had done it."""
        kind = STEP_KINDS[task.kind]

        def build(building: Building) -> Mapping[str, Any]:
            task.check_not_failed()
            began = time.monotonic()
            try:
                making = Making(
                    settings=kind.settings_type.model_validate(task.settings),
                    inputs=task.open_inputs(),
                    out=building.out,
                    scratch=building.scratch,
                    kept=self.cache / KEPT,
                    progress=self.progress,
                    extensions=self.extensions,
                )
                turn = self.machine.timing() if kind.timed else self.machine.working()
                with turn, environment_set_to(self._environment):
                    metadata = kind.make(making)
            except Exception:
                task.mark_failed()
                raise
            return {**metadata, "seconds": round(time.monotonic() - began, 3)}

        _, reused = Store(task.store).get_or_build(
            task.kind, task.key, build, on_wait=lambda: self.progress(f"{task.name}: another process is making it")
        )
        return task.key, reused

    def _why_not(self, artifact: Artifact) -> str:
        """Return why a step's artifact in the store can't be reused; empty where it can."""
        changed = find_changed(artifact.meta.get("used", {}), self.root, self.digests)
        if changed:
            return f"{changed} changed"
        return "" if lasts(artifact) else EXPIRED

    def _why_new(self, plan: Plan, ref: Ref, content: Content) -> str:
        """Return what has changed since the step was last done for this spec; empty where it was never done."""
        try:
            before = json.loads(self._last(plan, ref).read_bytes())
        except (OSError, ValueError):
            return ""
        return why_different(before, content)

    def _remember(self, plan: Plan, ref: Ref, content: Content) -> None:
        """Save what a step's key is made of, if the cache can be written, so that a later run can say what changed."""
        if is_repeated(STEP_KINDS[ref.kind]):
            return
        file = self._last(plan, ref)
        text = json.dumps(content, sort_keys=True)
        with suppress(OSError):
            if not file.exists() or file.read_text() != text:
                write_whole(file, text)

    def _last(self, plan: Plan, ref: Ref) -> Path:
        return self.cache / "last" / f"{fingerprint([plan.id, str(ref)])}.json"


def shared_compilations(folder: Path) -> dict[str, str]:
    """Return the variables by which the steps of one run share what JAX compiles; the user's own come before them.

    No other run does: compiled programs depend on the machine, and a cache may be moved to another.
    """
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def prune_runs(cache: Path) -> None:
    """Remove the folders of all but the latest runs, and of runs that are still going on."""
    folders = sorted((cache / "runs").glob("*/"), key=_last_change)
    for folder in folders[:-RUNS_KEPT]:
        remove_unless_held(folder)


def _last_change(folder: Path) -> float:
    """Return when a folder was changed, in seconds since the epoch; 0 where another process has removed it."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def environment_set_to(variables: Mapping[str, str]) -> Iterator[None]:
    """Have exactly these environment variables within the block."""
    before = dict(os.environ)
    try:
        _set_environment(variables)
        yield
    finally:
        _set_environment(before)


def _set_environment(variables: Mapping[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)
