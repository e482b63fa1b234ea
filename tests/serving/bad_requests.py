"""Requests no server may answer, by what is wrong with them. The model's input is ``image``, FP32 [batch, 4, 4, 1]."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploycheck.serving.protocol import Encoded, encode_request

LENGTH = "inference-header-content-length"
ONES = [1.0] * 16
GOOD = {"name": "image", "shape": [1, 4, 4, 1], "datatype": "FP32", "data": ONES}


@dataclass(frozen=True)
class Bad:
    body: bytes
    says: str
    """A part of the error's message: what was expected, or what was found."""
    headers: Mapping[str, str] = field(default_factory=dict)


def _tensor(says: str, **changes: Any) -> Bad:
    """A good request but for these fields of its tensor; None leaves a field out."""
    tensor = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    return Bad(json.dumps({"inputs": [tensor]}).encode(), says)


def _request(says: str, **changes: Any) -> Bad:
    return Bad(json.dumps({"inputs": [GOOD], **changes}).encode(), says)


def _element(says: str, literal: str) -> Bad:
    """A good request but for one value."""
    data = ", ".join(["0.5"] * 15 + [literal])
    text = f'{{"inputs": [{{"name": "image", "shape": [1, 4, 4, 1], "datatype": "FP32", "data": [{data}]}}]}}'
    return Bad(text.encode(), says)


def _good_binary() -> Encoded:
    return encode_request({"image": np.ones((1, 4, 4, 1), np.float32)})


def _binary(says: str, raw: bytes, **parameters: Any) -> Bad:
    tensor = {name: value for name, value in GOOD.items() if name != "data"} | {"parameters": parameters}
    text = json.dumps({"inputs": [tensor]}).encode()
    return Bad(text + raw, says, {LENGTH: str(len(text))})


def _length(says: str, written: str) -> Bad:
    return Bad(_good_binary().body, says, {LENGTH: written})


NAN, INFINITE = (np.full(16, value, "<f4").tobytes() for value in (np.nan, np.inf))

BAD: dict[str, Bad] = {
    "malformed JSON": Bad(b'{"inputs": [', "not JSON"),
    "an empty body": Bad(b"", "not JSON"),
    "not an object": Bad(b"[1]", "expected a JSON object, found an array"),
    "null": Bad(b"null", "expected a JSON object, found null"),
    "no inputs": Bad(b"{}", "expected `inputs`"),
    "an empty list of inputs": Bad(b'{"inputs": []}', "at least one tensor"),
    "inputs as an object": Bad(b'{"inputs": {"image": 1}}', "expected `inputs`, a list"),
    "a tensor that is a number": Bad(b'{"inputs": [1]}', "expected a tensor as an object, found a number"),
    "unknown datatype": _tensor("is FP32, found 'FP33', which the protocol doesn't know", datatype="FP33"),
    "another datatype": _tensor("is FP32, found 'INT64'", datatype="INT64"),
    "FP16 in JSON": _tensor("is FP32, found 'FP16'", datatype="FP16"),
    "BYTES": _tensor("is FP32, found 'BYTES'", datatype="BYTES"),
    "no datatype": _tensor("is FP32, found None", datatype=None),
    "a datatype that is a list": _tensor("is FP32, found", datatype=["FP32"]),
    "a datatype that is an object": _tensor("is FP32, found", datatype={}),
    "too few elements": _tensor("holds 15 values, its shape takes 16", data=ONES[:15]),
    "too many elements": _tensor("holds 17 values, its shape takes 16", data=[*ONES, 1.0]),
    "no elements": _tensor("holds 0 values, its shape takes 16", data=[]),
    "no data": _tensor("is a list, found null", data=None),
    "data as a string": _tensor("is a list, found a string", data="1" * 16),
    "ragged data": _tensor("ragged", data=[[1.0, 2.0], [1.0]]),
    "data in 900 dimensions": Bad(
        b'{"inputs": [{"name": "image", "shape": [1, 4, 4, 1], "datatype": "FP32", "data": '
        + b"[" * 900
        + b"1"
        + b"]" * 900
        + b"}]}",
        "`data` of input 'image'",
    ),
    "a negative batch": _tensor("1 to 8 examples, found -1", shape=[-1, 4, 4, 1]),
    "an empty batch": _tensor("1 to 8 examples, found 0", shape=[0, 4, 4, 1], data=[]),
    "a batch over the limit": _tensor("1 to 8 examples, found 9", shape=[9, 4, 4, 1], data=ONES * 9),
    "a batch of 2**40": _tensor("1 to 8 examples, found 1099511627776", shape=[2**40, 4, 4, 1]),
    "a shape whose product overflows": _tensor("expected [batch, 4, 4, 1]", shape=[2**32, 2**32, 4, 1]),
    "a negative pair of axes": _tensor("expected [batch, 4, 4, 1]", shape=[1, -4, -4, 1]),
    "wrong rank": _tensor("expected [batch, 4, 4, 1]", shape=[1, 16]),
    "a scalar's shape": _tensor("expected [batch, 4, 4, 1]", shape=[]),
    "another axis": _tensor("expected [batch, 4, 4, 1]", shape=[1, 4, 1, 4]),
    "no shape": _tensor("is a list of whole numbers", shape=None),
    "a shape of floats": _tensor("is a list of whole numbers", shape=[1.0, 4, 4, 1]),
    "a shape with a boolean": _tensor("is a list of whole numbers", shape=[True, 4, 4, 1]),
    "a string among the values": _element("not FP32", '"1"'),
    "null among the values": _element("not FP32", "null"),
    "true among the values": _element("not FP32", "true"),
    "nothing but booleans": _tensor("not FP32", data=[True] * 16),
    "an object among the values": _element("not FP32", "{}"),
    "NaN": _element("not JSON (RFC 8259)", "NaN"),
    "Infinity": _element("not JSON (RFC 8259)", "Infinity"),
    "1e400": _element("", "1e400"),
    "beyond FP32": _element("not finite", "1e39"),
    "an unknown input": _tensor("unknown input 'picture'; the model takes image", name="picture"),
    "no name": _tensor("unknown input None; the model takes image", name=None),
    "a name that is a list": _tensor("the model takes image", name=["image"]),
    "the same input twice": _request("'image' was given twice", inputs=[GOOD, GOOD]),
    "an unknown output": _request("unknown output 'p'; the model gives logits", outputs=[{"name": "p"}]),
    "an output's name as a list": _request("the model gives logits", outputs=[{"name": ["logits"]}]),
    "the same output twice": _request("asked for twice", outputs=[{"name": "logits"}] * 2),
    "outputs as an object": _request("`outputs` is a list, found an object", outputs={}),
    "an output that is a string": _request("unknown output None", outputs=["logits"]),
    "binary_data that is a number": _request(
        "is true or false, found a number", outputs=[{"name": "logits", "parameters": {"binary_data": 1}}]
    ),
    "parameters as a list": _request("`parameters` is an object, found an array", parameters=[]),
    "a tensor's parameters as a list": _tensor("is an object, found an array", parameters=[]),
    "an id that is a number": _request("`id` is a string, found a number", id=3),
    "100 000 brackets": Bad(b"[" * 100_000 + b"]" * 100_000, "not JSON"),
    "bad UTF-8": Bad(b'{"inputs": [{"name": "\xff\xfe"}]}', "not JSON"),
    "half a surrogate pair": Bad(b'{"inputs": [{"name": "\\ud800"}]}', ""),
    "a negative header length": _length("Inference-Header-Content-Length is '-1'", "-1"),
    "a header length past the body": _length("expected at most the body's", "1000000"),
    "a header length of 50 digits": _length("expected at most the body's", "9" * 50),
    "a header length that is not a number": _length("Inference-Header-Content-Length is 'ten'", "ten"),
    "a header length within the JSON": _length("not JSON", "10"),
    "a header length within the tensor": _length("not JSON", str(int(_good_binary().headers[LENGTH]) + 4)),
    "a header length of 0": _length("not JSON", "0"),
    "a lying binary_data_size": _binary("takes 64 bytes, found binary_data_size 32", b"\0" * 32, binary_data_size=32),
    "a negative binary_data_size": _binary("takes 64 bytes", b"\0" * 64, binary_data_size=-64),
    "a binary_data_size that is a list": _binary("takes 64 bytes", b"\0" * 64, binary_data_size=[64]),
    "bytes missing": _binary("and 60 bytes", b"\0" * 60, binary_data_size=64),
    "bytes left over": _binary("3 bytes follow", b"\0" * 67, binary_data_size=64),
    "bytes that nothing describes": Bad(_good_binary().body, "not JSON"),
    "values twice, in JSON and in binary": _tensor("both `data` and", parameters={"binary_data_size": 64}),
    "NaN in binary": _binary("not finite", NAN, binary_data_size=64),
    "infinite in binary": _binary("not finite", INFINITE, binary_data_size=64),
}
