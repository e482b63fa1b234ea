"""Export: a network as files that a server can load without any of the user's code.

StableHLO through ``jax.export`` with a symbolic batch, the weights beside it as safetensors, and the signature
as the Open Inference Protocol names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Network
from deploycheck.store.arrays import write_arrays

PROGRAM, WEIGHTS, SIGNATURE = "model.jax_export", "weights.safetensors", "signature.json"

LOADABLE_DAYS = 180
"""JAX refuses an exported program once it is six months old."""

DATATYPES = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
"""NumPy's names to the Open Inference Protocol's."""


def write(
    network: Network,
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    output: str,
    name: str,
    folder: Path,
    where: str,
) -> None:
    """Export the network into ``folder`` as ``model.jax_export``, ``weights.safetensors`` and ``signature.json``.

    ``inputs`` maps an input's name to its shape without the batch and its dtype; ``output`` is what the model's
    answer is called. The same network gives the
    same bytes: no date, no path and no source line is written into them.
    """
    (batch,) = export.symbolic_shape("batch")
    arguments = {key: jax.ShapeDtypeStruct((batch, *shape), np.dtype(dtype)) for key, (shape, dtype) in inputs.items()}
    weights = {key: jax.ShapeDtypeStruct(array.shape, array.dtype) for key, array in network.weights.items()}
    function = jax.jit(lambda weights, inputs: {output: network.apply(weights, inputs)})
    try:
        with _without_source_lines():
            exported = export.export(function)(weights, arguments)
            program = exported.serialize()
    except Exception as error:  # whatever a user's model raises while it is traced
        raise DeploycheckError(
            f"the model can't be exported: {type(error).__name__}: {_first_line(error)}",
            where=where,
            hint="it must be traceable by jax.export with a batch of any size (no Python branch on the batch)",
        ) from error
    answer = _answer(exported, output, batch, where)
    (folder / PROGRAM).write_bytes(program)
    write_arrays(network.weights, folder / WEIGHTS)
    signature = {
        "model": name,
        "version": "1",
        "inputs": [_tensor(key, dtype, shape) for key, (shape, dtype) in inputs.items()],
        "outputs": [_tensor(output, answer.dtype.name, answer.shape[1:])],
        "jax_version": jax.__version__,
        "calling_convention_version": exported.calling_convention_version,
        "platforms": list(exported.platforms),
    }
    (folder / SIGNATURE).write_text(json.dumps(signature, indent=2, sort_keys=True) + "\n")


def _answer(exported: export.Exported, output: str, batch: Any, where: str) -> Any:
    """Return the shape and dtype of what the program gives; raise where it is no batch of answers."""
    answer = jax.tree.unflatten(exported.out_tree, exported.out_avals)[output]
    if not jax.tree_util.all_leaves([answer]):
        raise DeploycheckError(
            f"the model gives {len(exported.out_avals)} arrays in a structure, expected one array",
            where=where,
            hint=f"return the {output} alone",
        )
    if not answer.shape or answer.shape[0] != batch:
        raise DeploycheckError(f"the model gives {answer.shape}, expected the batch as first axis", where=where)
    if not all(isinstance(size, int) for size in answer.shape[1:]):
        raise DeploycheckError(
            f"the model gives {answer.shape}, expected the batch as first axis alone",
            where=where,
            hint="an answer that depends on the other examples of its batch can't be served",
        )
    if answer.dtype.name not in DATATYPES:
        raise DeploycheckError(
            f"the model gives {answer.dtype.name}, for which the Open Inference Protocol has no name",
            where=where,
            hint=f"cast the {output} to float32 at the end of the model",
        )
    return answer


def loadable_until(exported: date) -> date:
    """Return the last day on which JAX promises to load a program that was exported on that day."""
    return exported + timedelta(days=LOADABLE_DAYS)


@contextmanager
def _without_source_lines() -> Iterator[None]:
    """Keep the file names and line numbers of the user's machine out of the program."""
    before = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": DATATYPES[np.dtype(dtype).name], "shape": [-1, *shape]}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
