"""Whether verdicts flip on a noisy machine: one model, gated many times while a busy loop runs beside it.

    python benchmarks/noisy.py [--runs 30] [--gate "specs/digits.yaml::serve[int8]"]

The busy loop is a separate process that uses one core for one to four seconds, and pauses for as long. Each run is a
whole `pytest --deploycheck`; from the second run on only the timing measurements are repeated. A check flipped if it
passed in one run and failed in another; the exit code is 1 then. Undecided does not count as a flip: it means that the
machine was too noisy to tell.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

LOOP = "while True: pass"


def make_noise(over: threading.Event, seed: int) -> None:
    """Start and end busy processes until ``over`` is set."""
    drawn = random.Random(seed)
    while not over.is_set():
        with subprocess.Popen([sys.executable, "-c", LOOP]) as loop:
            over.wait(drawn.uniform(1, 4))
            loop.kill()
        over.wait(drawn.uniform(1, 4))


def gate(ids: str, evidence: Path) -> dict[str, tuple[str, str]]:
    """Run the gate once; return the verdict of each timed check, and its measured value."""
    command = [sys.executable, "-m", "pytest", "--deploycheck", f"--deploycheck-evidence={evidence}", "-q", ids]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    (spec,) = json.loads(evidence.read_text())["specs"]
    return {
        f"{check['stage']}::{check['metric']} {check['threshold']}": (check["verdict"], check["shown"])
        for check in spec["checks"]
        if check["interval"]
    }


def main() -> int:
    """Run the gate many times; print the verdicts of each check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--gate", default="specs/digits.yaml::serve[int8]", help="what to gate, as pytest names it")
    options = parser.parse_args()
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        evidence = Path(folder) / "evidence.json"
        gate(options.gate, evidence)  # trains and exports before there is any noise
        noise = threading.Thread(target=make_noise, args=(over, 0))
        noise.start()
        try:
            for run in range(1, options.runs + 1):
                began = time.monotonic()
                found = gate(options.gate, evidence)
                for check, (verdict, _) in found.items():
                    seen[check][verdict] += 1
                shown = ", ".join(f"{verdict} {value}" for verdict, value in found.values())
                print(f"{run}: {time.monotonic() - began:.0f} s: {shown}", flush=True)
        finally:
            over.set()
            noise.join()
    flipped = [check for check, verdicts in seen.items() if {"pass", "fail"} <= verdicts.keys()]
    for check, verdicts in seen.items():
        print(f"{check}: {', '.join(f'{number} {verdict}' for verdict, number in verdicts.items())}")
    print(f"flipped between pass and fail: {', '.join(flipped) or 'none'}")
    return 1 if flipped else 0


if __name__ == "__main__":
    sys.exit(main())
