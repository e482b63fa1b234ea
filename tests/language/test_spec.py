"""The typed tree, and the JSON Schema that editors take from it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest

from deploycheck.language import Section, json_schema
from deploycheck.language.source import parse
from deploycheck.language.tree import Tree
from tests.language.writing import EDGE, EXAMPLE, MINIMAL, VOCABULARY, Project

SPECS = Path(__file__).parents[2] / "specs"


def data(text: str) -> dict[str, Any]:
    return parse(text, Path("spec.yaml"), "spec.yaml").data


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema(VOCABULARY)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_takes_the_projects_own_spec(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(data((SPECS / "digits.yaml").read_text()))


@pytest.mark.parametrize("text", [MINIMAL, EXAMPLE], ids=["minimal", "example"])
def test_the_schema_takes_what_the_language_takes(validator: jsonschema.Draft202012Validator, text: str) -> None:
    validator.validate(data(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: digits", "name: digits\nownr: vision"),
        ("  epochs: 10", "  epochs: 10\n  epoch: 10"),
        ("{shape:", "{shap: 1, shape:"),
        ("  epochs: 10", "  epochs: 0"),
        ("deploycheck: 1", "deploycheck: 2"),
        ("name: digits", "name: Digits!"),
        ("name: digits\n", ""),
        ("float32", "float33"),
        ("{adam: {learning_rate: 1e-3}}", "{adam: {}, sgd: {}}"),
        ('">= 97 %"', '{threshold: ">= 97 %", severity: mild}'),
    ],
)
def test_the_schema_refuses_what_the_language_refuses(
    validator: jsonschema.Draft202012Validator, project: Project, old: str, new: str
) -> None:
    text = MINIMAL.replace(old, new)
    assert project.errors(text)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(data(text))


def test_the_schema_names_its_draft_and_the_keys_as_they_are_written() -> None:
    schema = json_schema(VOCABULARY)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "with" in schema["$defs"]["Model"]["properties"]
    assert "from" in schema["$defs"]["Variant"]["properties"]


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
    found = sections(Tree.model_validate(data(EXAMPLE), context=VOCABULARY))
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


def test_the_schema_has_what_is_installed() -> None:
    parts = json_schema(VOCABULARY)["$defs"]
    assert parts["Train"]["properties"]["loss"]["enum"] == ["cross_entropy", "squared_error"]
    assert parts["Load"]["properties"]["scenario"]["enum"] == ["server", "single_stream", "multi_stream", "offline"]
    assert parts["Serve"]["properties"]["runtime"]["enum"] == ["onnxruntime", "xla"]
    assert parts["StopEarly"]["properties"]["watch"]["enum"][0] == "validation.loss"
    assert parts["Variant"]["properties"].keys() == {"from", "method", "expect", "quantize", "prune", "half"}
    assert parts["Quantize"]["required"] == ["weights"]


def test_the_schema_takes_a_methods_options_and_refuses_others(validator: jsonschema.Draft202012Validator) -> None:
    text = MINIMAL + "compress: {variants: {small: {quantize: {weights: int8}}}}\n"
    validator.validate(data(text))
    for wrong in ("{quantize: {weights: int4}}", "{quantise: {weights: int8}}", "{half: {by: 2}}"):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(data(text.replace("{quantize: {weights: int8}}", wrong)))


def test_options_with_the_name_of_a_section_do_not_replace_it_in_the_schema() -> None:
    class Split(Section):
        parts: int

    parts = json_schema(replace(VOCABULARY, methods={"split": Split}))["$defs"]
    assert sum("parts" in part["properties"] for part in parts.values()) == 1
    assert sum("stratify" in part["properties"] for part in parts.values()) == 1


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
        "optimize: {search: {sampler: tpe, trials: 2}, space: {a: {choice: [1]}}}\n",
        "serve: {properties: [finite]}\n",
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
