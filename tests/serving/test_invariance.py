from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.serving.invariance import (
    BATCH,
    PADDING,
    Ask,
    Move,
    Outputs,
    choose_sample,
    describe,
    find_moves,
    trials,
)

COUNT = 150
X = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)

Model = Callable[[np.ndarray], np.ndarray]


def asking(model: Model) -> Ask:
    """Answer as an engine does: a batch is padded with zeros to the next compiled size."""

    def ask(rows: Sequence[int]) -> Outputs:
        x = np.concatenate([X, np.zeros((1, 3), np.float32)])[list(rows)]
        size = next(size for size in (1, 2, 4, 8, 16, BATCH) if size >= len(x))
        padded = np.concatenate([x, np.zeros((size - len(x), 3), np.float32)])
        return {"logits": model(padded)[: len(x)]}

    return ask


def evaluate(model: Model, count: int = COUNT) -> Outputs:
    rows = [*range(count), *[PADDING] * (-count % BATCH)]
    parts = [asking(model)(rows[start : start + BATCH])["logits"] for start in range(0, count, BATCH)]
    return {"logits": np.concatenate(parts)[:count]}


def moves_of(model: Model, *, rounds: bool = False, classes: bool = True, count: int = COUNT) -> list[Move]:
    sample = choose_sample(count)
    return find_moves(asking(model), evaluate(model, count), trials(sample, rounds), classes=classes)


def explained(model: Model, *, rounds: bool = False) -> str:
    return describe(asking(model), evaluate(model), moves_of(model, rounds=rounds), BATCH)


def by_batch(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=0)


def by_highest(x: np.ndarray) -> np.ndarray:
    return x - x.max(axis=0)


def by_neighbour(x: np.ndarray) -> np.ndarray:
    return x + np.float32(1e-3) * np.roll(x, 1, axis=0)


def by_those_before(x: np.ndarray) -> np.ndarray:
    return np.cumsum(x, axis=0)


def by_position(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.arange(len(x), dtype=np.float32)[:, None] / 500)


def by_size(x: np.ndarray) -> np.ndarray:
    return x / len(x)


def by_random_mask(x: np.ndarray) -> np.ndarray:
    return x * (np.random.default_rng(1).random(x.shape) < 0.9)


DEPENDENT = [by_batch, by_highest, by_neighbour, by_those_before, by_position, by_size, by_random_mask]


@pytest.mark.parametrize("model", DEPENDENT)
@pytest.mark.parametrize("count", [2, 50, COUNT])
def test_answers_that_depend_on_their_batch_are_found(model: Model, count: int) -> None:
    assert moves_of(model, count=count) or (model, count) == (by_position, 2)


@pytest.mark.parametrize("count", [1, 50, BATCH, COUNT])
@pytest.mark.parametrize("rounds", [False, True])
def test_answers_that_depend_on_their_example_alone_are_accepted(rounds: bool, count: int) -> None:
    assert moves_of(lambda x: np.tanh(x), rounds=rounds, count=count) == []


def test_missing_and_infinite_outputs_are_equal_to_themselves() -> None:
    assert moves_of(lambda x: np.where(x > 1, np.nan, np.where(x < -1, np.inf, x))) == []


def test_an_output_that_becomes_missing_is_found() -> None:
    assert moves_of(lambda x: np.where(len(x) == 1, np.nan, x))


def test_differences_as_of_another_float32_program_are_accepted() -> None:
    assert moves_of(lambda x: x * np.float32(1 + 1e-5 * len(x))) == []
    assert moves_of(lambda x: x * np.float32(1 + 5e-5 * len(x)))


def quantized(x: np.ndarray) -> np.ndarray:
    """Rounded in coarse steps, at another place in each size of batch."""
    step = np.float32(0.05)
    return np.round(x / step + (0.3 if len(x) < BATCH else 0)).astype(np.float32) * step


def test_roundings_that_flip_in_another_program_are_accepted_where_the_program_rounds() -> None:
    assert moves_of(quantized)
    assert moves_of(quantized, rounds=True) == []


def test_a_program_that_rounds_may_not_answer_by_its_neighbours() -> None:
    assert moves_of(by_neighbour, rounds=True)


def test_a_program_that_rounds_may_change_few_answers() -> None:
    def changing(most: float) -> Model:
        return lambda x: np.where((len(x) == 1) & (x[:, :1] > most), -x, x)

    highest = np.sort(X[list(choose_sample(COUNT)), 0])
    assert moves_of(changing(float(highest[-4])), rounds=True) == []
    assert len(moves_of(changing(float(highest[-6])), rounds=True)) == 5


def test_a_changed_class_counts_however_small_the_difference() -> None:
    def near_tie(x: np.ndarray) -> np.ndarray:
        return np.stack([np.ones(len(x)), np.full(len(x), 0.999 if len(x) == BATCH else 1.001)], axis=1)

    assert moves_of(near_tie, rounds=True, classes=True)
    assert moves_of(near_tie, rounds=True, classes=False) == []


@pytest.mark.parametrize("model", [by_batch, by_neighbour, by_those_before])
def test_the_smallest_batch_that_shows_it_is_named(model: Model) -> None:
    said = explained(model)
    found = re.fullmatch(
        r"an answer depends on its batch: test example (\d+) is answered \[(.*)\] alone and \[(.*)\] "
        r"beside (example \d+|1 row of zeros, as a server pads); of 64 examples .*, (\d+) got another answer",
        said,
    )
    assert found, said
    alone = [float(number) for number in found[2].split(", ")]
    np.testing.assert_allclose(alone, model(X[[int(found[1])]])[0], rtol=1e-4, atol=1e-6)
    assert found[2] != found[3]


def test_an_answer_that_depends_on_the_size_of_its_batch_blames_no_neighbour() -> None:
    assert re.search(r" in a batch of 2; of 64 ", explained(by_size))


@given(st.integers(1, 1000))
def test_the_sample_has_one_example_of_each_position(count: int) -> None:
    sample = choose_sample(count)
    assert [row % BATCH for row in sample] == list(range(min(count, BATCH)))
    assert max(sample) < count


@given(st.integers(1, 300), st.booleans())
def test_every_trial_compares_each_example_of_the_sample_once(count: int, rounds: bool) -> None:
    sample = choose_sample(count)
    for trial in trials(sample, rounds):
        compared = [batch.rows[position] for batch in trial.batches for position in batch.compared]
        assert sorted(compared) == sorted(sample)
        assert all(len(batch.rows) <= BATCH for batch in trial.batches)
    assert any(PADDING in batch.rows for trial in trials(sample, rounds) for batch in trial.batches)
