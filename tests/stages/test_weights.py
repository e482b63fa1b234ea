"""Weights find their place in a model by name, or every name that doesn't fit is said."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.weights import digest_of, give, read_arrays


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.hidden(x))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return linen.BatchNorm(use_running_average=not train)(linen.Dense(5)(x))


def built(kind: type[Any], seed: int = 0) -> Model:
    inputs = {"x": jax.ShapeDtypeStruct((2, 4), jnp.float32)}
    return build_model(kind, {}, inputs, seed=seed, outputs=("logits",))


def arrays_of(model: Model, rename: Callable[[str], str] = str) -> dict[str, Any]:
    random = np.random.default_rng(0)
    weights = sorted(model.weights.items())
    return {rename(name): random.normal(size=array.shape).astype(array.dtype) for name, array in weights}


def taken(model: Model, given: Mapping[str, Any]) -> bool:
    """Whether the model's weights are those given, by its own names."""
    return all(bool(jnp.array_equal(array, given[name])) for name, array in model.weights.items())


@pytest.mark.parametrize("kind", [Nnx, Linen])
@pytest.mark.parametrize(
    "rename",
    [
        str,
        lambda name: name.replace("/", "."),
        lambda name: name.removeprefix("params/").removeprefix("state/"),
        lambda name: name + "/value",
    ],
    ids=["as the model has them", "with dots", "without params", "as nnx writes them"],
)
def test_weights_are_found_by_their_names(kind: type[Any], rename: Callable[[str], str]) -> None:
    model = built(kind)
    imported = give(model, arrays_of(model, rename), None)
    assert taken(imported.model, arrays_of(model))
    assert not taken(model, arrays_of(model))
    assert imported.cast == ()


def test_a_table_says_what_each_is_called() -> None:
    model = built(Nnx)
    arrays = arrays_of(model)
    given = {**arrays, "fc.weight": arrays["params/hidden/kernel"]}
    del given["params/hidden/kernel"]
    assert taken(give(model, given, {"hidden/kernel": "fc.weight"}).model, arrays)


def test_a_function_makes_the_models_weights_of_all_arrays() -> None:
    model = built(Nnx)
    arrays = arrays_of(model)

    def turned(given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "params/hidden/kernel": given["params/hidden/kernel"].T}

    given = {**arrays, "params/hidden/kernel": arrays["params/hidden/kernel"].T}
    assert taken(give(model, given, turned).model, arrays)


def test_another_type_of_float_is_converted_and_said() -> None:
    model = built(Nnx)
    given = {**arrays_of(model), "params/hidden/bias": jnp.full(5, 0.5, jnp.bfloat16)}
    imported = give(model, given, None)
    assert imported.model.weights["params/hidden/bias"].dtype == jnp.float32
    assert imported.cast == ("bfloat16",)


def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda arrays: {name: array for name, array in arrays.items() if name not in names}


def changed(**renamed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda arrays: {**arrays, **{name.replace("__", "/"): array for name, array in renamed.items()}}


@pytest.mark.parametrize(
    ("change", "names", "says", "hint"),
    [
        (without("params/hidden/bias"), None, "the model's params/hidden/bias is not in it", "under `names`"),
        (changed(head__kernel=np.ones(3)), None, "no weight of the model is called head/kernel", "params/hidden/bias"),
        (
            changed(params__hidden__kernel=np.ones((5, 4), np.float32)),
            None,
            r"params/hidden/kernel is \[5, 4\], the model's is \[4, 5\]",
            "PyTorch",
        ),
        (changed(params__hidden__bias=np.ones(5, np.int8)), None, "has the type int8, the model's is float32", "built"),
        (
            dict,
            {"hiden/kernel": "params/hidden/kernel"},
            "`names` has hiden/kernel, which the model has not",
            "hidden/",
        ),
        (dict, {"hidden/kernel": "params/hidden/kernl"}, "`names` has params/hidden/kernl, which the file", "kernel"),
        (dict, lambda arrays: 7, "returned int, expected arrays by name", ""),
        (dict, without("params/norm/scale"), "the model's params/norm/scale is not in it", "`names`"),
    ],
)
def test_what_has_no_match_is_named(change: Any, names: Any, says: str, hint: str) -> None:
    model = built(Nnx)
    with pytest.raises(DeploycheckError, match=says) as refused:
        give(model, change(arrays_of(model)), names)
    assert hint in refused.value.hint


def test_all_that_does_not_fit_is_said_at_once() -> None:
    model = built(Nnx)
    arrays = without("params/hidden/bias")(changed(head=np.ones(3))(arrays_of(model)))
    with pytest.raises(
        DeploycheckError, match="params/hidden/bias is not in it; no weight of the model is called head"
    ):
        give(model, arrays, None)


def test_a_folders_digest_is_that_of_its_files_paths_and_digests(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "b").write_bytes(b"two")
    (folder / "a").write_bytes(b"one")
    assert digest_of(folder / "a") == hashlib.sha256(b"one").hexdigest()
    listed = subprocess.run(["sha256sum", "a", "part/b"], cwd=folder, check=True, capture_output=True).stdout
    assert digest_of(folder) == hashlib.sha256(listed).hexdigest()


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda path: {}, "it holds no arrays"),
        (lambda path: {"step": 7, "w": np.ones(2)}, "it holds what is no array: step"),
        (lambda path: path.read_bytes()[99], "its weights can't be read: index out of range"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(read: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"damaged")
    with pytest.raises(DeploycheckError, match=says) as refused:
        read_arrays(tmp_path / "weights", read)
    assert refused.value.where == str(tmp_path / "weights")
