from __future__ import annotations

from typing import Any

import numpy as np
import optax
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import Train
from deploycheck.stages.recipe import Recipe, optimizer, recipe_of


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
