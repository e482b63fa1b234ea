"""Arithmetic and activations give what onnxruntime gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploycheck.stages.onnx.rules.elementwise import UNARY
from tests.stages.onnx.comparing import check, floats

X = floats(3, 4)
POSITIVE = {"Log", "Sqrt", "Acosh"}
WITHIN_ONE = {"Acos", "Asin", "Atanh"}
OTHER_TYPES = {"Not": np.array([True, False]), "BitwiseNot": np.array([3, -4], "int32")}


@pytest.mark.parametrize("op", sorted(UNARY))
def test_a_function_of_one_number(op: str) -> None:
    x = np.abs(X) + 1 if op in POSITIVE else np.tanh(X) / 1.1 if op in WITHIN_ONE else X
    x = np.array([0.5, 1.5, -2.5, np.nan], np.float32) if op in ("Round", "IsNaN") else x
    check(op, OTHER_TYPES.get(op, x))


ACTIVATIONS = {
    "Celu": {"alpha": 0.7},
    "Elu": {"alpha": 0.7},
    "Erf": {},
    "Gelu": {"approximate": "tanh"},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "HardSwish": {},
    "Hardmax": {"axis": 0},
    "IsInf": {"detect_negative": 0},
    "LeakyRelu": {"alpha": 0.2},
    "LogSoftmax": {},
    "Mish": {},
    "Reciprocal": {},
    "Relu": {},
    "Selu": {},
    "Shrink": {"bias": 0.2, "lambd": 0.6},  # ONNX defines it by other operators
    "Sigmoid": {},
    "Softmax": {"axis": 0},
    "Softplus": {},
    "Softsign": {},
    "ThresholdedRelu": {"alpha": 0.8},
}


@pytest.mark.parametrize("op", sorted(ACTIVATIONS))
def test_an_activation(op: str) -> None:
    check(op, X, **ACTIVATIONS[op])


def test_activations_with_defaults_and_slopes() -> None:
    check("Gelu", X)
    check("PRelu", X, floats(4, seed=1))
    check("IsInf", np.array([np.inf, -np.inf, 1], np.float32))


ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Equal", "Less", "GreaterOrEqual")
NUMBERS = st.floats(-8, 8, width=16).map(lambda value: round(value * 4) / 4)


@settings(max_examples=3, deadline=None)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), data=st.data())
@pytest.mark.parametrize("op", ARITHMETIC)
def test_arithmetic_broadcasts(op: str, shapes: hnp.BroadcastableShapes, data: st.DataObject) -> None:
    a, b = (data.draw(hnp.arrays(np.float32, shape, elements=NUMBERS)) for shape in shapes.input_shapes)
    if op in ("Div", "Pow"):
        a, b = np.abs(a) + 1, np.abs(b) / 2 + 1
    check(op, a, b)


@settings(max_examples=4, deadline=None)
@given(a=hnp.arrays(np.int64, 6, elements=st.integers(-50, 50)), b=st.integers(1, 9), negative=st.booleans())
def test_whole_numbers_are_divided_towards_zero(a: np.ndarray, b: int, negative: bool) -> None:
    divisor = np.full(6, -b if negative else b)
    check("Div", a, divisor)
    check("Mod", a, divisor)
    check("Mod", a, divisor, fmod=1)


def test_any_number_of_operands() -> None:
    for op in ("Sum", "Mean", "Max", "Min"):
        check(op, X, floats(4, seed=1), floats(1, 4, seed=2))


def test_a_power_of_a_negative_number() -> None:
    check("Pow", X, np.array(2, np.float32), known=[1])
    check("Pow", X, np.array([3], np.int64), known=[1])
    check("Pow", np.abs(X), np.array([[0.5]], np.float32), known=[1])


def test_bits_and_truth() -> None:
    a, b = np.array([5, 6, 7], "uint8"), np.array([1, 2, 3], "uint8")
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        check(op, a, b)
    check("BitShift", a, b, direction="LEFT")
    check("BitShift", a, b, direction="RIGHT")
    for op in ("And", "Or", "Xor"):
        check(op, np.array([True, True, False]), np.array([True, False, False]))


def test_clip_has_either_end() -> None:
    check("Clip", X, np.float32(-1), np.float32(1))
    check("Clip", X, None, np.float32(1), known=[2])
    check("Clip", X, np.float32(0), known=[1])


def test_where_and_casts() -> None:
    check("Where", X > 0, X, np.float32(0))
    for to in (7, 6, 1, 9, 10, 3):  # int64, int32, float, bool, float16, int8
        check("Cast", X, to=to, rtol=1e-3)
    check("CastLike", X, np.zeros(1, np.int32))
