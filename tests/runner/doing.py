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

import json, os, random, sys
from pathlib import Path

import numpy as np

EXAMPLES = np.arange(40, dtype=np.float32).reshape(20, 2), np.arange(20) % 2


def load():
    return EXAMPLES


def state(report):
    """Write down all that another step could have changed."""
    import jax
    found = {
        "x64": bool(jax.config.jax_enable_x64),
        "random": [random.random(), float(np.random.rand())],
        "environment": os.environ.get("STEP_WAS_HERE"),
        "home": os.environ.get("HOME"),
        "path": sys.path,
        "folder": os.getcwd(),
        "pid": os.getpid(),
    }
    Path(report).write_text(json.dumps(found))
    return EXAMPLES


def disturb():
    """Change all of it."""
    import jax
    jax.config.update("jax_enable_x64", True)
    random.seed(7)
    np.random.seed(7)
    os.environ["STEP_WAS_HERE"] = "yes"
    del os.environ["HOME"]
    sys.path.insert(0, "/somewhere/else")
    os.chdir("/")
    return EXAMPLES


def set_device_count():
    """Set a flag that can't be changed once JAX has computed, and compute."""
    import jax
    jax.config.update("jax_num_cpu_devices", 2)
    jax.numpy.zeros(3).block_until_ready()
    return EXAMPLES


def set_variable():
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    return EXAMPLES


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
    import signal
    print("before the end", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    sys.exit(3)


def wait(pipe):
    """Say that the step has begun, and never end."""
    import threading
    with open(pipe, "w") as said:
        print("begun", file=said, flush=True)
        threading.Event().wait()
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
