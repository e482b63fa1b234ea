"""Look-ups, reductions and sums so far give what onnxruntime gives."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stages.onnx.comparing import check, floats, whole

X = floats(3, 4, 5)


def test_gather_by_known_and_computed_indices() -> None:
    check("Gather", X, whole(2, -1, 0), axis=1)
    check("Gather", X, np.array([[0, 1], [-1, 2]]), axis=0)
    check("Gather", X, np.array(-1), known=[1], axis=2)
    check("Gather", X, whole(1, 3), known=[1], axis=1)
    check("Gather", X, whole(1, -3), known=[0], axis=1)


def test_gather_elements_and_nd() -> None:
    check("GatherElements", X, np.array([[[0, -1, 2, 1, 0]]] * 3), axis=1)
    check("GatherND", X, np.array([[0, 1], [2, -1]]))
    check("GatherND", X, np.array([[1], [0], [3]]), batch_dims=1)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
def test_scatter(reduction: str) -> None:
    check("ScatterND", X, np.array([[0], [-1]]), floats(2, 4, 5, seed=1), reduction=reduction)
    places, updates = np.array([[[0, 1, 2, 3, 0]]]), floats(1, 1, 5, seed=2)
    check("ScatterElements", X, places, updates, axis=1, reduction=reduction)


def test_one_hot_and_top_k() -> None:
    check("OneHot", whole(0, 2, -1), whole(4), np.array([0, 5], np.float32), known=[1], axis=0)
    for largest in (0, 1):
        check("TopK", X, whole(2), known=[1], axis=1, largest=largest, outputs=2)
        check("TopK", whole(5, -(2**31), 3, 2**31 - 1), whole(3), known=[1], largest=largest, outputs=2)


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction(name: str) -> None:
    x = np.abs(X) + 0.1 if name == "LogSum" else X
    check(f"Reduce{name}", x, whole(-1, 0), known=[1], keepdims=0)
    check(f"Reduce{name}", x)
    check(f"Reduce{name}", x, known=[], noop_with_empty_axes=1)
    if name != "Sum":  # whose axes were an input before
        check(f"Reduce{name}", x, opset=13, axes=[1])


def test_places_of_extremes() -> None:
    tied = np.array([[1, 3, 3], [2, 2, 0]], np.float32)
    for op in ("ArgMax", "ArgMin"):
        check(op, tied, axis=1)
        check(op, tied, axis=0, keepdims=0, select_last_index=1)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_sums_so_far(exclusive: int, reverse: int) -> None:
    check("CumSum", X, np.array(1), known=[1], exclusive=exclusive, reverse=reverse)
