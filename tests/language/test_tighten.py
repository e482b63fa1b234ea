"""A spec may ask more than its standard, never less, unless it says so in a waiver."""

from __future__ import annotations

import pytest

from tests.language.writing import MINIMAL, Project, line_of

STANDARD = """\
deploycheck: 1
name: edge
confidence: 95 %
train:
  expect:
    accuracy: ">= 97 %"
    learned: {threshold: ">= 50 % over majority @ 95 %"}
"""
COMPRESSED = (
    STANDARD
    + """\
compress:
  expect:
    accuracy_drop: "<= 1 pp"
    size: "<= 60 kB"
"""
)

CHILD = MINIMAL + "extends: edge.yaml\n"
VARIANTS = "compress:\n  variants:\n    int8:\n      quantize: {weights: int8}\n"
WAIVER = '{because: "moving", until: 2020-01-31, by: ada}'


@pytest.fixture
def standard(project: Project) -> Project:
    project.write(STANDARD, "specs/edge.yaml")
    return project


@pytest.fixture
def compressed(project: Project) -> Project:
    project.write(COMPRESSED, "specs/edge.yaml")
    return project


def with_accuracy(entry: str) -> str:
    return CHILD.replace('">= 97 %"', entry)


@pytest.mark.parametrize(
    "entry",
    [
        '">= 97 %"',
        '">= 98 %"',
        '"> 97 %"',
        '">= 97 % @ 99 %"',
        '{threshold: ">= 97 %", confidence: 99 %}',
        '{threshold: ">= 99 %", severity: error}',
    ],
)
def test_what_is_as_tight_or_tighter_passes(standard: Project, entry: str) -> None:
    assert standard.one(with_accuracy(entry))


@pytest.mark.parametrize(
    "entry",
    [
        '">= 96.9 %"',
        '">= 99 % of reference"',
        '">= 97 % @ 90 %"',
        '{threshold: ">= 97 %", confidence: 90 %}',
        '">= 99 % @ point"',
    ],
)
def test_what_is_looser_is_refused_and_names_both_places(standard: Project, entry: str) -> None:
    text = with_accuracy(entry)
    (error,) = standard.errors(text).errors
    assert error.place.line == line_of(text, "accuracy:")
    assert f"is looser than '>= 97 %', which specs/edge.yaml:{line_of(STANDARD, 'accuracy:')} asks for" in error.what
    assert 'waive: {"train.accuracy": {because: ..., until: YYYY-MM-DD, by: ...}}' in error.hint


def test_a_warning_where_the_standard_has_an_error_is_refused(standard: Project) -> None:
    (error,) = standard.errors(with_accuracy('{threshold: ">= 99 %", severity: warn}')).errors
    assert "`severity: warn` loosens a check that specs/edge.yaml:6 asks for" in error.what


def test_an_error_where_the_standard_has_a_warning_passes(standard: Project) -> None:
    standard.write(
        STANDARD.replace('accuracy: ">= 97 %"', 'accuracy: {threshold: ">= 97 %", severity: warn}'),
        "specs/edge.yaml",
    )
    assert standard.one(with_accuracy('">= 97 %"')).expectations[0].severity == "error"


def test_a_lower_confidence_of_the_whole_spec_is_refused(standard: Project) -> None:
    text = CHILD + "confidence: 90 %\n"
    (error,) = standard.errors(text).errors
    assert "a confidence of 0.9 is lower than the 0.95 that specs/edge.yaml:3 asks for" in error.what
    assert error.place.line == line_of(text, "confidence:")


def test_a_higher_confidence_of_the_whole_spec_passes(standard: Project) -> None:
    assert standard.one(CHILD + "confidence: 99 %\n").confidence == 0.99


def test_a_check_of_the_grandparent_may_not_be_loosened_either(standard: Project) -> None:
    standard.write("deploycheck: 1\nname: middle\nextends: edge.yaml\n", "specs/middle.yaml")
    (error,) = standard.errors(with_accuracy('">= 90 %"').replace("edge.yaml", "middle.yaml")).errors
    assert "specs/edge.yaml:6" in error.what


def test_a_standard_that_loosens_its_standard_is_refused(standard: Project) -> None:
    text = "deploycheck: 1\nname: middle\nextends: edge.yaml\ntrain:\n  expect: {accuracy: '>= 90 %'}\n"
    standard.write(text, "specs/middle.yaml")
    child = CHILD.replace("accuracy:", "accuracy.worst_class:").replace("edge.yaml", "middle.yaml")
    (error,) = standard.errors(child).errors
    assert (error.place.file, error.place.line) == ("specs/middle.yaml", 5)


def test_a_variants_own_check_may_not_be_looser_than_its_sections(project: Project) -> None:
    text = MINIMAL + VARIANTS + '      expect: {size: "<= 70 kB"}\n  expect: {size: "<= 60 kB"}\n'
    (error,) = project.errors(text).errors
    assert error.place.line == line_of(text, "70 kB")
    assert f"'<= 70 kB' is looser than '<= 60 kB', which specs/spec.yaml:{line_of(text, '60 kB')}" in error.what


def test_a_variants_own_check_may_be_tighter(project: Project) -> None:
    text = MINIMAL + VARIANTS + '      expect: {size: "<= 50 kB"}\n  expect: {size: "<= 60 kB"}\n'
    assert [(item.variant, item.threshold.value) for item in project.one(text).expectations[1:]] == [
        (None, 60e3),
        ("int8", 50e3),
    ]


def test_a_variants_own_check_may_not_be_looser_than_the_standards(compressed: Project) -> None:
    text = CHILD + VARIANTS + '      expect: {size: "<= 70 kB"}\n'
    assert {error.place.line for error in compressed.errors(text).errors} == {line_of(text, "70 kB")}


def test_the_checks_of_one_variant_are_not_held_against_anothers(project: Project) -> None:
    other = '    half:\n      half: {}\n      expect: {size: "<= 90 kB"}\n'
    assert project.one(MINIMAL + VARIANTS + '      expect: {size: "<= 50 kB"}\n' + other)


def test_points_instead_of_relative_percent_are_refused(compressed: Project) -> None:
    text = CHILD + VARIANTS + '  expect: {accuracy_drop: "<= 0.5 % rel"}\n'
    assert "is looser than '<= 1 pp'" in compressed.errors(text).errors[0].what


def test_a_waiver_lets_a_looser_threshold_through(standard: Project) -> None:
    spec = standard.one(with_accuracy('">= 90 %"') + f'waive: {{"train.accuracy": {WAIVER}}}\n')
    assert spec.waive["train.accuracy"].by == "ada"
    accuracy = next(item for item in spec.expectations if item.name == "accuracy")
    assert accuracy.threshold.value == pytest.approx(0.9)


def test_a_waiver_of_one_check_does_not_cover_another(standard: Project) -> None:
    text = with_accuracy('">= 90 %"') + f'waive: {{"train.learned": {WAIVER}}}\n'
    assert "is looser" in standard.errors(text).errors[0].what


def test_every_loosened_check_is_reported_at_once(compressed: Project) -> None:
    text = (
        with_accuracy('">= 90 %"\n    learned: ">= 10 % over majority"') + VARIANTS + '  expect: {size: "<= 70 kB"}\n'
    )
    assert [error.place.line for error in compressed.errors(text).errors] == [
        line_of(text, "accuracy:"),
        line_of(text, "learned:"),
        line_of(text, "70 kB"),
    ]


def test_a_matrix_value_that_loosens_is_refused_at_the_value(standard: Project) -> None:
    text = CHILD + 'matrix:\n  train.expect.accuracy: [">= 98 %", ">= 90 %"]\n'
    (error,) = standard.errors(text).errors
    assert (error.place.line, error.place.column) == (line_of(text, "train.expect.accuracy"), 38)


@pytest.mark.parametrize("matrix", ["train.expect: [{accuracy: '>= 97 %'}]", "compress.expect: [{size: '<= 1 kB'}]"])
def test_a_matrix_may_not_drop_a_check_of_the_standard(compressed: Project, matrix: str) -> None:
    assert compressed.errors(CHILD + VARIANTS + f"matrix: {{{matrix}}}\n")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("slices: {by: writer}", "this check has no such slices as specs/edge.yaml:6 asks for"),
        ("baseline: required", "this check doesn't have the required baseline that specs/edge.yaml:6 asks for"),
    ],
    ids=["slices", "baseline"],
)
def test_what_the_long_form_of_a_standard_asks_may_not_be_dropped(standard: Project, asked: str, says: str) -> None:
    standard.write(
        STANDARD.replace('accuracy: ">= 97 %"', f'accuracy: {{threshold: ">= 97 %", {asked}}}'),
        "specs/edge.yaml",
    )
    (error,) = standard.errors(with_accuracy('">= 97 %"')).errors
    assert error.what == says


def test_a_waiver_in_a_standard_is_refused_in_the_specs_that_extend_it_too(standard: Project) -> None:
    standard.write(STANDARD + f'waive: {{"train.accuracy": {WAIVER}}}\n', "specs/edge.yaml")
    assert standard.errors(with_accuracy('">= 1 %"'))


def test_a_standards_confidence_holds_however_it_is_written(project: Project) -> None:
    project.write("deploycheck: 1\nname: edge\nconfidence: 0.99\n", "specs/edge.yaml")
    assert project.errors(CHILD + "confidence: 60 %\n")


def test_a_check_at_the_standards_confidence_passes_where_the_spec_raises_its_own(standard: Project) -> None:
    assert standard.one(with_accuracy('">= 97 % @ 95 %"') + "confidence: 99 %\n")


def test_a_check_of_a_standard_that_cannot_be_read_is_refused_also_where_the_spec_has_its_own(
    standard: Project,
) -> None:
    standard.write(STANDARD.replace('">= 97 %"', '">= 97 ms"'), "specs/edge.yaml")
    (error,) = standard.errors(CHILD).errors
    assert (error.place.file, error.place.line) == ("specs/edge.yaml", line_of(STANDARD, "accuracy:"))


def test_a_standard_that_loosens_its_standard_is_refused_when_it_is_loaded_itself(standard: Project) -> None:
    text = "deploycheck: 1\nname: middle\nextends: edge.yaml\ntrain:\n  expect: {accuracy: '>= 90 %'}\n"
    (error,) = standard.errors(text, "specs/middle.yaml").errors
    assert "is looser than '>= 97 %'" in error.what


def test_a_loosened_check_is_reported_with_what_is_missing(standard: Project) -> None:
    text = with_accuracy('">= 90 %"').replace("  batch_size: 128\n", "")
    assert [error.place.line for error in standard.errors(text).errors] == [
        line_of(text, "train:"),
        line_of(text, "accuracy:"),
    ]


def test_a_metric_that_a_standard_defines_stays_what_it_is(project: Project) -> None:
    own = "metrics:\n  missed: {{use: specs.metrics:missed, kind: {kind}, direction: lower}}\n"
    project.write("def missed(labels, outputs):\n    return labels\n", "specs/metrics.py")
    standard = STANDARD.replace("  expect:", '  expect:\n    missed: "<= 3 %"') + own.format(kind="proportion")
    project.write(standard, "specs/edge.yaml")
    child = CHILD.replace("  expect:", '  expect:\n    missed: "<= 2 %"')
    assert project.one(child).metrics.keys() == {"missed"}
    assert project.one(child + own.format(kind="proportion")).metrics.keys() == {"missed"}
    said = " ".join(
        project.refused(child + "metrics: {missed: {use: specs.data:shift, kind: mean, direction: lower}}\n")
    )
    assert "the metric 'missed' is defined at specs/edge.yaml:" in said
