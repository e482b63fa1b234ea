"""The JSON Schema that editors take from the language."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from deploycheck.language import Section, json_schema
from tests.language.writing import EXAMPLE, MINIMAL, VOCABULARY, Project, plain_data

SPECS = Path(__file__).parents[2] / "specs"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema(VOCABULARY)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_takes_the_projects_own_spec(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(plain_data((SPECS / "digits.yaml").read_text()))


@pytest.mark.parametrize("text", [MINIMAL, EXAMPLE], ids=["minimal", "example"])
def test_the_schema_takes_what_the_language_takes(validator: jsonschema.Draft202012Validator, text: str) -> None:
    validator.validate(plain_data(text))


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
        validator.validate(plain_data(text))


def test_the_schema_names_its_draft_and_the_keys_as_they_are_written() -> None:
    schema = json_schema(VOCABULARY)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "with" in schema["$defs"]["Model"]["properties"]
    assert "from" in schema["$defs"]["Variant"]["properties"]


def test_the_schema_has_what_is_installed() -> None:
    parts = json_schema(VOCABULARY)["$defs"]
    assert parts["Train"]["properties"]["loss"]["enum"] == ["cross_entropy", "squared_error"]
    assert parts["Load"]["properties"]["scenario"]["enum"] == ["server", "single_stream", "multi_stream", "offline"]
    assert parts["Serve"]["properties"]["runtime"]["enum"] == ["onnxruntime", "xla"]
    assert parts["StopEarly"]["properties"]["watch"]["enum"][0] == "validation.loss"
    keys = {"from", "method", "search", "runtime", "expect", "quantize", "prune", "half"}
    assert parts["Variant"]["properties"].keys() == keys
    assert parts["Method"]["properties"].keys() == {"method", "quantize", "prune", "half"}
    assert parts["Quantize"]["required"] == ["weights"]


def test_the_schema_takes_a_methods_options_and_refuses_others(validator: jsonschema.Draft202012Validator) -> None:
    text = MINIMAL + "compress: {variants: {small: {quantize: {weights: int8}}}}\n"
    validator.validate(plain_data(text))
    for wrong in ("{quantize: {weights: int4}}", "{quantise: {weights: int8}}", "{half: {by: 2}}"):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(plain_data(text.replace("{quantize: {weights: int8}}", wrong)))


def test_options_with_the_name_of_a_section_do_not_replace_it_in_the_schema() -> None:
    class Split(Section):
        parts: int

    parts = json_schema(replace(VOCABULARY, methods={"split": Split}))["$defs"]
    assert sum("parts" in part["properties"] for part in parts.values()) == 1
    assert sum("stratify" in part["properties"] for part in parts.values()) == 1
