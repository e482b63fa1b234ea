"""Each method of compression, and chains of them, on the three specs with real data: the table in docs/compression.md.

    python benchmarks/compress.py [--specs image speech medical] [--rounds 50] [--project FOLDER] [--write]

The rows are the variants in ``compress.yaml``. The gate makes and evaluates them, each for both runtimes, in a project
of its own: accuracy with its interval and bytes on disk are those of its evidence. Then all artifacts of a spec answer
in turn, in one process, so that what else the machine does meets all of them: each latency is the median of the rounds.
``--project`` keeps the project, so that another run finds what this one has made. ``--write`` puts the table into the
page.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploycheck.evidence.record import CheckRecord, Evidence, SpecRecord
from deploycheck.language.source import read
from deploycheck.serving.opening import open_compiled
from deploycheck.serving.runtimes import Engine
from deploycheck.stages import examples
from deploycheck.steps.data import TEST
from deploycheck.steps.kind import TRAINED

ROOT = Path(__file__).parents[1]
ROWS, PAGE = ROOT / "benchmarks" / "compress.yaml", ROOT / "docs" / "compression.md"
SPECS = ("image", "speech", "medical")
RUNTIMES = ("xla", "onnxruntime")
BATCHES = (1, 32)
KEPT = ("deploycheck", "name", "model", "data", "optimize", "train")
"""The parts of a spec that decide its model."""
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Row:
    """A variant on one runtime: what the gate found of its artifact, and the artifact itself."""

    accuracy: CheckRecord
    size: int
    folder: Path


def on(runtime: str, variant: str) -> str:
    """Return the name of a variant on a runtime."""
    return variant if runtime == RUNTIMES[0] else f"{variant}-{runtime}"


def spec_of(name: str, variants: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec with other variants than its own, each for every runtime, and with checks that all pass."""
    own = read(ROOT / "specs" / f"{name}.yaml", name).data
    spec = {key: own[key] for key in KEPT if key in own}
    for section in ("data", "train"):
        spec[section] = {key: value for key, value in own[section].items() if key != "expect"}
    others = {
        on(runtime, variant): {"from": variant, "runtime": runtime}
        for runtime in RUNTIMES[1:]
        for variant in (TRAINED, *variants)
    }
    expect = {"accuracy": ">= 1 %", "size": "<= 1 GB"}
    return {
        **spec,
        "train": {**spec["train"], "expect": expect},
        "compress": {"variants": {**variants, **others}, "expect": expect},
        "serve": {"runtime": RUNTIMES[0]},
    }


def gate(name: str, variants: Mapping[str, Any], project: Path) -> SpecRecord:
    """Run the gate on a spec with these variants; return its evidence."""
    spec, evidence = project / f"{name}.json", project / f"{name}.evidence.json"
    spec.write_text(json.dumps(spec_of(name, variants), indent=1))
    command = ["-m", "pytest", "-q", "-n", "2", "-k", "train or compress", "--deploycheck", spec.name]
    command += [f"--deploycheck-evidence={evidence}", f"--deploycheck-cache={project / 'cache'}"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}"}
    done = subprocess.run([sys.executable, *command], cwd=project, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    (record,) = Evidence.model_validate_json(evidence.read_bytes()).specs
    return record


def rows_of(record: SpecRecord, variants: Sequence[str], project: Path) -> dict[tuple[str, str], Row]:
    """Return what the evidence says of each variant on each runtime."""
    checks = {(check.variant, check.metric): check for check in record.checks}
    steps = {step.step: step for step in record.steps}
    return {
        (variant, runtime): Row(
            checks[on(runtime, variant), "accuracy"],
            int(checks[on(runtime, variant), "size"].value or 0),
            project / steps[f"model[{on(runtime, variant)}]"].path,
        )
        for variant in variants
        for runtime in RUNTIMES
    }


def latencies(engines: Mapping[Any, Engine], inputs: Mapping[str, np.ndarray], rounds: int) -> dict[Any, float]:
    """Return the median time of each engine for a batch, in ms; they take turns."""
    times: dict[Any, list[float]] = {key: [] for key in engines}
    for _ in range(rounds):
        for key, engine in engines.items():
            started = time.perf_counter()
            engine.run(inputs)
            times[key].append(1e3 * (time.perf_counter() - started))
    return {key: statistics.median(found) for key, found in times.items()}


def table(name: str, variants: Sequence[str], record: SpecRecord, project: Path, rounds: int) -> list[str]:
    """Return the table of a spec, in Markdown."""
    rows = rows_of(record, variants, project)
    engines = {key: open_compiled(row.folder, (), BATCHES) for key, row in rows.items()}
    data = next(step for step in record.steps if step.step == "data")
    test = examples.read(project / data.path / TEST).inputs
    columns = [latencies(engines, {key: each[:size] for key, each in test.items()}, rounds) for size in BATCHES]
    lines = [
        f"| {name} | accuracy | interval | bytes | ratio | "
        + " | ".join(f"{runtime}, {size}" for size in BATCHES for runtime in RUNTIMES)
        + " |",
        "| --- | ---: | ---: | ---: | ---: |" + " ---: |" * len(BATCHES) * len(RUNTIMES),
    ]
    whole = rows[TRAINED, RUNTIMES[0]].size
    for variant in variants:
        row = rows[variant, RUNTIMES[0]]
        low, high = row.accuracy.interval or (None, None)
        cells = [
            variant,
            _percent(row.accuracy.value),
            f"{_percent(low)} to {_percent(high)}",
            f"{row.size:,}",
            f"{row.size / whole:.3f}",
            *(f"{column[variant, runtime]:.3f}" for column in columns for runtime in RUNTIMES),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def machine(seconds: float) -> str:
    """Return what the tables were measured on."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", facts)
    kind = model[1] if model else "an unknown processor"
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores of {kind}, a load of {load:.1f} at the end, {seconds:.0f} s in all."


def main() -> None:
    """Print the tables, and write them into the page if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specs", nargs="+", default=SPECS, choices=SPECS)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--project", type=Path)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/compression.md")
    asked = parser.parse_args()
    started, rows, lines = time.monotonic(), read(ROWS, ROWS.name).data, list[str]()
    with ExitStack() as stack:
        project = asked.project or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shutil.copytree(ROOT / "specs", project / "specs", dirs_exist_ok=True)
        (project / "pytest.ini").write_text("[pytest]\n")
        for name in asked.specs:
            variants = {**rows.get(name, {}), **rows["each"]}
            record = gate(name, variants, project)
            lines += ["", *table(name, (TRAINED, *variants), record, project, asked.rounds)]
            print("\n".join(lines[-len(variants) - 4 :]), flush=True)
    lines += ["", machine(time.monotonic() - started)]
    print("\n".join(lines[-2:]))
    if asked.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text("\n".join([f"{before}{BEGIN}", *lines[1:], f"{END}{rest.partition(END)[2]}"]))


if __name__ == "__main__":
    main()
