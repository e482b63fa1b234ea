from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deploycheck.serving.protocol import (
    BadRequest,
    InferRequest,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from deploycheck.serving.signature import DTYPES, Signature, TensorMetadata
from tests.serving.asking import as_json
from tests.serving.bad_requests import BAD, GOOD, LENGTH
from tests.serving.models import SIGNATURE

TWO = Signature(
    model="two",
    inputs=(TensorMetadata("mask", "BOOL", (2,)), TensorMetadata("count", "INT8", ())),
    outputs=(TensorMetadata("sum", "INT64", ()), TensorMetadata("mean", "FP64", (2,))),
)
INTEGERS = Signature(
    model="integers", inputs=(TensorMetadata("x", "INT8", (2,)),), outputs=(TensorMetadata("y", "INT8", (2,)),)
)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
batches = st.integers(1, 8).flatmap(lambda n: arrays.arrays(np.float32, (n, 4, 4, 1), elements=finite))
json_numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | json_numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def request(**changes: Any) -> bytes:
    return json.dumps({"inputs": [GOOD], **changes}).encode()


def integers(data: Any) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT8", "data": data}]}).encode()


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_with_what_was_expected(case: str) -> None:
    bad = BAD[case]
    with pytest.raises(BadRequest) as refused:
        decode_request(bad.headers, bad.body, SIGNATURE, 8)
    assert refused.value.status == 400
    assert bad.says in str(refused.value)


@pytest.mark.parametrize("field", ["name", "datatype"])
def test_an_error_does_not_send_a_long_field_back(field: str) -> None:
    body = json.dumps({"inputs": [{**GOOD, field: "x" * 100_000}]}).encode()
    with pytest.raises(BadRequest) as refused:
        decode_request({}, body, SIGNATURE, 8)
    assert len(str(refused.value)) < 1000


@given(batches)
def test_a_binary_request_arrives_bit_for_bit(images: np.ndarray) -> None:
    sent = encode_request({"image": images})
    arrived = decode_request(sent.headers, sent.body, SIGNATURE, 8)
    assert arrived.batch == len(images)
    assert arrived.inputs["image"].dtype == np.float32
    assert arrived.inputs["image"].tobytes() == images.tobytes()
    assert arrived.outputs == {"logits": True}


@given(batches, st.booleans())
def test_a_json_request_arrives_bit_for_bit_flat_or_nested(images: np.ndarray, nested: bool) -> None:
    tensor = {**GOOD, "shape": list(images.shape), "data": (images if nested else images.ravel()).tolist()}
    arrived = decode_request({}, json.dumps({"inputs": [tensor]}).encode(), SIGNATURE, 8)
    assert arrived.inputs["image"].shape == images.shape
    assert arrived.inputs["image"].tobytes() == images.tobytes()
    assert arrived.outputs == {"logits": False}


@given(st.binary(max_size=300), st.none() | st.integers(-5, 400).map(str) | st.text("-+0123456789 ²٣x", max_size=30))
def test_any_bytes_at_all_are_a_request_or_refused(body: bytes, length: str | None) -> None:
    headers = {} if length is None else {LENGTH: length}
    with pytest.raises(BadRequest):
        decode_request(headers, body, SIGNATURE, 8)


@given(st.sampled_from([*GOOD, "parameters"]), json_values)
def test_any_value_in_any_field_of_a_tensor_is_right_or_refused(field: str, value: Any) -> None:
    body = orjson.dumps({"inputs": [{**GOOD, field: value}]})
    try:
        found = decode_request({}, body, SIGNATURE, 8)
    except BadRequest:
        return
    assert np.isfinite(found.inputs["image"]).all()
    assert found.inputs["image"].shape == (found.batch, 4, 4, 1)


@given(st.sampled_from(["inputs", "outputs", "parameters", "id"]), json_values)
def test_any_value_in_any_field_of_a_request_is_right_or_refused(field: str, value: Any) -> None:
    try:
        found = decode_request({}, orjson.dumps({"inputs": [GOOD], field: value}), SIGNATURE, 8)
    except BadRequest:
        return
    assert set(found.outputs) == {"logits"}


@given(batches, st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_gives_a_request_or_a_refusal(images: np.ndarray, at: int, byte: int) -> None:
    sent = encode_request({"image": images})
    body = bytearray(sent.body)
    body[at % len(body)] = byte
    try:
        found = decode_request(sent.headers, bytes(body), SIGNATURE, 8)
    except BadRequest:
        return
    assert np.isfinite(found.inputs["image"]).all()


@given(st.data(), st.booleans(), st.sampled_from(sorted(DTYPES)))
def test_a_response_arrives_bit_for_bit_in_json_and_in_binary(data: st.DataObject, binary: bool, datatype: str) -> None:
    dtype = DTYPES[datatype]
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    shape = (data.draw(st.integers(1, 4)), 3)
    answer = data.draw(arrays.arrays(dtype, shape, elements=elements))
    signature = Signature(model="any", inputs=(), outputs=(TensorMetadata("y", datatype, (3,)),))
    asked = InferRequest(None, {}, {"y": binary}, len(answer))
    reply = encode_response(asked, {"y": answer}, signature)
    found = decode_response(reply.headers, reply.body)
    assert (LENGTH in reply.headers) is binary
    assert found["y"].dtype == dtype
    assert found["y"].shape == answer.shape
    assert found["y"].tobytes() == answer.tobytes()


@given(st.sampled_from(sorted(DTYPES)), st.data())
def test_every_datatype_makes_the_binary_round_trip(datatype: str, data: st.DataObject) -> None:
    dtype = DTYPES[datatype]
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    array = data.draw(arrays.arrays(dtype, (data.draw(st.integers(1, 4)), 2), elements=elements))
    signature = Signature(
        model="any", inputs=(TensorMetadata("x", datatype, (2,)),), outputs=(TensorMetadata("y", datatype, (2,)),)
    )
    sent = encode_request({"x": array})
    arrived = decode_request(sent.headers, sent.body, signature, 8).inputs["x"]
    assert arrived.dtype == dtype
    assert arrived.tobytes() == array.tobytes()


def test_two_inputs_follow_each_other_in_the_order_of_the_request() -> None:
    mask, count = np.array([[True, False]] * 3), np.array([1, -2, 3], np.int8)
    sent = encode_request({"count": count, "mask": mask})
    arrived = decode_request(sent.headers, sent.body, TWO, 8)
    np.testing.assert_array_equal(arrived.inputs["mask"], mask)
    np.testing.assert_array_equal(arrived.inputs["count"], count)
    assert arrived.batch == 3


def test_binary_values_are_little_endian_and_row_major() -> None:
    images = np.arange(32, dtype=np.float32).reshape(2, 4, 4, 1)
    for same in (np.asfortranarray(images), images):
        assert encode_request({"image": same}).body.endswith(images.astype("<f4").tobytes(order="C"))


def test_inputs_of_different_batches_are_refused() -> None:
    sent = encode_request({"mask": np.ones((2, 2), bool), "count": np.ones(3, np.int8)})
    with pytest.raises(BadRequest, match=r"different batch sizes: \[2, 3\]"):
        decode_request(sent.headers, sent.body, TWO, 8)


def test_a_missing_input_is_named() -> None:
    sent = encode_request({"mask": np.ones((2, 2), bool)})
    with pytest.raises(BadRequest, match="missing input count"):
        decode_request(sent.headers, sent.body, TWO, 8)


def test_a_bool_in_binary_is_0_or_1() -> None:
    sent = encode_request({"mask": np.ones((1, 2), bool), "count": np.ones(1, np.int8)})
    with pytest.raises(BadRequest, match="bytes are 0 or 1"):
        decode_request(sent.headers, sent.body[:-3] + b"\x02" + sent.body[-2:], TWO, 8)


@pytest.mark.parametrize("data", [[128, 0], [0, -129], [2**64 - 1, 0], [1.0, 2.0], [1, 2.5], [True, 1], [10**30, 0]])
def test_an_integer_input_is_neither_wrapped_nor_rounded(data: list[Any]) -> None:
    with pytest.raises(BadRequest):
        decode_request({}, integers(data), INTEGERS, 8)


def test_the_extremes_of_an_integer_input_arrive() -> None:
    assert decode_request({}, integers([-128, 127]), INTEGERS, 8).inputs["x"].tolist() == [[-128, 127]]


HOLED = Signature(
    model="holed",
    inputs=(TensorMetadata("x", "FP32", (3,), missing=True), TensorMetadata("y", "FP32", (1,))),
    outputs=(TensorMetadata("z", "FP32", (1,)),),
)


def holed(x: str, y: str = "[1]", **more: Any) -> bytes:
    head = json.dumps(more)[1:-1] + ", " if more else ""
    return (
        f'{{{head}"inputs": [{{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": {x}}}, '
        f'{{"name": "y", "shape": [1, 1], "datatype": "FP32", "data": {y}}}]}}'
    ).encode()


@pytest.mark.parametrize("written", ["[1, null, 2.5]", "[[1, null, 2.5]]", "[1,NaN,2.5]", "[ 1.0, NaN , 2.5 ]"])
def test_missing_values_are_null_or_nan_where_the_model_fills_them(written: str) -> None:
    found = decode_request({}, holed(written), HOLED, 8).inputs["x"]
    np.testing.assert_array_equal(found, np.array([[1, np.nan, 2.5]], np.float32))


def test_missing_values_may_be_all_there_is() -> None:
    assert np.isnan(decode_request({}, holed("[null, null, null]"), HOLED, 8).inputs["x"]).all()


def test_missing_values_arrive_in_binary() -> None:
    x = np.array([[1, np.nan, 2.5]], np.float32)
    sent = encode_request({"x": x, "y": np.ones((1, 1), np.float32)})
    np.testing.assert_array_equal(decode_request(sent.headers, sent.body, HOLED, 8).inputs["x"], x)


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_refused_of_every_input(name: str, value: float) -> None:
    inputs = {"x": np.ones((1, 3), np.float32), "y": np.ones((1, 1), np.float32)}
    inputs[name][0, 0] = value
    sent = encode_request(inputs)
    with pytest.raises(BadRequest, match=f"'{name}' holds"):
        decode_request(sent.headers, sent.body, HOLED, 8)


@pytest.mark.parametrize(
    "body",
    [
        holed("[1, 2, 3]", "[null]"),
        holed("[1, 2, 3]", "[NaN]"),
        holed("[1, Infinity, 3]"),
        holed("[1, -NaN, 3]"),
        holed("[1, NaNa, 3]"),
        holed("[1, true, null]"),
        holed('[1, "NaN", null]'),
        holed("[1, null]"),
        holed("[[1], [null, 2]]"),
        holed("NaN"),
    ],
)
def test_other_requests_are_refused_as_before(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_request({}, body, HOLED, 8)


def test_a_string_that_holds_nan_is_kept() -> None:
    found = decode_request({}, holed("[1, NaN, 2]", id='a NaN, "NaN" \\'), HOLED, 8)
    assert found.id == 'a NaN, "NaN" \\'


def test_fp16_is_refused_in_json_and_taken_in_binary() -> None:
    signature = Signature(
        model="half", inputs=(TensorMetadata("x", "FP16", (1,)),), outputs=(TensorMetadata("y", "FP16", (1,)),)
    )
    with pytest.raises(BadRequest, match="use the binary extension"):
        decode_request(
            {}, b'{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP16", "data": [1]}]}', signature, 8
        )
    sent = encode_request({"x": np.ones((1, 1), np.float16)})
    assert decode_request(sent.headers, sent.body, signature, 8).inputs["x"].tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("fields", "binary"),
    [
        ({}, False),
        ({"outputs": []}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}, True),
        (
            {
                "outputs": [{"name": "logits", "parameters": {"binary_data": False}}],
                "parameters": {"binary_data_output": True},
            },
            False,
        ),
    ],
)
def test_an_output_comes_in_the_form_asked_for(fields: dict[str, Any], binary: bool) -> None:
    assert decode_request({}, request(**fields), SIGNATURE, 8).outputs == {"logits": binary}


def test_only_the_outputs_asked_for_come() -> None:
    asked = InferRequest(None, {}, {"mean": False}, 1)
    reply = encode_response(asked, {"sum": np.ones(1, np.int64), "mean": np.ones((1, 2))}, TWO)
    assert list(decode_response(reply.headers, reply.body)) == ["mean"]


def test_outputs_in_json_and_in_binary_mix() -> None:
    outputs = {"sum": np.array([5, 6]), "mean": np.array([[0.5, 1.5], [2.5, 3.5]])}
    for binary in ({"sum": True, "mean": False}, {"mean": True, "sum": False}, {"mean": True, "sum": True}):
        reply = encode_response(InferRequest(None, {}, binary, 2), outputs, TWO)
        found = decode_response(reply.headers, reply.body)
        for name, array in outputs.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("given_id", ["", "a", "request ✓"])
def test_an_id_is_echoed(given_id: str) -> None:
    asked = decode_request({}, request(id=given_id), SIGNATURE, 8)
    reply = json.loads(encode_response(asked, {"logits": np.zeros((1, 3), np.float32)}, SIGNATURE).body)
    assert reply["id"] == given_id


def test_without_an_id_none_is_made_up() -> None:
    asked = decode_request({}, as_json(np.zeros((1, 4, 4, 1))), SIGNATURE, 8)
    reply = json.loads(encode_response(asked, {"logits": np.zeros((1, 3), np.float32)}, SIGNATURE).body)
    assert reply == {
        "model_name": "digits",
        "model_version": "1",
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [1, 3], "data": [0.0, 0.0, 0.0]}],
    }


def test_the_metadata_names_every_tensor_with_a_free_batch() -> None:
    assert SIGNATURE.metadata() == {
        "name": "digits",
        "versions": ["1"],
        "platform": "jax_stablehlo",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 4, 4, 1]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}],
    }
