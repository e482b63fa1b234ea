"""Training: one run a seed, whole epochs compiled, resumable, the deployed seed chosen on validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax import lax

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.model import Inputs, Model, PyTree, predictor
from deploycheck.stages.training import Epoch, SeedReport, TrainingReport

CHECKPOINT_SHARE = 0.05
"""Checkpoints are spaced so that writing them takes about this share of the training time."""


@dataclass(frozen=True)
class Recipe:
    """How one run trains.

    ``loss`` is one of ``LOSSES``. ``optimizer`` is an optax optimiser's name and ``options`` its arguments.
    ``schedule`` is ``constant``, ``cosine`` or ``linear``; ``warmup`` is the share of all steps (0..1) over which
    the learning rate first rises from 0, ``end`` the share of the peak rate that remains at the last step. ``l1``
    and ``l2`` weigh the sum of absolute and of squared weights of every param with two or more axes (kernels, not
    biases). With ``watch`` the run stops after ``patience`` epochs without a better value and keeps its best epoch.
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


@dataclass(frozen=True)
class Run:
    """One finished training run: what to report of it, and the weights of its kept epoch."""

    report: SeedReport
    params: PyTree
    state: PyTree


@dataclass(frozen=True)
class _Progress:
    """A run between two epochs; ``best`` are the weights of epoch ``kept``."""

    params: PyTree
    state: PyTree
    optimizer: PyTree
    best: tuple[PyTree, PyTree]
    epochs: tuple[Epoch, ...]
    kept: int
    finished: bool

    def arrays(self) -> dict[str, Any]:
        return {
            "params": self.params, "state": self.state, "optimizer": self.optimizer,
            "best_params": self.best[0], "best_state": self.best[1],
        }  # fmt: skip


def best_run(runs: tuple[Run, ...]) -> Run:
    """Return the run to deploy: the highest validation accuracy, where there is one, then the lowest loss."""

    def merit(run: Run) -> tuple[float, float]:
        reached = run.report.validation
        return reached.validation_accuracy or 0.0, -reached.validation_loss

    return max(runs, key=merit)


def report_of(runs: tuple[Run, ...]) -> TrainingReport:
    """Return what all runs have to report."""
    return TrainingReport(tuple(run.report for run in runs), best_run(runs).report.seed)


def optimizer(recipe: Recipe, steps: int, where: str) -> optax.GradientTransformation:
    """Return the optax optimiser of the recipe for a run of ``steps`` steps."""
    options = dict(recipe.options)
    if recipe.schedule != "constant" or recipe.warmup:
        options["learning_rate"] = _schedule(recipe, steps, where)
    try:
        return getattr(optax, recipe.optimizer)(**options)
    except (AttributeError, TypeError, ValueError) as error:
        raise DeploycheckError(
            f"optax can't make the optimiser {recipe.optimizer}({dict(recipe.options)}): {error}", where=where
        ) from error


def _schedule(recipe: Recipe, steps: int, where: str) -> optax.Schedule:
    peak = recipe.options.get("learning_rate")
    if not isinstance(peak, int | float):
        raise DeploycheckError(
            f"a schedule needs the optimiser's learning_rate, {recipe.optimizer} has none",
            where=where,
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


def train(
    build: Callable[[int], Model],
    examples: Mapping[str, Examples],
    recipe: Recipe,
    seeds: tuple[int, ...],
    scratch: Path,
    report: Callable[[str], None],
    where: str,
) -> tuple[Run, ...]:
    """Train one model a seed on ``examples["train"]`` and validate on ``examples["validation"]``.

    ``examples`` are preprocessed. Checkpoints go to ``scratch``: a call that was killed goes on from the last.
    ``report`` is given a line of progress after every epoch.
    """
    first = build(seeds[0])
    _check_outputs(first, examples["train"], recipe, where)
    program = _compile(first, examples, recipe, where)
    runs = []
    for index, seed in enumerate(seeds):
        model = first if index == 0 else build(seed)
        title = f"train: seed {seed} ({index + 1} of {len(seeds)})"
        with _checkpoints(scratch / f"seed-{seed}") as manager:
            runs.append(_run(model, program, examples, recipe, seed, manager, title, report, where))
    return tuple(runs)


def _cross_entropy(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Return each example's cross-entropy in nats, ``[batch]``, of logits ``[batch, classes]``."""
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return losses


def _squared_error(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Return each example's squared error, ``[batch]``, of answers ``[batch, 1]``."""
    losses: jax.Array = optax.squared_error(outputs[:, 0], labels)
    return losses


LOSSES = {"cross_entropy": _cross_entropy, "squared_error": _squared_error}


def _check_outputs(model: Model, examples: Examples, recipe: Recipe, where: str) -> None:
    """Refuse a model whose output doesn't fit the labels, before it is trained.

    That is ``[batch, classes]`` with a class for every label, or ``[batch, 1]`` where labels are numbers.
    """
    example = {name: array[:2] for name, array in examples.inputs.items()}
    given = jax.eval_shape(model.apply, model.params, model.state, example)
    if not jax.tree_util.all_leaves([given]):
        what = f"the model gives a {type(given).__name__}, expected one array"
        raise DeploycheckError(what, where=where, hint="return what it answers alone")
    shape = given.shape
    if recipe.loss == "squared_error":
        if shape != (2, 1):
            what = f"for a batch of 2 the model gives {list(shape)}, expected a number for each: [2, 1]"
            raise DeploycheckError(what, where=where, hint="end the model in one output")
        return
    classes = int(examples.labels.max()) + 1
    if len(shape) != 2 or shape[0] != len(examples.labels[:2]) or shape[1] < classes:
        raise DeploycheckError(
            f"for a batch of 2 the model gives {list(shape)}, expected logits [2, {classes}] or more: the labels go "
            f"up to {classes - 1}",
            where=where,
            hint="end the model in one logit a class, without a softmax",
        )


@dataclass(frozen=True)
class _Program:
    """The compiled parts of a run, the same for every seed."""

    init: Callable[[PyTree], PyTree]
    epoch: Callable[..., tuple[tuple[PyTree, PyTree, PyTree], jax.Array]]
    predict: Callable[[PyTree, Mapping[str, np.ndarray]], np.ndarray]


def _compile(model: Model, examples: Mapping[str, Examples], recipe: Recipe, where: str) -> _Program:
    count = len(examples["train"])
    steps = recipe.epochs * (count // min(recipe.batch_size, count))
    transform = optimizer(recipe, steps, where)
    batch = min(recipe.batch_size, len(examples["validation"]))

    def infer(weights: PyTree, inputs: Inputs) -> jax.Array:
        params, state = weights
        return model.apply(params, state, inputs)

    return _Program(
        transform.init,
        _compile_epoch(model, transform, recipe, count),
        predictor(infer, batch),
    )


def _run(
    model: Model,
    program: _Program,
    examples: Mapping[str, Examples],
    recipe: Recipe,
    seed: int,
    manager: ocp.CheckpointManager,
    title: str,
    report: Callable[[str], None],
    where: str,
) -> Run:
    fresh = _Progress(model.params, model.state, program.init(model.params), (model.params, model.state), (), 0, False)
    progress = _restore(manager, fresh)
    if progress.epochs and not progress.finished:
        report(f"{title}: resumed after epoch {len(progress.epochs)}")
    key = jax.random.key(seed)
    inputs, labels = _on_device(examples["train"])
    started, first, saving, saved_at = time.monotonic(), len(progress.epochs), 0.0, time.monotonic()
    while not progress.finished:
        number = len(progress.epochs)
        carry = (progress.params, progress.state, progress.optimizer)
        carry, loss = program.epoch(carry, inputs, labels, jax.random.fold_in(key, number))
        epoch = Epoch(float(loss), *_validate(program, carry[:2], examples["validation"], recipe))
        if not math.isfinite(epoch.loss):
            raise DeploycheckError(
                f"seed {seed}: the training loss is {epoch.loss} in epoch {number + 1}",
                where=where,
                hint="lower the learning rate, or check the data for values that are not finite",
            )
        progress = _advance(progress, carry, epoch, recipe)
        now = time.monotonic()
        left = (now - started) / (number + 1 - first) * (recipe.epochs - number - 1)
        report(f"{title}: epoch {number + 1}/{recipe.epochs}, loss {epoch.loss:.4f}, {_told(epoch)}, {left:.0f} s left")
        if progress.finished or now - saved_at > saving / CHECKPOINT_SHARE:
            _save(manager, progress)
            saved_at = time.monotonic()
            saving = saved_at - now
    return Run(SeedReport(seed, progress.epochs, progress.kept), *progress.best)


def _advance(progress: _Progress, carry: tuple[PyTree, PyTree, PyTree], epoch: Epoch, recipe: Recipe) -> _Progress:
    """Return the run after one more epoch: what it keeps, and whether it is over."""
    epochs = (*progress.epochs, epoch)
    best, kept = (carry[0], carry[1]), len(epochs) - 1
    if recipe.watch and progress.epochs and not _better(epoch, epochs[progress.kept], recipe.watch):
        best, kept = progress.best, progress.kept
    patience_over = bool(recipe.watch) and len(epochs) - 1 - kept >= recipe.patience
    return _Progress(*carry, best, epochs, kept, finished=len(epochs) >= recipe.epochs or patience_over)


def _told(epoch: Epoch) -> str:
    if epoch.validation_accuracy is None:
        return f"validation loss {epoch.validation_loss:.4f}"
    return f"validation accuracy {epoch.validation_accuracy:.1%}"


def _better(epoch: Epoch, than: Epoch, watch: str) -> bool:
    if watch == "validation.accuracy":
        return (epoch.validation_accuracy or 0.0) > (than.validation_accuracy or 0.0)
    return epoch.validation_loss < than.validation_loss


def _on_device(examples: Examples) -> tuple[dict[str, jax.Array], jax.Array]:
    return {name: jnp.asarray(array) for name, array in examples.inputs.items()}, jnp.asarray(examples.labels)


def _compile_epoch(
    model: Model, transform: optax.GradientTransformation, recipe: Recipe, count: int
) -> Callable[..., tuple[tuple[PyTree, PyTree, PyTree], jax.Array]]:
    """Return the compiled epoch: shuffle, then one optimiser step a batch under ``lax.scan``.

    What does not fill a last batch is left out; the next epoch's shuffle leaves out something else.
    """
    batch = min(recipe.batch_size, count)
    steps = count // batch

    def loss(params: PyTree, state: PyTree, inputs: Any, labels: jax.Array, key: jax.Array) -> Any:
        outputs, state = model.train(params, state, inputs, key)
        fit = LOSSES[recipe.loss](outputs, labels).mean()
        return fit + _penalty(params, recipe), (fit, state)

    @jax.jit
    def epoch(carry: Any, inputs: Any, labels: jax.Array, key: jax.Array) -> Any:
        shuffle, dropout = jax.random.split(key)
        order = jax.random.permutation(shuffle, count)[: steps * batch].reshape(steps, batch)

        def step(carry: Any, now: Any) -> Any:
            rows, key = now
            params, state, optimizer = carry
            chosen = {name: array[rows] for name, array in inputs.items()}
            gradient, (fit, state) = jax.grad(loss, has_aux=True)(params, state, chosen, labels[rows], key)
            updates, optimizer = transform.update(gradient, optimizer, params)
            return (optax.apply_updates(params, updates), state, optimizer), fit

        carry, fits = lax.scan(step, carry, (order, jax.random.split(dropout, steps)))
        return carry, fits.mean()

    return epoch


def _penalty(params: PyTree, recipe: Recipe) -> jax.Array | float:
    if not recipe.l1 and not recipe.l2:
        return 0.0
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    absolute = sum(jnp.abs(kernel).sum() for kernel in kernels)
    squared = sum(jnp.square(kernel).sum() for kernel in kernels)
    return recipe.l1 * absolute + recipe.l2 * squared


def _validate(
    program: _Program, weights: tuple[PyTree, PyTree], examples: Examples, recipe: Recipe
) -> tuple[float, float | None]:
    """Return the mean loss and, where labels are classes, the accuracy (0..1) on the examples."""
    outputs = program.predict(weights, examples.inputs)
    loss = float(LOSSES[recipe.loss](jnp.asarray(outputs), jnp.asarray(examples.labels)).mean())
    if recipe.loss == "squared_error":
        return loss, None
    return loss, float(np.mean(np.argmax(outputs, axis=-1) == examples.labels))


@contextmanager
def _checkpoints(folder: Path) -> Iterator[ocp.CheckpointManager]:
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder.resolve(), options=options) as manager:
        yield manager


def _save(manager: ocp.CheckpointManager, progress: _Progress) -> None:
    facts = {
        "epochs": [vars(epoch) for epoch in progress.epochs], "kept": progress.kept, "finished": progress.finished,
    }  # fmt: skip
    manager.save(
        len(progress.epochs),
        args=ocp.args.Composite(arrays=ocp.args.StandardSave(progress.arrays()), facts=ocp.args.JsonSave(facts)),
    )


def _restore(manager: ocp.CheckpointManager, fresh: _Progress) -> _Progress:
    """Return the run as last saved, or ``fresh`` where nothing was."""
    latest = manager.latest_step()
    if latest is None:
        return fresh
    target = ocp.args.StandardRestore(fresh.arrays())
    saved = manager.restore(latest, args=ocp.args.Composite(arrays=target, facts=ocp.args.JsonRestore()))
    arrays, facts = saved["arrays"], saved["facts"]
    return _Progress(
        arrays["params"],
        arrays["state"],
        arrays["optimizer"],
        (arrays["best_params"], arrays["best_state"]),
        tuple(Epoch(**epoch) for epoch in facts["epochs"]),
        facts["kept"],
        facts["finished"],
    )
