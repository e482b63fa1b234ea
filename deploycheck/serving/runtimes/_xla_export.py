"""A network as files that a server can load without any of the user's code.

StableHLO through ``jax.export`` with a symbolic batch, compressed; the weights beside it as safetensors, and the
signature in the Open Inference Protocol's names.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax
from jax import export

from deploycheck.serving.runtimes._exporting import (
    checked,
    input_metadata,
    output_metadata,
    refusing_untraceable,
    symbolic_arguments,
)
from deploycheck.serving.signature import Signature, write_signature
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.store.weights import write_weights

PROGRAM, WEIGHTS = "model.jax_export.gz", "weights.safetensors"
_ROUNDS = re.compile(r"xbf16>|xf16>|xf8E|stablehlo\.round_nearest|stablehlo\.(dot_general|convolution)\b.*xu?i[48]>")
"""What StableHLO says of arithmetic in fewer bits than float32, and of values that are rounded for it."""


def write(network: Network, inputs: Mapping[str, TensorSpec], name: str, folder: Path) -> None:
    """Export the network into ``folder``.

    The same network gives the same bytes: no date, no path and no source line is written into them. Raises
    ``DeploycheckError`` for a network that can't be traced with a batch of any size, or whose outputs are not
    named arrays with the batch as their first axis; nothing is written then.
    """
    batch, weights, arguments = symbolic_arguments(network, inputs)
    with refusing_untraceable(), _without_source_lines():
        exported = export.export(jax.jit(checked(network)))(weights, arguments)
        program = exported.serialize()
    answer = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    signature = Signature(
        model=name,
        inputs=input_metadata(inputs),
        outputs=tuple(output_metadata(key, array, batch) for key, array in answer.items()),
        rounds=_ROUNDS.search(exported.mlir_module()) is not None,
    )
    (folder / PROGRAM).write_bytes(gzip.compress(program, mtime=0))
    write_weights(network.weights, folder / WEIGHTS)
    write_signature(
        signature,
        folder,
        jax_version=jax.__version__,
        calling_convention_version=exported.calling_convention_version,
        platforms=list(exported.platforms),
    )


@contextmanager
def _without_source_lines() -> Iterator[None]:
    """Keep the file names and line numbers of the user's machine out of the program."""
    before = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)
