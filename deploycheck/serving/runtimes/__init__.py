"""What an exported model is run by. A runtime is one file with one object; plugins add theirs the same way.

Collection reads the names, so this package imports neither numpy nor JAX before a runtime is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from deploycheck.errors import DeploycheckError
from deploycheck.hook import objects_of
from deploycheck.serving.runtimes.onnxruntime import ONNXRUNTIME
from deploycheck.serving.runtimes.xla import XLA

if TYPE_CHECKING:
    import numpy as np

    from deploycheck.serving.signature import Signature
    from deploycheck.stages.network import Network, TensorSpec
    from deploycheck.store import Artifact


@runtime_checkable
class Engine(Protocol):
    """A loaded model that answers batches.

    ``sizes`` are the batch sizes that ``compile`` prepares, in ascending order. ``on_compile`` is called for every
    program that is compiled from ``compile`` on: once ``compile`` has returned, there should be none.
    """

    sizes: tuple[int, ...]
    signature: Signature
    artifact: Artifact
    on_compile: Callable[[], None]

    def compile(self) -> float:
        """Prepare every batch size, and return the seconds that took. It is called once, before ``run``."""
        ...

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return every output by name, ``[batch, ...]``, for a batch of 1 to the largest size."""
        ...


@runtime_checkable
class Runtime(Protocol):
    """How a network becomes files, and those files an engine."""

    @property
    def name(self) -> str:
        """What a spec calls it."""
        ...

    @property
    def lasts(self) -> timedelta | None:
        """How long an export can be loaded after the day it was made; None means for ever."""
        ...

    def export(self, network: Network, inputs: Mapping[str, TensorSpec], name: str, folder: Path) -> None:
        """Write the network into ``folder``: its weights, its program, and a ``signature.json`` that names the runtime.

        ``name`` is the model's. The same network must give the same bytes. Raises ``DeploycheckError`` for a network
        that can't be exported.
        """
        ...

    def engine(self, artifact: Artifact, sizes: Sequence[int]) -> Engine:
        """Load an export, whose files are verified, for batches of these sizes.

        Raises ``DeploycheckError`` where this machine can't run it.
        """
        ...


@runtime_checkable
class ReadsBack(Protocol):
    """A runtime whose exports can be gated, and exported, again.

    Where it is ``opaque``, what it reads can only be called: no method can look into it, nothing can be trained
    through it, and no other runtime can export it.
    """

    @property
    def opaque(self) -> bool:
        """Whether the program can only be called."""
        ...

    def network(self, artifact: Artifact) -> Network:
        """Return the network that an export, whose files are verified, was made from.

        Raises ``DeploycheckError`` where it can't be read on this machine.
        """
        ...


BUILT_IN: tuple[Runtime, ...] = (XLA, ONNXRUNTIME)


def find_runtime(name: str, extensions: Sequence[Path] = ()) -> Runtime:
    """Return the runtime of this name: a built-in one, or one that the files ``extensions`` declare.

    Raises ``DeploycheckError`` that lists the runtimes where there is none of this name.
    """
    for runtime in BUILT_IN:
        if runtime.name == name:
            return runtime
    declared = [found for found in objects_of(extensions) if isinstance(found, Runtime)]
    for runtime in declared:
        if runtime.name == name:
            return runtime
    known = ", ".join(runtime.name for runtime in (*BUILT_IN, *declared))
    raise DeploycheckError(
        f"there is no runtime {name!r}, only {known}",
        hint="name the file that declares it: --extensions FILE",
    )
