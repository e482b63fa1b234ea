"""A user's project whose step is recorded in a process of its own, because an audit hook stays until its process ends.

The step is ``main`` in ``step_code.py``, which a test writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploycheck.runner.digests import Digests
from deploycheck.runner.recording import Used, find_changed

DRIVER = """
import importlib, json, os, sys
from pathlib import Path
from deploycheck.runner.digests import Digests
from deploycheck.runner.recording import Recorder

root, *path = sys.argv[1:]
sys.path[:1] = [root, *path]
os.chdir(root)
cache = Path(root) / "cache"
cache.mkdir(exist_ok=True)
log = cache / "used.jsonl"
recorder = Recorder(Path(root), (cache,), Digests(cache / "digests.json"))
recorder.start(log)
importlib.import_module("step_code").main()
print()
print(json.dumps(recorder.used(log)))
"""

EDIT = '''
def edit(name, text):
    """Have another process write a file, without a sign of it in this one."""
    import subprocess, sys
    code = "import sys; name, text = sys.stdin.read().split(); open(name, 'w').write(text)"
    subprocess.run([sys.executable, "-c", code], input=f"{name} {text}", text=True, check=True)
'''
"""A function that a step's source may have."""


@dataclass(frozen=True)
class Project:
    """A user's project, with a folder beside it."""

    root: Path
    outside: Path

    @classmethod
    def make(cls, folder: Path) -> Project:
        made = cls(folder / "project", folder / "outside")
        made.root.mkdir()
        made.outside.mkdir()
        return made

    def write(self, name: str, text: str = "") -> Path:
        """Write a file of the project, and its folder where there is none."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def record(self, source: str, *path: Path, **environment: str) -> Used:
        """Run ``main`` in a source, and return what is recorded; ``path`` is put on the import path."""
        self.write("step_code.py", source)
        command = [sys.executable, "-c", DRIVER, str(self.root), *map(str, path)]
        child = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
        )
        assert child.returncode == 0, child.stderr
        used: Used = json.loads(child.stdout.splitlines()[-1])
        return used

    @property
    def log(self) -> Path:
        """The log of the last recording."""
        return self.root / "cache" / "used.jsonl"

    def changed(self, used: Used) -> str:
        return find_changed(used, self.root, Digests(self.root / "none.json"))
