"""What an exported model takes and returns, in the Open Inference Protocol's names: ``signature.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploycheck.errors import DeploycheckError

SIGNATURE = "signature.json"
DEFAULT_RUNTIME = "xla"
"""The runtime of a signature that names none: the only one there was when such signatures were written."""

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
"""The protocol's datatypes, as NumPy's."""
DATATYPES: Mapping[str, str] = {dtype.name: datatype for datatype, dtype in DTYPES.items()}
"""NumPy's names of dtypes, as the protocol's."""
PLATFORMS: Mapping[str, str] = {"xla": "jax_stablehlo", "onnxruntime": "onnx_onnxv1"}
"""The protocol's name of the platform, by runtime; that of another runtime is the runtime's own name."""


@dataclass(frozen=True)
class TensorMetadata:
    """A tensor of the model: ``shape`` without the batch; ``missing`` says that an input may hold NaN."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    missing: bool = False

    def metadata(self) -> dict[str, Any]:
        """Return it as the protocol's metadata has it, the batch as -1."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.shape]}


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a model takes and returns, and the name of the runtime that runs it.

    ``rounds`` says that it computes with fewer bits than float32, so that batches of another size may be rounded
    differently.
    """

    model: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    version: str = "1"
    runtime: str = DEFAULT_RUNTIME
    rounds: bool = False

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's model metadata."""
        return {
            "name": self.model,
            "versions": [self.version],
            "platform": PLATFORMS.get(self.runtime, self.runtime),
            "inputs": [tensor.metadata() for tensor in self.inputs],
            "outputs": [tensor.metadata() for tensor in self.outputs],
        }


def tensor_metadata(name: str, shape: tuple[int, ...], dtype: str, *, missing: bool = False) -> TensorMetadata:
    """Return the metadata of a tensor of this shape, without the batch, and of this dtype by NumPy's name.

    Raises ``DeploycheckError`` for a dtype that the protocol has no name for.
    """
    if dtype not in DATATYPES:
        raise DeploycheckError(
            f"the model's {name!r} is {dtype}, for which the Open Inference Protocol has no name",
            hint=f"cast {name} to float32 in the model",
        )
    return TensorMetadata(name, DATATYPES[dtype], shape, missing)


def write_signature(signature: Signature, folder: Path, **facts: Any) -> None:
    """Write ``signature.json`` into ``folder``, with further facts that the runtime wants to find there."""
    content = {
        "model": signature.model,
        "version": signature.version,
        "runtime": signature.runtime,
        "rounds": signature.rounds,
        "inputs": [tensor.metadata() | ({"missing": True} if tensor.missing else {}) for tensor in signature.inputs],
        "outputs": [tensor.metadata() for tensor in signature.outputs],
        **facts,
    }
    (folder / SIGNATURE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_signature(path: Path) -> Signature:
    """Read the ``signature.json`` of an exported model. Raises ``DeploycheckError`` where it isn't one."""
    try:
        content = {"runtime": DEFAULT_RUNTIME, "rounds": False, **json.loads(path.read_bytes())}
    except (ValueError, TypeError, RecursionError) as error:
        raise _not_a_signature(path, "it is not a JSON object") from error
    match content:
        case {
            "model": str(model),
            "version": str(version),
            "runtime": str(runtime),
            "rounds": bool(rounds),
            "inputs": [*inputs],
            "outputs": [*outputs],
        } if inputs and outputs:
            return Signature(
                model=model,
                version=version,
                runtime=runtime,
                rounds=rounds,
                inputs=tuple(_tensor(path, tensor) for tensor in inputs),
                outputs=tuple(_tensor(path, tensor) for tensor in outputs),
            )
    raise _not_a_signature(path, "it needs texts `model` and `version`, and lists `inputs` and `outputs`")


def _tensor(path: Path, listed: object) -> TensorMetadata:
    match listed:
        case {"name": str(name), "datatype": str(datatype), "shape": [-1, *shape], **rest} if (
            datatype in DTYPES and all(isinstance(size, int) and size > 0 for size in shape)
        ):
            return TensorMetadata(name, datatype, tuple(shape), rest.get("missing") is True)
    raise _not_a_signature(path, f"{str(listed)[:80]} is not a tensor's name, datatype and shape")


def _not_a_signature(path: Path, why: str) -> DeploycheckError:
    return DeploycheckError(
        f"is not the signature of a model: {why}",
        where=str(path),
        hint="remove the artifact's folder, and run the gate again to make a new one",
    )
