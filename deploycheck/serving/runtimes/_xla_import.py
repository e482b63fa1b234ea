"""An exported XLA program as a network again: as it is StableHLO, it can be called, and not be looked into."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from deploycheck.errors import DeploycheckError
from deploycheck.serving.runtimes._xla_engine import is_wide, load_program
from deploycheck.serving.runtimes._xla_export import WEIGHTS
from deploycheck.stages.network import Inputs, Network, Outputs, Weights
from deploycheck.store import Artifact
from deploycheck.store.weights import read_weights


def read(artifact: Artifact) -> Network:
    """Return what ``_xla_export.write`` wrote.

    Raises ``DeploycheckError`` for an export for another kind of device, and for a program with 64-bit numbers where
    JAX has none.
    """
    program = load_program(artifact)
    if is_wide(program) and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise DeploycheckError("it computes with 64-bit numbers", hint="run with JAX_ENABLE_X64=1, as it was exported")

    def apply(weights: Weights, inputs: Inputs) -> Outputs:
        outputs: Outputs = program.call(dict(weights), dict(inputs))
        return outputs

    weights = {name: jnp.asarray(array) for name, array in read_weights(artifact.file(WEIGHTS)).items()}
    return Network(weights, apply)
