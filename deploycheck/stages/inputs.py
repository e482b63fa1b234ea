"""The inputs that a model in a file declares, held against those that a spec gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.stages.network import Inputs


@dataclass(frozen=True)
class Input:
    """An input of a file. A size of ``shape`` is None where the file leaves it open."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: np.dtype[Any]


def match_inputs(declared: Sequence[Input], inputs: Inputs, hint: str) -> dict[str, str]:
    """Return the spec's name for each input of a file; raise for inputs that differ in name, shape or type.

    ``hint`` says how shapes and types are brought together. Where each has one, their names may differ.
    """
    names = {each.name: each.name for each in declared}
    if len(declared) == len(inputs) == 1:
        names = {declared[0].name: next(iter(inputs))}
    if set(names.values()) != set(inputs):
        there = ", ".join(map(repr, names)) or "none"
        raise DeploycheckError(
            f"its inputs are {there}, those of the spec are {', '.join(map(repr, inputs))}",
            hint="name them under `input` as the file does",
        )
    wrong = [
        f"its input {each.name!r} is {_described(each)}, the spec's is {_shape(inputs[names[each.name]].shape[1:])} "
        f"{inputs[names[each.name]].dtype}"
        for each in declared
        if not _fits(each, inputs[names[each.name]])
    ]
    wrong += [
        f"the first axis of its input {each.name!r} has the fixed size {each.shape[0]}, expected a batch"
        for each in declared
        if each.shape and each.shape[0] not in (None, 1)
    ]
    if wrong:
        raise DeploycheckError("; ".join(wrong), hint=hint)
    return names


def _fits(declared: Input, given: Any) -> bool:
    sizes = tuple(given.shape[1:])
    same_shape = declared.shape is None or (
        len(declared.shape) == len(sizes) + 1
        and all(there in (None, here) for there, here in zip(declared.shape[1:], sizes, strict=True))
    )
    return same_shape and _kind(declared.dtype) == _kind(given.dtype)


def _kind(dtype: Any) -> str:
    """Return what numbers a type has; how many bits it takes for them is converted."""
    for name, kind in (("floats", jnp.floating), ("whole numbers", jnp.integer)):
        if jnp.issubdtype(dtype, kind):
            return name
    return str(np.dtype(dtype))


def _described(declared: Input) -> str:
    return f"{_shape(declared.shape[1:])} {declared.dtype}" if declared.shape else f"{declared.dtype} of any shape"


def _shape(sizes: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if each is None else str(each) for each in sizes)}]"


def converted(array: Any, declared: Input) -> Any:
    """Return an input as its model takes it."""
    return jnp.asarray(array).astype(jax.dtypes.canonicalize_dtype(declared.dtype))
