"""Collection: 10,000 checks from 500 specs, beside bare pytest on 10,000 trivial items from 500 YAML files.

Bare pytest is its documentation's own example of collecting YAML ("Working with non-python tests"). Both are run
in turn, A B B A, in processes of their own; the ratio of the medians is what counts. Prints a table.

    python benchmarks/collect.py [--specs 500] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKS_A_SPEC = 20
ALLOWED = 1.5

# Twenty checks: three stages' `completes`, and seventeen thresholds, most of them a standard's.
STANDARD = """\
deploycheck: 1
name: fleet
data:
  expect:
    missing_values: "== 0"
    duplicates_across_splits: "== 0"
    smallest_class: ">= 5 %"
train:
  optimizer: {adam: {learning_rate: 3e-3}}
  schedule: {cosine: {warmup: 5 %}}
  epochs: 30
  batch_size: 64
  seeds: [0, 1, 2]
  stop_early: {watch: validation.loss, patience: 5}
  expect:
    learned: ">= 90 % over majority"
    size: "<= 100 kB"
    parameters: "<= 100000"
serve:
  variants: [trained]
  batching: {max_size: 32, max_delay: 2 ms}
  load: {scenario: server, arrivals: poisson, rate: 200 /s}
  expect:
    latency.p50: "<= 5 ms"
    latency.p90: "<= 10 ms"
    latency.p99: "<= 20 ms"
    throughput: ">= 500 /s"
    errors: "== 0"
    parity: "<= 1e-4"
    cold_start: "<= 10 s"
    memory: "<= 800 MB"
    recompilations: "== 0"
"""

SPEC = """\
deploycheck: 1
name: generated-{number}
extends: ../fleet.yaml
model:
  build: generated_model:build
  with: {{features: {features}}}
  input: {{image: {{shape: [8, 8], dtype: float32}}}}
data:
  load: generated_model:digits
  split: {{train: 0.5, validation: 0.1, test: 0.4, seed: {number}, stratify: true}}
train:
  expect:
    accuracy: ">= 97 %"
    accuracy.worst_class: ">= 88 % @ 90 %"
promote: {{model: generated-{number}, to: staging}}
"""

MODEL = """\
def build(features, rngs): ...
def digits(): ...
"""

BARE_CONFTEST = """\
import pytest, yaml

class File(pytest.File):
    def collect(self):
        for name in yaml.safe_load(self.path.open(encoding="utf-8"))["checks"]:
            yield Item.from_parent(self, name=name)

class Item(pytest.Item):
    def runtest(self): ...

def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".yaml":
        return File.from_parent(parent, path=file_path)
"""


def main() -> int:
    """Run, print, and return 1 where the ratio is over what is allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bare, ours = Path(folder, "bare"), Path(folder, "ours")
        write(bare, ours, arguments.specs)
        seconds: dict[str, list[float]] = {"bare pytest": [], "deploycheck": []}
        for _ in range(arguments.rounds):
            for name, path, options in (
                ("bare pytest", bare, ["-p", "no:deploycheck"]),
                ("deploycheck", ours, ["--deploycheck"]),
                ("deploycheck", ours, ["--deploycheck"]),
                ("bare pytest", bare, ["-p", "no:deploycheck"]),
            ):
                seconds[name].append(collect(path, options, arguments.specs * CHECKS_A_SPEC))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["deploycheck"] / medians["bare pytest"]
    for name, median in medians.items():
        print(f"{name:12}  median {median:.2f} s of {len(seconds[name])} whole processes")
    print(f"ratio {ratio:.2f}, at most {ALLOWED} allowed, {arguments.specs * CHECKS_A_SPEC:,} items each")
    return 0 if ratio <= ALLOWED else 1


def write(bare: Path, ours: Path, specs: int) -> None:
    """Write the two projects."""
    for folder in (bare, ours):
        (folder / "specs").mkdir(parents=True)
        (folder / "pytest.ini").write_text("[pytest]\n")
    (bare / "conftest.py").write_text(BARE_CONFTEST)
    (ours / "generated_model.py").write_text(MODEL)
    (ours / "fleet.yaml").write_text(STANDARD)
    for number in range(specs):
        names = "\n".join(f"  - check_{check}" for check in range(CHECKS_A_SPEC))
        (bare / "specs" / f"spec_{number}.yaml").write_text(f"checks:\n{names}\n")
        (ours / "specs" / f"spec_{number}.yaml").write_text(SPEC.format(number=number, features=16 + number % 5))


def collect(folder: Path, options: list[str], items: int) -> float:
    """Return the seconds a whole process takes that only collects."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options, "specs"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if f"{items} tests collected" not in done.stdout:
        sys.exit(f"expected {items} items:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
