"""Models in one canonical form: named weights and pure functions of them.

A spec's ``model.build`` returns a ``flax.nnx`` module, a ``flax.linen`` module, or a pair of a pytree of params and a
pure ``apply(params, inputs)``. The rest of the code sees a ``Model`` as long as it can be trained, and a ``Network``
when it is exported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from deploycheck.errors import DeploycheckError
from deploycheck.stages.modes import find_modes, opposite
from deploycheck.stages.network import Inputs, Network, Outputs, Weights

PyTree = Any


@dataclass(frozen=True)
class Exported:
    """What was said of a program when it was exported, and holds for whatever is made of it.

    ``loadable_until`` is the last day on which it can be loaded, None for ever; ``missing`` are its inputs that may
    hold NaN.
    """

    loadable_until: date | None
    missing: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that can be trained.

    ``apply(params, state, inputs)`` gives the outputs by name, each ``[batch, ...]``, in inference mode;
    ``train(params, state, inputs, key)`` gives the outputs and the new state in training mode. ``state`` is what is
    kept but not trained: running statistics of normalisation layers. ``inputs`` are the shapes and dtypes of one
    batch of two examples, as preprocessing leaves them. ``exported`` is None for a model that was not exported before.

    A ``Model`` whose params and state hold ``jax.ShapeDtypeStruct`` instead of arrays is a *form*: it says which
    weights there are, and has the functions that go with them.
    """

    params: PyTree
    state: PyTree
    apply: Callable[[PyTree, PyTree, Inputs], Outputs]
    train: Callable[[PyTree, PyTree, Inputs, jax.Array], tuple[Outputs, PyTree]]
    inputs: Inputs
    exported: Exported | None = None

    @property
    def form(self) -> Model:
        """The model without its arrays."""
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (self.params, self.state))
        return replace(self, params=shapes[0], state=shapes[1])

    @property
    def weights(self) -> Weights:
        """Params and state, flat: ``params/conv/kernel``."""
        return flatten({"params": self.params, "state": self.state})[0]

    def with_weights(self, weights: Mapping[str, Any]) -> Model:
        """Return the model with these weights, as ``weights`` names them, in place of its own."""
        _, restore = flatten({"params": self.params, "state": self.state})
        tree = restore(weights)
        return replace(self, params=tree["params"], state=tree["state"])


def build_model(
    build: Callable[..., Any], options: Mapping[str, Any], inputs: Inputs, *, seed: int, outputs: tuple[str, ...]
) -> Model:
    """Call ``build(**options)`` and return its model in canonical form.

    ``build`` is given the seed if it has a parameter ``rngs`` (as ``nnx.Rngs``), ``key`` (as a JAX key) or
    ``seed`` (as an int). ``inputs`` are shapes and dtypes of one batch, for models that get their own shapes from it.
    ``outputs`` are the names of the outputs in this task; where a model returns one array, it is the first of them.
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
            params, state, apply, train = _from_nnx(built, inputs)
        case linen.Module():
            params, state, apply, train = _from_linen(built, inputs, seed)
        case (tree, function) if callable(function):
            params, state, apply, train = _from_function(tree, function, inputs)
        case _:
            raise DeploycheckError(
                f"it returned {type(built).__name__}, which is not a model",
                hint="return a flax.nnx module, a flax.linen module, or a pair (params, apply)",
            )

    def named_apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        return named_outputs(apply(params, state, inputs), outputs)

    def named_train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        answer, state = train(params, state, inputs, key)
        return named_outputs(answer, outputs), state

    return Model(params=params, state=state, apply=named_apply, train=named_train, inputs=inputs)


def named_outputs(answer: Any, outputs: tuple[str, ...]) -> Outputs:
    """Return a model's outputs by name. Raises ``DeploycheckError`` for a structure that isn't a mapping."""
    if isinstance(answer, Mapping):
        return dict(answer)
    if jax.tree_util.all_leaves([answer]):
        return {outputs[0]: answer}
    raise DeploycheckError(
        f"the model gives a {type(answer).__name__}, expected one array or a dict of arrays",
        hint=f"return the {outputs[0]} alone",
    )


_Parts = tuple[PyTree, PyTree, Callable[..., Any], Callable[..., Any]]
"""Params, state, and the functions for inference and training, whose outputs have no names yet."""


def _call(function: Callable[..., Any], inputs: Inputs, **mode: Any) -> Any:
    """Call with the one input as the only argument, or with several by their names."""
    if len(inputs) == 1:
        return function(*inputs.values(), **mode)
    return function(**inputs, **mode)


def _from_nnx(module: nnx.Module, inputs: Inputs) -> _Parts:
    training = _modes_of(module, inputs)
    inference = opposite(training)
    module.train()
    training_graph, params, rngs, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    module.eval()
    graph = nnx.split(module, nnx.Param, nnx.RngState, ...)[0]

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Any:
        # A copy, because a module counts what it draws from a stream: a trace must not change the stream of another.
        streams = jax.tree.map(lambda leaf: leaf, rngs)
        return _call(nnx.merge(graph, params, streams, state), inputs, **inference)

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Any, PyTree]:
        module = nnx.merge(training_graph, params, _reseeded(rngs, key), state)
        answer = _call(module, inputs, **training)
        return answer, nnx.to_pure_dict(nnx.split(module, nnx.Param, nnx.RngState, ...)[3])

    return nnx.to_pure_dict(params), nnx.to_pure_dict(state), apply, train


def _reseeded(rngs: PyTree, key: jax.Array) -> PyTree:
    """Return the module's random streams with their keys derived from ``key``."""
    leaves, structure = jax.tree.flatten(rngs)
    fresh = [
        jax.random.fold_in(key, i) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, fresh)


def _from_linen(module: linen.Module, inputs: Inputs, seed: int) -> _Parts:
    training = _modes_of(module, inputs)
    inference = opposite(training)
    params_key, dropout_key = jax.random.split(jax.random.key(seed))
    streams = {"params": params_key, "dropout": dropout_key}
    example = {name: jnp.zeros(part.shape, part.dtype) for name, part in inputs.items()}
    variables = dict(_call(lambda *a, **k: module.init(streams, *a, **k), example, **inference))
    params = variables.pop("params", {})

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Any:
        return _call(lambda *a, **k: module.apply({"params": params, **state}, *a, **k), inputs, **inference)

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Any, PyTree]:
        # A stream of any other name gets its keys from ``params`` (flax.core.Scope.make_rng).
        streams = {"params": jax.random.fold_in(key, 0), "dropout": key}

        def forward(*args: Any, **kwargs: Any) -> Any:
            return module.apply({"params": params, **state}, *args, **kwargs, rngs=streams, mutable=list(state))

        answer, updated = _call(forward, inputs, **training)
        return answer, dict(updated)

    return params, variables, apply, train


def _modes_of(module: nnx.Module | linen.Module, inputs: Inputs) -> dict[str, bool]:
    kind = type(module)
    return find_modes(kind.__call__, inputs, f"{kind.__name__}.__call__")


def _from_function(params: PyTree, function: Callable[..., Any], inputs: Inputs) -> _Parts:
    training = find_modes(function, inputs, getattr(function, "__name__", "the function"))
    inference = opposite(training)

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Any:
        del state
        return _call(lambda *a, **k: function(params, *a, **k), inputs, **inference)

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Any, PyTree]:
        del key
        return _call(lambda *a, **k: function(params, *a, **k), inputs, **training), state

    return jax.tree.map(jnp.asarray, params), {}, apply, train


def to_network(model: Model, preprocess: Callable[[Weights, Inputs], Inputs], fitted: Mapping[str, Any]) -> Network:
    """Return the model with its preprocessing, as one function of raw inputs.

    So the served model gets its inputs in the same way as the trained one.
    """
    weights, restore = flatten({"params": model.params, "state": model.state})

    def apply(weights: Weights, inputs: Inputs) -> Outputs:
        tree = restore(weights)
        return model.apply(tree["params"], tree["state"], preprocess(weights, inputs))

    return Network({**weights, **{name: jnp.asarray(array) for name, array in fitted.items()}}, apply)


def flatten(tree: PyTree) -> tuple[Weights, Callable[[Mapping[str, Any]], PyTree]]:
    """Return the tree's leaves by path, and the function that puts such leaves back into its shape."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]

    def restore(leaves: Mapping[str, Any]) -> PyTree:
        return jax.tree.unflatten(structure, [leaves[name] for name in names])

    return dict(zip(names, (leaf for _, leaf in paths), strict=True)), restore


def predictor(
    apply: Callable[[PyTree, Inputs], Outputs], batch: int
) -> Callable[[PyTree, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Return a function ``(weights, inputs) -> outputs by name`` over any number of examples, compiled once.

    ``batch`` examples are computed at a time. The last batch is filled with copies of the first example, whose outputs
    are removed.
    """
    run = jax.jit(lambda weights, stacked: jax.lax.map(lambda inputs: apply(weights, inputs), stacked))

    def predict(weights: PyTree, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = len(next(iter(inputs.values())))
        batches = max(1, -(-count // batch))
        stacked = {}
        for name, array in inputs.items():
            padding = np.repeat(array[:1], batches * batch - count, axis=0)
            stacked[name] = np.concatenate([array, padding]).reshape((batches, batch, *array.shape[1:]))
        outputs = {name: np.asarray(array) for name, array in run(weights, stacked).items()}
        return {name: array.reshape((batches * batch, *array.shape[2:]))[:count] for name, array in outputs.items()}

    return predict
