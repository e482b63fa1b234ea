"""What every exporter of a traced network asks of it: a batch of any size, and named arrays as outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax import export

from deploycheck.errors import DeploycheckError
from deploycheck.serving.signature import TensorMetadata, tensor_metadata
from deploycheck.stages.network import Inputs, Network, TensorSpec, Weights


def symbolic_arguments(
    network: Network, inputs: Mapping[str, TensorSpec]
) -> tuple[Any, dict[str, jax.ShapeDtypeStruct], dict[str, jax.ShapeDtypeStruct]]:
    """Return a batch of any size, and the shapes of the weights and of the inputs with it."""
    (batch,) = export.symbolic_shape("batch")
    arguments = {
        key: jax.ShapeDtypeStruct((batch, *tensor.shape), np.dtype(tensor.dtype)) for key, tensor in inputs.items()
    }
    weights = {key: jax.ShapeDtypeStruct(array.shape, array.dtype) for key, array in network.weights.items()}
    return batch, weights, arguments


def checked(network: Network) -> Callable[[Weights, Inputs], dict[str, Any]]:
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


@contextmanager
def refusing_untraceable() -> Iterator[None]:
    """Raise ``DeploycheckError`` for whatever a user's model raises while it is traced within the block."""
    try:
        yield
    except DeploycheckError:
        raise
    except Exception as error:
        raise DeploycheckError(
            f"the model can't be exported: {type(error).__name__}: {_first_line(error)}",
            hint="it must be traceable by jax.export with a batch of any size (no Python branch on the batch)",
        ) from error


def output_metadata(name: str, array: Any, batch: Any) -> TensorMetadata:
    """Return the metadata of one output; raise where it isn't one answer per example."""
    if not array.shape or array.shape[0] != batch:
        raise DeploycheckError(f"the model's output {name!r} is {array.shape}, expected the batch as first axis")
    if not all(isinstance(size, int) for size in array.shape[1:]):
        raise DeploycheckError(
            f"the model's output {name!r} is {array.shape}, expected the batch as first axis alone",
            hint="an answer that depends on the other examples of its batch can't be served",
        )
    return tensor_metadata(name, array.shape[1:], array.dtype.name)


def input_metadata(inputs: Mapping[str, TensorSpec]) -> tuple[TensorMetadata, ...]:
    """Return the metadata of the inputs."""
    return tuple(
        tensor_metadata(key, tensor.shape, tensor.dtype, missing=tensor.missing) for key, tensor in inputs.items()
    )


def _describe(value: Any) -> str:
    """Return what kind of value it is, for an error message."""
    if isinstance(value, jax.Array):
        return "an array without a name"
    return f"a {type(value).__name__}" if value or not isinstance(value, Mapping) else "an empty mapping"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
