"""The steps that look for inputs that violate a property."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from deploycheck.errors import DeploycheckError
from deploycheck.language.properties import check_name
from deploycheck.language.spec import Batching
from deploycheck.properties import Batch, Predictor, Property, PropertySettings
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.properties import NamedProperty, PropertiesSettings, read_results
from deploycheck.store import Artifact
from tests.steps.making import Steps


def _check(predictor: Predictor, batch: Batch, settings: PropertySettings) -> str:
    (outputs,) = predictor.predict(batch.inputs).values()
    return "" if outputs.shape == (len(batch.rows), 4) else f"the outputs are {outputs.shape[1]} per example"


def _broken(predictor: Predictor, batch: Batch, settings: PropertySettings) -> str:
    raise KeyError("logits\nand more")


def _misplaced(predictor: Predictor, batch: Batch, settings: PropertySettings) -> str:
    raise DeploycheckError("can't be read", where="users.py:3", hint="write it anew")


BROKEN, MISPLACED = Property(name="broken", check=_broken), Property(name="misplaced", check=_misplaced)


def turn_around(array: np.ndarray) -> np.ndarray:
    return -array


FOUR_OUTPUTS = Property(name="four_outputs", check=_check)
NOT_A_PROPERTY = _check


def settings(*properties: tuple[str, dict[str, object]]) -> PropertiesSettings:
    named = tuple(NamedProperty(check=check_name(name, given), name=name, settings=given) for name, given in properties)
    return PropertiesSettings(properties=named, key="clusters", runtime="xla", batching=Batching(max_size=4))


def test_each_property_has_a_result_of_its_own(chain: Steps, data: Artifact, model: Artifact) -> None:
    own = "tests.steps.test_properties:FOUR_OUTPUTS"
    asked = settings(("finite", {"examples": 5, "seed": 7}), (own, {}), ("bounded", {"low": 0.0, "output": "no"}))
    artifact = chain.make("compress_properties", asked, data=data, model=model)
    found = read_results(artifact, "int8")
    assert (found["finite"].violation, found["finite"].seed, found["finite"].error) == ("", 7, "")
    assert 0 < found["finite"].examples <= 5
    assert found[own].violation == "the outputs are 3 per example"
    assert found[own].counterexample.startswith("test example 0 (x = [")
    assert load_file(found[own].inputs)["x"].shape == (1, 4)
    assert "the model has no output 'no'" in found["bounded"].error


def test_a_check_that_raises_is_an_error_of_that_property_alone(chain: Steps, data: Artifact, model: Artifact) -> None:
    broken, misplaced = (f"tests.steps.test_properties:{name}" for name in ("BROKEN", "MISPLACED"))
    shifted = {"transformation": {"scale": {"by": [3]}}}
    asked = settings((broken, {}), (misplaced, {}), ("invariant_to", shifted), ("finite", {"examples": 3}))
    found = read_results(chain.make("compress_properties", asked, "raising", data=data, model=model), "int8")
    assert found[broken].error == "the check raised KeyError: 'logits\\nand more'"
    assert found[misplaced].error == "users.py:3: can't be read; write it anew"
    assert found["invariant_to"].error.startswith("the transformation scale raised TypeError: ")
    assert (found["finite"].error, found["finite"].examples) == ("", 3)


def test_a_transformation_by_import_path_is_loaded_as_all_code_is(
    chain: Steps, data: Artifact, model: Artifact
) -> None:
    properties = (
        ("tests.steps.test_properties:turn_around", "turned", "", "the decision is"),
        ("tests.steps.test_properties:NOT_THERE", "missing", "has no attribute 'NOT_THERE'", ""),
        ("tests.steps.test_properties:FOUR_OUTPUTS", "number", "is Property, expected a function of an array", ""),
        ("os:system", "standard", "os:system is code of Python's standard library", ""),
    )
    asked = settings(*(("invariant_to", {"transformation": path, "label": label}) for path, label, _, _ in properties))
    found = read_results(chain.make("compress_properties", asked, "transformed", data=data, model=model), "int8")
    for _, label, error, violation in properties:
        assert error in found[f"invariant_to.{label}"].error
        assert violation in found[f"invariant_to.{label}"].violation


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("tests.steps.test_properties:NOT_A_PROPERTY", {}, "is function, expected a deploycheck.properties.Property"),
        ("tests.steps.test_properties:FOUR_OUTPUTS", {"exmples": 3}, "the settings of .* are not valid: exmples"),
    ],
)
def test_what_is_no_property_is_refused(
    name: str, given: dict[str, object], says: str, chain: Steps, data: Artifact, model: Artifact
) -> None:
    making = chain.making(settings((name, given)), f"refused {says[:9]}", data=data, model=model)
    with pytest.raises(DeploycheckError, match=says):
        STEP_KINDS["compress_properties"].make(making)


def test_a_server_is_asked_for_those_of_servers(chain: Steps, data: Artifact, model: Artifact) -> None:
    asked = settings(
        ("deterministic", {"examples": 5}), ("rejects_malformed", {"examples": 20}), ("bounded", {"high": -99.0})
    )
    artifact = chain.make("serve_properties", asked, data=data, model=model)
    found = read_results(artifact, "int8")
    assert {name: bool(result.violation) for name, result in found.items()} == {
        "deterministic": False,
        "rejects_malformed": False,
        "bounded": True,
    }
    assert all(not result.error for result in found.values())
