"""A user's project whose code does what a test asks for, and steps to be done by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploycheck.runner.tasks import Task
from deploycheck.store import Artifact, Store, fingerprint

CODE = '''\
"""The user's code: a loader for each thing that a step may do."""

import ctypes, json, os, random, select, signal, sys, threading, warnings
from pathlib import Path

import numpy as np

EXAMPLES = np.arange(40, dtype=np.float32).reshape(20, 2), np.arange(20) % 2


def load(**_):
    return EXAMPLES


def state(report):
    """Write down all that another step could have changed."""
    import jax
    found = {
        "x64": bool(jax.config.jax_enable_x64),
        "devices": jax.device_count(),
        "random": [random.random(), float(np.random.rand())],
        "variables": {name: value for name, value in os.environ.items() if name in ("HOME", "ADDED") or "JAX_" in name},
        "path": sys.path,
        "folder": os.getcwd(),
        "library": float(np.linalg.norm([3.0, 4.0])),
        "warnings": [str(entry) for entry in warnings.filters],
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        "handler": str(signal.getsignal(signal.SIGALRM)),
        "modules": "users_other" in sys.modules,
    }
    Path(report).write_text(json.dumps(found))
    return EXAMPLES


def disturb(report):
    """Change all of it, and write it down."""
    import jax
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", 2)
    random.seed(7)
    np.random.seed(7)
    os.environ.update(JAX_ENABLE_X64="1", JAX_DEFAULT_MATMUL_PRECISION="highest", ADDED="yes")
    os.environ.pop("HOME", None)
    sys.path.insert(0, "/somewhere/else")
    os.chdir("/")
    np.linalg.norm = lambda *_: 0.0
    warnings.simplefilter("error")
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.alarm(1000)
    sys.modules["users_other"] = sys
    return state(report)


def say(line):
    print(line)
    print(line, "on stderr", file=sys.stderr)
    os.write(1, b"and on the descriptor\\n")
    return EXAMPLES


def ask():
    return input("more? ")


def fail(message="the data are gone"):
    inner(message)


def inner(message):
    raise ValueError(message + "\\nmore lines")


def kill():
    print("before the end", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_worker():
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def leave():
    sys.exit(3)


def leave_without_an_error():
    sys.exit()


def end_at_once():
    os._exit(0)


def wait(pipe):
    """Say that the step has begun, and never end."""
    with open(pipe, "w") as said:
        print("begun", file=said, flush=True)
        threading.Event().wait()


def hold_the_interpreter(pipe):
    """The same, in native code during which no Python code can run."""
    with open(pipe, "w") as said:
        print("begun", file=said, flush=True)
        ctypes.PyDLL(None).pause()


def leave_child(pipe):
    """Fork a child that goes on when the step has ended."""
    began, begins = os.pipe()
    if os.fork() == 0:
        with open(pipe, "w") as said:
            print("begun", file=said, flush=True)
            os.write(begins, b".")
            select.select([], [], [], 60)
            print("not ended by anybody", file=said, flush=True)
        os._exit(0)
    os.read(began, 1)
    return EXAMPLES


def fork_and_return():
    """Fork a child that returns from here too, before its parent does."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return EXAMPLES


def fork_and_raise():
    """Fork a child that raises."""
    child = os.fork()
    if child == 0:
        raise ValueError("of the child")
    os.waitpid(child, 0)
    return EXAMPLES


def resume(scratch, table):
    """Go on where a killed step has left half of the work, or leave half and be killed."""
    Path(table).read_bytes()
    half = Path(scratch, "half")
    if not half.exists():
        half.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    print("resumed")
    return EXAMPLES
'''


@dataclass(frozen=True)
class Steps:
    """Steps of a project: each loads data by one of the functions above."""

    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def store(self) -> Store:
        return Store(self.cache / "store")

    def task(self, function: str, *, extensions: tuple[Path, ...] = (), **arguments: Any) -> Task:
        name = function if ":" in function or extensions else f"users_code:{function}"
        settings: Mapping[str, Any] = {
            "load": name,
            "arguments": arguments,
            "split": {},
            "preprocess": [],
            "input": {"x": {"shape": [2], "dtype": "float32"}},
            "task": "classification",
        }
        key = fingerprint([str(self.root), settings])
        return Task(
            kind="data",
            key=key,
            settings=settings,
            inputs={},
            digests={},
            extensions=extensions,
            store=self.store.root,
            failed=self.cache / "runs" / "run" / "failed" / key,
            name="data",
        )

    def found(self, task: Task) -> Artifact | None:
        return self.store.find(task.kind, task.key)

    def read(self, report: str) -> dict[str, Any]:
        """Return what ``state`` wrote down."""
        found: dict[str, Any] = json.loads((self.root / report).read_text())
        return found


def make_steps(root: Path) -> Steps:
    """Return the steps of a project in a folder, which gets its code."""
    (root / "users_code.py").write_text(CODE)
    return Steps(root)
