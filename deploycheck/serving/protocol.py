"""The Open Inference Protocol v2 over REST, with the binary tensor extension: bytes in, arrays out. No I/O.

https://github.com/kserve/open-inference-protocol and Triton's ``extension_binary_data.md``. Where the
specification leaves a choice, a request that can't be answered exactly is refused: each ``BadRequest`` says what was
expected and what was found, and no value is converted to another type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import orjson

from deploycheck.serving.signature import DATATYPES, DTYPES, Signature, TensorMetadata

HEADER_LENGTH = "inference-header-content-length"
BINARY = "binary_tensor_data"
_STRING_OR_NAN = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)|(?<![\w.+-])NaN(?!\w)', re.DOTALL)
"""A string of JSON, which may hold the letters NaN, or the number NaN."""


class BadRequest(Exception):
    """A request that can't be answered: its text is the error's, ``status`` its HTTP status.

    ``reason`` is the word it is counted under.
    """

    def __init__(self, message: str, status: int = 400, reason: str = "invalid") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class InferRequest:
    """A valid request: ``inputs`` are ``[batch, ...]``; ``outputs`` maps each wanted output to whether in binary."""

    id: str | None
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, bool]
    batch: int


@dataclass(frozen=True)
class Encoded:
    """A request's or a response's bytes with the headers that belong to them."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def decode_request(headers: Mapping[str, str], body: bytes, signature: Signature, max_batch: int) -> InferRequest:
    """Decode an infer request and hold it to the model's signature; raise ``BadRequest`` for what doesn't fit."""
    head, tail = _split(headers, body)
    content = _object(head, nan=any(tensor.missing for tensor in signature.inputs))
    sent = content.get("inputs")
    if not isinstance(sent, list) or not sent:
        raise BadRequest("expected `inputs`, a list of at least one tensor")
    specs = {tensor.name: tensor for tensor in signature.inputs}
    inputs: dict[str, np.ndarray] = {}
    for tensor in sent:
        if not isinstance(tensor, dict):
            raise BadRequest(f"expected a tensor as an object, found {_kind(tensor)}")
        name = tensor.get("name")
        if not isinstance(name, str) or name not in specs:
            raise BadRequest(f"unknown input {_short(name)}; the model takes {', '.join(specs)}")
        if name in inputs:
            raise BadRequest(f"input {name!r} was given twice")
        inputs[name], tail = _tensor(tensor, specs[name], tail, max_batch)
    if tail:
        raise BadRequest(f"{len(tail)} bytes follow the tensors that the request describes")
    missing = [name for name in specs if name not in inputs]
    if missing:
        raise BadRequest(f"missing input {', '.join(missing)}")
    batches = {len(array) for array in inputs.values()}
    if len(batches) != 1:
        raise BadRequest(f"the inputs have different batch sizes: {sorted(batches)}")
    return InferRequest(_request_id(content), inputs, _wanted(content, signature), batches.pop())


def _split(headers: Mapping[str, str], body: bytes) -> tuple[bytes, bytes]:
    """Return the JSON part and the binary part of a body."""
    written = headers.get(HEADER_LENGTH)
    if written is None:
        return body, b""
    if not written.isascii() or not written.isdigit() or int(written[:20]) > len(body) or len(written) > 20:
        raise BadRequest(
            f"Inference-Header-Content-Length is {written[:40]!r}, expected at most the body's {len(body)} bytes"
        )
    length = int(written)
    return body[:length], body[length:]


def _object(head: bytes, *, nan: bool) -> dict[str, Any]:
    """Read the JSON part. With ``nan``, NaN is read as null; it isn't JSON, but many clients write it."""
    try:
        try:
            content = orjson.loads(head)
        except orjson.JSONDecodeError:
            if not nan or b"NaN" not in head:
                raise
            content = orjson.loads(_STRING_OR_NAN.sub(lambda found: found[1] or b"null", head))
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON (RFC 8259): {error.msg} at byte {error.pos}") from error
    if not isinstance(content, dict):
        raise BadRequest(f"expected a JSON object, found {_kind(content)}")
    return content


def _short(value: Any) -> str:
    """Return a client's own value as an error may send it back: never much of it."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _request_id(content: Mapping[str, Any]) -> str | None:
    given = content.get("id")
    if given is not None and not isinstance(given, str):
        raise BadRequest(f"`id` is a string, found {_kind(given)}")
    return given


def _tensor(tensor: Mapping[str, Any], spec: TensorMetadata, tail: bytes, max_batch: int) -> tuple[np.ndarray, bytes]:
    """Return one input as an array, and what is left of the binary part."""
    datatype = tensor.get("datatype")
    if datatype != spec.datatype:
        known = "" if isinstance(datatype, str) and datatype in DTYPES else ", which the protocol doesn't know"
        raise BadRequest(f"input {spec.name!r} is {spec.datatype}, found {_short(datatype)}{known}")
    shape = _shape(tensor.get("shape"), spec, max_batch)
    count, dtype = math.prod(shape), DTYPES[spec.datatype]
    parameters = tensor.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest(f"`parameters` of input {spec.name!r} is an object, found {_kind(parameters)}")
    size = parameters.get("binary_data_size")
    if size is None:
        array = _from_json(tensor.get("data"), spec, count, dtype)
    else:
        if "data" in tensor:
            raise BadRequest(f"input {spec.name!r} has both `data` and `binary_data_size`")
        expected = count * dtype.itemsize
        if isinstance(size, bool) or size != expected or len(tail) < expected:
            raise BadRequest(
                f"input {spec.name!r} of shape {list(shape)} takes {expected} bytes, found "
                f"binary_data_size {_short(size)} and {len(tail)} bytes"
            )
        array, tail = _from_bytes(tail[:expected], dtype, spec), tail[expected:]
    if dtype.kind == "f":
        _check_finite(array, spec)
    return array.reshape(shape), tail


def _check_finite(array: np.ndarray, spec: TensorMetadata) -> None:
    """Refuse infinite values, and NaN where the model doesn't fill missing values."""
    if spec.missing:
        if np.isinf(array).any():
            raise BadRequest(f"input {spec.name!r} holds infinite values; a missing value is NaN, or null in JSON")
    elif not np.isfinite(array).all():
        raise BadRequest(f"input {spec.name!r} holds values that are not finite")


def _shape(given: Any, spec: TensorMetadata, max_batch: int) -> tuple[int, ...]:
    expected = f"expected [batch{''.join(f', {axis}' for axis in spec.shape)}]"
    if not isinstance(given, list) or not all(type(axis) is int for axis in given):
        raise BadRequest(f"`shape` of input {spec.name!r} is a list of whole numbers; {expected}")
    if len(given) != len(spec.shape) + 1 or tuple(given[1:]) != spec.shape:
        raise BadRequest(f"input {spec.name!r} has the shape {str(given)[:80]}; {expected}")
    if not 1 <= given[0] <= max_batch:
        raise BadRequest(f"a batch holds 1 to {max_batch} examples, found {given[0]}")
    return tuple(given)


def _from_bytes(raw: bytes, dtype: np.dtype[Any], spec: TensorMetadata) -> np.ndarray:
    """Read little-endian, row-major values."""
    if dtype.kind == "b" and raw.strip(b"\x00\x01"):
        raise BadRequest(f"input {spec.name!r} is BOOL: its bytes are 0 or 1")
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False)


def _from_json(data: Any, spec: TensorMetadata, count: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Read a flat or nested list of numbers; nothing but numbers of the right kind will do."""
    if spec.datatype == "FP16":
        raise BadRequest(f"input {spec.name!r} is FP16, which JSON can't carry: use the binary extension")
    if not isinstance(data, list):
        raise BadRequest(f"`data` of input {spec.name!r} is a list, found {_kind(data)}")
    kinds: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
    found = _leaf_types(data)
    missing = spec.missing and type(None) in found
    if not found - ({type(None)} if missing else set()) <= kinds.get(dtype.kind, {int}):
        raise BadRequest(f"`data` of input {spec.name!r} holds values that are not {spec.datatype}")
    try:
        array = np.asarray(data, np.float64 if missing else None)  # null becomes NaN
    except ValueError as error:
        raise BadRequest(f"`data` of input {spec.name!r} is ragged") from error
    if array.dtype.kind == "O":
        raise BadRequest(f"`data` of input {spec.name!r} holds values out of the range of {spec.datatype}")
    if array.size != count:
        raise BadRequest(f"`data` of input {spec.name!r} holds {array.size} values, its shape takes {count}")
    if dtype.kind in "iu" and (array.min() < np.iinfo(dtype).min or array.max() > np.iinfo(dtype).max):
        raise BadRequest(f"`data` of input {spec.name!r} holds values out of the range of {spec.datatype}")
    with np.errstate(over="ignore"):
        return array.ravel().astype(dtype)  # what is too large for the type becomes infinite, and is refused


def _leaf_types(data: list[Any]) -> set[type]:
    """Return the types of the values in a nested list; NumPy would take a boolean among numbers for one."""
    types = set(map(type, data))
    while list in types:
        data = list(chain.from_iterable(part if isinstance(part, list) else [part] for part in data))
        types = set(map(type, data))
    return types


def _wanted(content: Mapping[str, Any], signature: Signature) -> dict[str, bool]:
    """Return the outputs asked for (all of them by default), each with whether in binary."""
    parameters = content.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest(f"`parameters` is an object, found {_kind(parameters)}")
    every = _flag(parameters, "binary_data_output")
    known = [tensor.name for tensor in signature.outputs]
    asked = content.get("outputs")
    if asked is None:
        return dict.fromkeys(known, every)
    if not isinstance(asked, list):
        raise BadRequest(f"`outputs` is a list, found {_kind(asked)}")
    wanted: dict[str, bool] = {}
    for output in asked:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in known:
            raise BadRequest(f"unknown output {_short(name)}; the model gives {', '.join(known)}")
        if name in wanted:
            raise BadRequest(f"output {name!r} was asked for twice")
        own = output.get("parameters", {})
        if not isinstance(own, dict):
            raise BadRequest(f"`parameters` of output {name!r} is an object, found {_kind(own)}")
        wanted[name] = _flag(own, "binary_data") if "binary_data" in own else every
    return wanted or dict.fromkeys(known, every)


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise BadRequest(f"`{name}` is true or false, found {_kind(value)}")
    return value


def encode_response(request: InferRequest, outputs: Mapping[str, np.ndarray], signature: Signature) -> Encoded:
    """Encode the outputs that the request wants, each as it wants it."""
    tensors, parts = [], []
    specs = {tensor.name: tensor for tensor in signature.outputs}
    for name, binary in request.outputs.items():
        array = outputs[name]
        tensor: dict[str, Any] = {"name": name, "datatype": specs[name].datatype, "shape": list(array.shape)}
        if binary:
            raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            parts.append(raw)
            tensor["parameters"] = {"binary_data_size": len(raw)}
        else:
            tensor["data"] = array.ravel().tolist()
        tensors.append(tensor)
    content: dict[str, Any] = {
        "model_name": signature.model,
        "model_version": signature.version,
        "outputs": tensors,
    }
    if request.id is not None:
        content["id"] = request.id
    return _joined(orjson.dumps(content), parts)


def encode_request(inputs: Mapping[str, np.ndarray]) -> Encoded:
    """Encode a request in the binary extension, its outputs wanted in binary too."""
    tensors, parts = [], []
    for name, array in inputs.items():
        raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        parts.append(raw)
        binary = {"binary_data_size": len(raw)}
        datatype = DATATYPES[array.dtype.name]
        tensors.append({"name": name, "datatype": datatype, "shape": list(array.shape), "parameters": binary})
    return _joined(orjson.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}), parts)


def _joined(head: bytes, parts: Sequence[bytes]) -> Encoded:
    if not parts:
        return Encoded(head, {"content-type": "application/json"})
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Encoded(b"".join([head, *parts]), headers)


def decode_response(headers: Mapping[str, str], body: bytes) -> dict[str, np.ndarray]:
    """Decode an answer's outputs, ``[batch, ...]`` each, whether they are in JSON or in binary."""
    length = int(headers.get(HEADER_LENGTH, len(body)))
    content, tail = orjson.loads(body[:length]), body[length:]
    outputs = {}
    for tensor in content["outputs"]:
        dtype = DTYPES[tensor["datatype"]]
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.asarray(tensor["data"], dtype)
        else:
            array, tail = np.frombuffer(tail[:size], dtype.newbyteorder("<")).astype(dtype), tail[size:]
        outputs[tensor["name"]] = array.reshape(tensor["shape"])
    return outputs
