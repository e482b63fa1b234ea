"""Weights from elsewhere, given to a model: each of its weights is found by name, and every array has a place."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from deploycheck.errors import DeploycheckError, located
from deploycheck.stages.model import Model

NAMED = 5
"""How many of the weights that don't fit are named."""
PARTS = ("params/", "state/")
"""What the names of a model's weights begin with; in a file they may be left out."""

Convert = Callable[[dict[str, Any]], Mapping[str, Any]]
"""A user's function from all arrays of a file, by name, to those of the model, by name."""


@dataclass(frozen=True)
class Imported:
    """A model with the weights of a file, and the types of those that the model has in another type."""

    model: Model
    cast: tuple[str, ...]


def read_arrays(path: Path, read: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the arrays of a file by name; raise ``DeploycheckError`` at its path where it can't be read."""
    with located(str(path)):
        try:
            arrays = dict(read(path))
        except Exception as error:  # of a damaged file the parsers raise anything
            first = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise DeploycheckError(f"its weights can't be read: {first}", hint="check its format") from error
        others = [name for name, array in arrays.items() if not hasattr(array, "shape") or not hasattr(array, "dtype")]
        if others or not arrays:
            raise DeploycheckError(f"it holds what is no array: {_some(others)}" if others else "it holds no arrays")
    return arrays


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of its files' paths and digests, as ``sha256sum`` lists them."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return digest_of_all((file for file in path.rglob("*") if file.is_file()), path)


def digest_of_all(files: Iterable[Path], folder: Path) -> str:
    """Return the SHA-256 of the lines that ``sha256sum`` prints for files, by their paths in ``folder``."""
    lines = "".join(f"{digest_of(file)}  {file.relative_to(folder).as_posix()}\n" for file in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_digest(digest: str, wanted: str | None) -> None:
    """Raise ``DeploycheckError`` for a file whose digest is another than the spec's."""
    if wanted not in (None, digest):
        hint = "if the file is the right one, write its digest into the spec"
        raise DeploycheckError(f"its sha256 is {digest}, the spec has {wanted}", hint=hint)


def give(model: Model, arrays: Mapping[str, Any], names: Mapping[str, str] | Convert | None) -> Imported:
    """Return the model with these arrays as its weights.

    ``names`` is a table from the model's names to those of ``arrays``, or a function of all arrays. By default a weight
    is the array of the same name: parts may be joined by ``.`` or ``/``, and ``params/`` or ``state/`` may be left
    out. Raises ``DeploycheckError`` that lists every weight without an array, every array without a weight, and every
    shape that differs.
    """
    weights = model.weights
    found = _converted(names, arrays, weights) if callable(names) else _named(arrays, weights, names or {})
    wrong = [
        f"{name} is {_shape(found[name])}, the model's is {_shape(weight)}"
        for name, weight in weights.items()
        if found[name].shape != weight.shape
    ]
    wrong += [
        f"{name} has the type {found[name].dtype}, the model's is {weight.dtype}"
        for name, weight in weights.items()
        if _kind(found[name]) != _kind(weight)
    ]
    if wrong:
        transposed = any(found[name].shape == weight.shape[::-1] != weight.shape for name, weight in weights.items())
        turned = "; a kernel of flax is [in, out], one of PyTorch [out, in]: turn it in a function under `names`"
        raise DeploycheckError(
            _some(wrong, "; "), hint="the model must be built as it was trained" + turned * transposed
        )
    cast = tuple(
        sorted({str(found[name].dtype) for name, weight in weights.items() if found[name].dtype != weight.dtype})
    )
    taken = {name: jnp.asarray(found[name], weight.dtype) for name, weight in weights.items()}
    return Imported(model.with_weights(taken), cast)


def _converted(convert: Convert, arrays: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    made = convert(dict(arrays))
    if not isinstance(made, Mapping):
        raise DeploycheckError(f"the function under `names` returned {type(made).__name__}, expected arrays by name")
    return _named({name: np.asarray(array) for name, array in made.items()}, weights, {})


def _named(arrays: Mapping[str, Any], weights: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return an array for each weight; raise for weights without one, and for arrays that no weight takes."""
    places = {_plain(name): name for name in weights}
    table = {places.get(_plain(name), name): there for name, there in names.items()}
    unknown = [name for name in table if name not in weights]
    unread = [there for there in table.values() if there not in arrays]
    if unknown or unread:
        what = f"`names` has {_some(unknown)}, which the model has not" if unknown else ""
        more = f"`names` has {_some(unread)}, which the file has not" if unread else ""
        hint = _near(unknown, weights) if unknown else _near(unread, arrays)
        raise DeploycheckError("; ".join(part for part in (what, more) if part), hint=hint)
    rest = {_plain(name): name for name in arrays if name not in table.values()}
    table |= {name: rest[plain] for plain, name in places.items() if name not in table and plain in rest}
    missing = sorted(weights.keys() - table.keys())
    unused = sorted(arrays.keys() - set(table.values()))
    if missing or unused:
        parts = [f"the model's {_some(missing)} {'is' if len(missing) == 1 else 'are'} not in it"] if missing else []
        parts += [f"no weight of the model is called {_some(unused)}"] if unused else []
        hint = f"say under `names` what each is called; the model has {_some(sorted(weights))}"
        raise DeploycheckError("; ".join(parts), hint=hint)
    return {name: arrays[there] for name, there in table.items()}


def _plain(name: str) -> str:
    """Return a name as it is compared: with ``/`` between its parts, without ``params/`` or ``state/``."""
    plain = name.replace(".", "/")
    for part in PARTS:
        plain = plain.removeprefix(part)
    return plain.removesuffix("/value")  # which nnx adds to the name of each variable


def _kind(array: Any) -> str:
    return "float" if jnp.issubdtype(array.dtype, jnp.floating) else str(np.dtype(array.dtype).kind)


def _shape(array: Any) -> str:
    return f"[{', '.join(map(str, array.shape))}]"


def _some(names: Iterable[str], between: str = ", ") -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return between.join(listed[:NAMED]) + more


def _near(names: Iterable[str], known: Iterable[str]) -> str:
    near = [match for name in names for match in difflib.get_close_matches(name, list(known), 1)]
    return f"did you mean {near[0]!r}?" if near else f"there are: {_some(sorted(known))}"
