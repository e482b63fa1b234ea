"""A check as the evidence records it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from deploycheck.check import Check
from deploycheck.evidence import CheckRecord
from deploycheck.plan import Plan
from deploycheck.ref import Ref
from deploycheck.runner import judge as module
from deploycheck.runner.execute import NotReached
from deploycheck.runner.judge import judge, steps_of, unjudged
from deploycheck.runner.measuring import Subjects
from deploycheck.serving import load_report
from deploycheck.serving.load_report import Conditions, LoadReport
from deploycheck.steps.kind import NoBaseline
from deploycheck.verdict import Exact, Measurement, Outcome, Proportion, Quantile
from tests.planning import HEAD, plan
from tests.runner.done import DoneRunner, write_artifact

TEXT = (
    HEAD.replace('accuracy: ">= 97 %"', 'accuracy: {threshold: ">= 97 %", severity: warn}')
    + """\
compress:
  variants: {int8: {quantize: {weights: int8}}}
  expect:
    accuracy: {threshold: ">= 90 %", slices: {by: label, at_least: 9}}
    size: "<= 110 % of baseline"
    agreement: ">= 90 %"
serve: {variants: [int8], expect: {latency.p99: "<= 20 ms"}}
promote: {model: digits, to: staging}
waive:
  compress.agreement: {because: a known fault, until: 2026-12-31, by: vision}
"""
)
TODAY = date(2026, 11, 25)
BASELINE, MODEL, LOAD = Ref("baseline"), Ref("model", ("int8",)), Ref("load", ("int8",))
NONE_YET = "nothing is promoted as digits@staging yet: there is no baseline"
Judge = Callable[..., CheckRecord]


@pytest.fixture
def made(tmp_path: Path) -> Plan:
    return plan(TEXT, tmp_path)


@pytest.fixture
def runner(made: Plan, tmp_path: Path) -> DoneRunner:
    artifacts = {ref: write_artifact(tmp_path, ref, {"a": str(ref).encode()}) for ref in made.steps if ref != LOAD}
    machine = Conditions(others=0.1, stolen=0.2, load_average=(1, 2), frequency_hz=(3, 4))
    report = LoadReport(latencies_s=(0.1, math.inf), failed=1, failures="1 × status 500", machine=machine)
    folder = tmp_path / "report"
    folder.mkdir()
    load_report.write({"int8": report}, folder)
    files = {load_report.REPORT: (folder / load_report.REPORT).read_bytes()}
    return DoneRunner({**artifacts, LOAD: write_artifact(tmp_path, LOAD, files)})


def check_of(made: Plan, stage: str, metric: str) -> Check:
    return next(check for check in made.checks if (check.stage, check.metric) == (stage, metric))


@pytest.fixture
def judged(made: Plan, runner: DoneRunner, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Return a function that judges a check of which something was measured."""

    def judge_it(stage: str, metric: str, measurement: Measurement, today: date = TODAY) -> CheckRecord:
        monkeypatch.setattr(module, "measure", lambda *_: measurement)
        return judge(Subjects(runner), made, check_of(made, stage, metric), today)  # type: ignore[arg-type]

    return judge_it


def test_what_was_measured_and_decided_is_recorded(judged: Judge, runner: DoneRunner) -> None:
    record = judged("serve[int8]", "latency.p99", Measurement(Quantile(0.99, (0.001,) * 600), "a note"))
    assert (record.verdict, record.reason, record.value) == (Outcome.PASS, "a note", 0.001)
    assert (record.unit, record.confidence, record.samples) == ("s", 0.95, 600)
    assert (record.threshold, record.severity, record.waiver) == ("<= 20 ms", "error", None)
    assert record.interval is not None
    assert record.interval[1] == pytest.approx(0.001)
    assert record.artifact == runner.artifacts[MODEL].digest
    assert record.shown.startswith("1")
    assert set(runner.asked) >= {LOAD}


def test_a_number_without_end_is_none_in_the_record(judged: Judge) -> None:
    record = judged("serve[int8]", "latency.p99", Measurement(Quantile(0.99, (math.inf,) * 400)))
    assert (record.verdict, record.value) == (Outcome.FAIL, None)
    assert record.interval == (None, None)


def test_where_nothing_was_measured_no_value_is_shown(judged: Judge) -> None:
    record = judged("serve[int8]", "latency.p99", Measurement(Quantile(0.99, ()), disturbed="the machine was busy"))
    assert (record.verdict, record.shown, record.value) == (Outcome.UNDECIDED, "nothing was measured", None)
    record = judged("serve[int8]", "latency.p99", Measurement(Exact(math.nan), invalid="it is not measured here"))
    assert (record.verdict, record.shown, record.value) == (Outcome.UNDECIDED, "nothing was measured", None)


def test_an_exact_value_has_no_interval(judged: Judge) -> None:
    record = judged("compress[int8]", "size", Measurement(Exact(1.05)))
    assert (record.verdict, record.value, record.interval, record.confidence) == (Outcome.PASS, 1.05, None, None)


def test_a_check_that_only_warns(judged: Judge) -> None:
    record = judged("train", "accuracy", Measurement(Proportion(10, 1000)))
    assert (record.verdict, record.severity) == (Outcome.WARN, "warn")


@pytest.mark.parametrize(
    ("today", "right", "verdict"),
    [
        (TODAY, 10, Outcome.WAIVED),
        (TODAY, 999, Outcome.PASS),
        (date(2026, 12, 31), 10, Outcome.WAIVED),
        (date(2027, 1, 1), 999, Outcome.FAIL),
    ],
)
def test_a_waiver_holds_until_its_day(today: date, right: int, verdict: Outcome, judged: Judge) -> None:
    record = judged("compress[int8]", "agreement", Measurement(Proportion(right, 1000)), today)
    assert record.verdict is verdict
    assert record.waiver == "a known fault (until 2026-12-31, by vision)"


def test_a_threshold_in_slices_says_in_which(judged: Judge) -> None:
    record = judged("compress[int8]", "accuracy", Measurement(Proportion(999, 1000)))
    assert record.threshold == ">= 90 %, in every label"


def test_what_a_step_remarks_is_the_reason_of_its_stage(made: Plan, runner: DoneRunner, tmp_path: Path) -> None:
    ref = Ref("data")
    runner.artifacts[ref] = write_artifact(tmp_path / "other", ref, {}, remarks=["x[2] is constant", "y too"])
    record = judge(Subjects(runner), made, check_of(made, "data", "completes"), TODAY)  # type: ignore[arg-type]
    assert (record.verdict, record.reason) == (Outcome.PASS, "x[2] is constant; y too")


@pytest.mark.parametrize(("reused", "shown"), [(True, "found done"), (False, "done")])
def test_a_stage_that_is_done_passes_and_says_whether_it_was_found_done(
    reused: bool, shown: str, made: Plan, runner: DoneRunner
) -> None:
    runner.reused = reused
    check = check_of(made, "compress[int8]", "completes")
    record = judge(Subjects(runner), made, check, TODAY)  # type: ignore[arg-type]
    assert (record.verdict, record.shown, record.value) == (Outcome.PASS, shown, None)
    assert record.artifact == runner.artifacts[MODEL].digest
    data = judge(Subjects(runner), made, check_of(made, "data", "completes"), TODAY)  # type: ignore[arg-type]
    assert data.artifact == ""


def test_a_stage_that_is_done_says_what_its_steps_note(made: Plan, runner: DoneRunner) -> None:
    noted = replace(runner.artifacts[MODEL], meta={"remarks": ["3 of 4 parameters are int8"]})
    runner.artifacts[MODEL] = noted
    record = judge(Subjects(runner), made, check_of(made, "compress[int8]", "completes"), TODAY)  # type: ignore[arg-type]
    assert record.reason == "3 of 4 parameters are int8"


@pytest.mark.parametrize(
    ("baseline", "verdict", "reason"),
    [
        (
            "required",
            Outcome.FAIL,
            f"{NONE_YET}, and the spec requires one; for the first promotion set `baseline: optional` under `promote`",
        ),
        ("optional", Outcome.WARN, f"{NONE_YET}, which the spec allows (baseline: optional)"),
    ],
)
def test_a_missing_baseline_fails_unless_the_spec_allows_it(
    baseline: str, verdict: Outcome, reason: str, made: Plan, runner: DoneRunner
) -> None:
    runner.errors = {BASELINE: NoBaseline(NONE_YET)}
    check = replace(check_of(made, "compress[int8]", "size"), baseline=baseline)
    record = judge(Subjects(runner), made, check, TODAY)  # type: ignore[arg-type]
    assert (record.verdict, record.reason, record.value) == (verdict, reason, None)
    assert record.threshold == "<= 110 % of baseline"


def test_a_step_that_failed_is_not_judged(made: Plan, runner: DoneRunner) -> None:
    runner.errors = {MODEL: NotReached("training")}
    with pytest.raises(NotReached):
        judge(Subjects(runner), made, check_of(made, "compress[int8]", "size"), TODAY)  # type: ignore[arg-type]


def test_what_was_not_measured_has_a_record_too(made: Plan) -> None:
    record = unjudged(made, check_of(made, "train", "accuracy"), Outcome.ERROR, "the disk is full")
    assert (record.verdict, record.reason, record.severity) == (Outcome.ERROR, "the disk is full", "warn")
    assert (record.id, record.stage, record.variant) == ("spec.yaml::train::accuracy", "train", "trained")


def test_the_steps_behind_a_check_are_recorded_and_no_others(made: Plan, runner: DoneRunner) -> None:
    runner.because = "source net.py changed"
    records = {step.step: step for step in steps_of(runner, made, check_of(made, "compress[int8]", "agreement"))}  # type: ignore[arg-type]
    assert set(records) == {
        *("data", "training", "variant[int8]", "model[int8]", "outputs[int8]", "model[trained]", "outputs[trained]")
    }
    model = runner.artifacts[MODEL]
    record = records["model[int8]"]
    assert (record.key, record.digest, record.path) == (model.key, model.digest, str(model.path))
    assert (record.seconds, record.because, record.loads) == (1.235, "source net.py changed", ())


def test_a_load_is_recorded_with_what_it_was_like(made: Plan, runner: DoneRunner) -> None:
    steps = steps_of(runner, made, check_of(made, "serve[int8]", "latency.p99"))  # type: ignore[arg-type]
    (load,) = next(step.loads for step in steps if step.step == "load[int8]")
    assert (load.variant, load.requests, load.failed, load.failures) == ("int8", 2, 1, "1 × status 500")
    assert load.machine is not None
    assert (load.machine.others, load.machine.frequency_hz) == (0.1, (3, 4))


def test_steps_that_are_not_done_yet_are_left_out(made: Plan, runner: DoneRunner) -> None:
    runner.artifacts = {Ref("data"): runner.artifacts[Ref("data")]}
    steps = steps_of(runner, made, check_of(made, "train", "accuracy"))  # type: ignore[arg-type]
    assert [step.step for step in steps] == ["data"]
