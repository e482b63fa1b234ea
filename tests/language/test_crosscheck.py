"""What can only be said of a spec as a whole."""

from __future__ import annotations

import pytest

from tests.language.writing import MINIMAL, Project, line_of

WAIVER = '{because: "moving", until: 2020-01-31, by: ada}'


def compress(variants: str, rest: str = "") -> str:
    return MINIMAL + f"compress:\n  variants: {{{variants}}}\n{rest}"


def without(section: str) -> str:
    """``MINIMAL`` without one of its sections."""
    kept, dropping = [], False
    for line in MINIMAL.splitlines(keepends=True):
        if not line.startswith(" "):
            dropping = line.startswith(f"{section}:")
        kept += [] if dropping else [line]
    return "".join(kept)


@pytest.mark.parametrize("section", ["data", "train"])
def test_a_model_needs_data_and_training(project: Project, section: str) -> None:
    assert project.refused(without(section)) == [f"3: `model` needs a section `{section}` [add `{section}:`]"]


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("compress", "compress: {variants: {int8: {quantize: {weights: int8}}}}"),
        ("serve", "serve: {}"),
    ],
)
def test_what_comes_after_training_needs_it(project: Project, name: str, section: str) -> None:
    text = without("train") + section + "\n"
    assert f"{line_of(text, section)}: `{name}` needs a section `train` [add `train:`]" in project.refused(text)


def test_a_variant_that_is_not_there_is_not_served(project: Project) -> None:
    text = compress("int8: {quantize: {weights: int8}}", "serve:\n  variants: [trained, int8, imt8]\n")
    (error,) = project.errors(text).errors
    assert (error.place.line, error.place.column) == (line_of(text, "imt8"), 29)
    assert (error.what, error.hint) == ("there is no variant 'imt8'", "did you mean 'int8'?")


@pytest.mark.parametrize("choose", ["smallest", "fastest", "most_accurate", "trained", "int8"])
def test_a_policy_or_a_variant_may_be_chosen(project: Project, choose: str) -> None:
    text = compress("int8: {quantize: {weights: int8}}", f"promote: {{model: d, to: staging, choose: {choose}}}\n")
    section = project.one(text).promote
    assert section is not None
    assert section.choose == choose


def test_what_is_neither_a_policy_nor_a_variant_is_not_chosen(project: Project) -> None:
    (refused,) = project.refused(MINIMAL + "promote: {model: d, to: staging, choose: smalest}\n")
    assert "'smalest' is neither a policy nor a variant that is made [did you mean 'smallest'?]" in refused


def test_only_a_served_variant_is_chosen_where_some_are_served(project: Project) -> None:
    rest = "serve: {variants: [trained]}\npromote: {model: d, to: staging, choose: int8}\n"
    assert "nor a variant that is served" in project.refused(compress("int8: {quantize: {weights: int8}}", rest))[0]


def test_a_model_of_which_nothing_is_expected_is_not_promoted(project: Project) -> None:
    text = MINIMAL.partition("  expect:")[0] + "promote: {model: d, to: staging}\n"
    what = "nothing is expected of this model, so it would be promoted without a check"
    assert project.refused(text) == [f"{line_of(text, 'promote:')}: {what} [add `expect` to a section]"]


def test_a_waiver_names_a_check_that_is_there(project: Project) -> None:
    assert project.one(MINIMAL + f"waive: {{train.accuracy: {WAIVER}}}\n")
    text = MINIMAL + f"waive: {{train.acuracy: {WAIVER}}}\n"
    assert project.refused(text) == ["15: there is no check 'train.acuracy' to waive [did you mean 'train.accuracy'?]"]


@pytest.mark.parametrize("section", [f"waive: {{train.accuracy: {WAIVER}}}", "promote: {model: d, to: staging}"])
def test_a_standard_has_neither_waivers_nor_a_promotion(project: Project, section: str) -> None:
    text = f"deploycheck: 1\nname: edge\ntrain: {{expect: {{accuracy: '>= 90 %'}}}}\n{section}\n"
    assert f"4: a standard can't have `{section.partition(':')[0]}`" in project.refused(text)[0]


@pytest.mark.parametrize(
    ("entry", "what", "hint"),
    [
        ("acuracy: '>= 1 %'", "unknown metric 'acuracy' in train", "did you mean 'accuracy'?"),
        ("size: '<= 1 kB'", "size is not measured in train", "move it to compress.expect"),
        ("latency: '<= 1 ms'", "unknown metric 'latency' in train", None),
        ("accuracy: '>= 1 % over majority'", "accuracy can't be compared with 'over majority'", None),
        (
            "accuracy: '<= 97 %'",
            "higher accuracy is better, so <= would accept bad models",
            "did you mean '>= 97 %'?",
        ),
        (
            "accuracy: '< 97 % @ 99 %'",
            "higher accuracy is better, so < would accept bad models",
            "did you mean '> 97 % @ 99 %'?",
        ),
        (
            "learned: '>= 1 %'",
            "learned is a gain over majority, which its threshold must say",
            "did you mean '>= 1 % over majority'?",
        ),
        (
            "accuracy: '>= 1 % of refrence'",
            "accuracy can't be compared with 'of refrence'",
            "did you mean 'of reference'?",
        ),
        ("accuracy: '>= 20 ms'", "accuracy is a proportion, in %; found 'ms'", None),
    ],
)
def test_an_expectation_that_cannot_be_measured_is_refused(
    project: Project, entry: str, what: str, hint: str | None
) -> None:
    (error,) = project.errors(MINIMAL.replace('accuracy: ">= 97 %"', entry)).errors
    assert error.place.line == 14
    assert what in error.what
    assert hint is None or error.hint == hint


@pytest.mark.parametrize("name", ["latency.p50", "latency.p99", "latency.p99.9"])
def test_a_percentile_of_a_family_is_a_metric(project: Project, name: str) -> None:
    spec = project.one(MINIMAL + f"serve: {{expect: {{{name}: '<= 20 ms'}}}}\n")
    assert spec.expectations[-1].percentile == pytest.approx(float(name.partition(".p")[2]) / 100)


@pytest.mark.parametrize("name", ["latency", "latency.p", "latency.p0", "latency.p100", "latency.99", "throughput.p99"])
def test_what_is_not_a_percentile_is_refused(project: Project, name: str) -> None:
    assert "unknown metric" in project.refused(MINIMAL + f"serve: {{expect: {{{name}: '<= 20 ms'}}}}\n")[0]


NUMBERS = MINIMAL.replace("train:\n", "train:\n  loss: squared_error\n", 1)


def test_numbers_and_classes_are_measured_each_by_their_own(project: Project) -> None:
    assert project.one(NUMBERS.replace('accuracy: ">= 97 %"', "rmse: '<= 60'")).task == "regression"
    (error,) = project.errors(NUMBERS).errors
    assert error.what == "accuracy measures classes, and with `loss: squared_error` the model gives numbers"
    assert error.hint == "measure r2, rmse, or train with `loss: cross_entropy`"
    (error,) = project.errors(MINIMAL.replace('accuracy: ">= 97 %"', "r2: '>= 0.4'")).errors
    assert error.what == "r2 measures numbers, and with `loss: cross_entropy` the model gives classes"
    assert error.hint == "measure accuracy, or train with `loss: squared_error`"


def test_a_model_of_numbers_is_not_chosen_or_stopped_by_its_accuracy(project: Project) -> None:
    text = NUMBERS.replace('accuracy: ">= 97 %"', "rmse: '<= 60'")
    text = text.replace("  loss: squared", "  stop_early: {watch: validation.accuracy, patience: 3}\n  loss: squared")
    watched, chosen = project.errors(text + "promote: {model: d, to: staging, choose: most_accurate}\n").errors
    assert watched.what == "with `loss: squared_error` training reports no accuracy"
    assert watched.hint == "watch validation.loss or validation.rmse"
    assert chosen.what == "most_accurate can't compare models trained with `loss: squared_error`"
    assert chosen.hint == "choose smallest, or fastest"


def test_an_empty_expect_is_refused(project: Project) -> None:
    text = MINIMAL + "serve:\n  expect: {}\n"
    assert "16: `expect` is empty: it would pass without a check" in project.refused(text)[0]


def test_a_multiple_of_a_variant_that_is_not_there_is_refused(project: Project) -> None:
    assert project.errors(MINIMAL + "serve: {expect: {latency.p99: '<= 0.5 x nothing'}}\n")


@pytest.mark.parametrize("confidence", ["10 %", "100 %"])
def test_the_long_forms_confidence_has_the_bounds_of_the_short_forms(project: Project, confidence: str) -> None:
    assert project.errors(MINIMAL.replace('">= 97 %"', f'{{threshold: ">= 97 %", confidence: {confidence}}}'))


def test_a_wrong_confidence_is_reported_once_at_its_place(project: Project) -> None:
    (error,) = project.errors(MINIMAL.replace('">= 97 %"', '{threshold: ">= 97 %", confidence: 95}')).errors
    assert error.place.text[error.place.column - 1 :] == "95}"


def test_a_confidence_given_twice_is_refused(project: Project) -> None:
    text = MINIMAL.replace('">= 97 %"', '{threshold: ">= 97 % @ 90 %", confidence: 95 %}')
    assert "the confidence is given twice" in project.refused(text)[0]


OWN = """\
metrics:
  {name}: {{use: "{use}", kind: {kind}, direction: lower{rest}}}
"""
METRICS = """\
def missed(labels, outputs):
    return labels != outputs


def cost(labels, outputs, price):
    return price


def not_one(predictions):
    return predictions
"""


@pytest.mark.parametrize(
    ("name", "use", "kind", "rest", "says"),
    [
        ("accuracy", "specs.metrics:missed", "proportion", "", "'accuracy' is a metric already"),
        ("missed", "specs.metrics:mised", "proportion", "", "did you mean 'missed'?"),
        ("missed", "specs.nothing:missed", "proportion", "", "specs.nothing"),
        ("missed", "specs.metrics:missed", "share", "", "'share' is not one of: proportion, mean, statistic"),
        ("cost", "specs.metrics:cost", "mean", "", "price"),
        ("cost", "specs.metrics:cost", "mean", ", with: {prize: 3}", "prize"),
        ("cost", "specs.metrics:not_one", "mean", "", "predictions"),
    ],
)
def test_what_is_wrong_with_a_metric_of_ones_own_is_said_at_its_place(
    project: Project, name: str, use: str, kind: str, rest: str, says: str
) -> None:
    (project.root / "specs" / "metrics.py").write_text(METRICS)
    text = MINIMAL + OWN.format(name=name, use=use, kind=kind, rest=rest)
    found = [str(error) for error in project.errors(text).errors]
    assert any(says in error for error in found), found
    assert all("spec.yaml:" in error for error in found)


def test_a_metric_of_ones_own_is_expected_by_its_name(project: Project) -> None:
    (project.root / "specs" / "metrics.py").write_text(METRICS)
    own = OWN.format(name="missed", use="specs.metrics:missed", kind="proportion", rest="")
    (missed,) = [
        item
        for item in project.one(MINIMAL.replace("expect:", "expect:\n    missed: '<= 3 %'") + own).expectations
        if item.name == "missed"
    ]
    assert missed.threshold.value == pytest.approx(0.03)
    (error,) = project.errors(MINIMAL.replace("expect:", "expect:\n    missed: '>= 3 %'") + own).errors
    assert "lower missed is better" in error.what


def test_a_metric_that_compares_classes_is_not_sliced_by_class(project: Project) -> None:
    def sliced(by: str) -> str:
        long_form = f'accuracy.worst_class: {{threshold: ">= 50 %", slices: {{by: {by}}}}}'
        return MINIMAL.replace('accuracy: ">= 97 %"', long_form)

    (found,) = project.refused(sliced("label"))
    assert found.startswith("14: accuracy.worst_class compares classes, so it can't be sliced by `label`")
    assert project.one(sliced("ward"))


def test_labels_that_are_numbers_define_no_slices(project: Project) -> None:
    text = NUMBERS.replace('accuracy: ">= 97 %"', 'rmse: {threshold: "<= 5", slices: {by: label}}')
    (found,) = project.refused(text)
    assert "labels that are numbers define no slices" in found


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("build: specs.models:conv_classifier", "build: specs.models.conv_classifier"),
        ("load: specs.data:digits", "load: specs.data.digits"),
    ],
)
def test_a_forgotten_colon_is_reported(project: Project, right: str, wrong: str) -> None:
    (found,) = project.refused(MINIMAL.replace(right, wrong))
    assert f"is not an import path [did you mean {right.partition(': ')[2]!r}?]" in found


def test_what_is_wrong_with_a_metric_of_ones_own_is_not_said_of_its_expectation_too(project: Project) -> None:
    own = "metrics: {mine: {use: specs.models:conv_classifier, kind: share, direction: lower}}\n"
    found = project.refused(MINIMAL.replace('accuracy: ">= 97 %"', 'mine: "<= 5 %"') + own)
    assert any("'share' is not one of: proportion, mean, statistic" in each for each in found)
    assert not any("unknown metric" in each for each in found)


def test_what_a_scenario_cannot_measure_is_refused(project: Project) -> None:
    text = MINIMAL + "serve:\n  load: {scenario: offline}\n  expect: {latency.p99: '<= 1 ms', throughput: '>= 1 /s'}\n"
    assert project.refused(text) == [
        "17: latency.p99 can't be measured in the scenario offline [expect another metric, or choose another scenario]"
    ]


def test_a_metric_of_any_task_measures_each(project: Project) -> None:
    (project.root / "specs" / "metrics.py").write_text(METRICS)
    own = OWN.format(name="missed", use="specs.metrics:missed", kind="proportion", rest="")
    assert project.one(NUMBERS.replace('accuracy: ">= 97 %"', "missed: '<= 3 %'") + own).task == "regression"
    assert project.one(MINIMAL.replace('accuracy: ">= 97 %"', "missed: '<= 3 %'") + own).task == "classification"


def test_an_unknown_loss_is_one_mistake(project: Project) -> None:
    (refused,) = project.refused(MINIMAL.replace("train:\n", "train:\n  loss: hinge\n", 1))
    assert refused == "10: unknown loss 'hinge' [there are: cross_entropy, squared_error]"


@pytest.mark.parametrize("limit", ["<= 4999", "<= 5000", "<= 20000"])
def test_a_limit_of_errors_is_left_to_the_run_which_knows_how_many_requests_it_sent(
    project: Project, limit: str
) -> None:
    assert project.one(MINIMAL + f"serve: {{expect: {{errors: '{limit}'}}}}\n")
