"""Models in one canonical form: named weights and a pure function of them.

Whatever a spec's ``model.build`` returns (a ``flax.nnx`` module, a ``flax.linen`` module, or a pair of a pytree
of params and a pure ``apply(params, inputs)``), everything after this module sees only ``Model`` while it
trains and ``Network`` from then on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from deploycheck.errors import DeploycheckError

PyTree = Any
Inputs = Mapping[str, Any]
"""Input name to array, the batch as first axis."""
Weights = dict[str, jax.Array]
"""Weight name (its path in the model, ``params/conv/kernel``) to array."""

_MODE_ARGUMENTS = {"train": True, "training": True, "is_training": True, "deterministic": False}
"""How linen modules spell the training mode, and what it is while training."""


@dataclass(frozen=True)
class Model:
    """A trainable model.

    ``apply(params, state, inputs)`` gives logits ``[batch, ...]`` in inference mode;
    ``train(params, state, inputs, key)`` gives logits and the new state in training mode. ``state`` is what is
    not trained but kept: running statistics of normalisation layers.
    """

    params: PyTree
    state: PyTree
    apply: Callable[[PyTree, PyTree, Inputs], jax.Array]
    train: Callable[[PyTree, PyTree, Inputs, jax.Array], tuple[jax.Array, PyTree]]


@dataclass(frozen=True)
class Network:
    """A model to deploy: ``apply(weights, inputs)`` gives logits ``[batch, ...]`` from raw inputs."""

    weights: Weights
    apply: Callable[[Weights, Inputs], jax.Array]


@dataclass(frozen=True)
class Method:
    """A compression method.

    ``compress(network, options, example, where)`` returns the smaller network; ``rewrite(apply, options)`` returns
    the function that goes with its weights, to have the network again from weights that were stored.
    """

    compress: Callable[[Network, Mapping[str, Any], Inputs, str], Network]
    rewrite: Callable[
        [Callable[[Weights, Inputs], jax.Array], Mapping[str, Any]], Callable[[Weights, Inputs], jax.Array]
    ]


def build_model(
    build: Callable[..., Any], options: Mapping[str, Any], example: Inputs, seed: int, *, where: str
) -> Model:
    """Call ``build(**options)`` and return what it gives in canonical form.

    ``build`` is handed the seed if it has a parameter ``rngs`` (as ``nnx.Rngs``), ``key`` (as a JAX key) or
    ``seed`` (as an int). ``example`` holds one batch of inputs, for models that find their shapes from it.
    """
    given: dict[str, Callable[[], Any]] = {
        "rngs": lambda: nnx.Rngs(seed),
        "key": lambda: jax.random.key(seed),
        "seed": lambda: seed,
    }
    # A module class hides its arguments behind a metaclass.
    accepted = inspect.signature(build.__init__ if inspect.isclass(build) else build).parameters
    seeded = {name: make() for name, make in given.items() if name in accepted and name not in options}
    built = build(**options, **seeded)
    match built:
        case nnx.Module():
            return _from_nnx(built)
        case linen.Module():
            return _from_linen(built, example, seed)
        case (params, apply) if callable(apply):
            return _from_function(params, apply)
        case _:
            raise DeploycheckError(
                f"it returned {type(built).__name__}, which is no model",
                where=where,
                hint="return a flax.nnx module, a flax.linen module, or a pair (params, apply)",
            )


def _call(function: Callable[..., Any], inputs: Inputs, **mode: Any) -> Any:
    """Call with the one input as the only argument, or with several by their names."""
    if len(inputs) == 1:
        return function(*inputs.values(), **mode)
    return function(**inputs, **mode)


def _from_nnx(module: nnx.Module) -> Model:
    module.train()
    training_graph, params, rngs, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    module.eval()
    graph = nnx.split(module, nnx.Param, nnx.RngState, ...)[0]

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> jax.Array:
        logits: jax.Array = _call(nnx.merge(graph, params, rngs, state), inputs)
        return logits

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[jax.Array, PyTree]:
        module = nnx.merge(training_graph, params, _reseeded(rngs, key), state)
        logits = _call(module, inputs)
        return logits, nnx.to_pure_dict(nnx.split(module, nnx.Param, nnx.RngState, ...)[3])

    return Model(nnx.to_pure_dict(params), nnx.to_pure_dict(state), apply, train)


def _reseeded(rngs: PyTree, key: jax.Array) -> PyTree:
    """Return the module's random streams with their keys derived from ``key``."""
    leaves, structure = jax.tree.flatten(rngs)
    fresh = [
        jax.random.fold_in(key, i) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, fresh)


def _from_linen(module: linen.Module, example: Inputs, seed: int) -> Model:
    accepted = inspect.signature(type(module).__call__).parameters
    training = {name: value for name, value in _MODE_ARGUMENTS.items() if name in accepted}
    inference = {name: not value for name, value in training.items()}
    params_key, dropout_key = jax.random.split(jax.random.key(seed))
    streams = {"params": params_key, "dropout": dropout_key}
    variables = dict(_call(lambda *a, **k: module.init(streams, *a, **k), example, **inference))
    params = variables.pop("params", {})

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> jax.Array:
        logits: jax.Array = _call(
            lambda *a, **k: module.apply({"params": params, **state}, *a, **k), inputs, **inference
        )
        return logits

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[jax.Array, PyTree]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return module.apply(
                {"params": params, **state}, *args, **kwargs, rngs={"dropout": key}, mutable=list(state)
            )

        logits, updated = _call(forward, inputs, **training)
        return logits, dict(updated)

    return Model(params, variables, apply, train)


def _from_function(params: PyTree, function: Callable[[PyTree, Any], jax.Array]) -> Model:
    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> jax.Array:
        del state
        logits: jax.Array = _call(lambda *a, **k: function(params, *a, **k), inputs)
        return logits

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[jax.Array, PyTree]:
        del key
        return apply(params, state, inputs), state

    return Model(jax.tree.map(jnp.asarray, params), {}, apply, train)


def to_network(model: Model, preprocess: Callable[[Weights, Inputs], Inputs], fitted: Weights) -> Network:
    """Return the model with the preprocessing it was trained behind, as one function of raw inputs.

    What is served then can't be fed differently from what was trained.
    """
    weights, restore = flatten({"params": model.params, "state": model.state})

    def apply(weights: Weights, inputs: Inputs) -> jax.Array:
        tree = restore(weights)
        return model.apply(tree["params"], tree["state"], preprocess(weights, inputs))

    return Network({**weights, **fitted}, apply)


def flatten(tree: PyTree) -> tuple[Weights, Callable[[Mapping[str, Any]], PyTree]]:
    """Return the tree's leaves by path, and the function that puts such leaves back into its shape."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]

    def restore(leaves: Mapping[str, Any]) -> PyTree:
        return jax.tree.unflatten(structure, [leaves[name] for name in names])

    return dict(zip(names, (jnp.asarray(leaf) for _, leaf in paths), strict=True)), restore


def predictor(
    apply: Callable[[PyTree, Inputs], jax.Array], batch: int
) -> Callable[[PyTree, Mapping[str, np.ndarray]], np.ndarray]:
    """Return a function ``(weights, inputs) -> logits`` over any number of examples, compiled once.

    Examples go through ``batch`` at a time; the last batch is padded with copies of the first and cut again.
    """
    run = jax.jit(lambda weights, stacked: jax.lax.map(lambda inputs: apply(weights, inputs), stacked))

    def predict(weights: PyTree, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        count = len(next(iter(inputs.values())))
        batches = max(1, -(-count // batch))
        stacked = {}
        for name, array in inputs.items():
            padding = np.repeat(array[:1], batches * batch - count, axis=0)
            stacked[name] = np.concatenate([array, padding]).reshape((batches, batch, *array.shape[1:]))
        logits = np.asarray(run(weights, stacked))
        return logits.reshape((batches * batch, *logits.shape[2:]))[:count]

    return predict
