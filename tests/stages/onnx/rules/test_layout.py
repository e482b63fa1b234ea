"""Operators that move elements, read shapes or make arrays give what onnxruntime gives."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.evaluate import evaluate
from deploycheck.stages.onnx.file import graph_of
from tests.stages.onnx.comparing import check, floats, one_operator, whole

X = floats(2, 3, 4)
IMAGE = floats(2, 4, 4, 6)
CASES: dict[str, tuple[Any, ...]] = {
    "reshape": ("Reshape", X, whole(0, -1)),
    "reshape with a size of 0": ("Reshape", floats(0, 3), whole(3, 0), {"allowzero": 1}),
    "flatten": ("Flatten", X, {"axis": 2}),
    "flatten all": ("Flatten", X, {"axis": 0}),
    "flatten from the end": ("Flatten", X, {"axis": -1}),
    "transpose": ("Transpose", X, {"perm": [2, 0, 1]}),
    "transpose all": ("Transpose", X),
    "squeeze": ("Squeeze", X[:, :1], whole(1)),
    "squeeze all": ("Squeeze", X[:1, :, :1]),
    "unsqueeze": ("Unsqueeze", X, whole(0, -1)),
    "concat": ("Concat", X, 2 * X, {"axis": -2}),
    "slice": ("Slice", X, whole(1, -3), whole(2**62, -1), whole(1, 2)),
    "slice backwards": ("Slice", X, whole(-1), whole(-(2**62)), whole(2), whole(-2)),
    "slice all": ("Slice", X, whole(0, 1), whole(1, 3)),
    "expand": ("Expand", floats(3, 1), whole(2, 1, 4)),
    "tile": ("Tile", X, whole(1, 2, 3)),
    "pad": ("Pad", X, whole(0, 1, 0, 0, 0, 2), np.float32(7)),
    "pad some axes": ("Pad", X, whole(1, 2), None, whole(-1)),
    "pad and cut": ("Pad", X, whole(0, -1, 1, 0, 0, -2)),
    "pad by reflection": ("Pad", X, whole(0, 1, 0, 0, 0, 2), {"mode": "reflect"}),
    "pad by the edge": ("Pad", X, whole(0, 1, 0, 0, 0, 2), {"mode": "edge"}),
    "depth to space": ("DepthToSpace", IMAGE, {"blocksize": 2}),
    "depth to space by columns": ("DepthToSpace", IMAGE, {"blocksize": 2, "mode": "CRD"}),
    "space to depth": ("SpaceToDepth", IMAGE, {"blocksize": 2}),
    "shape": ("Shape", X),
    "part of a shape": ("Shape", X, {"start": 1, "end": -1}),
    "size": ("Size", X),
    "constant of a shape": (
        "ConstantOfShape",
        whole(2, 3),
        {"value": numpy_helper.from_array(np.array([7], np.int64))},
    ),
    "range": ("Range", np.array(3), np.array(11), np.array(3)),
    "range of floats": ("Range", np.float32(3), np.float32(0), np.float32(-0.75)),
    "identity matrix": ("EyeLike", floats(3, 4), {"k": 1}),
    "upper": ("Trilu", X, np.array(1)),
    "lower": ("Trilu", X, {"upper": 0}),
    "dropout": ("Dropout", X),
    "nearest": ("Resize", IMAGE, None, np.array([1, 1, 2, 2], "f"), {"coordinate_transformation_mode": "asymmetric"}),
    "nearest to a size": ("Resize", IMAGE, None, None, whole(2, 4, 12, 6)),
    "nearest of floor": (
        "Resize",
        IMAGE,
        None,
        np.array([1, 1, 3, 1], "f"),
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "linear": ("Resize", IMAGE, None, None, whole(2, 4, 6, 9), {"mode": "linear"}),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_an_operator_that_moves_elements(case: str) -> None:
    op, *operands = CASES[case]
    settings = operands.pop() if isinstance(operands[-1], dict) else {}
    made = op in ("ConstantOfShape", "Range")
    known = range(len(operands)) if made else [at for at in range(1, len(operands)) if operands[at] is not None]
    check(op, *operands, known=[] if op == "Concat" else list(known), **settings)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_slice_is_that_of_onnx(data: st.DataObject) -> None:
    end = st.integers(-7, 7)
    starts, ends = data.draw(st.tuples(end, end)), data.draw(st.tuples(end, end))
    steps = data.draw(st.tuples(*[st.integers(1, 3) | st.integers(-3, -1)] * 2))
    check("Slice", floats(2, 5, 4), whole(*starts), whole(*ends), whole(1, 2), whole(*steps), known=[1, 2, 3, 4])


def test_splits() -> None:
    check("Split", X, axis=2, num_outputs=3, outputs=3)
    check("Split", X, whole(1, 0, 2), known=[1], axis=1, outputs=3)
    check("Split", floats(4, 6), axis=1, opset=13, outputs=2)


@pytest.mark.parametrize(
    ("op", "operands", "settings", "says"),
    [
        ("Reshape", (X, whole(6, 4)), {}, "its node node \\(Reshape\\) can't be evaluated: its shape depends on"),
        ("ConstantOfShape", (whole(2**20, 2**20),), {"known": [0]}, "makes an array of 1,099,511,627,776 elements"),
        ("Expand", (X, whole(2**40, 2, 3, 4)), {"known": [1]}, "makes an array of"),
        ("Range", (np.array(0), np.array(2**40), np.array(1)), {"known": [0, 1, 2]}, "makes an array of"),
        ("Reshape", (X, whole(5, 5)), {"known": [1]}, "its node node \\(Reshape\\) can't be evaluated"),
        ("Resize", (IMAGE, None, np.array([1, 1, 2.5, 1], "f")), {"known": [2]}, "nearest by 1, 1, 2.5, 1 with"),
        ("Dropout", (X, None, np.array(True)), {"known": [2]}, "it is in training mode"),
    ],
)
def test_what_cannot_be_evaluated_names_the_node(
    op: str, operands: tuple[Any, ...], settings: dict[str, Any], says: str
) -> None:
    model, inputs = one_operator(op, *operands, **settings)
    graph = graph_of(model)
    with pytest.raises(DeploycheckError, match=says):
        jax.eval_shape(lambda given: evaluate(graph, given), inputs)
