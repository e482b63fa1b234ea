"""Whether the answer to an example depends on anything but the example: on its batch, the order, the padding.

A server puts the requests of several clients into one batch, and pads it. So a sample of the test examples is answered
again in other batches, and alone. ``docs/decisions/0015-answers-alone.md`` has the measurements behind the limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from deploycheck.serving.batching import batch_sizes
from deploycheck.serving.predict import BATCH
from deploycheck.serving.runtimes import Engine

SMALLER, FEW = 16, 11
"""A smaller batch size, and how many examples such a batch gets; the rest of it is padding."""
SIZES = (1, SMALLER, BATCH)
"""The batch sizes of the programs that answer a sample."""
PADDING = -1
"""In place of an example's row: a row of zeros, with which the engine pads."""

SAME_PROGRAM = 1e-5
"""How far an output may move in a batch of the same size, as a share of the largest output of the test split."""
OTHER_PROGRAM = 1e-3
"""The same for a batch of another size, for which XLA compiles another program, which may add in another order."""
ROUNDED = 0.1
"""The same where the program rounds to fewer bits than float32: a rounding that flips moves outputs further."""
MOST_CHANGED = 0.05
"""The share of the sample whose answers may change in another program, where the program rounds to fewer bits."""

Outputs = Mapping[str, np.ndarray]
Ask = Callable[[Sequence[int]], Outputs]
"""Answers a batch of examples, given by their rows in the test split: outputs by name, ``[len(rows), ...]``."""


@dataclass(frozen=True)
class Batch:
    """Rows of the test split that are answered together, and the positions among them that are compared."""

    rows: tuple[int, ...]
    compared: tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """Another way to batch the sample. ``limit`` is how far an output may move; None where answers are counted."""

    batches: tuple[Batch, ...]
    limit: float | None


@dataclass(frozen=True)
class Move:
    """An example's answer in a batch: how far it is from the evaluated one, and whether it is another answer."""

    batch: tuple[int, ...]
    position: int
    amount: float
    changed: bool

    @property
    def row(self) -> int:
        """The example's row in the test split."""
        return self.batch[self.position]


def find_dependence(
    engine: Engine, open_again: Callable[[Sequence[int]], Engine], examples: Path, answers: Path, *, classes: bool
) -> str:
    """Return what shows that an exported model's answers depend on their batch; empty where nothing does.

    ``engine`` is compiled for the batch sizes ``SIZES``; ``open_again`` returns one of the same model for others.
    ``examples`` and ``answers`` are the files that ``predict`` was given. With ``classes`` the answer to an example is
    the class of its highest output.
    """
    arrays, evaluated = load_file(examples), load_file(answers)
    inputs = {tensor.name: arrays[f"inputs/{tensor.name}"] for tensor in engine.signature.inputs}
    sample = choose_sample(len(next(iter(evaluated.values()))))
    moves = find_moves(_asking(engine.run, inputs), evaluated, trials(sample, engine.signature.rounds), classes=classes)
    if not moves:
        return ""
    return describe(_asking(open_again(batch_sizes(BATCH)).run, inputs), evaluated, moves, len(sample))


def _asking(run: Callable[[Mapping[str, np.ndarray]], Outputs], inputs: Mapping[str, np.ndarray]) -> Ask:
    padded = {name: np.concatenate([array, np.zeros_like(array[:1])]) for name, array in inputs.items()}
    return lambda rows: run({name: array[list(rows)] for name, array in padded.items()})


def choose_sample(count: int) -> tuple[int, ...]:
    """Return rows of the test split: one for each position of a batch, from any of the batches that were evaluated."""
    random = np.random.default_rng(0)
    return tuple(
        position + BATCH * int(random.integers(len(range(position, count, BATCH))))
        for position in range(min(count, BATCH))
    )


def trials(sample: tuple[int, ...], rounds: bool) -> Iterator[Trial]:
    """Yield the ways to batch the sample. ``rounds``: the program rounds to fewer bits than float32."""
    everyone = range(len(sample))
    padding = (PADDING,) * (BATCH - len(sample))
    halves = [[row if at % 2 == half else PADDING for at, row in enumerate(sample)] for half in (0, 1)]
    # At its own position an example goes through the same arithmetic, whatever the precision.
    yield Trial(
        tuple(Batch((*rows, *padding), tuple(everyone[half::2])) for half, rows in enumerate(halves)), SAME_PROGRAM
    )
    reverse = sample[::-1]
    yield Trial((Batch((*reverse, *padding), tuple(everyone)),), None if rounds else SAME_PROGRAM)
    for few in (FEW, 1):
        parts = [reverse[start : start + few] for start in range(0, len(reverse), few)]
        yield Trial(tuple(Batch(part, tuple(range(len(part)))) for part in parts), None if rounds else OTHER_PROGRAM)


def find_moves(ask: Ask, evaluated: Outputs, trials: Iterable[Trial], *, classes: bool) -> list[Move]:
    """Return the moves that are too far, or the changed answers if they are too many, of the first such trial."""
    scales = {name: _scale(array) for name, array in evaluated.items()}
    for trial in trials:
        moves = [move for batch in trial.batches for move in _moves(ask, evaluated, batch, scales, classes=classes)]
        if trial.limit is not None:
            found = [move for move in moves if move.amount > trial.limit]
            allowed = 0
        else:
            found = [move for move in moves if move.changed or move.amount > ROUNDED]
            allowed = math.ceil(MOST_CHANGED * len(moves))
        if len(found) > allowed:
            return found
    return []


def _moves(ask: Ask, evaluated: Outputs, batch: Batch, scales: Mapping[str, float], *, classes: bool) -> Iterator[Move]:
    outputs = ask(batch.rows)
    for position in batch.compared:
        before = {name: array[batch.rows[position]] for name, array in evaluated.items()}
        after = {name: outputs[name][position] for name in evaluated}
        changed = classes and any(np.argmax(before[name]) != np.argmax(after[name]) for name in before)
        yield Move(batch.rows, position, _distance(before, after, scales), changed)


def _scale(array: np.ndarray) -> float:
    """Return the largest finite output."""
    sizes = np.abs(array.astype(np.float64))
    return float(np.max(sizes, where=np.isfinite(sizes), initial=np.finfo(np.float32).tiny))


def _distance(one: Outputs, other: Outputs, scales: Mapping[str, float]) -> float:
    """Return the largest difference of two answers as a share of the scales; infinite where one is not finite."""
    return max(_difference(one[name], other[name]) / scales[name] for name in one)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    first, second = one.astype(np.float64), other.astype(np.float64)
    equal = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        difference = np.where(equal, 0.0, np.abs(first - second))
    return float(np.max(np.nan_to_num(difference, nan=np.inf), initial=0.0))


def describe(ask: Ask, evaluated: Outputs, moves: Sequence[Move], count: int) -> str:
    """Return the smallest batch that shows the dependence, in words; ``count`` is the size of the sample."""
    worst = max(moves, key=lambda move: move.amount)
    scales = {name: _scale(array) for name, array in evaluated.items()}
    alone = _answer(ask, (worst.row,), 0)

    def distance(batch: tuple[int, ...], position: int) -> float:
        return _distance(_answer(ask, batch, position), alone, scales)

    start = worst.row - worst.row % BATCH
    last = len(next(iter(evaluated.values())))
    as_evaluated = tuple(row if row < last else PADDING for row in range(start, start + BATCH))
    candidates = [(worst.batch, worst.position), (as_evaluated, worst.row - start)]
    batch, position = max(candidates, key=lambda candidate: distance(*candidate))
    limit = min(distance(batch, position) / 2, OTHER_PROGRAM)
    batch, position = _shrink(lambda *smaller: distance(*smaller) >= limit, batch, position)
    answer, of_copies = _answer(ask, batch, position), _answer(ask, (worst.row,) * len(batch), position)
    if _distance(answer, of_copies, scales) < limit / 2:
        beside = f"in a batch of {len(batch)}"
    else:
        beside = f"beside {_listed(batch[:position] + batch[position + 1 :])}"
    return (
        f"an answer depends on its batch: test example {worst.row} is answered {_shown(alone)} alone and "
        f"{_shown(answer)} {beside}; of {count} examples that were answered in other batches too, {len(moves)} got "
        "another answer"
    )


def _answer(ask: Ask, batch: Sequence[int], position: int) -> Outputs:
    return {name: array[position] for name, array in ask(batch).items()}


def _shrink(
    differs: Callable[[tuple[int, ...], int], bool], batch: tuple[int, ...], position: int
) -> tuple[tuple[int, ...], int]:
    """Leave out rows of a batch, many at first, as long as the answer at ``position`` differs; the order is kept."""
    chunk = len(batch) // 2
    while chunk:
        start = 0
        while start < len(batch):
            out = [at for at in range(start, min(start + chunk, len(batch))) if at != position]
            smaller = tuple(row for at, row in enumerate(batch) if at not in out)
            moved = position - sum(at < position for at in out)
            if out and len(smaller) > 1 and differs(smaller, moved):
                batch, position = smaller, moved
            else:
                start += chunk
        chunk //= 2
    return batch, position


def _listed(rows: Sequence[int]) -> str:
    """Return the other rows of a batch in words."""
    examples = [str(row) for row in rows if row != PADDING]
    padding = len(rows) - len(examples)
    words = []
    if examples:
        words.append(f"example{'s' if len(examples) > 1 else ''} {', '.join(examples)}")
    if padding:
        words.append(f"{padding} row{'s' if padding > 1 else ''} of zeros, as a server pads")
    return " and ".join(words)


def _shown(answer: Outputs) -> str:
    """Return the first numbers of an answer."""
    numbers = np.ravel(next(iter(answer.values())))
    return f"[{', '.join(f'{number:.6g}' for number in numbers[:3])}{', ...' if len(numbers) > 3 else ''}]"
