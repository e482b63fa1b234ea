"""Types of weights by their names, and which weights get more bits first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods.quantize import BITS, QuantizeOptions
from deploycheck.stages.model import Model
from deploycheck.stages.quantization import precision, quantize_weights, quantized_form, refine
from deploycheck.stages.quantization.scales import type_of
from tests.stages.networks import from_function
from tests.stages.quantization.making import options, run
from tests.stages.quantization.reached import normal

X = {"x": normal(70, 8, seed=1)}
EXAMPLES = Examples({"x": np.asarray(X["x"])}, np.zeros(70, np.int32))


def model(**outliers: float) -> Model:
    """Return a model; a weight that has an outlier, which nothing is multiplied with, loses the others to rounding."""
    params = {"first": normal(8, 6), "second[0]": normal(6, 50), "third": normal(50, 3)}
    params |= {name: params[name].at[0, :].add(outlier) for name, outlier in outliers.items()}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(x.at[:, 0].set(0) @ params["first"]) @ params["second[0]"]
        return hidden.at[:, 0].set(0) @ params["third"]

    return from_function(params, apply, (8,))


def types(options: QuantizeOptions) -> dict[str, str | None]:
    """Return the type of each weight that is stored in a model."""
    small = quantize_weights(model(), options).params
    names = model().params
    return {name: str(small[f"{name}/qvalue"].dtype) if f"{name}/qvalue" in small else None for name in names}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"int4": ["*"]}, ("int4", "int4", "int4")),
        ({"int4": ["*"], "int8": ["th*"]}, ("int4", "int4", "int8")),
        ({"int8": ["first", "third"], "int4": ["*"]}, ("int8", "int4", "int8")),
        ({"int4": ["third"]}, (None, None, "int4")),
        ({"int8": ["second[[]0]"], "fp8": ["first"]}, ("float8_e4m3fn", "int8", None)),
    ],
    ids=str,
)
def test_a_weight_has_the_type_with_the_most_bits_that_names_it(weights: Any, expected: tuple[str | None]) -> None:
    assert tuple(types(options(weights)).values()) == expected


def test_a_model_with_several_types_computes_with_the_numbers_they_stand_for() -> None:
    mixed = options({"int4": ["*"], "int8": ["first"]})
    small, exact = quantize_weights(model(), mixed), dict(model().params)
    for name, to in {"first": "int8", "second[0]": "int4", "third": "int4"}.items():
        alone = quantize_weights(model(), options(to)).params
        exact[name] = alone[f"{name}/qvalue"].astype(jnp.float32) * alone[f"{name}/scale"]
    np.testing.assert_allclose(run(small, X)["logits"], model().apply(exact, {}, X)["logits"], rtol=1e-4, atol=1e-4)
    form = quantized_form(model().form, mixed)
    assert form.weights == small.form.weights


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"int4": ["*"], "int8": ["frist"]}, "`int8`: no weight is called 'frist'"),
        ({"int8": ["*"], "fp8": ["th*"]}, "`weights`: third would be both int8 and fp8"),
    ],
)
def test_patterns_that_mean_nothing_or_two_things_are_refused(weights: Any, says: str) -> None:
    with pytest.raises(DeploycheckError, match=says):
        quantize_weights(model(), options(weights))


@pytest.mark.parametrize("name", ["first", "third"])
def test_the_weight_whose_rounding_costs_most_gets_more_bits_first(name: str) -> None:
    finer = refine(model(**{name: 20.0}), options("int4"), EXAMPLES)
    assert finer[0].types == {"int4": ("*",), "int8": (name,)}


def test_weights_that_need_more_than_eight_bits_are_kept_in_float() -> None:
    finer = refine(model(first=9000.0), options("int8"), EXAMPLES)
    assert (finer[0].weights, finer[0].keep) == ("int8", ("first",))


def with_errors(monkeypatch: pytest.MonkeyPatch, errors: Mapping[str, Sequence[float]]) -> None:
    """Let the outputs change so much for each weight: first as it is rounded, then with more and more bits."""
    left = {name: iter(each) for name, each in errors.items()}
    monkeypatch.setattr(precision, "_error_of", lambda source, examples: lambda name, rounded: next(left[name]))


def test_of_two_weights_the_one_that_gains_more_for_its_bytes_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with_errors(monkeypatch, {"first": [1.0], "second[0]": [2.0], "third": [0.1]})  # 48, 300 and 150 numbers
    finer = refine(model(), options("int8", at_least="0 %"), EXAMPLES)
    assert [it.keep for it in finer] == [("first",), ("first", "second[[]0]")]


def test_a_weight_that_is_kept_in_float_is_not_rounded_by_a_later_step(monkeypatch: pytest.MonkeyPatch) -> None:
    with_errors(monkeypatch, {"first": [1.0, 0.99], "second[0]": [0.2, 0.1], "third": [0.1, 0.1]})
    finer = refine(model(), options("int4", at_least="0 %"), EXAMPLES)
    assert finer[0].keep == ("first",)
    assert all("first" in it.keep and "first" not in it.types.get("int8", ()) for it in finer)


def test_a_weight_whose_rounding_gives_no_number_gets_more_bits_first() -> None:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        return (x @ params["first"]) / (jnp.ones_like(x).at[:, 0].set(0) @ params["second"])

    params = {"first": normal(8, 6), "second": jnp.full((8, 6), 0.1).at[0].set(1e4)}  # rounded, 0.1 is 0
    zeros = Examples({"x": np.concatenate([np.zeros((1, 8), np.float32), X["x"]])}, np.zeros(71, np.int32))
    finer = refine(from_function(params, apply, (8,)), options("int8", at_least="0 %"), zeros)
    assert finer[0].keep == ("second",)


def _bits(options: QuantizeOptions) -> dict[str, int]:
    kept = options.keep
    return {
        name: 32 if name.replace("[", "[[]") in kept else BITS.get(type_of(name, options) or "", 32)
        for name in model().params
    }


@pytest.mark.parametrize("weights", ["int4", "int8", {"int4": ["*"], "int8": ["third"]}], ids=str)
@pytest.mark.parametrize(("at_least", "kept"), [("0 %", 2), ("80 %", 1), ("100 %", 0)])
def test_each_of_the_finer_options_gives_one_weight_more_bits(weights: Any, at_least: str, kept: int) -> None:
    before = options(weights, at_least=at_least)
    for finer in refine(model(), before, EXAMPLES):
        more = [name for name, bits in _bits(finer).items() if bits > _bits(before)[name]]
        less = [name for name, bits in _bits(finer).items() if bits < _bits(before)[name]]
        assert (len(more), less) == (1, [])
        assert QuantizeOptions.model_validate(finer.model_dump(mode="json", exclude_none=True)) == finer
        quantize_weights(model(), finer)  # as much of it is quantised as the options ask for
        before = finer
    assert sum(bits == 32 for bits in _bits(before).values()) <= kept
