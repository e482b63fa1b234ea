from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from deploycheck.cli import main
from deploycheck.evidence.forms.json import as_json
from tests.cli.asking import Captured, promotable
from tests.registry.processes import made


@pytest.mark.parametrize(("of", "title"), [("spec", "deploycheck spec"), ("evidence", "Evidence")])
def test_a_schema_is_printed_that_is_one(capsys: Captured, of: str, title: str) -> None:
    assert main(["schema", of]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == title


def test_the_printed_schema_takes_evidence_and_nothing_else(folder: Path, capsys: Captured) -> None:
    assert main(["schema", "evidence"]) == 0
    validator = jsonschema.Draft202012Validator(json.loads(capsys.readouterr().out))
    document = json.loads(as_json(promotable(made(folder, "c"))))
    validator.validate(document)
    assert not validator.is_valid({**document, "surprise": 1})
