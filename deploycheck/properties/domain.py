"""What a model is asked: inputs near the examples, and anywhere in the ranges that the data have.

A row begins with an example of the test split, with the lowest or highest value of every feature, or with random
values in their ranges; then some features are changed. Hypothesis shrinks a row towards the first example without
changes, so that the smallest input that shows a fault can be read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from deploycheck.lazy import np

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from deploycheck.language.fields import Section

MOST_ROWS = 8
"""The largest batch that is drawn."""
MOST_CHANGES = 4
MOST_SHOWN = 16
"""An input of at most this many values is shown with all of them."""
LOWEST, HIGHEST = "lowest", "highest"


@dataclass(frozen=True, eq=False)
class InputDomain:
    """One input. ``examples`` are ``[n, ...]``, of the test split.

    ``low`` and ``high`` are the lowest and highest finite value of each feature in the data, ``[...]``; ``missing``
    says which features are missing (NaN) in some example, ``[...]`` of bool. ``takes_missing`` says that the model
    takes such values: by its signature, whatever the data have.
    """

    examples: np.ndarray
    low: np.ndarray
    high: np.ndarray
    missing: np.ndarray
    takes_missing: bool = False

    def at(self, level: np.ndarray) -> np.ndarray:
        """Return the values at ``level`` of each feature's range: 0 is the lowest, 1 the highest; NaN is missing."""
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        return cast_like(low + level * (high - low), self.examples)


@dataclass(frozen=True, eq=False)
class Domain:
    """The inputs of a model by name, and the largest batch that it is asked."""

    inputs: Mapping[str, InputDomain]
    largest: int = MOST_ROWS

    @property
    def examples(self) -> int:
        """How many examples the test split has."""
        return len(next(iter(self.inputs.values())).examples)


def make_domain(
    test: Mapping[str, np.ndarray],
    others: Iterable[Mapping[str, np.ndarray]],
    largest: int,
    takes_missing: Collection[str] = (),
) -> Domain:
    """Return the domain of a model: ``test`` are the inputs of the test split, ``others`` those of the other splits.

    ``takes_missing`` names the inputs in which the model takes missing values.
    """
    splits = [test, *others]
    inputs = {
        name: replace(_input_domain(test[name], [split[name] for split in splits]), takes_missing=name in takes_missing)
        for name in test
    }
    return Domain(inputs, min(largest, MOST_ROWS))


def _input_domain(test: np.ndarray, splits: list[np.ndarray]) -> InputDomain:
    if test.dtype.kind != "f":
        low, high = (of([of(part, axis=0) for part in splits], axis=0) for of in (np.min, np.max))
        return InputDomain(test, low, high, np.zeros(test.shape[1:], bool))
    finite = [np.isfinite(part) for part in splits]
    none = ~np.any([mask.any(axis=0) for mask in finite], axis=0)
    low = np.min([np.min(part, axis=0, initial=np.inf, where=at) for part, at in zip(splits, finite, strict=True)], 0)
    high = np.max([np.max(part, axis=0, initial=-np.inf, where=at) for part, at in zip(splits, finite, strict=True)], 0)
    missing = np.any([np.isnan(part).any(axis=0) for part in splits], axis=0)
    return InputDomain(test, np.where(none, 0, low), np.where(none, 0, high), missing)


def cast_like(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return values in the dtype of another array; whole numbers are rounded, and kept in the dtype's range."""
    if like.dtype.kind == "b":
        return values >= 0.5
    if like.dtype.kind == "f":
        return values.astype(like.dtype)
    ends = np.iinfo(like.dtype)
    return np.clip(np.rint(values.astype(np.float64)), ends.min, ends.max).astype(like.dtype)


@dataclass(frozen=True)
class Random:
    """A row of random values, each uniform in its feature's range."""

    seed: int


@dataclass(frozen=True)
class Change:
    """One feature set to ``level`` of its range (0..1), or missing where ``level`` is None.

    ``feature`` counts through the input's values in row-major order.
    """

    input: str
    feature: int
    level: float | None


@dataclass(frozen=True)
class Row:
    """One example to ask: ``base`` is the number of a test example, all features at one end, or random values."""

    base: int | str | Random
    changes: tuple[Change, ...] = ()

    def values(self, domain: Domain) -> dict[str, np.ndarray]:
        """Return each input of the row, ``[...]``."""
        found = {name: _base(self.base, each, name) for name, each in domain.inputs.items()}
        for change in self.changes:
            each = domain.inputs[change.input]
            level = np.full(each.low.shape, np.nan if change.level is None else change.level)
            found[change.input].flat[change.feature] = each.at(level).flat[change.feature]
        return found

    def describe(self, domain: Domain) -> str:
        """Return the row in words."""
        words = {LOWEST: "the lowest value of each feature", HIGHEST: "the highest value of each feature"}
        match self.base:
            case Random(seed):
                text = f"random values (seed {seed})"
            case str(end):
                text = words[end]
            case number:
                text = f"test example {number}"
        values = self.values(domain)
        changes = [_shown(change, values[change.input]) for change in self.changes]
        text += f" with {', '.join(changes)}" if changes else ""
        small = sum(array.size for array in values.values()) <= MOST_SHOWN
        inputs = "; ".join(f"{name} = {_numbers(array)}" for name, array in values.items())
        return f"{text} ({inputs})" if small else text


def _base(base: int | str | Random, domain: InputDomain, name: str) -> np.ndarray:
    """Return an array of its own, ``[...]``: also for the shape [], where NumPy would give a scalar."""
    match base:
        case Random(seed):
            random = np.random.default_rng([seed, *name.encode()])
            return np.array(domain.at(random.uniform(size=domain.low.shape)))
        case str(end):
            return np.array(domain.at(np.full(domain.low.shape, float(end == HIGHEST))))
    return np.array(domain.examples[base])


def _shown(change: Change, values: np.ndarray) -> str:
    return f"{feature_name(change.input, change.feature, values.shape)} = {values.flat[change.feature]:.6g}"


def feature_name(name: str, feature: int, shape: tuple[int, ...]) -> str:
    """Return how a feature is written: ``image[3, 4]``."""
    return f"{name}{[int(part) for part in np.unravel_index(feature, shape)]}" if shape else name


def _numbers(array: np.ndarray) -> str:
    return str(np.array2string(array, separator=", ", threshold=MOST_SHOWN, precision=6)).replace("\n", "")


@dataclass(frozen=True)
class Batch:
    """Some rows that are asked together."""

    rows: tuple[Row, ...]
    domain: Domain = field(repr=False, compare=False)

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """Each input by name, ``[rows, ...]``."""
        rows = [row.values(self.domain) for row in self.rows]
        return {name: np.stack([row[name] for row in rows]) for name in self.domain.inputs}

    def __str__(self) -> str:
        if len(self.rows) == 1:
            return self.rows[0].describe(self.domain)
        return f"a batch of {len(self.rows)}: " + "; ".join(
            f"[{number}] {row.describe(self.domain)}" for number, row in enumerate(self.rows)
        )


def rows(domain: Domain) -> SearchStrategy[Row]:
    """Return the strategy of one row."""
    from hypothesis import strategies as st

    base = st.one_of(
        st.integers(0, domain.examples - 1),
        st.sampled_from([LOWEST, HIGHEST]),
        st.builds(Random, st.integers(0, 2**16)),
    )
    some = st.lists(changes(domain), max_size=MOST_CHANGES, unique_by=lambda each: (each.input, each.feature))
    return st.builds(Row, base, some.map(tuple))


def changes(domain: Domain) -> SearchStrategy[Change]:
    """Return the strategy of one change; a feature without a range (one value in all data) isn't changed often."""
    from hypothesis import strategies as st

    level = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))

    def of(name: str) -> SearchStrategy[Change]:
        each = domain.inputs[name]
        features = np.flatnonzero(each.high > each.low).tolist() or list(range(each.low.size))
        change = st.builds(Change, st.just(name), st.sampled_from(features), level)
        absent = np.flatnonzero(each.missing).tolist()
        if not absent:
            return change
        return st.one_of(change, st.builds(Change, st.just(name), st.sampled_from(absent), st.none()))

    return st.sampled_from([name for name, each in domain.inputs.items() if each.low.size]).flatmap(of)


def batches(domain: Domain, settings: Any) -> SearchStrategy[Batch]:
    """Return the strategy of a batch of one row or more."""
    del settings
    return batches_of(domain, 1, domain.largest)


def batches_of(domain: Domain, least: int, most: int) -> SearchStrategy[Batch]:
    """Return the strategy of a batch of ``least`` to ``most`` rows."""
    from hypothesis import strategies as st

    return st.lists(rows(domain), min_size=least, max_size=most).map(lambda drawn: Batch(tuple(drawn), domain))


def several_rows(domain: Domain, settings: Section) -> SearchStrategy[Batch]:
    """Return the strategy of a batch of two rows or more, for properties that compare rows with each other."""
    del settings
    return batches_of(domain, min(2, domain.largest), domain.largest)


def example_rows(domain: Domain) -> SearchStrategy[Row]:
    """Return the strategy of an unchanged test example."""
    from hypothesis import strategies as st

    return st.builds(Row, st.integers(0, domain.examples - 1))
