"""``python -m deploycheck.runner.worker``: does steps that run the user's code, in a process of its own.

It reads one task per line of JSON on standard input, and answers each with lines of JSON: progress, then the
result. One worker serves one spec file. What the spec's code sets up (JAX's flags, random state, environment variables)
is put back between steps; where that can't be done, this process ends and the next step gets another one. A worker
ends when standard input is closed, so it never outlives the process that started it.
"""

from __future__ import annotations

import json
import os
import queue
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.runner.code import PACKAGE
from deploycheck.runner.digests import Digests
from deploycheck.runner.installed import extensions_from
from deploycheck.runner.recording import Recorder, find_changed
from deploycheck.runner.tasks import AlreadyFailed, Task, lasts
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.kind import Making
from deploycheck.store import Building, Store, open_artifact


@dataclass(frozen=True)
class ProcessState:
    """What user code can change in this process, as it was before user code ran."""

    jax: Mapping[str, Any]
    environment: Mapping[str, str]
    path: tuple[str, ...]
    folder: str

    @classmethod
    def now(cls) -> ProcessState:
        """Return the state as it is."""
        return cls(dict(jax.config.values), dict(os.environ), tuple(sys.path), os.getcwd())  # noqa: PTH109

    def restore(self) -> bool:
        """Put the state back; return whether that was possible. Random numbers start from the same seeds each time."""
        random.seed(0)
        np.random.seed(0)
        sys.path[:] = self.path
        os.chdir(self.folder)
        changed = {name for name, _ in os.environ.items() ^ self.environment.items()}
        for name in os.environ.keys() - self.environment.keys():
            del os.environ[name]
        os.environ.update(self.environment)
        if any(name.startswith(("JAX_", "XLA_")) for name in changed):
            return False  # JAX reads them once
        try:
            for name, value in self.jax.items():
                if jax.config.values[name] != value:
                    jax.config.update(name, value)
        except Exception:  # some flags can't be changed once JAX has begun to compute
            return False
        return True


def main() -> None:
    """Do tasks until standard input is closed."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the user's code prints is not an answer
    lines = os.fdopen(os.dup(sys.stdin.fileno()))
    with open(os.devnull) as nothing:  # noqa: PTH123 - the user's code, and what it starts, must not read tasks
        os.dup2(nothing.fileno(), sys.stdin.fileno())

    def say(**line: Any) -> None:
        answers.write(json.dumps(line) + "\n")

    first = json.loads(lines.readline())
    root, cache = Path(first["root"]), Path(first["cache"])
    sys.path[:] = first["path"]
    tasks = _tasks(lines)
    digests = Digests(cache / "digests.json")
    recorder = Recorder(root, (cache,), digests)
    state = ProcessState.now()
    while True:
        line = tasks.get()
        if not state.restore():
            say(spent=True)  # as an answer: a process that ended earlier would leave the parent with a closed pipe
            return
        say(**_answer(Task.from_json(line), root, recorder, digests, lambda text: say(progress=text)))


def _tasks(lines: IO[str]) -> queue.Queue[str]:
    """Read tasks in a thread of its own, which ends the process once there can be no more."""
    tasks: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in lines:
            tasks.put(line)
        os._exit(1)  # at once, even in the middle of a step: the process that asked for it has ended

    threading.Thread(target=read, daemon=True).start()
    return tasks


def _answer(
    task: Task, root: Path, recorder: Recorder, digests: Digests, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Do one task; return its result as JSON."""
    try:
        with recorder.recording() as used:
            reused = _do(task, root, digests, progress, used)
    except AlreadyFailed as error:
        return {"already_failed": str(error)}
    except Exception as error:  # of the user's code, which may raise anything
        return {"failed": _failure(error)}
    return {"done": {"reused": reused}}


def _do(task: Task, root: Path, digests: Digests, progress: Callable[[str], None], used: Callable[[], Any]) -> bool:
    """Build a task's artifact, unless another process has built it meanwhile; return whether one had."""
    kind = STEP_KINDS[task.kind]
    store = Store(task.store)

    def build(building: Building) -> Mapping[str, Any]:
        task.check_not_failed()
        began = time.monotonic()
        try:
            making = Making(
                settings=kind.settings_type.model_validate(task.settings),
                inputs={role: open_artifact(path) for role, path in task.inputs.items()},
                out=building.out,
                scratch=building.scratch,
                progress=progress,
                extensions=extensions_from(task.extensions, root),
            )
            metadata = kind.make(making)
        except Exception:
            task.mark_failed()
            raise
        return {**metadata, "used": used(), "seconds": round(time.monotonic() - began, 3)}

    _, reused = store.get_or_build(
        task.kind,
        task.key,
        build,
        usable=lambda artifact: lasts(artifact) and not find_changed(artifact.meta.get("used", {}), root, digests),
        on_wait=lambda: progress(f"{task.name}: another process is making it"),
    )
    digests.save()
    return reused


def _failure(error: Exception) -> dict[str, str]:
    """Return an error as data. If the user's code raised it, the traceback begins where that code begins."""
    if isinstance(error, DeploycheckError):
        return {"what": error.what, "where": error.where, "hint": error.hint, "trace": ""}
    trace = error.__traceback__
    while trace and trace.tb_next and Path(trace.tb_frame.f_code.co_filename).is_relative_to(PACKAGE):
        trace = trace.tb_next
    first = next(iter(str(error).splitlines()), "")
    return {
        "what": f"{type(error).__name__}: {first}",
        "where": "",
        "hint": "",
        "trace": "".join(traceback.format_exception(type(error), error, trace)),
    }


if __name__ == "__main__":
    main()
