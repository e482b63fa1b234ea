"""A trained model as files: its weights, and what is needed to build it again.

``config.json`` says what the model is: the callable that builds it, its preprocessing, and the compression methods
that were applied to it. So the later steps read the model from its artifact, never from the spec, whatever made its
weights.
"""

from __future__ import annotations

from collections.abc import ItemsView, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from deploycheck.errors import DeploycheckError, located, needing_extra
from deploycheck.language.fields import Arguments, ImportPath, Section
from deploycheck.language.spec import Input
from deploycheck.stages.data import Dataset
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods import Builder
from deploycheck.stages.model import Model, PyTree, build_model, to_network
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.stages.preprocess import Steps, apply_all
from deploycheck.steps import exported
from deploycheck.steps.project_files import find_file
from deploycheck.store import Artifact
from deploycheck.store.weights import read_weights, write_weights

if TYPE_CHECKING:
    from deploycheck.extensions import Extensions

CONFIG, WEIGHTS = "config.json", "weights.safetensors"
PREPROCESS = "preprocess/"
"""What the names of the arrays that preprocessing learned begin with."""

Named = tuple[str, Arguments]
"""What a spec names (an installed name or an import path), with its options."""


class Config(Section):
    """What a model is, without its weights: what builds it, or the file or folder that it is.

    ``input`` are its inputs before preprocessing.
    """

    build: ImportPath | None = None
    arguments: Arguments = Field(default={})
    artifact: str | None = None
    input: dict[str, Input]
    task: str
    seed: int
    preprocess: tuple[Named, ...] = ()
    methods: tuple[Named, ...] = ()


@dataclass(frozen=True)
class Trained:
    """A model with its config, and what its preprocessing learned, by name."""

    config: Config
    model: Model
    fitted: Mapping[str, Any]


def write(trained: Trained, folder: Path) -> None:
    """Write a model into ``folder``."""
    write_weights({**trained.model.weights, **trained.fitted}, folder / WEIGHTS)
    (folder / CONFIG).write_text(trained.config.model_dump_json(indent=1) + "\n")


def read(artifact: Artifact, extensions: Extensions) -> Trained:
    """Read what ``write`` wrote: the model is built and restructured as its config says, then given its weights.

    Raises ``DeploycheckError`` where the build now gives weights of other names, shapes or dtypes.
    """
    config = Config.model_validate_json(artifact.file(CONFIG).read_bytes())
    arrays = read_weights(artifact.file(WEIGHTS))
    fitted = {name: array for name, array in arrays.items() if name.startswith(PREPROCESS)}
    model = form_of(config, fitted, extensions)
    # After the user's code was imported: it may have turned on 64-bit numbers in JAX.
    weights = {name: jnp.asarray(array) for name, array in arrays.items() if name not in fitted}
    different = sorted({name for name, _ in _layout(model.weights) ^ _layout(weights)})
    if different:
        source = config.build or config.artifact
        what = f"the model that {source} gives now has other weights than the stored one: "
        hint = "its code must give the same model each time"
        raise DeploycheckError(what + ", ".join(different[:5]), where=str(artifact.path), hint=hint)
    return Trained(config, model.with_weights(weights), fitted)


def _layout(weights: Mapping[str, Any]) -> ItemsView[str, tuple[tuple[int, ...], Any]]:
    """Return each weight's shape and dtype."""
    return {name: (tuple(array.shape), array.dtype) for name, array in weights.items()}.items()


def form_of(config: Config, fitted: Mapping[str, Any], extensions: Extensions) -> Model:
    """Return the form (see ``Model``) of the model that a config describes."""
    form = build(config, fitted, extensions, config.seed).form
    for name, options in config.methods:
        method = extensions.method(name)
        form = method.structure(form, method.options.model_validate(options), builder(config, fitted, extensions)).form
    return form


def builder(config: Config, fitted: Mapping[str, Any], extensions: Extensions) -> Builder:
    """Return a function that builds other models for the same inputs and task, freshly initialised."""

    def build_another(path: str | None, arguments: Mapping[str, Any]) -> Model:
        changed = dict(arguments) if path else {**config.arguments, **arguments}
        source = {"build": path, "artifact": None} if path else {}
        other = config.model_copy(update={**source, "arguments": changed})
        return build(other, fitted, extensions, config.seed)

    return build_another


def build(config: Config, fitted: Mapping[str, Any], extensions: Extensions, seed: int) -> Model:
    """Build the model of a config, freshly initialised, or as its file has it; its methods are not applied."""
    inputs = _prepared_shapes(config, fitted, extensions)
    outputs = extensions.tasks[config.task].outputs
    if config.artifact is not None:
        return _read_artifact(config.artifact, inputs, outputs, extensions)
    with located(str(config.build)):
        built = extensions.load_object(str(config.build))
        return build_model(built, config.arguments, inputs, seed=seed, outputs=outputs)


def _read_artifact(written: str, inputs: Mapping[str, Any], outputs: tuple[str, ...], extensions: Extensions) -> Model:
    """Return the model of a path: a folder is what deploycheck exported, a file is ONNX."""
    path = find_file(written, extensions.root)
    with located(written):
        if path.is_dir():
            return exported.read_model(exported.open_folder(path), inputs, extensions.runtimes)
        with needing_extra("`model.artifact`", "onnx"):
            from deploycheck.stages.onnx.model import read_model
        return read_model(path, inputs, outputs)


def with_arrays(model: Model, params: PyTree, state: PyTree) -> Model:
    """Return the model with trained params and state."""
    return replace(model, params=params, state=state)


def _prepared_shapes(config: Config, fitted: Mapping[str, Any], extensions: Extensions) -> Mapping[str, Any]:
    """Return the shapes and dtypes of two examples after preprocessing."""
    raw = {name: jax.ShapeDtypeStruct((2, *part.shape), np.dtype(part.dtype)) for name, part in config.input.items()}
    shapes: Mapping[str, Any] = jax.eval_shape(
        apply_all(preprocessing(config.preprocess, extensions)), dict(fitted), raw
    )
    return shapes


def prepared_examples(config: Config, dataset: Dataset, extensions: Extensions) -> dict[str, Examples]:
    """Return the training and validation examples as the model sees them; never the test examples."""
    prepare = apply_all(preprocessing(config.preprocess, extensions))
    return {
        name: Examples(
            {key: np.asarray(array) for key, array in prepare(dataset.fitted, part.inputs).items()}, part.labels
        )
        for name, part in dataset.splits.items()
        if name != "test"
    }


def network(trained: Trained, extensions: Extensions) -> Network:
    """Return a model behind its preprocessing, as one function of raw inputs."""
    prepare = apply_all(preprocessing(trained.config.preprocess, extensions))
    return to_network(trained.model, prepare, trained.fitted)


def raw_inputs(trained: Trained, extensions: Extensions) -> dict[str, TensorSpec]:
    """Return the inputs that a model is served with, before preprocessing."""
    config, before = trained.config, trained.model.exported
    fills = any(step.fills_missing for step, _ in preprocessing(config.preprocess, extensions))
    filled = before.missing if before else frozenset()
    return {
        name: TensorSpec(
            part.shape,
            part.dtype,
            missing=(fills or name in filled) and np.issubdtype(np.dtype(part.dtype), np.floating),
        )
        for name, part in config.input.items()
    }


def preprocessing(named: tuple[Named, ...], extensions: Extensions) -> Steps:
    """Return the preprocessing steps that a spec names, each with its options."""
    return [(extensions.preprocessing_step(name), options) for name, options in named]


def compressed(trained: Trained, model: Model, method: str, options: Mapping[str, Any]) -> Trained:
    """Return what a method made of a model, with the method in its config."""
    methods = (*trained.config.methods, (method, dict(options)))
    return replace(trained, model=model, config=trained.config.model_copy(update={"methods": methods}))
