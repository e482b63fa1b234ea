"""Products, convolutions, pooling, normalisation, recurrent layers and quantised tensors as in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.onnx.comparing import check, floats

IMAGE = floats(2, 4, 9, 8)


def test_products() -> None:
    check("MatMul", floats(2, 3, 4), floats(4, 5, seed=1))
    check("MatMul", floats(4), floats(4, seed=1))
    check("Gemm", floats(3, 4), floats(4, 5, seed=1), floats(5, seed=2))
    check("Gemm", floats(4, 3), floats(5, 4, seed=1), transA=1, transB=1, alpha=0.5)
    check("Gemm", floats(3, 4), floats(4, 5, seed=1), floats(3, 1, seed=2), beta=2.0)
    check("Einsum", floats(2, 3, 4), floats(2, 4, 5, seed=1), equation="bij, bjk -> bik")


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_convolution(data: st.DataObject) -> None:
    window = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    groups = data.draw(st.sampled_from([1, 2, 4]))
    numbers: dict[str, Any] = {
        "strides": data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "dilations": data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
    }
    how = data.draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if how == "pads":
        numbers["pads"] = data.draw(st.tuples(*[st.integers(0, 2)] * 4))
    else:
        numbers |= {"auto_pad": how, "dilations": (1, 1)}
    kernel = floats(8, 4 // groups, *window, seed=1)
    check("Conv", IMAGE, kernel, floats(8, seed=2), group=groups, rtol=1e-4, atol=1e-4, **numbers)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_transposed_convolution(data: st.DataObject) -> None:
    groups, stride = data.draw(st.sampled_from([1, 2])), data.draw(st.integers(1, 3))
    pads = data.draw(st.tuples(*[st.integers(0, 1)] * 4))
    extra = data.draw(st.integers(0, stride - 1))
    check(
        "ConvTranspose",
        IMAGE,
        floats(4, 6 // groups, 3, 2, seed=1),
        group=groups,
        strides=[stride, stride],
        pads=pads,
        output_padding=[extra, 0],
        rtol=1e-4,
        atol=1e-4,
    )


def test_convolutions_of_other_ranks() -> None:
    check("Conv", floats(2, 3, 7), floats(4, 3, 3, seed=1), pads=[1, 1], rtol=1e-4, atol=1e-4)
    check("Conv", floats(1, 2, 4, 4, 4), floats(3, 2, 2, 2, 2, seed=1), rtol=1e-4, atol=1e-4)
    check("ConvTranspose", IMAGE, floats(4, 3, 3, 3, seed=1), auto_pad="SAME_UPPER", strides=[2, 2], atol=1e-4)
    check("ConvTranspose", IMAGE, floats(4, 3, 3, 3, seed=1), output_shape=[18, 16], strides=[2, 2], atol=1e-4)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_pooling(data: st.DataObject) -> None:
    window = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    numbers: dict[str, Any] = {
        "kernel_shape": window,
        "strides": data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "pads": [data.draw(st.integers(0, (size - 1) // 2)) for size in (*window, *window)],
        "ceil_mode": data.draw(st.integers(0, 1)),
    }
    check("MaxPool", IMAGE, **numbers)
    check("AveragePool", IMAGE, count_include_pad=data.draw(st.integers(0, 1)), **numbers)


def test_pooling_of_the_whole_image_and_the_same_size() -> None:
    check("GlobalAveragePool", IMAGE)
    check("GlobalMaxPool", IMAGE)
    check("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    check("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3])


def test_normalisation() -> None:
    scale, bias, mean, variance = (floats(4, seed=seed) for seed in range(1, 5))
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    check("BatchNormalization", IMAGE, scale, bias, mean, np.abs(variance) + 0.1, epsilon=1e-3, **tolerance)
    check("LayerNormalization", floats(2, 3, 4), scale, bias, **tolerance)
    check("LayerNormalization", floats(2, 3, 4), floats(3, 4), axis=-2, outputs=3, **tolerance)
    check("InstanceNormalization", IMAGE, scale, bias, **tolerance)
    check("GroupNormalization", IMAGE, scale, bias, num_groups=2, **tolerance)
    check("RMSNormalization", floats(2, 3, 4), scale, opset=23, **tolerance)
    check("LRN", IMAGE, size=3, alpha=0.1, **tolerance)
    check("LpNormalization", floats(3, 4), p=1, axis=0, **tolerance)
    check("MeanVarianceNormalization", IMAGE, **tolerance)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates", "states"), [("RNN", 1, 1), ("GRU", 3, 1), ("LSTM", 4, 2)])
def test_a_recurrent_layer(op: str, gates: int, states: int, direction: str) -> None:
    count, hidden = 2 if direction == "bidirectional" else 1, 3
    rows = gates * hidden
    operands = [floats(5, 2, 4), floats(count, rows, 4, seed=1), floats(count, rows, hidden, seed=2)]
    biases, first = floats(count, 2 * gates * hidden, seed=3), floats(count, 2, hidden, seed=4)
    settings = {"hidden_size": hidden, "direction": direction, "outputs": 1 + states, "rtol": 1e-4, "atol": 1e-5}
    check(op, *operands, **settings)
    check(op, *operands, biases, None, *[first] * states, **settings)
    if op == "GRU":
        check(op, *operands, biases, linear_before_reset=1, **settings)


def test_quantised_tensors() -> None:
    x, scale, zero = floats(3, 4), np.array([0.1, 0.2, 0.05, 0.3], np.float32), np.array([0, 5, -7, 1], np.int8)
    check("QuantizeLinear", x, scale, zero, axis=1)
    check("QuantizeLinear", x, np.float32(0.1), np.uint8(128))
    codes = np.array([[1, -2, 3, 127], [0, 4, -128, 9]], np.int8)
    check("DequantizeLinear", codes, scale, zero, axis=-1)
    check("DequantizeLinear", codes, np.float32(0.1))
    check("MatMulInteger", codes, codes.T.copy(), np.int8(3), np.int8(-2))
    check("DynamicQuantizeLinear", x, outputs=3)
    image = np.arange(32, dtype=np.uint8).reshape(1, 2, 4, 4)
    check("ConvInteger", image, np.ones((3, 2, 2, 2), np.uint8), np.uint8(4))
