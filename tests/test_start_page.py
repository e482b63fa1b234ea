"""The project of docs/start.md works as the page shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_project(folder: Path, *, whole: bool) -> None:
    """Write the files that the page names; with ``whole`` also what it adds to them later."""
    for name, text in FILE.findall((ROOT / "docs/start.md").read_text()):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text(text)
        elif whole:
            path.write_text(path.read_text() + "\n" + text)


def run_gate(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--deploycheck", *options, "specs/"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_the_project_of_the_start_page_passes(tmp_path: Path) -> None:
    write_project(tmp_path, whole=False)
    run = run_gate(tmp_path)
    assert run.returncode == 0, run.stdout
    assert "6 passed" in run.stdout


def test_what_the_start_page_adds_is_collected(tmp_path: Path) -> None:
    write_project(tmp_path, whole=True)
    run = run_gate(tmp_path, "--collect-only", "-q")
    assert run.returncode == 0, run.stdout
    assert "specs/shapes.yaml::serve[int8]::latency.p99" in run.stdout
