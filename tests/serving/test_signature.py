from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.serving.signature import (
    DTYPES,
    SIGNATURE,
    Signature,
    TensorMetadata,
    read_signature,
    tensor_metadata,
    write_signature,
)

TWO_OUTPUTS = Signature(
    model="net",
    runtime="numpy",
    inputs=(TensorMetadata("x", "FP32", (4,), missing=True), TensorMetadata("y", "FP32", ())),
    outputs=(TensorMetadata("scores", "FP32", (3,)), TensorMetadata("best", "INT32", ())),
)


def test_a_signature_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_signature(TWO_OUTPUTS, tmp_path, made_with="numpy 2")
    assert read_signature(tmp_path / SIGNATURE) == TWO_OUTPUTS
    assert json.loads((tmp_path / SIGNATURE).read_text())["made_with"] == "numpy 2"


def test_a_signature_of_an_earlier_version_is_of_xla_and_neither_rounds_nor_fills(tmp_path: Path) -> None:
    write_signature(replace(TWO_OUTPUTS, rounds=True), tmp_path)
    content = json.loads((tmp_path / SIGNATURE).read_text())
    del content["runtime"], content["rounds"], content["inputs"][0]["missing"]
    (tmp_path / SIGNATURE).write_text(json.dumps(content))
    read = read_signature(tmp_path / SIGNATURE)
    assert (read.runtime, read.rounds, read.inputs[0].missing) == ("xla", False, False)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", 5),
        ("version", None),
        ("runtime", ["xla"]),
        ("inputs", []),
        ("inputs", {"x": "FP32"}),
        ("outputs", [{"name": "y"}]),
        ("outputs", [{"name": "y", "datatype": "BF16", "shape": [-1, 3]}]),
        ("outputs", [{"name": "y", "datatype": "FP32", "shape": [-1, "3"]}]),
        ("outputs", [{"name": "y", "datatype": "FP32", "shape": 3}]),
    ],
)
def test_a_signature_with_another_part_is_refused_at_its_file(tmp_path: Path, part: str, value: object) -> None:
    write_signature(TWO_OUTPUTS, tmp_path)
    file = tmp_path / SIGNATURE
    file.write_text(json.dumps({**json.loads(file.read_text()), part: value}))
    with pytest.raises(DeploycheckError, match="is not the signature of a model") as refused:
        read_signature(file)
    assert refused.value.where == str(file)


@pytest.mark.parametrize(("runtime", "platform"), [("xla", "jax_stablehlo"), ("numpy", "numpy")])
def test_the_platform_is_named_by_the_runtime(runtime: str, platform: str) -> None:
    assert Signature(model="net", inputs=(), outputs=(), runtime=runtime).metadata()["platform"] == platform


@pytest.mark.parametrize("datatype", DTYPES)
def test_each_datatype_has_one_dtype_and_each_dtype_one_datatype(datatype: str) -> None:
    assert tensor_metadata("x", (2,), DTYPES[datatype].name) == TensorMetadata("x", datatype, (2,))


@pytest.mark.parametrize("dtype", ["bfloat16", np.dtype(complex).name, np.dtype("datetime64[s]").name])
def test_a_dtype_that_the_protocol_has_no_name_for_is_refused(dtype: str) -> None:
    with pytest.raises(DeploycheckError, match=rf"'x' is {dtype.replace('[', '.').replace(']', '.')}, for which"):
        tensor_metadata("x", (2,), dtype)
