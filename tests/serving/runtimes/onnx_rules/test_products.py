from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from deploycheck.errors import DeploycheckError
from tests.serving.runtimes.onnx_rules.comparing import check, check_all, convert, floats, whole

X, KERNEL = floats(3, 4, 6), floats(6, 2, 5, seed=1)


def test_products_of_matrices() -> None:
    check_all(
        {
            "dense": lambda x: x @ KERNEL[:, 0],
            "left": lambda x: jnp.einsum("oi,bti->bto", KERNEL[:, 0].T, x),
            "heads": lambda x: jnp.einsum("bti,iho->btho", x, KERNEL),
            "attention": lambda x: jnp.einsum("btd,bsd->bts", x, x),
            "several_heads": lambda x: jnp.einsum("bthd,bshd->bhts", x.reshape(-1, 4, 2, 3), x.reshape(-1, 4, 2, 3)),
            "joined": lambda x: jnp.einsum("bti,ti->b", x, floats(4, 6, seed=2)),
            "outer": lambda x: jnp.einsum("bt,bi->bti", x[:, :, 0], x[:, 0]),
            "vectors": lambda x: x @ floats(6, seed=3),
            "by_bools": lambda x: jnp.dot(x, (KERNEL[:, 0] > 0).astype(jnp.float32)),
        },
        X,
        atol=2e-5,
    )


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_product_along_any_axes(data: st.DataObject) -> None:
    """The left operand's first axis is the batch; the right one's axes are drawn to go with the left one's."""
    sizes = [3, *data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))]
    axes = st.permutations(range(1, len(sizes)))
    order = data.draw(axes)
    summed = order[: data.draw(st.integers(0, len(order)))]
    shared = order[len(summed) : len(summed) + data.draw(st.integers(0, len(order) - len(summed)))]
    own = data.draw(st.lists(st.integers(1, 4), max_size=2))
    placed = data.draw(
        st.permutations([*((axis, sizes[axis]) for axis in (*summed, *shared)), *((-1, size) for size in own)])
    )
    at = {axis: place for place, (axis, _) in enumerate(placed) if axis >= 0}
    right = floats(*(size for _, size in placed), seed=5)
    numbers = (summed, [at[axis] for axis in summed]), (shared, [at[axis] for axis in shared])

    def product(x: object) -> object:
        result = lax.dot_general(x, right, numbers)
        return jnp.moveaxis(result, len(shared), 0)  # the batch is the first of the left operand's own axes

    check(product, floats(*sizes), atol=2e-5)


def test_products_of_whole_numbers() -> None:
    check(lambda x: x @ whole(6, 5), whole(3, 4, 6))


@pytest.mark.parametrize(
    ("left", "right"), [("int8", "int8"), ("uint8", "int8"), ("int8", "uint8"), ("uint8", "uint8")]
)
def test_a_product_in_8_bits_is_exact_for_the_largest_numbers(left: str, right: str) -> None:
    """On processors without VNNI, adding two products of uint8 and int8 doesn't fit into 16 bits."""
    limits = {"int8": (-128, 127), "uint8": (0, 255)}
    x = np.stack([np.full(64, value, left) for value in limits[left]] + [whole(64, low=-99, high=99).astype(left)])
    kernel = np.stack([np.full(64, value, right) for value in limits[right]] * 3, axis=1)

    def product(x: object) -> object:
        return lax.dot_general(x, kernel, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)

    model = convert({"y": product}, x)
    assert "MatMulInteger" in {node.op_type for node in model.graph.node}
    check(product, x)


def test_numbers_that_are_rounded_for_a_product_in_8_bits_are_rounded_by_one_operator() -> None:
    kernel = whole(6, 5, low=-127, high=128, dtype="int8")

    def product(x: object) -> object:
        return lax.dot_general(
            jnp.round(x * 40).astype(jnp.int8), kernel, (((2,), (0,)), ((), ())), preferred_element_type=jnp.int32
        )

    operators = [node.op_type for node in convert({"y": product}, X).graph.node]
    assert "QuantizeLinear" in operators
    assert not {"Round", "Clip"} & set(operators)
    check(product, X)


IMAGE = floats(2, 9, 8, 4)
LAYOUT = ("NHWC", "HWIO", "NHWC")


@settings(max_examples=20, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.one_of(
        st.sampled_from(["SAME", "VALID"]), st.tuples(*[st.tuples(st.integers(-1, 4), st.integers(-1, 4))] * 2)
    ),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    apart=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    groups=st.sampled_from([1, 2, 4]),
    eight_bits=st.booleans(),
)
def test_a_convolution_of_any_kind(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: object,
    dilation: tuple[int, int],
    apart: tuple[int, int],
    groups: int,
    eight_bits: bool,
) -> None:
    shape = (*kernel, 4 // groups, 4)
    weights = whole(*shape, low=-127, high=128, dtype="int8") if eight_bits else floats(*shape, seed=1)
    x = whole(2, 9, 8, 4, low=-128, high=128, dtype="int8") if eight_bits else IMAGE

    def convolve(x: object) -> object:
        return lax.conv_general_dilated(
            x,
            weights,
            strides,
            padding,
            lhs_dilation=apart if padding not in ("SAME", "VALID") else None,
            rhs_dilation=dilation,
            dimension_numbers=LAYOUT,
            feature_group_count=groups,
            preferred_element_type=jnp.int32 if eight_bits else None,
        )

    assume(min(jax.eval_shape(convolve, x).shape) > 0)
    check(convolve, x, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "kernel", "layout"),
    [
        ((2, 7, 3), (3, 3, 5), ("NWC", "WIO", "NWC")),
        ((2, 3, 7), (5, 3, 3), ("NCH", "OIH", "NCH")),
        ((2, 3, 6, 7), (5, 3, 3, 2), ("NCHW", "OIHW", "NCHW")),
        ((2, 3, 6, 7), (3, 2, 3, 5), ("NCHW", "HWIO", "NHWC")),
        ((2, 4, 5, 3, 2), (2, 3, 2, 2, 4), ("NDHWC", "DHWIO", "NDHWC")),
    ],
)
def test_a_convolution_in_any_layout(
    shape: tuple[int, ...], kernel: tuple[int, ...], layout: tuple[str, str, str]
) -> None:
    space = len(shape) - 2
    weights = floats(*kernel, seed=1)
    check(
        lambda x: lax.conv_general_dilated(x, weights, (1,) * space, "SAME", dimension_numbers=layout),
        floats(*shape),
        atol=1e-4,
    )


def test_the_types_that_runtimes_have_no_product_in_are_named() -> None:
    with pytest.raises(DeploycheckError, match="operations can't: conv_general_dilated"):
        convert({"y": lambda x: lax.conv(x, whole(3, 4, 2, 2), (1, 1), "SAME")}, whole(2, 4, 6, 6))


def test_the_file_of_a_dense_layer_has_no_more_operators_than_it_needs() -> None:
    model = convert({"y": lambda x: jnp.maximum(x.reshape(x.shape[0], -1) @ floats(24, 5) + jnp.arange(5.0), 0)}, X)
    assert isinstance(model, onnx.ModelProto)
    assert [node.op_type for node in model.graph.node] == ["Reshape", "MatMul", "Add", "Relu", "Identity"]
