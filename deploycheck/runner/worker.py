"""``python -m deploycheck.runner.worker``: does steps that run the user's code, each in a fork of its own.

This process imports the libraries, and none of the user's code. It reads one task per line of JSON on standard input.
For each it forks: the fork does the step, with everything as it was before any user code ran (JAX's flags, random
state, environment variables, patched libraries), and writes lines of JSON: progress, then the result. When the fork has
ended, this process kills what the fork left running, and says so. It ends when standard input is closed, so it never
outlives the process that started it.

No JAX backend is started before a fork: a fork of a process that has one may hang.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.runner.code import PACKAGE
from deploycheck.runner.digests import Digests
from deploycheck.runner.installed import extensions_from
from deploycheck.runner.recording import Recorder, find_changed, is_stale
from deploycheck.runner.tasks import KEPT, AlreadyFailed, Task, addresses, lasts
from deploycheck.serving import predict  # noqa: F401 - imported once, for all forks
from deploycheck.serving.runtimes import _xla_engine, _xla_export  # noqa: F401 - likewise
from deploycheck.stages import quantization, trainer  # noqa: F401 - likewise
from deploycheck.steps import STEP_KINDS, trained  # noqa: F401 - likewise
from deploycheck.steps.kind import Making
from deploycheck.store import Artifact, Building, Store

LOG = "used.jsonl"
"""The record of what a step used, in its scratch folder."""
DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG (prctl(2))."""

Say = Callable[..., None]


def main() -> None:
    """Do tasks until standard input is closed."""
    answers, tasks = os.dup(sys.stdout.fileno()), os.dup(sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the user's code prints is not an answer
    with open(os.devnull) as nothing:  # noqa: PTH123 - the user's code, and what it starts, must not read tasks
        os.dup2(nothing.fileno(), sys.stdin.fileno())

    def say(**line: Any) -> None:
        os.write(answers, (json.dumps(line) + "\n").encode())

    lines = _lines(tasks)
    first = json.loads(next(lines))
    root, cache = Path(first["root"]), Path(first["cache"])
    sys.path[:] = first["path"]
    gc.freeze()  # the forks share what is imported: their garbage collections leave it out
    for line in lines:
        task = Task.from_json(line)
        process = os.fork()
        if process == 0:
            _be_the_fork(task, root, cache, say)
        with suppress(OSError):  # the fork may have done it, or have ended
            os.setpgid(process, process)
        say(ended=_wait(process, tasks))


def _lines(source: int) -> Iterator[str]:
    """Yield lines until the source is closed."""
    rest = b""
    while part := os.read(source, 65536):
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.decode() for line in whole)


def _wait(process: int, tasks: int) -> int:
    """Wait until a fork has ended, and kill what it started; return its exit code, or a signal's number below 0.

    Where the parent has ended, or closed the tasks, the fork is killed, and this process ends.
    """
    waking, woken = os.pipe()
    os.set_blocking(woken, False)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    try:
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                _kill_group(process)
                return os.waitstatus_to_exitcode(status)
            ready, _, _ = select.select([waking, tasks], [], [])
            if tasks in ready and not os.read(tasks, 1):
                _kill_group(process)
                os._exit(1)
            if waking in ready:
                os.read(waking, 4096)
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, before)
        os.close(waking)
        os.close(woken)


def _kill_group(process: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def _be_the_fork(task: Task, root: Path, cache: Path, say: Say) -> None:
    """Do one task and end this process."""
    signal.set_wakeup_fd(-1)
    os.setpgid(0, 0)
    _die_with_parent()
    random.seed(0)  # here, because Python gives each fork another random state
    np.random.seed(0)
    say(**_answer(task, root, cache, lambda text: say(progress=text)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def _ending_forks() -> Iterator[None]:
    """End a fork that the user's code made within the block, and that leaves the block: the step is not its work."""
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != process:
            os._exit(0)


def _die_with_parent() -> None:
    """Have the kernel kill this process if its parent is killed, where it can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)


def _answer(task: Task, root: Path, cache: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Do one task; return its result as JSON."""
    try:
        artifact, reused = _do(task, root, cache, progress)
    except AlreadyFailed as error:
        return {"already_failed": str(error)}
    except Exception as error:  # of the user's code, which may raise anything
        return {"failed": _failure(error)}
    return {"done": {"key": artifact.key, "reused": reused}}


def _do(task: Task, root: Path, cache: Path, progress: Callable[[str], None]) -> tuple[Artifact, bool]:
    """Build a task's artifact, unless another process has built it meanwhile; return whether one had.

    An artifact that can't be used again is not replaced, because another run may be reading it: the new one gets the
    next address.
    """
    kind = STEP_KINDS[task.kind]
    store, digests = Store(task.store), Digests(cache / "digests.json")

    def build(building: Building) -> Mapping[str, Any]:
        task.check_not_failed()
        began = time.monotonic()
        recorder, log = Recorder(root, (cache, *task.inputs.values()), digests), building.scratch / LOG
        if is_stale(log):
            shutil.rmtree(building.scratch)
            building.scratch.mkdir()
        try:
            inputs = task.open_inputs()
            recorder.start(log)
            with _ending_forks():
                making = Making(
                    settings=kind.settings_type.model_validate(task.settings),
                    inputs=inputs,
                    out=building.out,
                    scratch=building.scratch,
                    kept=cache / KEPT,
                    progress=progress,
                    extensions=extensions_from(task.extensions, root),
                )
                metadata = kind.make(making)
            used = recorder.used(log)
        except Exception:
            task.mark_failed()
            raise
        return {**metadata, "used": used, "seconds": round(time.monotonic() - began, 3)}

    def is_usable(artifact: Artifact) -> bool:
        return lasts(artifact) and not find_changed(artifact.meta.get("used", {}), root, digests)

    def waits() -> None:
        progress(f"{task.name}: another process is making it")

    for key in addresses(task.key):
        found = store.find(task.kind, key)
        if found is None or is_usable(found):
            artifact, reused = store.get_or_build(task.kind, key, build, on_wait=waits)
            if not reused or is_usable(artifact):
                with suppress(OSError):
                    digests.save()
                return artifact, reused
    raise AssertionError("addresses never end")


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
