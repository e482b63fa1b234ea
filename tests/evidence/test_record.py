from __future__ import annotations

import json
import math
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from pydantic import ValidationError

from deploycheck.evidence import CheckRecord, Evidence, TargetRecord, json_schema
from deploycheck.evidence.forms.json import as_json
from deploycheck.evidence.record import withheld
from deploycheck.promotion import Decision
from tests.evidence.records import CHOSEN, EVIDENCE, MOVED, check, evidence, spec, step

WHOLE = evidence(
    spec(check(), decision=Decision.WITHHELD, reasons=("a: did not run",), steps=(step(because="net.py changed"),)),
    spec(
        check(value=None, interval=None, confidence=None, threshold=None, verdict="error"),
        decision=Decision.PROMOTED,
        target=TargetRecord(registry=None, model="digits", alias="staging"),
        chosen=CHOSEN,
        promotion=MOVED,
    ),
)


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def strict(text: str) -> Any:
    """Parse JSON as the standard has it: Python's own parser would let NaN and Infinity through."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def changed(path: str, value: object) -> dict[str, Any]:
    """Return a whole evidence document with one place of it replaced."""
    document: dict[str, Any] = strict(as_json(WHOLE))
    *folders, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    at: Any = document
    for part in folders:
        at = at[part]
    at[last] = value
    return document


def test_the_schema_takes_the_evidence_of_a_run(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(strict(as_json(WHOLE)))


@given(EVIDENCE)
def test_evidence_comes_back_from_json_as_it_was(document: Evidence) -> None:
    assert Evidence.model_validate_json(as_json(document)) == document


@given(document=EVIDENCE)
def test_whatever_the_models_take_is_json_that_the_schema_takes(
    validator: jsonschema.Draft202012Validator, document: Evidence
) -> None:
    validator.validate(strict(as_json(document)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ran", "twice"),
        ("format", "junit"),
        ("version", 2),
        ("run", None),
        ("environment/cores", "two"),
        ("environment/hostname", "gpu-7"),
        ("specs/0/decision", "maybe"),
        ("specs/0/checks/0/verdict", "passed"),
        ("specs/0/checks/0/valu", 0.9),
        ("specs/0/checks/0/value", "97.9 %"),
        ("specs/0/checks/0/severity", "mild"),
        ("specs/0/checks/0/interval", [0.9]),
        ("specs/0/checks/0/interval", [0.8, 0.9, 1.0]),
        ("specs/0/other_reasons", "a: did not run"),
        ("specs/0/steps/0/because", None),
        ("specs/1/target/branch", "main"),
        ("specs/1/chosen/size", "big"),
        ("specs/1/promotion/previous", 3),
    ],
)
def test_the_models_and_the_schema_refuse_the_same(
    validator: jsonschema.Draft202012Validator, path: str, value: object
) -> None:
    document = changed(path, value)
    with pytest.raises(ValidationError):
        Evidence.model_validate_json(json.dumps(document))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_null_in_the_evidence(number: float) -> None:
    record = check(value=number, interval=(number, 0.5))
    assert (record.value, record.interval) == (None, (None, 0.5))
    (shown,) = strict(as_json(evidence(spec(record))))["specs"][0]["checks"]
    assert (shown["value"], shown["interval"]) == (None, [None, 0.5])


def test_a_number_that_got_past_the_models_is_null_all_the_same() -> None:
    record = check().model_copy(update={"value": math.inf, "interval": (-math.inf, math.nan)})  # checks nothing
    (shown,) = strict(as_json(evidence(spec(record))))["specs"][0]["checks"]
    assert (shown["value"], shown["interval"]) == (None, [None, None])


def test_a_record_is_not_changed_after_the_fact() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        check().verdict = "pass"  # type: ignore[assignment, misc]


def test_every_check_names_what_it_was_and_how_it_ended() -> None:
    with pytest.raises(ValidationError) as caught:
        CheckRecord()  # type: ignore[call-arg]
    assert {error["loc"][0] for error in caught.value.errors()} == {"id", "stage", "metric", "verdict"}


def test_a_spec_that_is_withheld_later_keeps_its_other_reasons() -> None:
    first = spec(check(), reasons=("a: fail",), other_reasons=("b",), decision=Decision.PROMOTED, promotion=MOVED)
    late = withheld(first, "the spec was edited")
    assert (late.decision, late.promotion) == (Decision.WITHHELD, None)
    assert (late.reasons, late.other_reasons) == (("a: fail", "the spec was edited"), ("b", "the spec was edited"))


def test_evidence_written_before_steps_had_reasons_is_still_read() -> None:
    document = json.loads(as_json(WHOLE))
    for written in document["specs"]:
        del written["other_reasons"]
        for made in written["steps"]:
            del made["because"]
    read = Evidence.model_validate(document)
    assert read.specs[0].steps[0].because == ""
    assert read.specs[0].reasons == ("a: did not run",)
