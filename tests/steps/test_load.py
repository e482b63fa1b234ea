"""What load steps have measured; the measuring itself is tested with the serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.plan import checks_of
from deploycheck.ref import Ref
from deploycheck.serving import comparison, load_report, single
from deploycheck.serving.bench import Bench
from deploycheck.serving.load_report import LoadReport
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.expected_outputs import ExpectedOutputsSettings
from deploycheck.steps.load import LoadSettings, bench_of, read_load, settings_of
from deploycheck.steps.noise import SIDES
from deploycheck.store import Artifact, open_artifact, write_manifest
from tests.planning import HEAD, plan, spec
from tests.steps.making import USES, Steps

SERVED = """\
confidence: 90 %
compress: {variants: {int8: {quantize: {weights: int8}}}}
serve:
  variants: [int8]
  load: {rate: 50 /s, requests: 400}
  expect:
    latency.p99: "<= 20 ms @ 99 %"
    throughput: {threshold: ">= 5 /s", severity: warn}
    latency.p50: "<= 110 % of baseline"
    memory: "<= 1 GB"
promote: {model: digits, to: staging}
"""
LOAD, COMPARISON = Ref("load", ("int8",)), Ref("comparison", ("int8", "baseline"))


@pytest.fixture
def settings(tmp_path: Path) -> Callable[[Ref], Any]:
    made = plan(HEAD + SERVED, tmp_path)
    return lambda ref: STEP_KINDS[ref.kind].settings(made.spec, ref, checks_of(made, ref))


def test_the_checks_on_a_load_are_its_goals(settings: Callable[[Ref], LoadSettings]) -> None:
    load, comparison = settings(LOAD), settings(COMPARISON)
    assert (load.variants, load.confidence) == (("int8",), 0.9)
    assert [(goal.metric, goal.percentile, goal.against) for goal in load.goals] == [
        ("latency", 0.99, ""),
        ("throughput", None, ""),
        ("memory", None, ""),
    ]
    assert comparison.variants == ("int8", "baseline")
    assert [(goal.metric, goal.percentile, goal.against) for goal in comparison.goals] == [("latency", 0.5, "baseline")]


def test_a_bench_measures_what_the_checks_measure(
    settings: Callable[[Ref], LoadSettings], chain: Steps, data: Artifact, tmp_path: Path
) -> None:
    steps = Steps(tmp_path, replace(chain.extensions, files=(Path("/conftest.py"),)))
    making = steps.making(settings(LOAD), "load", data=data)
    bench = bench_of(making)
    assert bench.scenario.name == "server"
    assert (bench.load.rate, bench.load.requests) == (50, 400)
    assert {name: array.shape for name, array in bench.inputs.items()} == {"x": (18, 4)}
    assert (bench.extensions, bench.scratch) == ((Path("/conftest.py"),), making.scratch)
    latency, *_ = bench.goals
    assert (latency.confidence, latency.threshold.confidence) == (0.9, 0.99)
    fast = LoadReport(latencies_s=(0.001,) * 1000)
    assert latency.is_decided(fast)
    assert not latency.is_decided(replace(fast, latencies_s=fast.latencies_s[:400]))  # enough for 90 %, not for 99 %


def test_a_bench_of_a_comparison_measures_the_first_relative_to_the_second(
    settings: Callable[[Ref], LoadSettings], chain: Steps, data: Artifact, tmp_path: Path
) -> None:
    (goal,) = bench_of(Steps(tmp_path, chain.extensions).making(settings(COMPARISON), "comparison", data=data)).goals
    rounds = (60,) * 12
    fast = LoadReport(latencies_s=(0.001, 0.00101) * 360, rounds=rounds)
    slow = LoadReport(latencies_s=(0.004, 0.00404) * 360, rounds=rounds)
    assert goal.is_decided(fast, slow)
    assert goal.measure(slow, fast).sample != goal.measure(fast, slow).sample


def test_a_load_serves_its_variant_beside_what_the_model_in_memory_answers(
    settings: Callable[[Ref], LoadSettings],
    chain: Steps,
    data: Artifact,
    trained: Artifact,
    model: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served: list[Any] = []

    def measure(variant: str, artifact: Artifact, in_memory: Mapping[str, Any], bench: Bench, out: Path) -> None:
        served.append((variant, artifact, in_memory, bench))
        load_report.write({variant: LoadReport(failed=3)}, out)

    monkeypatch.setattr(single, "measure", measure)
    steps = Steps(tmp_path, chain.extensions)
    expected = steps.make("expected_outputs", ExpectedOutputsSettings(uses=USES), data=data, weights=trained)
    artifact = steps.make("load", settings(LOAD), data=data, model=model, expected=expected)
    ((variant, artifact_served, in_memory, _),) = served
    assert (variant, artifact_served) == ("int8", model)
    assert in_memory["logits"].shape == (18, 3)
    assert artifact.meta == {"model": model.digest}
    assert read_load(artifact, "int8").failed == 3


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was compared, in place of servers."""
    found: list[Any] = []

    def compare(first: tuple[str, Artifact], second: tuple[str, Artifact], bench: Bench, out: Path) -> None:
        found.append((first, second, bench))
        load_report.write({first[0]: LoadReport(failed=1), second[0]: LoadReport(failed=2)}, out)

    monkeypatch.setattr(comparison, "compare", compare)
    return found


def other_artifact(folder: Path) -> Artifact:
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"other")
    return write_manifest(folder, "model", "1" * 64, {})


def test_a_comparison_serves_both_and_each_has_its_report(
    settings: Callable[[Ref], LoadSettings],
    chain: Steps,
    data: Artifact,
    model: Artifact,
    tmp_path: Path,
    compared: list[Any],
) -> None:
    other = other_artifact(tmp_path / "other")
    steps = Steps(tmp_path, chain.extensions)
    artifact = steps.make("comparison", settings(COMPARISON), data=data, first=model, second=other)
    assert [named for *named, _ in compared] == [[("int8", model), ("baseline", other)]]
    assert artifact.meta == {"models": {"int8": model.digest, "baseline": other.digest}}
    subject = STEP_KINDS["comparison"].subjects["load"]
    assert [subject.read(artifact, variant).failed for variant in ("int8", "baseline")] == [1, 2]


def test_noise_serves_one_artifact_twice_and_takes_all_its_rounds(
    settings: Callable[[Ref], LoadSettings],
    chain: Steps,
    data: Artifact,
    model: Artifact,
    tmp_path: Path,
    compared: list[Any],
) -> None:
    steps = Steps(tmp_path, chain.extensions)
    artifact = steps.make("noise", settings(Ref("noise", ("int8",))), data=data, model=model)
    ((first, second, bench),) = compared
    assert (first, second) == ((SIDES[0], model), (SIDES[1], model))
    assert bench.goals == ()
    assert set(load_report.read(artifact.path)) == set(SIDES)


def test_nothing_is_served_without_a_serve(tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match="the spec has no `serve`"):
        settings_of(spec(HEAD, tmp_path), ("trained",), ())


def test_a_report_is_found_by_its_variant(tmp_path: Path) -> None:
    load_report.write({"int8": LoadReport(failed=1), "baseline": LoadReport(failed=2)}, tmp_path)
    artifact = open_artifact(write_manifest(tmp_path, "load", "0" * 64, {}).path)
    assert read_load(artifact, "baseline").failed == 2
    assert read_load(artifact, "int8").failed == 1
