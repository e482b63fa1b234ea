"""How a model is trained: a spec's ``train`` section, and the optax optimiser that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optax

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import Train


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one run trains.

    ``loss`` is one of the task's losses. ``optimizer`` is an optax optimiser's name and ``options`` its arguments.
    ``schedule`` is ``constant``, ``cosine`` or ``linear``; ``warmup`` is the share of all steps (0..1) over which
    the learning rate first rises from 0, ``end`` the share of the peak rate that remains at the last step. ``l1``
    and ``l2`` weigh the sum of absolute and of squared weights of every param with two or more axes (kernels, not
    biases). With ``watch`` (``validation.loss`` or ``validation.SCORE``) the run stops after ``patience`` epochs
    without a better value and keeps its best epoch.
    """

    optimizer: str
    options: Mapping[str, Any]
    epochs: int
    batch_size: int
    loss: str = "cross_entropy"
    schedule: str = "constant"
    warmup: float = 0.0
    end: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    watch: str | None = None
    patience: int = 0


def recipe_of(section: Train) -> Recipe:
    """Return a spec's ``train`` section as a recipe; it says how to train."""
    if section.optimizer is None or section.epochs is None or section.batch_size is None:
        raise ValueError("nothing is trained by this section")
    ((optimizer, options),) = section.optimizer.items()
    ((schedule, shape),) = section.schedule.items()
    stop = section.stop_early
    return Recipe(
        optimizer=optimizer,
        options=options,
        epochs=section.epochs,
        batch_size=section.batch_size,
        loss=section.loss,
        schedule=schedule,
        warmup=shape.warmup,
        end=shape.end,
        l1=section.regularize.l1,
        l2=section.regularize.l2,
        watch=stop.watch if stop else None,
        patience=stop.patience if stop else 0,
    )


def rates_of(recipe: Recipe) -> dict[str, float]:
    """Return the numbers of a recipe that decide neither a shape nor a branch of its program, by name."""
    rate = recipe.options.get("learning_rate")
    given = {} if rate is None else {"learning_rate": float(rate)}
    return {**given, "l1": recipe.l1, "l2": recipe.l2}


def with_rates(recipe: Recipe, rates: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other ``rates_of``, which may be traced."""
    options = {name: rates.get(name, value) for name, value in recipe.options.items()}
    return replace(recipe, options=options, l1=rates["l1"], l2=rates["l2"])


def optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """Return the optax optimiser of the recipe for a run of ``steps`` steps."""
    options = dict(recipe.options)
    if recipe.schedule != "constant" or recipe.warmup:
        options["learning_rate"] = _schedule(recipe, steps)
    try:
        return getattr(optax, recipe.optimizer)(**options)
    except (AttributeError, TypeError, ValueError) as error:
        raise DeploycheckError(
            f"optax can't make the optimiser {recipe.optimizer}({dict(recipe.options)}): {error}"
        ) from error


def _schedule(recipe: Recipe, steps: int) -> optax.Schedule:
    peak = recipe.options.get("learning_rate")
    if peak is None:
        raise DeploycheckError(
            f"a schedule needs the optimiser's learning_rate, {recipe.optimizer} has none",
            hint="give the peak rate: optimizer: {adam: {learning_rate: 1e-3}}",
        )
    warmup = round(recipe.warmup * steps)
    rest = max(1, steps - warmup)
    shapes: dict[str, Callable[[], optax.Schedule]] = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, alpha=recipe.end),
        "linear": lambda: optax.linear_schedule(peak, peak * recipe.end, rest),
    }
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(1, warmup)), shapes[recipe.schedule]()], [warmup])
