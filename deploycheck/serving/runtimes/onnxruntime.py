"""The onnxruntime runtime: an ONNX model, and a session of onnxruntime. Both are imported once they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from deploycheck.errors import needing_extra

if TYPE_CHECKING:
    from deploycheck.serving.runtimes import Engine
    from deploycheck.stages.network import Network, TensorSpec
    from deploycheck.store import Artifact


@dataclass(frozen=True)
class OnnxRuntime:
    """See ``Runtime``. An ONNX file says in which version of ONNX it is written, and can be loaded for ever."""

    name: str = "onnxruntime"
    opaque: bool = False
    lasts: timedelta | None = None

    def export(self, network: Network, inputs: Mapping[str, TensorSpec], name: str, folder: Path) -> None:
        """Write ``model.onnx``, ``weights.safetensors`` and ``signature.json`` into ``folder``."""
        with needing_extra("the runtime onnxruntime", "onnx"):
            from deploycheck.serving.runtimes import _onnx_export

        _onnx_export.write(network, inputs, name, folder)

    def engine(self, artifact: Artifact, sizes: Sequence[int]) -> Engine:
        """Load the program and its weights."""
        with needing_extra("the runtime onnxruntime", "onnx"):
            from deploycheck.serving.runtimes import _onnx_engine

        return _onnx_engine.OnnxEngine(artifact, sizes)

    def network(self, artifact: Artifact) -> Network:
        """Return the network that an export was made from."""
        with needing_extra("the runtime onnxruntime", "onnx"):
            from deploycheck.serving.runtimes import _onnx_import

        return _onnx_import.read(artifact)


ONNXRUNTIME = OnnxRuntime()
