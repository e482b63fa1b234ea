"""Training: one run per seed, whole epochs compiled, resumable, the deployed seed chosen on validation."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax import lax

from deploycheck.errors import DeploycheckError, located
from deploycheck.stages.checkpoints import Progress, checkpoints, restore, save
from deploycheck.stages.examples import Examples
from deploycheck.stages.lowering import lowered
from deploycheck.stages.model import Model, PyTree, predictor
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.recipe import Recipe, optimizer, rates_of, with_rates
from deploycheck.stages.tasks import Loss, Task
from deploycheck.stages.training import Epoch, SeedReport, TrainingReport

CHECKPOINT_SHARE = 0.05
"""Checkpoints are spaced so that writing them takes about this share of the training time."""


class Diverged(DeploycheckError):
    """A loss or a score is not finite."""


def unobserved(epoch: Epoch) -> None:
    """Do nothing with an epoch."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all runs of a training share.

    ``examples`` has ``train`` and ``validation``, preprocessed. ``loss(outputs, targets)`` gives each example's loss.
    ``targets`` are arrays, or trees of arrays, ``[n, ...]``, by split; those of a split that is left out are its
    labels. ``constraint`` changes the optimiser's updates last. ``labels`` are those of further splits, which the
    model's outputs must fit as they must fit those of ``examples``. ``auxiliary`` are outputs besides the task's, for
    the loss alone. ``observe`` is called with each epoch in turn, also with those before a checkpoint; what it raises
    ends the training.
    """

    examples: Mapping[str, Examples]
    task: Task
    recipe: Recipe
    loss: Loss
    targets: Mapping[str, PyTree] = field(default_factory=dict)
    constraint: optax.GradientTransformation = field(default_factory=optax.identity)
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    auxiliary: frozenset[str] = frozenset()
    observe: Callable[[Epoch], None] = unobserved

    def targets_of(self, split: str) -> PyTree:
        """Return the targets of a split on the device."""
        return jax.tree.map(jnp.asarray, self.targets.get(split, self.examples[split].labels))

    @property
    def batch(self) -> int:
        """How many examples one step trains on."""
        return min(self.recipe.batch_size, len(self.examples["train"]))

    @property
    def steps(self) -> int:
        """How many steps an epoch has; examples that don't fill a last batch are left out of it."""
        return len(self.examples["train"]) // self.batch


@dataclass(frozen=True)
class Run:
    """One finished training run: what to report of it, and the weights of its kept epoch."""

    report: SeedReport
    params: PyTree
    state: PyTree


def best_run(runs: tuple[Run, ...]) -> Run:
    """Return the run to deploy: the best scores on validation, in the task's order, then the lowest loss."""
    return max(runs, key=lambda run: run.report.kept_epoch.merit)


def report_of(runs: tuple[Run, ...]) -> TrainingReport:
    """Return what to report of a training."""
    return TrainingReport(tuple(run.report for run in runs), best_run(runs).report.seed)


def train(
    build: Callable[[int], Model], job: Job, seeds: tuple[int, ...], scratch: Path, progress: Callable[[str], None]
) -> tuple[Run, ...]:
    """Train one model per seed and validate it after every epoch.

    Checkpoints are in ``scratch``: after a kill, another call continues from the latest. ``progress`` is called with
    one line after every epoch.
    """
    first = build(seeds[0])
    _check_model(first, job)
    program = _compile(first, job)
    runs = []
    for index, seed in enumerate(seeds):
        model = first if index == 0 else build(seed)
        title = f"train: seed {seed} ({index + 1} of {len(seeds)})"
        with checkpoints(scratch / f"seed-{seed}") as manager:
            runs.append(_run(model, program, job, seed, manager, _titled(title, progress)))
    return tuple(runs)


def fit(model: Model, job: Job, seed: int, scratch: Path, progress: Callable[[str], None]) -> Model:
    """Train a model further, from its own weights; return it with those of the epoch that is kept."""
    _check_model(model, job)
    with checkpoints(scratch) as manager:
        run = _run(model, _compile(model, job), job, seed, manager, progress)
    return replace(model, params=run.params, state=run.state)


def _titled(title: str, progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: progress(f"{title}: {line}")


def _check_model(model: Model, job: Job) -> None:
    """Refuse a model that can't be trained, or whose outputs don't fit the labels, before it is trained."""
    labels = {name: part.labels for name, part in job.examples.items()} | dict(job.labels)
    check_outputs(model, job.task, labels, job.auxiliary)
    for split, targets in job.targets.items():
        _check_targets(split, targets, len(job.examples[split]))
    jax.eval_shape(model.train, model.params, model.state, dict(model.inputs), jax.random.key(0))


def check_outputs(model: Model, task: Task, labels: Mapping[str, np.ndarray], auxiliary: Collection[str] = ()) -> None:
    """Raise ``DeploycheckError`` where a model's outputs don't fit the labels, ``[n]``, of a split.

    ``auxiliary`` are outputs that aren't the task's.
    """
    answer = jax.eval_shape(model.apply, model.params, model.state, dict(model.inputs))
    shapes = {name: part for name, part in answer.items() if name not in auxiliary}
    for split, those in labels.items():
        with located(f"labels of the {split} split"):
            task.check(shapes, those)


def _check_targets(split: str, targets: PyTree, count: int) -> None:
    """Refuse targets of which an example would have none; JAX would take another example's."""
    lengths = {len(array) for array in jax.tree.leaves(targets)}
    if lengths != {count}:
        found = ", ".join(map(str, sorted(lengths))) or "none"
        raise DeploycheckError(f"the {split} split has {count} examples, and its targets are for {found}")


@dataclass(frozen=True)
class _Program:
    """The compiled parts of a run, the same for every seed."""

    init: Callable[[PyTree], PyTree]
    epoch: Callable[..., tuple[tuple[PyTree, PyTree, PyTree], jax.Array]]
    predict: Callable[[PyTree, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def _compile(model: Model, job: Job) -> _Program:
    batch = min(job.recipe.batch_size, len(job.examples["validation"]))

    def infer(weights: PyTree, inputs: Inputs) -> Outputs:
        params, state = weights
        return model.apply(params, state, inputs)

    return _Program(transform_of(job, job.recipe).init, compile_epoch(model, job), predictor(infer, batch))


def transform_of(job: Job, recipe: Recipe) -> optax.GradientTransformation:
    """Return the optimiser of a recipe, with what constrains its updates."""
    return optax.chain(optimizer(recipe, recipe.epochs * job.steps), job.constraint)


def _run(
    model: Model,
    program: _Program,
    job: Job,
    seed: int,
    manager: ocp.CheckpointManager,
    say: Callable[[str], None],
) -> Run:
    recipe = job.recipe
    fresh = Progress(
        params=model.params,
        state=model.state,
        optimizer=program.init(model.params),
        best=(model.params, model.state),
    )
    progress = restore(manager, fresh)
    if progress.epochs and not progress.finished:
        say(f"resumed after epoch {len(progress.epochs)}")
    for epoch in progress.epochs:
        job.observe(epoch)
    key = jax.random.key(seed)
    inputs = {name: jnp.asarray(array) for name, array in job.examples["train"].inputs.items()}
    targets = job.targets_of("train")
    started, first, saving, saved_at = time.monotonic(), len(progress.epochs), 0.0, time.monotonic()
    # A copy, because each epoch is given the arrays of the one before it for its own, and the model keeps its weights.
    carry = _copy((progress.params, progress.state, progress.optimizer))
    while not progress.finished:
        number = len(progress.epochs)
        carry, loss = program.epoch(carry, inputs, targets, jax.random.fold_in(key, number), rates_of(recipe))
        epoch = Epoch(float(loss), *_validate(program, carry[:2], job))
        for name, value in epoch.values.items():
            if not math.isfinite(value):
                raise Diverged(
                    f"seed {seed}: the {name} is {value} in epoch {number + 1}",
                    hint="lower the learning rate, or check the data for values that are not finite",
                )
        progress = _advance(progress, carry, epoch, recipe)
        now = time.monotonic()
        left = (now - started) / (number + 1 - first) * (recipe.epochs - number - 1)
        say(f"epoch {number + 1}/{recipe.epochs}, loss {epoch.loss:.4f}, {_shown(epoch)}, {left:.0f} s left")
        if progress.finished or now - saved_at > saving / CHECKPOINT_SHARE:
            save(manager, progress)
            saved_at = time.monotonic()
            saving = saved_at - now
        job.observe(epoch)
    best_params, best_state = progress.best
    return Run(SeedReport(seed, progress.epochs, progress.kept), best_params, best_state)


def _advance(progress: Progress, carry: tuple[PyTree, PyTree, PyTree], epoch: Epoch, recipe: Recipe) -> Progress:
    """Return the run after one more epoch: the weights that it keeps, and whether it is finished."""
    params, state, optimizer_state = carry
    epochs = (*progress.epochs, epoch)
    if recipe.watch and progress.epochs and not _is_better(epoch, epochs[progress.kept], recipe.watch):
        best, kept = progress.best, progress.kept
    else:
        best, kept = _copy((params, state)), len(epochs) - 1
    patience_over = bool(recipe.watch) and len(epochs) - 1 - kept >= recipe.patience
    return Progress(
        params=params,
        state=state,
        optimizer=optimizer_state,
        best=best,
        epochs=epochs,
        kept=kept,
        finished=len(epochs) >= recipe.epochs or patience_over,
    )


def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


def _shown(epoch: Epoch) -> str:
    """Return what an epoch reached on validation, for a line of progress."""
    if not epoch.scores:
        return f"validation loss {epoch.validation_loss:.4f}"
    return ", ".join(f"validation {name} {value:.1%}" for name, value in epoch.scores.items())


def _is_better(epoch: Epoch, than: Epoch, watch: str) -> bool:
    name = watch.removeprefix("validation.")
    if name == "loss":
        return epoch.validation_loss < than.validation_loss
    return epoch.scores[name] > than.scores[name]


def compile_epoch(model: Model, job: Job) -> Callable[..., tuple[tuple[PyTree, PyTree, PyTree], jax.Array]]:
    """Return the compiled epoch: shuffle, then one optimiser step per batch under ``lax.scan``.

    Examples that don't fill a last batch are left out; the next epoch's shuffle leaves out others. The first argument
    (params, state, the optimiser's state) can't be used again: its memory becomes that of the results. The rates are
    inputs, so that trainings that differ in nothing else are one program, which XLA compiles once.
    """
    count, batch, steps = len(job.examples["train"]), job.batch, job.steps
    penalized = bool(job.recipe.l1 or job.recipe.l2)
    forward = lowered(model.train)

    def loss(params: PyTree, state: PyTree, inputs: Any, targets: PyTree, key: jax.Array, rates: Any) -> Any:
        outputs, state = forward(params, state, inputs, key)
        fit = job.loss(outputs, targets).mean()
        return (fit + _penalty(params, rates) if penalized else fit), (fit, state)

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(carry: Any, inputs: Any, targets: PyTree, key: jax.Array, rates: Mapping[str, Any]) -> Any:
        transform = transform_of(job, with_rates(job.recipe, rates))
        shuffle, dropout = jax.random.split(key)
        order = jax.random.permutation(shuffle, count)[: steps * batch].reshape(steps, batch)

        def step(carry: Any, now: Any) -> Any:
            rows, key = now
            params, state, optimizer = carry
            chosen = jax.tree.map(lambda array: array[rows], (inputs, targets))
            gradient, (fit, state) = jax.grad(loss, has_aux=True)(params, state, *chosen, key, rates)
            updates, optimizer = transform.update(gradient, optimizer, params)
            return (optax.apply_updates(params, updates), state, optimizer), fit

        carry, fits = lax.scan(step, carry, (order, jax.random.split(dropout, steps)))
        return carry, fits.mean()

    return epoch


def _penalty(params: PyTree, rates: Mapping[str, Any]) -> jax.Array:
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    absolute = sum(jnp.abs(kernel).sum() for kernel in kernels)
    squared = sum(jnp.square(kernel).sum() for kernel in kernels)
    penalty: jax.Array = rates["l1"] * absolute + rates["l2"] * squared
    return penalty


def _validate(program: _Program, weights: tuple[PyTree, PyTree], job: Job) -> tuple[float, dict[str, float]]:
    """Return the mean loss and the task's scores on the validation split."""
    examples = job.examples["validation"]
    outputs = program.predict(weights, examples.inputs)
    on_device = {name: jnp.asarray(array) for name, array in outputs.items()}
    loss = float(job.loss(on_device, job.targets_of("validation")).mean())
    return loss, dict(job.task.scores(outputs, examples.labels))
