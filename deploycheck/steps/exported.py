"""A model that deploycheck exported, as a model again: its weights by the names that they had, its program as it is.

Its preprocessing is part of the program, so what it learned is not trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.serving.opening import LoadError, check_exported
from deploycheck.serving.runtimes import ReadsBack, Runtime
from deploycheck.serving.signature import DTYPES, SIGNATURE, Signature, read_signature
from deploycheck.stages.inputs import Input, converted, match_inputs
from deploycheck.stages.model import Exported, Model, PyTree
from deploycheck.stages.network import Inputs, Network, Outputs
from deploycheck.store import Artifact, CorruptArtifact, loadable_until, open_artifact

PARAMS, STATE, PREPROCESS = "params/", "state/", "preprocess/"
"""What the names of weights begin with: what is trained, what is only kept, and what preprocessing has learned."""
NARROW = 1
"""Bytes of the floats that no training changes: they are codes of a quantised weight."""
DAMAGED = "it is not what was exported: get the whole folder again, from where it was made"
ANOTHER = "name the folder of an exported model; the gate of the spec that made it exports it again"
INSIDE = (
    "the preprocessing that it was exported with is part of it: leave `preprocess` out, and give under `input` what it "
    "takes"
)
TWICE = (
    "it has a preprocessing inside that learned from its data, and `data.preprocess` acts before it: leave that out "
    "unless both are meant"
)


@dataclass(frozen=True)
class Folder:
    """An exported model, verified, and what it takes and returns."""

    artifact: Artifact
    signature: Signature

    @property
    def sha256(self) -> str:
        """The digest that its manifest has: 64 hex digits."""
        return self.artifact.digest.removeprefix("sha256:")


def open_folder(path: Path) -> Folder:
    """Verify every file of an exported model, before any of them is loaded.

    Raises ``DeploycheckError`` for a folder that isn't an exported model, that is not what its manifest says, or that
    can't be loaded any more.
    """
    try:
        artifact = open_artifact(path)
        check_exported(artifact)
        return Folder(artifact, read_signature(artifact.file(SIGNATURE)))
    except CorruptArtifact as error:
        raise DeploycheckError(error.what, hint=DAMAGED) from error
    except LoadError as error:
        raise DeploycheckError(error.what, hint=ANOTHER) from error


def read_model(folder: Folder, inputs: Inputs, runtimes: Mapping[str, Runtime]) -> Model:
    """Return an exported model for a spec's ``inputs``: shapes and dtypes of one batch, by name.

    Training and inference are the same function. Raises ``DeploycheckError`` for inputs that differ from its own, and
    where its runtime can't read it.
    """
    runtime: object = runtimes.get(folder.signature.runtime)
    if not isinstance(runtime, ReadsBack):
        what = f"it was exported for {folder.signature.runtime!r}, whose exports can't be read back"
        raise DeploycheckError(what, hint="export it for xla or onnxruntime")
    declared = [Input(each.name, (None, *each.shape), DTYPES[each.datatype]) for each in folder.signature.inputs]
    names = match_inputs(declared, inputs, INSIDE)
    network = _read(runtime, folder.artifact)
    trained = {name: name.removeprefix(PARAMS) for name in network.weights if name.startswith(PARAMS)}
    kept = {name: name.removeprefix(STATE) for name in network.weights if name not in trained}

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        weights = {name: params[own] for name, own in trained.items()}
        weights |= {name: state[own] for name, own in kept.items()}
        return network.apply(weights, {each.name: converted(inputs[names[each.name]], each) for each in declared})

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        del key
        if runtime.opaque:
            what = f"a program that was exported for {folder.signature.runtime} can't be trained"
            raise DeploycheckError(what, hint="build the model from its code, or export it for onnxruntime")
        if not all(map(_is_trainable, params.values())):
            raise DeploycheckError("a model with quantised weights can't be trained", hint="train before you quantise")
        return apply(params, state, inputs), state

    missing = frozenset(names[each.name] for each in folder.signature.inputs if each.missing)
    model = Model(
        params={own: network.weights[name] for name, own in trained.items()},
        state={own: network.weights[name] for name, own in kept.items()},
        apply=apply,
        train=train,
        inputs=inputs,
        exported=Exported(loadable_until(folder.artifact), missing),
    )
    _check_call(model, folder)
    return model


def _read(runtime: ReadsBack, artifact: Artifact) -> Network:
    try:
        return runtime.network(artifact)
    except DeploycheckError:
        raise
    except Exception as error:  # its manifest may be right, and its files all the same be anything
        first = next(iter(str(error).splitlines()), "")
        what = f"its runtime can't read it: {type(error).__name__}: {first}"
        raise DeploycheckError(what, hint=DAMAGED) from error


def _check_call(model: Model, folder: Folder) -> None:
    """Raise ``DeploycheckError`` where the program doesn't take its weights, or gives other outputs than it says."""
    try:
        shapes = jax.eval_shape(model.apply, model.params, model.state, dict(model.inputs))
    except DeploycheckError:
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise DeploycheckError(f"its program can't be called: {first}", hint=DAMAGED) from error
    given, said = {name: part.shape[1:] for name, part in shapes.items()}, folder.signature.outputs
    if given != {each.name: each.shape for each in said}:
        raise DeploycheckError("its program gives other outputs than its signature says", hint=DAMAGED)


def _is_trainable(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating)) and np.dtype(array.dtype).itemsize > NARROW


def has_preprocessing(model: Model) -> bool:
    """Whether an exported model has a preprocessing inside that learned something."""
    return any(name.startswith(PREPROCESS) for name in model.state)
