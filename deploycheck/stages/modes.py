"""Mode arguments: the arguments of a model's call that switch between training and inference."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from deploycheck.errors import DeploycheckError

TRAINING: Mapping[str, bool] = MappingProxyType(
    {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
)
"""The mode arguments that are known, with their values in training; in inference each has the opposite value."""


def find_modes(call: Callable[..., Any], inputs: Iterable[str], name: str) -> dict[str, bool]:
    """Return the mode arguments of a call, with their values in training.

    The first parameter of ``call`` is the module or the params; ``inputs`` are the names of the model's inputs, and
    ``name`` says in errors what is called. Raises ``DeploycheckError`` for a parameter that is a bool but has a name
    that isn't known: its default may be the value for training.
    """
    try:
        _, *parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return {}
    inputs = tuple(inputs)
    bound = call.keywords if isinstance(call, functools.partial) else {}
    taken = {*bound, *(inputs if len(inputs) > 1 else [parameter.name for parameter in parameters[:1]])}
    rest = [parameter for parameter in parameters if parameter.name not in taken]
    unknown = [parameter.name for parameter in rest if parameter.name not in TRAINING and _is_bool(parameter)]
    if unknown:
        raise DeploycheckError(
            f"{name} has an unknown bool argument {unknown[0]!r}, which could switch training on",
            hint=f"rename it to one of {', '.join(TRAINING)} if it is the mode; otherwise set it where the model is "
            "built",
        )
    return {parameter.name: TRAINING[parameter.name] for parameter in rest if parameter.name in TRAINING}


def _is_bool(parameter: inspect.Parameter) -> bool:
    """Whether a parameter has a bool as its default, or is annotated as one (or as ``bool | None``)."""
    annotation = parameter.annotation
    if isinstance(parameter.default, bool) or annotation is bool:
        return True
    if isinstance(annotation, str):
        return annotation in ("bool", "bool | None", "Optional[bool]", "typing.Optional[bool]")
    return set(typing.get_args(annotation)) == {bool, type(None)}


def opposite(modes: Mapping[str, bool]) -> dict[str, bool]:
    """Return the values in inference of mode arguments that are given with their values in training."""
    return {name: not value for name, value in modes.items()}
