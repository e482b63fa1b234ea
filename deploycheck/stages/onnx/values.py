"""The values of an ONNX graph while it is evaluated.

What is known without the inputs is a NumPy array: constants, shapes, and what is computed from them. A size that
differs from batch to batch is a symbolic dimension of JAX (``jax.export.symbolic_shape``), and an array that has one is
a NumPy array of objects. So ``Shape``, ``Gather``, ``Concat``, ``Reshape`` is a computation of Python's numbers, and no
array of the traced program decides a shape. All else is an array of JAX.
"""

from __future__ import annotations

import operator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.errors import DeploycheckError

MOST_ELEMENTS = 2**30
"""Of an array that a node makes of a shape alone."""


def is_known(value: Any) -> bool:
    """Whether a value is known without the inputs."""
    return isinstance(value, np.ndarray)


def namespace(*values: Any) -> ModuleType:
    """Return NumPy where all values are known, else JAX's form of it."""
    return np if all(value is None or is_known(value) for value in values) else jnp


def packed(value: Any) -> Any:
    """Return a result as a value of the graph: what NumPy gives of zero axes becomes an array again."""
    if isinstance(value, jax.Array):
        return value
    if not isinstance(value, np.ndarray):
        whole = np.empty((), object if jax.export.is_symbolic_dim(value) else None)
        whole[()] = value
        return whole if whole.dtype == object else np.asarray(value)
    if value.dtype == object and not any(map(jax.export.is_symbolic_dim, value.flat)):
        return value.astype(np.int64)
    return value


def array(value: Any) -> Any:
    """Return a value as an operand of JAX."""
    if not isinstance(value, np.ndarray) or value.dtype != object:
        return value
    sizes = [jnp.asarray(size) for size in value.flat]
    return jnp.stack(sizes).reshape(value.shape) if sizes else jnp.zeros(value.shape, jnp.int32)


def operands(*values: Any) -> tuple[Any, ...]:
    """Return values as they are where all are known, else as operands of JAX."""
    return values if namespace(*values) is np else tuple(map(array, values))


def known(value: Any, what: str) -> np.ndarray:
    """Return a value that must be known; ``what`` is what it decides."""
    if not is_known(value):
        raise DeploycheckError(f"its {what} depends on the values of the inputs")
    found: np.ndarray = value
    return found


def sizes(value: Any, what: str = "shape") -> tuple[Any, ...]:
    """Return a list of whole numbers that must be known, each an ``int`` or a symbolic dimension."""
    return tuple(map(size, known(value, what).reshape(-1)))


def size(value: Any) -> Any:
    """Return one size as an ``int``, or as the symbolic dimension that it is."""
    return value if jax.export.is_symbolic_dim(value) else operator.index(value)


def number(value: Any, what: str) -> Any:
    """Return one number that must be known."""
    return known(value, what).reshape(()).item()


def dtype_of(value: Any) -> np.dtype[Any]:
    """Return the type that a value has in JAX: 64 bits may be 32."""
    kind = np.dtype(np.int64) if value.dtype == object else value.dtype
    return np.dtype(jax.dtypes.canonicalize_dtype(kind))


def check_elements(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a shape; raise for one with more elements than any model has."""
    elements = 1
    for each in shape:
        elements *= 1 if jax.export.is_symbolic_dim(each) else each
    if elements > MOST_ELEMENTS:
        raise DeploycheckError(f"it makes an array of {elements:,} elements, more than {MOST_ELEMENTS:,}")
    return shape
