"""The XLA runtime: StableHLO by ``jax.export``, compiled for every batch size. JAX is imported once it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploycheck.serving.runtimes import Engine
    from deploycheck.stages.network import Network, TensorSpec
    from deploycheck.store import Artifact


@dataclass(frozen=True)
class XlaRuntime:
    """See ``Runtime``. JAX refuses an exported program once it is six months old, which ``lasts`` stays below."""

    name: str = "xla"
    opaque: bool = True
    lasts: timedelta | None = timedelta(days=180)

    def export(self, network: Network, inputs: Mapping[str, TensorSpec], name: str, folder: Path) -> None:
        """Write ``model.jax_export.gz``, ``weights.safetensors`` and ``signature.json`` into ``folder``."""
        from deploycheck.serving.runtimes import _xla_export

        _xla_export.write(network, inputs, name, folder)

    def engine(self, artifact: Artifact, sizes: Sequence[int]) -> Engine:
        """Load the program and its weights."""
        from deploycheck.serving.runtimes import _xla_engine

        return _xla_engine.XlaEngine(artifact, sizes)

    def network(self, artifact: Artifact) -> Network:
        """Return the network that an export was made from."""
        from deploycheck.serving.runtimes import _xla_import

        return _xla_import.read(artifact)


XLA = XlaRuntime()
