"""Processes for which the disk is full, or read-only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_on_a_small_disk(script: str, folder: Path, kibibytes: int) -> str:
    """Run Python code with ``folder`` a disk of its own, of this size; return what it prints."""
    return _run_mounted(f"mount -t tmpfs -o size={kibibytes}k none '{folder}'", script)


def run_read_only(script: str, folder: Path) -> str:
    """Run Python code that may read ``folder`` but not write there; return what it prints."""
    return _run_mounted(f"mount --bind '{folder}' '{folder}' && mount -o remount,ro,bind '{folder}'", script)


def _run_mounted(mount: str, script: str) -> str:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("this user can't mount a file system of its own")
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout
