"""What a check's metric makes of the artifacts that it reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploycheck.check import Check
from deploycheck.checks import MetricFunction, metric
from deploycheck.checks.latency import latency
from deploycheck.checks.quality import accuracy, accuracy_drop, worst_class
from deploycheck.checks.statistics import auc, f1_macro, log_loss, precision_macro, recall_macro
from deploycheck.errors import DeploycheckError
from deploycheck.language import Dimension, parse_threshold
from deploycheck.language.spec import Slices
from deploycheck.plan import Plan
from deploycheck.ref import Ref
from deploycheck.runner.measuring import Subjects, measure, measure_given, metric_of
from deploycheck.serving.load_report import LoadReport
from deploycheck.stages import data
from deploycheck.stages.data import Dataset
from deploycheck.stages.examples import Examples
from deploycheck.store import write_manifest
from deploycheck.store.arrays import write_arrays
from deploycheck.verdict import Measurement, Paired, RelativeDrop, Repeats, Retained, WorstOf, decide, value_of
from tests.planning import HEAD, plan
from tests.runner.done import DoneRunner

DATA, INT8, TRAINED = Ref("data"), Ref("outputs", ("int8",)), Ref("outputs", ("trained",))
LABELS = np.array([0, 0, 0, 1, 1, 1])
WARDS = np.array(["a", "b", "a", "b", "a", "b"])
RIGHT, LEFT = np.array([0.0, 1.0]), np.array([1.0, 0.0])


def logits(*answers: int) -> np.ndarray:
    return np.stack([RIGHT if answer else LEFT for answer in answers])


PERFECT = logits(0, 0, 0, 1, 1, 1)
HALF = logits(0, 0, 0, 0, 0, 1)
"""Right are the rows 0, 1, 2 and 5: 2 of 3 in each ward."""
TEST = Examples({"x": np.zeros((6, 1))}, LABELS, {"ward": WARDS})
COMPARED = {"labels": LABELS, "outputs": HALF, "reference_outputs": PERFECT}
ALL = Dataset(dict.fromkeys(("train", "validation", "test"), TEST), {})


def check_of(name: str, **fields: Any) -> Check:
    return Check(
        id=f"spec.yaml::compress[int8]::{name}",
        stage="compress[int8]",
        section="compress",
        variant="int8",
        metric=name,
        family=name,
        **fields,
    )


def given(outputs: np.ndarray) -> dict[str, np.ndarray]:
    return {"labels": LABELS, "outputs": outputs}


def test_a_metric_is_measured_on_all_that_it_is_given() -> None:
    measurement = measure_given(accuracy, check_of("accuracy"), None, given=given(HALF), other={})
    assert value_of(measurement.sample) == pytest.approx(4 / 6)


def test_a_percentile_is_passed_to_its_family() -> None:
    load = {"load": LoadReport(latencies_s=(0.001, 0.002, 0.003, 0.004))}
    for share, value in ((0.5, 0.002), (0.99, 0.004)):
        measurement = measure_given(latency, check_of("latency", percentile=share), None, given=load, other={})
        assert value_of(measurement.sample) == value


def test_slices_are_measured_one_by_one_and_the_worst_counts() -> None:
    check = check_of("accuracy", slices=Slices(by="ward", at_least=2))
    measurement = measure_given(accuracy, check, ALL, given=given(logits(0, 0, 0, 0, 1, 0)), other={})
    assert isinstance(measurement.sample, WorstOf)
    assert {name: value_of(part) for name, part in measurement.sample.slices.items()} == {
        "a": pytest.approx(1.0),
        "b": pytest.approx(1 / 3),
    }
    assert (measurement.sample.lowest, measurement.sample.at_least) == (True, 2)
    assert measurement.note == "worst in ward b, of 3 examples"


@metric("wrong", dimension=Dimension.PROPORTION, direction="lower", stages=["train"], sample=Repeats)
def wrong(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Share of wrong answers; undefined where class 0 isn't among the examples."""
    rate = float((labels != outputs.argmax(axis=1)).mean()) if 0 in labels else math.nan
    return Measurement(Repeats((rate,)), invalid="" if len(labels) > 2 else "too few")


def test_where_lower_is_better_the_highest_slice_is_the_worst() -> None:
    check = check_of("wrong", slices=Slices(by="ward"))
    measurement = measure_given(wrong, check, ALL, given=given(logits(0, 0, 0, 0, 1, 0)), other={})
    assert isinstance(measurement.sample, WorstOf)
    assert not measurement.sample.lowest
    assert measurement.note.startswith("worst in ward b")


def test_a_slice_that_defines_no_value_is_not_the_worst() -> None:
    check = check_of("wrong", slices=Slices(by="label"))
    measurement = measure_given(wrong, check, ALL, given=given(HALF), other={})
    assert measurement.note.startswith("worst in label 0")


def test_a_slice_of_which_nothing_may_be_concluded_makes_the_whole_invalid() -> None:
    columns = {"ward": np.array(["a", "a", "a", "a", "b", "b"])}
    dataset = Dataset({"test": Examples(TEST.inputs, LABELS, columns)}, {})
    check = check_of("wrong", slices=Slices(by="ward"))
    assert measure_given(wrong, check, dataset, given=given(HALF), other={}).invalid == "too few"


RARE = Dataset(
    {"train": Examples({"x": np.zeros((2, 1))}, np.array([2, 0]), {"ward": np.array(["c", "a"])}), "test": TEST}, {}
)
"""No test example has class 2, or is from ward c."""


def outcome(measured: Measurement, text: str) -> tuple[str, str]:
    verdict = decide(measured, parse_threshold(text, accuracy.word), confidence=0.95)
    return verdict.outcome, verdict.reason


@pytest.mark.parametrize(("by", "name"), [("label", "2"), ("ward", "c")])
@pytest.mark.parametrize("of", ["", " @ point"])
def test_a_value_that_no_test_example_has_is_an_undecided_slice(by: str, name: str, of: str) -> None:
    check = check_of("accuracy", slices=Slices(by=by, at_least=2))
    measured = measure_given(accuracy, check, RARE, given=given(PERFECT), other={})
    assert outcome(measured, f">= 10 %{of}") == ("undecided", f"slice {name} has 0 examples, at least 2 are asked for")
    assert outcome(measured, ">= 10 % @ point")[0] == "undecided"


def test_a_slice_that_fails_fails_whatever_other_slices_lack() -> None:
    check = check_of("accuracy", slices=Slices(by="label", at_least=2))
    measured = measure_given(accuracy, check, RARE, given=given(1 - PERFECT), other={})
    assert outcome(measured, ">= 90 %")[0] == "fail"
    assert outcome(measured, ">= 90 % @ point")[0] == "fail"


@pytest.mark.parametrize("against", ["trained", None])
@pytest.mark.parametrize("kind", [accuracy, accuracy_drop, worst_class, log_loss, recall_macro])
def test_a_ward_without_test_examples_leaves_every_metric_undecided(kind: MetricFunction, against: str | None) -> None:
    check = check_of(kind.word.name, slices=Slices(by="ward", at_least=2), against=against)
    seen = COMPARED if kind is accuracy_drop else given(PERFECT)
    other = seen if against and kind is not accuracy_drop else {}
    measured = measure_given(kind, check, RARE, given=seen, other=other)
    threshold = (
        parse_threshold("<= 90 pp" if kind is accuracy_drop else ">= 0.1 %", kind.word)
        if kind is not log_loss
        else parse_threshold("<= 99", kind.word)
    )
    verdict = decide(measured, threshold, confidence=0.6)
    assert verdict.outcome == "undecided"
    if kind is not recall_macro:
        assert verdict.reason == "slice c has 0 examples, at least 2 are asked for"


@pytest.mark.parametrize("kind", [recall_macro, precision_macro, f1_macro, auc])
def test_a_class_that_no_test_example_has_leaves_a_comparison_of_classes_undecided(kind: MetricFunction) -> None:
    measured = measure_given(kind, check_of(kind.word.name), RARE, given=given(PERFECT), other={})
    why = "the test split has 0 examples of class 2, and other splits have some"
    assert outcome(measured, ">= 10 % @ point") == ("undecided", why)
    assert not measure_given(kind, check_of(kind.word.name), ALL, given=given(PERFECT), other={}).invalid


def test_a_class_that_no_test_example_has_is_among_the_worst_classes() -> None:
    measured = measure_given(worst_class, check_of("accuracy.worst_class"), RARE, given=given(PERFECT), other={})
    why = "slice 2 has 0 examples, at least 1 is asked for"
    assert outcome(measured, ">= 10 %") == outcome(measured, ">= 10 % @ point") == ("undecided", why)
    known = measure_given(worst_class, check_of("accuracy.worst_class"), ALL, given=given(PERFECT), other={})
    assert outcome(known, ">= 10 %")[0] == "pass"


def test_a_relative_threshold_measures_both_models() -> None:
    check = check_of("accuracy", against="trained")
    measurement = measure_given(accuracy, check, None, given=given(HALF), other=given(PERFECT))
    assert measurement.sample == Retained(Paired(lost=2, gained=0, total=6, right=6))


def test_slices_of_two_models_are_compared_slice_by_slice() -> None:
    check = check_of("accuracy", against="trained", slices=Slices(by="ward"))
    measurement = measure_given(accuracy, check, ALL, given=given(logits(0, 0, 0, 0, 1, 0)), other=given(PERFECT))
    assert isinstance(measurement.sample, WorstOf)
    assert {name: round(value_of(part), 3) for name, part in measurement.sample.slices.items()} == {"a": 1, "b": 0.333}


def test_a_ratio_to_a_model_that_has_nothing_right_is_invalid() -> None:
    check = check_of("accuracy", against="trained")
    measurement = measure_given(accuracy, check, None, given=given(PERFECT), other=given(1 - PERFECT))
    assert measurement.invalid.startswith("trained has 0: a ratio to zero or to a negative value is undefined")


@pytest.mark.parametrize(
    ("text", "sample"),
    [
        ("<= 1 pp", Paired(lost=2, gained=0, total=6, right=6)),
        ("<= 1 % rel", RelativeDrop(Paired(lost=2, gained=0, total=6, right=6))),
    ],
)
def test_a_drop_is_given_in_the_unit_of_its_threshold(text: str, sample: Any) -> None:
    check = check_of("accuracy_drop", threshold=parse_threshold(text, accuracy_drop.word))
    assert measure_given(accuracy_drop, check, None, given=COMPARED, other={}).sample == sample


def test_a_relative_drop_in_slices_is_one_of_each() -> None:
    threshold = parse_threshold("<= 1 % rel", accuracy_drop.word)
    check = check_of("accuracy_drop", threshold=threshold, slices=Slices(by="ward"))
    measurement = measure_given(accuracy_drop, check, ALL, given=COMPARED, other={})
    assert isinstance(measurement.sample, WorstOf)
    assert all(isinstance(part, RelativeDrop) for part in measurement.sample.slices.values())


def test_a_difference_without_pairs_has_no_relative_form() -> None:
    check = check_of("wrong", threshold=parse_threshold("<= 1 % rel", accuracy_drop.word))
    with pytest.raises(DeploycheckError, match="wrong can't be given in % rel"):
        measure_given(wrong, check, None, given=given(HALF), other={})


COMPRESS = """\
metrics: {sure: {use: specs.metrics:overconfident, kind: proportion, direction: lower, with: {sure: 0.9}}}
compress:
  variants: {int8: {quantize: {weights: int8}}}
  expect:
    accuracy: {threshold: ">= 90 %", slices: {by: ward, at_least: 2}}
    accuracy_drop: "<= 1 pp"
    sure: "<= 3 %"
"""


@pytest.fixture
def made(tmp_path: Path) -> Plan:
    return plan(HEAD + COMPRESS, tmp_path)


@pytest.fixture
def runner(tmp_path: Path) -> DoneRunner:
    """A runner that has the data, and what two variants answer."""
    splits = dict.fromkeys(("train", "validation", "test"), TEST)
    artifacts = {}
    for ref, answers in ((DATA, None), (INT8, HALF), (TRAINED, PERFECT)):
        folder = tmp_path / str(ref)
        folder.mkdir()
        if answers is None:
            data.write(Dataset(splits, {}), folder)
        else:
            write_arrays({"logits": answers}, folder / "outputs.safetensors")
        artifacts[ref] = write_manifest(folder, ref.kind, "0" * 64, {"outputs": ["logits"]})
    return DoneRunner(artifacts)


def check_in(made: Plan, name: str) -> Check:
    return next(check for check in made.checks if check.metric == name and check.section == "compress")


def subjects_of(runner: DoneRunner) -> Subjects:
    return Subjects(runner)  # type: ignore[arg-type]


def test_a_check_is_measured_on_the_artifacts_of_its_steps(made: Plan, runner: DoneRunner) -> None:
    subjects = subjects_of(runner)
    sliced = measure(check_in(made, "accuracy"), made, subjects)
    assert isinstance(sliced.sample, WorstOf)
    assert set(sliced.sample.slices) == {"a", "b"}
    drop = measure(check_in(made, "accuracy_drop"), made, subjects)
    assert drop.sample == Paired(lost=2, gained=0, total=6, right=6)
    assert not runner.is_working


def test_what_metrics_look_at_is_read_once_for_a_spec(
    made: Plan, runner: DoneRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = data.files.read
    monkeypatch.setattr(data.files, "read", lambda file: (reads.append(file.name), read(file))[1])
    subjects = subjects_of(runner)
    first = subjects.read(made, "labels", DATA, "int8")
    assert subjects.read(made, "labels", DATA, "int8") is first
    assert reads == ["test.safetensors"]
    assert subjects.read(made, "reference_outputs", TRAINED, None).tolist() == PERFECT.tolist()
    another = plan(HEAD, made.spec.path.parent)
    subjects.read(Plan(**{**vars(another), "id": "another.yaml"}), "labels", DATA, "int8")
    assert reads == ["test.safetensors"] * 2


def test_a_metric_of_the_spec_itself_is_imported(made: Plan, runner: DoneRunner) -> None:
    measurement = measure(check_in(made, "sure"), made, subjects_of(runner))
    assert value_of(measurement.sample) == 0  # the logits are 1 apart: no answer is that sure
    own = metric_of(check_in(made, "sure"), made, runner)  # type: ignore[arg-type]
    assert isinstance(own, MetricFunction)
    assert own.word.direction == "lower"
    assert metric_of(check_in(made, "accuracy"), made, runner) is accuracy  # type: ignore[arg-type]


def test_an_error_of_a_metric_is_at_its_check(made: Plan, runner: DoneRunner, tmp_path: Path) -> None:
    folder = tmp_path / "other labels"
    folder.mkdir()
    examples = Examples(TEST.inputs, LABELS, {})
    splits: Mapping[str, Examples] = dict.fromkeys(("train", "validation", "test"), examples)
    data.write(Dataset(splits, {}), folder)
    runner.artifacts[DATA] = write_manifest(folder, "data", "0" * 64, {})
    check = check_in(made, "accuracy")
    with pytest.raises(DeploycheckError, match="there is no column 'ward' to slice by") as raised:
        measure(check, made, subjects_of(runner))
    assert raised.value.where == check.id
