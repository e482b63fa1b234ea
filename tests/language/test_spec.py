"""Sections: what each of them accepts."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pydantic
import pytest

from deploycheck.language import Section, json_schema
from deploycheck.language.tree import Tree
from tests.language.writing import EDGE, EXAMPLE, MINIMAL, VOCABULARY, Project, plain_data


def sections(value: object) -> list[Section]:
    """Return every section within a value."""
    match value:
        case Section():
            return [
                value,
                *(inner for name in type(value).model_fields for inner in sections(getattr(value, name))),
            ]
        case dict():
            return [inner for item in value.values() for inner in sections(item)]
        case tuple() | list():
            return [inner for item in value for inner in sections(item)]
    return []


def test_every_section_is_frozen() -> None:
    found = sections(Tree.model_validate(plain_data(EXAMPLE), context=VOCABULARY))
    assert len({type(section) for section in found}) > 15
    for section in found:
        name = next(iter(type(section).model_fields))
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(section, name, getattr(section, name))


def test_every_section_is_closed_to_unknown_keys() -> None:
    def every(kind: type[Section]) -> list[type[Section]]:
        return [kind, *(inner for child in kind.__subclasses__() for inner in every(child))]

    assert all(kind.model_config["extra"] == "forbid" for kind in every(Section))


def test_a_loaded_spec_is_frozen(project: Project) -> None:
    with pytest.raises(AttributeError):
        project.one(MINIMAL).name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("value", ["95 %", "50 %", "99.9 %"])
def test_a_confidence_is_at_least_a_half_and_under_one(project: Project, value: str) -> None:
    assert project.one(MINIMAL + f"confidence: {value}\n").confidence == pytest.approx(float(value[:-2]) / 100)


@pytest.mark.parametrize("value", ["49 %", "100 %", "0.95", "95", "95 ms", "high"])
def test_any_other_confidence_is_refused(project: Project, value: str) -> None:
    assert project.refused(MINIMAL + f"confidence: {value}\n")[0].startswith("15: `confidence`")


@pytest.mark.parametrize("until", ["soon", "2027-13-01", "2027-01-31T10:00:00", "20270131", "1"])
def test_a_waiver_lasts_until_a_day(project: Project, until: str) -> None:
    text = MINIMAL + f"waive: {{train.accuracy: {{because: x, until: {until}, by: me}}}}\n"
    assert "expected a day as YYYY-MM-DD" in project.refused(text)[0]


@pytest.mark.parametrize(
    "part",
    ["because: '', until: 2027-01-01, by: me", "because: x, until: 2027-01-01", "until: 2027-01-01, by: me"],
)
def test_a_waiver_says_why_and_by_whom(project: Project, part: str) -> None:
    assert project.errors(MINIMAL + f"waive: {{train.accuracy: {{{part}}}}}\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [("epochs: 10", "epochs: 10.0"), ("epochs: 10", "epochs: '10'"), ("epochs: 10", "epochs: true")],
)
def test_numbers_are_not_coerced(project: Project, old: str, new: str) -> None:
    assert project.errors(MINIMAL.replace(old, new))


def test_a_seed_is_listed_once(project: Project) -> None:
    (refused,) = project.refused(MINIMAL.replace("  epochs: 10", "  seeds: [0, 1, 1]\n  epochs: 10"))
    assert refused == "11: the seed 1 is listed twice"


@pytest.mark.parametrize(
    ("section", "kind", "given", "meant"),
    [
        ("train", "loss", "cros_entropy", "cross_entropy"),
        ("serve", "scenario", "ofline", "offline"),
        ("serve", "runtime", "xlaa", "xla"),
        ("train", "score", "validation.acuracy", "validation.accuracy"),
    ],
)
def test_a_name_that_is_not_installed_is_refused_with_what_was_meant(
    project: Project, section: str, kind: str, given: str, meant: str
) -> None:
    text = {
        "loss": MINIMAL.replace("  epochs", f"  loss: {given}\n  epochs"),
        "score": MINIMAL.replace("  epochs", f"  stop_early: {{watch: {given}, patience: 1}}\n  epochs"),
        "scenario": MINIMAL + f"serve: {{load: {{scenario: {given}}}}}\n",
        "runtime": MINIMAL + f"serve: {{runtime: {given}}}\n",
    }[kind]
    (error,) = project.errors(text).errors
    assert (error.what, error.hint) == (f"unknown {kind} {given!r}", f"did you mean {meant!r}?")
    assert error.place.text[error.place.column - 1 :].startswith(given)


def test_sections_are_valid_without_a_vocabulary() -> None:
    assert Tree.model_validate({"deploycheck": 1, "name": "x", "serve": {"load": {"scenario": "other"}}}).serve


@pytest.mark.parametrize("scenario", ["single_stream", "multi_stream", "offline"])
def test_a_load_takes_the_fields_of_its_scenario(project: Project, scenario: str) -> None:
    text = MINIMAL + f"serve: {{load: {{scenario: {scenario}, arrivals: poisson, rate: 3 /s}}}}\n"
    assert project.refused(text) == [
        f"15: the scenario {scenario} has no `arrivals` [leave it out]",
        f"15: the scenario {scenario} has no `rate` [leave it out]",
    ]
    assert project.one(MINIMAL + f"serve: {{load: {{scenario: {scenario}, requests: 7}}}}\n")
    assert project.one(MINIMAL + "serve: {load: {arrivals: poisson, rate: 3 /s}}\n")


@pytest.mark.parametrize(
    "text",
    [
        "serve: {expect: {errors: {threshold: '== 0', samples: 3}}}\n",
    ],
)
def test_a_word_that_cannot_be_run_is_an_unknown_key(project: Project, text: str) -> None:
    (refused,) = project.refused(MINIMAL + text)
    assert refused.startswith("15: unknown key")


def test_the_sections_of_a_spec_can_be_sent_to_another_process(project: Project) -> None:
    project.write(EDGE, "specs/standards/edge.yaml")
    spec = project.one(EXAMPLE, "specs/digits.yaml")
    for section in (spec.model, spec.data, spec.train, spec.compress, spec.serve, spec.promote):
        assert pickle.loads(pickle.dumps(section)) == section


@pytest.mark.parametrize(
    ("split", "total"), [("{train: 0.8, validation: 0.2, test: 0.1}", "1.1"), ("{train: 0.5}", "0.7")]
)
def test_a_split_sums_to_one(project: Project, split: str, total: str) -> None:
    text = MINIMAL.replace("load: specs.data:digits", f"load: specs.data:digits\n  split: {split}")
    assert project.refused(text) == [f"9: train, validation and test sum to {total}, expected 1"]


def test_a_split_sums_to_one_up_to_rounding(project: Project) -> None:
    split = "{train: 0.7, validation: 0.2, test: 0.1}"
    assert project.one(MINIMAL.replace("load: specs.data:digits", f"load: specs.data:digits\n  split: {split}"))


def test_a_variant_is_served_once(project: Project) -> None:
    assert (
        "the variant 'trained' is listed twice"
        in project.refused(MINIMAL + "serve: {variants: [trained, trained]}\n")[0]
    )


def test_the_runtime_and_the_registry_are_known_ones(project: Project) -> None:
    text = MINIMAL + "serve: {runtime: xlaa}\npromote: {registry: 'sqllite:r.db', model: d, to: staging}\n"
    assert project.refused(text) == [
        "15: unknown runtime 'xlaa' [did you mean 'xla'?]",
        "16: unknown registry 'sqllite' [did you mean 'sqlite'?]",
    ]


def test_a_standard_may_leave_a_split_to_be_completed(project: Project) -> None:
    project.write("deploycheck: 1\nname: edge\ndata: {split: {train: 0.6}}\n", "specs/edge.yaml")
    text = MINIMAL.replace("  load:", "  split: {validation: 0.2, test: 0.2}\n  load:") + "extends: edge.yaml\n"
    assert project.one(text).data.split.train == 0.6
    assert project.load("deploycheck: 1\nname: edge\ndata: {split: {train: 0.6}}\n", "specs/edge.yaml") == ()


HUGE = "9" * 300


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("epochs: 10", "epochs: 1000001", "`train.epochs`"),
        ("epochs: 10", f"epochs: {HUGE}", "`train.epochs`"),
        ("batch_size: 128", "batch_size: 1000001", "`train.batch_size`"),
        ("  epochs: 10", "  epochs: 9\n  seeds: [0, 4294967296]", "`train.seeds.1`"),
        ("  epochs: 10", "  epochs: 9\n  seeds: [0, -1]", "`train.seeds.1`"),
        ("  epochs: 10", f"  epochs: 10\n  seeds: {list(range(1001))}", "`train.seeds`"),
        ("  epochs: 10", f"  epochs: 10\n  regularize: {{l2: {HUGE}}}", "`train.regularize.l2`"),
        ("  epochs: 10", "  epochs: 10\n  stop_early: {patience: 1000001}", "`train.stop_early.patience`"),
        ("shape: [28, 28, 1]", "shape: [1000000, 1000000]", "an example of this shape has 1,000,000,000,000 elements"),
        ("shape: [28, 28, 1]", f"shape: [{HUGE}]", "`model.input.image.shape.0`"),
        ("shape: [28, 28, 1]", f"shape: {[1] * 33}", "`model.input.image.shape`"),
        ("learning_rate: 1e-3", "learning_rate: 1001", "a learning rate is a number from 0 to 1,000, found 1001"),
        ("learning_rate: 1e-3", "learning_rate: -1e-3", "a learning rate is a number from 0 to 1,000, found -0.001"),
        ("learning_rate: 1e-3", "learning_rate: high", "a learning rate is a number from 0 to 1,000, found 'high'"),
        ("learning_rate: 1e-3", f"learning_rate: {HUGE}", "a learning rate is a number from 0 to 1,000"),
        ("  load:", "  split: {seed: 4294967296}\n  load:", "`data.split.seed`"),
        ("  load:", f"  split: {{train: {HUGE}}}\n  load:", "`data.split.train`"),
        ("name: digits", "name: digits\nserve: {load: {rate: 1e7 /s}}", "`serve.load.rate`"),
        ("name: digits", "name: digits\nserve: {load: {rate: 1e-300 /s}}", "`serve.load.rate`"),
        ("name: digits", "name: digits\nserve: {load: {requests: 100000001}}", "`serve.load.requests`"),
        ("name: digits", "name: digits\nserve: {load: {min_duration: 25 h}}", "`serve.load.min_duration`"),
        ("name: digits", "name: digits\nserve: {batching: {max_size: 65537}}", "`serve.batching.max_size`"),
        ("name: digits", "name: digits\nserve: {batching: {max_delay: 2 min}}", "`serve.batching.max_delay`"),
    ],
)
def test_every_number_has_bounds(project: Project, old: str, new: str, where: str) -> None:
    (refused,) = project.refused(MINIMAL.replace(old, new))
    assert where in refused
    assert len(refused) < 250


def test_the_largest_numbers_are_accepted(project: Project) -> None:
    text = MINIMAL.replace("  epochs: 10", "  seeds: [4294967295]\n  epochs: 1000000")
    assert project.one(text.replace("1e-3", "0")).train.seeds == (2**32 - 1,)


def test_every_number_in_the_schema_has_bounds() -> None:
    def unbounded(part: object, path: str) -> list[str]:
        if isinstance(part, list):
            return [found for item in part for found in unbounded(item, path)]
        if not isinstance(part, dict):
            return []
        is_open = part.get("type") in ("integer", "number") and not (
            "const" in part or ({"minimum", "exclusiveMinimum"} & {*part} and {"maximum", "exclusiveMaximum"} & {*part})
        )
        return [path] * is_open + [found for key, item in part.items() for found in unbounded(item, f"{path}/{key}")]

    assert unbounded(json_schema(VOCABULARY), "") == []


@pytest.mark.parametrize(("days", "accepted"), [(366, True), (367, False), (5000, False)])
def test_a_waiver_holds_for_at_most_a_year(project: Project, days: int, accepted: bool) -> None:
    until = (datetime.now(UTC) + timedelta(days=days)).date().isoformat()
    text = MINIMAL + f"waive: {{train.accuracy: {{because: x, until: {until}, by: me}}}}\n"
    if accepted:
        assert project.one(text)
    else:
        (error,) = project.errors(text).errors
        assert error.what.startswith("a waiver holds for at most a year")
        assert error.place.text[error.place.column - 1 :].startswith(until)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (MINIMAL.replace("  load:", "  preprocess: [standardize]\n  load:"), "{standardize: {}}"),
        (MINIMAL.replace("{adam: {learning_rate: 1e-3}}", "adam"), "{adam: {}}"),
        (MINIMAL.replace("  epochs", "  schedule: cosine\n  epochs"), "{cosine: {}}"),
        (MINIMAL + "compress: {variants: {small: {method: 'specs.models:anything'}}}\n", "{specs.models:anything: {}}"),
        (MINIMAL + "compress: {variants: {small: half}}\n", "{half: {}}"),
    ],
)
def test_a_name_without_its_options_is_refused_with_how_to_write_it(project: Project, text: str, hint: str) -> None:
    (error,) = project.errors(text).errors
    assert error.hint == f"write it with its options: {hint}"
