"""A network as files that a server can load without any of the user's code.

StableHLO through ``jax.export`` with a symbolic batch, the weights beside it as safetensors, and the signature
in the Open Inference Protocol's names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from deploycheck.errors import DeploycheckError
from deploycheck.serving.signature import Signature, TensorMetadata, tensor_metadata, write_signature
from deploycheck.stages.network import Inputs, Network, TensorSpec, Weights
from deploycheck.store.weights import write_weights

PROGRAM, WEIGHTS = "model.jax_export", "weights.safetensors"
_ROUNDS = re.compile(r"xbf16>|xf16>|xf8E|stablehlo\.round_nearest|stablehlo\.(dot_general|convolution)\b.*xu?i[48]>")
"""What StableHLO says of arithmetic in fewer bits than float32, and of values that are rounded for it."""


def write(network: Network, inputs: Mapping[str, TensorSpec], name: str, folder: Path) -> None:
    """Export the network into ``folder``.

    The same network gives the same bytes: no date, no path and no source line is written into them. Raises
    ``DeploycheckError`` for a network that can't be traced with a batch of any size, or whose outputs are not
    named arrays with the batch as their first axis; nothing is written then.
    """
    (batch,) = export.symbolic_shape("batch")
    arguments = {
        key: jax.ShapeDtypeStruct((batch, *tensor.shape), np.dtype(tensor.dtype)) for key, tensor in inputs.items()
    }
    weights = {key: jax.ShapeDtypeStruct(array.shape, array.dtype) for key, array in network.weights.items()}
    try:
        with _without_source_lines():
            exported = export.export(jax.jit(_checked(network)))(weights, arguments)
            program = exported.serialize()
    except DeploycheckError:
        raise
    except Exception as error:  # a user's model may raise anything while it is traced
        raise DeploycheckError(
            f"the model can't be exported: {type(error).__name__}: {_first_line(error)}",
            hint="it must be traceable by jax.export with a batch of any size (no Python branch on the batch)",
        ) from error
    answer = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    signature = Signature(
        model=name,
        inputs=tuple(
            tensor_metadata(key, tensor.shape, tensor.dtype, missing=tensor.missing) for key, tensor in inputs.items()
        ),
        outputs=tuple(_output(key, array, batch) for key, array in answer.items()),
        rounds=_ROUNDS.search(exported.mlir_module()) is not None,
    )
    (folder / PROGRAM).write_bytes(program)
    write_weights(network.weights, folder / WEIGHTS)
    write_signature(
        signature,
        folder,
        jax_version=jax.__version__,
        calling_convention_version=exported.calling_convention_version,
        platforms=list(exported.platforms),
    )


def _checked(network: Network) -> Any:
    """Return the network's function, which raises while it is traced unless it returns named arrays."""

    def apply(weights: Weights, inputs: Inputs) -> dict[str, Any]:
        outputs: Any = network.apply(weights, inputs)
        if not isinstance(outputs, Mapping) or not outputs or not all(isinstance(name, str) for name in outputs):
            raise DeploycheckError(
                f"the model returns {_describe(outputs)}, expected a mapping of output names to arrays",
                hint='return {"logits": logits}, say',
            )
        for name, output in outputs.items():
            if not jax.tree_util.all_leaves([output]):
                raise DeploycheckError(
                    f"the model's output {name!r} is {_describe(output)}, expected one array",
                    hint="give each array its own output name",
                )
        return dict(outputs)

    return apply


def _describe(value: Any) -> str:
    """Return what kind of value it is, for an error message."""
    if isinstance(value, jax.Array):
        return "an array without a name"
    return f"a {type(value).__name__}" if value or not isinstance(value, Mapping) else "an empty mapping"


def _output(name: str, array: Any, batch: Any) -> TensorMetadata:
    """Return the metadata of one output; raise where it isn't one answer per example."""
    if not array.shape or array.shape[0] != batch:
        raise DeploycheckError(f"the model's output {name!r} is {array.shape}, expected the batch as first axis")
    if not all(isinstance(size, int) for size in array.shape[1:]):
        raise DeploycheckError(
            f"the model's output {name!r} is {array.shape}, expected the batch as first axis alone",
            hint="an answer that depends on the other examples of its batch can't be served",
        )
    return tensor_metadata(name, array.shape[1:], array.dtype.name)


@contextmanager
def _without_source_lines() -> Iterator[None]:
    """Keep the file names and line numbers of the user's machine out of the program."""
    before = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
