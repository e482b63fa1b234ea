from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.language.names import optax_functions
from deploycheck.language.spec import Train
from deploycheck.stages.recipe import Recipe, optimizer, rates_of, recipe_of, with_rates


def recipe(name: str, options: dict[str, Any], **others: Any) -> Recipe:
    return Recipe(optimizer=name, options=options, epochs=1, batch_size=1, **others)


@pytest.mark.parametrize(
    ("schedule", "end", "last"),
    [("cosine", 0.0, 0.0), ("linear", 0.0, 0.0), ("constant", 0.0, 0.1), ("cosine", 0.2, 0.02), ("linear", 0.2, 0.02)],
)
def test_a_schedule_warms_up_to_the_peak_and_ends_as_named(schedule: str, end: float, last: float) -> None:
    transform = optimizer(recipe("sgd", {"learning_rate": 0.1}, schedule=schedule, warmup=0.2, end=end), 100)
    state = transform.init(np.zeros((), np.float32))
    rates = []
    for _ in range(101):
        update, state = transform.update(np.ones((), np.float32), state)
        rates.append(-float(optax.tree.sum(update)))
    assert rates[0] == 0
    assert max(rates) == rates[20] == pytest.approx(0.1)
    assert rates[100] == pytest.approx(last, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "options"), [("adam", {"learning_rat": 1}), ("adaam", {"learning_rate": 1}), ("adam", {})]
)
def test_an_optimiser_that_optax_refuses_is_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(DeploycheckError, match=f"optax can't make the optimiser {name}"):
        optimizer(recipe(name, options), 10)


def test_a_schedule_without_a_peak_rate_is_refused() -> None:
    with pytest.raises(DeploycheckError, match="a schedule needs the optimiser's learning_rate, adam has none"):
        optimizer(recipe("adam", {}, schedule="cosine"), 10)


def test_every_field_of_the_train_section_is_in_its_recipe() -> None:
    section = Train.model_validate(
        {
            "loss": "squared_error",
            "optimizer": {"adamw": {"learning_rate": 0.1, "b1": 0.8}},
            "schedule": {"linear": {"warmup": "10%", "end": "5%"}},
            "regularize": {"l1": 0.5, "l2": 0.25},
            "epochs": 7,
            "batch_size": 16,
            "stop_early": {"watch": "validation.loss", "patience": 3},
        }
    )
    assert recipe_of(section) == Recipe(
        optimizer="adamw",
        options={"learning_rate": 0.1, "b1": 0.8},
        epochs=7,
        batch_size=16,
        loss="squared_error",
        schedule="linear",
        warmup=0.1,
        end=0.05,
        l1=0.5,
        l2=0.25,
        watch="validation.loss",
        patience=3,
    )


def test_what_the_train_section_leaves_out_is_off() -> None:
    section = Train.model_validate({"optimizer": {"sgd": {"learning_rate": 0.1}}, "epochs": 1, "batch_size": 2})
    assert recipe_of(section) == Recipe(optimizer="sgd", options={"learning_rate": 0.1}, epochs=1, batch_size=2)


KNOWN = optax_functions("_src.alias")
PARAMS = {"kernel": jnp.arange(1.0, 7.0).reshape(2, 3), "bias": jnp.ones(3)}


def traced_update(given: Recipe) -> Callable[..., Any]:
    """Return one update of ``PARAMS`` as a function of the recipe's rates."""
    state = optimizer(given, 4).init(PARAMS)
    return lambda rates: optimizer(with_rates(given, rates), 4).update(PARAMS, state, PARAMS)[0]


@pytest.mark.parametrize("name", sorted(name for name, call in KNOWN.items() if call.required == {"learning_rate"}))
def test_no_optimiser_needs_to_know_its_rate_when_it_is_compiled(name: str) -> None:
    given = recipe(name, {"learning_rate": 0.1})
    assert jax.eval_shape(traced_update(given), rates_of(given)).keys() == PARAMS.keys()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_a_rate_that_is_traced_gives_the_same_update(schedule: str) -> None:
    given = recipe("adam", {"learning_rate": 0.1, "b1": 0.8}, schedule=schedule)
    other = recipe("adam", {"learning_rate": 0.9, "b1": 0.8}, schedule=schedule)
    transform = optimizer(given, 4)
    expected, _ = transform.update(PARAMS, transform.init(PARAMS), PARAMS)
    update = jax.jit(traced_update(other))(rates_of(given))
    for name in PARAMS:
        np.testing.assert_allclose(update[name], expected[name], rtol=1e-6)
