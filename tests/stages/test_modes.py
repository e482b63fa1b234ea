from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Optional

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.modes import TRAINING, find_modes, opposite


def of(call: Callable[..., Any], *inputs: str) -> dict[str, bool]:
    return find_modes(call, inputs or ("x",), "Net.__call__")


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("kind", [inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY])
def test_a_known_mode_gets_its_value_in_training(name: str, kind: Any) -> None:
    def call(*_: Any, **__: Any) -> None: ...

    positional = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in ("self", "x")]
    call.__signature__ = inspect.Signature([*positional, inspect.Parameter(name, kind)])  # type: ignore[attr-defined]
    assert of(call) == {name: TRAINING[name]}


def test_inference_is_the_opposite() -> None:
    assert opposite({"train": True, "deterministic": False}) == {"train": False, "deterministic": True}


def test_a_call_without_a_mode_has_none() -> None:
    def call(self: Any, x: Any, mask: Any = None, scale: float = 1.0, **more: Any) -> None: ...

    assert of(call) == {}


def default(self: Any, x: Any, is_eval: Any = False) -> None: ...


def annotated(self: Any, x: Any, is_eval: bool) -> None: ...


def optional(self: Any, x: Any, is_eval: Optional[bool] = None) -> None: ...  # noqa: UP045 - as users write it


def either(self: Any, x: Any, *, is_eval: bool | None = None) -> None: ...


@pytest.mark.parametrize("call", [default, annotated, optional, either])
@pytest.mark.parametrize("resolved", [False, True])
def test_a_bool_of_an_unknown_name_is_refused(call: Callable[..., Any], resolved: bool) -> None:
    known = inspect.signature(call, eval_str=resolved)
    wrapped = functools.partial(call)
    wrapped.__signature__ = known  # type: ignore[attr-defined]
    with pytest.raises(DeploycheckError) as raised:
        of(wrapped)
    assert raised.value.what.startswith("Net.__call__ has an unknown bool argument 'is_eval'")
    assert "train, training, is_training, deterministic, use_running_average" in raised.value.hint


def test_what_a_partial_has_bound_is_left_as_it_is() -> None:
    assert of(functools.partial(either, is_eval=True)) == {}

    def call(params: Any, x: Any, train: bool = True) -> None: ...

    assert of(functools.partial(call, train=False)) == {}


def test_an_input_is_not_a_mode_whatever_its_name() -> None:
    def one(self: Any, train: bool) -> None: ...

    def several(self: Any, *, smoker: bool, age: Any, training: bool) -> None: ...

    assert of(one, "smoker") == {}
    assert of(several, "smoker", "age") == {"training": True}
