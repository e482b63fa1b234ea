"""What is lowered has equal results and equal gradients, and what can't be lowered stays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxprs_in_params

from deploycheck.stages.lowering import lowered
from deploycheck.stages.lowering.convolutions import MANY_CHANNELS
from deploycheck.stages.model import build_model


def random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def equations_of(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of a traced function, at any depth."""
    for equation in jaxpr.eqns:
        yield equation
        for body in jaxprs_in_params(equation.params):
            yield from equations_of(body)


def primitives_of(function: Callable[..., Any], *arguments: Any) -> set[str]:
    """Return the names of all primitives of a traced function, at any depth."""
    return {it.primitive.name for it in equations_of(jax.make_jaxpr(function)(*arguments).jaxpr)}


def assert_equal(function: Callable[..., jax.Array], *arguments: jax.Array, tolerance: float = 1e-5) -> None:
    """Check a function's value and the gradient of a weighted sum of it."""
    every = tuple(range(len(arguments)))
    weights = random(*jax.eval_shape(function, *arguments).shape, seed=9)

    @functools.partial(jax.jit, static_argnums=0)
    def computed(of: Callable[..., jax.Array], *given: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return of(*given), jax.grad(lambda *given: (of(*given) * weights).sum(), every)(*given)

    found, gradients = computed(lowered(function), *arguments)
    expected, expected_gradients = computed(function, *arguments)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=10 * tolerance, atol=10 * tolerance)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=2),
    padding=st.sampled_from(["SAME", "VALID", "uneven"]),
    order=st.sampled_from(["channels last", "channels first"]),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
@example([(2, 1, 1), (3, 1, 1)], "SAME", "channels first", (2, 3))  # XLA has a fast kernel for it too
def test_a_convolution_is_a_product_with_equal_gradients(
    sizes: list[tuple[int, int, int]], padding: str, order: str, channels: tuple[int, int]
) -> None:
    window, strides, dilation = zip(*sizes, strict=True)
    space = "HW"[: len(sizes)]
    numbers = (
        (f"N{space}C", f"{space}IO", f"N{space}C")
        if order == "channels last"
        else (f"NC{space}", f"OI{space}", f"NC{space}")
    )
    extents = {"N": 2, "C": channels[0], "H": 8, "W": 7, "I": channels[0], "O": channels[1]}
    image = random(*(extents[axis] for axis in numbers[0]))
    kernel = random(*({**extents, **dict(zip(space, window, strict=True))}[axis] for axis in numbers[1]), seed=1)

    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        pads = [(1, 0)] * len(sizes) if padding == "uneven" else padding
        return lax.conv_general_dilated(image, kernel, strides, pads, rhs_dilation=dilation, dimension_numbers=numbers)

    assert "conv_general_dilated" not in primitives_of(lowered(convolve), image, kernel)
    assert_equal(convolve, image, kernel)


@pytest.mark.parametrize("options", [{"feature_group_count": 2}, {"lhs_dilation": (2, 2)}])
def test_a_convolution_of_another_kind_stays(options: dict[str, Any]) -> None:
    groups = options.get("feature_group_count", 1)
    image, kernel = random(2, 6, 6, 4), random(3, 3, 4 // groups, 4, seed=1)

    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    assert "conv_general_dilated" in primitives_of(lowered(convolve), image, kernel)
    assert_equal(convolve, image, kernel)


@pytest.mark.parametrize("pool", [nnx.max_pool, nnx.avg_pool, linen.max_pool])
@pytest.mark.parametrize(("window", "strides", "padding"), [((2, 2), (2, 2), "VALID"), ((3, 2), (2, 1), "SAME")])
def test_pooling_has_equal_gradients(pool: Any, window: Any, strides: Any, padding: str) -> None:
    def function(image: jax.Array) -> jax.Array:
        return pool(image, window, strides=strides, padding=padding)

    image = random(2, 7, 6, 3)
    assert not {"reduce_window_max", "reduce_window_sum"} & primitives_of(lowered(function), image)
    assert_equal(function, image)


def test_pooling_with_gaps_has_equal_gradients() -> None:
    def function(image: jax.Array) -> jax.Array:
        return lax.reduce_window(image, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", window_dilation=(1, 2, 2, 1))

    assert_equal(function, random(2, 7, 6, 3))


def classifier(
    activation: Callable[[jax.Array], jax.Array], window: Any = (2, 2), padding: str = "VALID"
) -> Callable[..., jax.Array]:
    """Return a convolution ``(image, kernel, bias)`` with an activation, pooled."""

    def function(image: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        hidden = lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return nnx.max_pool(activation(hidden + bias), window, strides=window, padding=padding)

    return function


def shapes_of(function: Callable[..., Any], *arguments: Any) -> set[tuple[int, ...]]:
    """Return the shapes of all arrays that a function computes."""
    return {it.aval.shape for each in jax.make_jaxpr(function)(*arguments).jaxpr.eqns for it in each.outvars}


@pytest.mark.parametrize("window", [(2, 2), (3, 2)])
@pytest.mark.parametrize("activation", [nnx.relu, nnx.tanh, lambda x: 2 * x - x * x], ids=["relu", "tanh", "squares"])
def test_a_convolution_of_few_channels_is_computed_where_it_is_pooled(activation: Any, window: Any) -> None:
    arguments = jnp.round(random(2, 9, 8, 3)), jnp.round(random(3, 3, 3, 5, seed=1)), random(1, 1, 1, 5, seed=2)
    function = classifier(activation, window)
    assert (2, 9, 8, 5) in shapes_of(function, *arguments)
    assert (2, 9, 8, 5) not in shapes_of(lowered(function), *arguments)
    assert_equal(function, *arguments)


def test_pooling_beyond_the_image_is_of_the_whole_convolution() -> None:
    arguments = random(2, 9, 8, 3), random(3, 3, 3, 5, seed=1), random(1, 1, 1, 5, seed=2)
    assert_equal(classifier(nnx.tanh, (2, 3), "SAME"), *arguments)


def test_pooling_over_other_axes_than_a_convolution_is_of_the_whole_of_it() -> None:
    def function(image: jax.Array, kernel: jax.Array) -> jax.Array:  # channels first, and pooled as if they were last
        return nnx.max_pool(lax.conv(image, kernel, (1, 1), "SAME"), (2, 2), strides=(2, 2))

    assert_equal(function, random(2, 2, 6, 6), random(4, 2, 3, 3, seed=1))


@pytest.mark.parametrize("slope", [0, 7])
def test_an_activation_keeps_the_derivative_that_its_user_gave_it(slope: float) -> None:
    @jax.custom_jvp
    def relu(x: jax.Array) -> jax.Array:
        return jnp.maximum(x, 0)

    relu.defjvp(lambda primals, tangents: (relu(*primals), slope * tangents[0]))
    arguments = random(2, 6, 6, 1), random(3, 3, 1, 4, seed=1), random(1, 1, 1, 4, seed=2)
    assert (2, 6, 6, 4) in shapes_of(lowered(classifier(relu)), *arguments)
    assert_equal(classifier(relu), *arguments)


def test_a_convolution_that_is_used_besides_its_pooling_is_computed_once() -> None:
    def function(image: jax.Array, kernel: jax.Array) -> jax.Array:
        hidden = lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        centred = hidden - hidden.mean(axis=(0, 1, 2), keepdims=True)
        return nnx.max_pool(centred, (2, 2), strides=(2, 2))

    image, kernel = random(2, 6, 6, 2), random(3, 3, 2, 4, seed=1)
    assert_equal(function, image, kernel)
    products = [
        it for it in jax.make_jaxpr(lowered(function))(image, kernel).eqns if it.primitive.name == "dot_general"
    ]
    assert {it.outvars[0].aval.shape for it in products} == {(2 * 6 * 6, 4)}


def test_a_convolution_is_not_taken_for_what_it_is_broadcast_to() -> None:
    def function(image: jax.Array, kernel: jax.Array, other: jax.Array) -> jax.Array:
        one = lax.conv_general_dilated(image, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return nnx.max_pool(one + other, (2, 2), strides=(2, 2))

    assert_equal(function, random(2, 3, 3, 1), random(3, 3, 1, 4, seed=1), random(2, 4, 4, 4, seed=2))


@pytest.mark.parametrize("order", [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (0, 1))])
def test_a_convolution_of_many_channels_keeps_its_form_and_has_equal_gradients(order: Any, padding: Any) -> None:
    extents = {"N": 2, "C": 8, "H": 6, "W": 5, "I": 8, "O": 6}
    image = random(*(extents[axis] for axis in order[0]))
    kernel = random(*({**extents, "H": 3, "W": 2}[axis] for axis in order[1]), seed=1)

    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(image, kernel, (1, 1), padding, dimension_numbers=order)

    assert "conv_general_dilated" in primitives_of(lowered(convolve), image, kernel)
    assert_equal(convolve, image, kernel)


@pytest.mark.parametrize("order", [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")])
def test_a_convolution_of_very_many_channels_is_products_of_tiles(order: Any) -> None:
    extents = {"N": 1, "C": MANY_CHANNELS, "H": 4, "W": 5, "I": MANY_CHANNELS, "O": MANY_CHANNELS + 1}
    image = random(*(extents[axis] for axis in order[0]))

    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=order)

    def kernel(size: int) -> jax.Array:
        return random(*({**extents, "H": size, "W": size}[axis] for axis in order[1]), seed=1) / 8

    assert "conv_general_dilated" not in primitives_of(lowered(convolve), image, kernel(3))
    assert "conv_general_dilated" in primitives_of(lowered(convolve), image, kernel(2))
    few = kernel(3)[..., :4] if order[1] == "HWIO" else kernel(3)[:4]
    assert "conv_general_dilated" in primitives_of(lowered(convolve), image, few)
    assert_equal(convolve, image, kernel(3))


@pytest.mark.parametrize(
    "options", [{"window_strides": (2, 2)}, {"rhs_dilation": (2, 2)}, {"padding": ((3, 0), (0, 0))}]
)
def test_a_convolution_of_many_channels_without_a_fast_kernel_is_a_product(options: dict[str, Any]) -> None:
    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        given = {"window_strides": (1, 1), "padding": "SAME", **options}
        return lax.conv_general_dilated(image, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **given)

    image, kernel = random(2, 6, 6, 8), random(3, 3, 8, 4, seed=1)
    assert "conv_general_dilated" not in primitives_of(lowered(convolve), image, kernel)
    assert_equal(convolve, image, kernel)


def test_a_convolution_of_integers_stays() -> None:
    image, kernel = jnp.ones((1, 2, 4, 4), jnp.int32), jnp.ones((2, 2, 3, 3), jnp.int32)
    convolve = functools.partial(lax.conv, window_strides=(1, 1), padding="SAME")
    assert "conv_general_dilated" in primitives_of(lowered(convolve), image, kernel)


@pytest.mark.parametrize("channels", [2, 8, MANY_CHANNELS], ids=["product", "XLA's kernel", "Winograd"])
def test_every_product_of_a_convolution_has_the_precision_that_was_asked_for(channels: int) -> None:
    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv(image, kernel, (1, 1), "SAME", precision=lax.Precision.HIGHEST)

    image, kernel = random(1, channels, 4, 4), random(channels, channels, 3, 3, seed=1)
    traced = jax.make_jaxpr(jax.grad(lambda *given: lowered(convolve)(*given).sum(), (0, 1)))(image, kernel)
    products = [it for it in equations_of(traced.jaxpr) if "precision" in it.params]
    assert len(products) >= 3
    assert {it.params["precision"] for it in products} == {(lax.Precision.HIGHEST,) * 2}


def test_of_equal_values_in_a_window_the_same_one_has_the_gradient() -> None:
    image = jnp.round(random(2, 8, 8, 3))
    assert_equal(lambda image: nnx.max_pool(image, (2, 2), strides=(2, 2)), image)


def test_what_is_not_a_number_is_not_lost_in_pooling() -> None:
    image = jnp.zeros((1, 2, 2, 1)).at[0, 1, 0, 0].set(jnp.nan)
    assert jnp.isnan(lowered(lambda image: nnx.max_pool(image, (2, 2)))(image)).all()


@pytest.mark.parametrize("kind", ["jvp", "vjp"])
def test_a_derivative_of_the_users_own_is_kept(kind: str) -> None:
    kernel = random(3, 3, 2, 2)

    def convolve(image: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    if kind == "jvp":
        own = jax.custom_jvp(convolve)
        own.defjvp(lambda primals, tangents: (convolve(*primals), 7 * tangents[0]))
    else:
        own = jax.custom_vjp(convolve)
        own.defvjp(lambda image: (convolve(image), None), lambda _, gradient: (7 * gradient,))
    gradient = jax.grad(lambda image: lowered(own)(image).sum())(random(1, 4, 4, 2))
    np.testing.assert_array_equal(gradient, 7.0)


def test_what_is_computed_again_for_the_gradient_still_is() -> None:
    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    given = random(1, 4, 4, 2), random(3, 3, 2, 2, seed=1)
    again = primitives_of(jax.checkpoint(convolve), *given) - primitives_of(convolve, *given)
    assert len(again) == 1
    assert again <= primitives_of(lowered(jax.checkpoint(convolve)), *given)


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        pooled = nnx.max_pool(nnx.relu(self.norm(self.first(image))), (2, 2), strides=(2, 2))
        return self.out(self.dropout(pooled.reshape(image.shape[0], -1)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_users_model_trains_to_the_same_state_and_gradients(dtype: Any) -> None:
    inputs = {"image": jax.ShapeDtypeStruct((2, 8, 8, 1), dtype)}
    model = build_model(Net, {}, inputs, seed=0, outputs=("logits",))
    images = {"image": random(6, 8, 8, 1, dtype=dtype)}

    def step(train: Callable[..., Any]) -> Any:
        def loss(params: Any) -> Any:
            outputs, state = train(params, model.state, images, jax.random.key(3))
            return jnp.square(outputs["logits"].astype(jnp.float32)).mean(), state

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)

    expected, found = step(model.train), step(lowered(model.train))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    traced = primitives_of(
        lambda params: lowered(model.train)(params, model.state, images, jax.random.key(3)), model.params
    )
    assert "conv_general_dilated" not in traced
    assert "reduce_window_max" not in traced


def test_a_convolution_in_a_loop_is_lowered_too() -> None:
    image, kernels = random(1, 6, 6, 2), random(3, 3, 3, 2, 2, seed=1)

    def function(image: jax.Array, kernels: jax.Array) -> jax.Array:
        def layer(image: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
            numbers = ("NHWC", "HWIO", "NHWC")
            return lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=numbers), None

        return lax.scan(layer, image, kernels)[0]

    assert "conv_general_dilated" not in primitives_of(lowered(function), image, kernels)
    assert_equal(function, image, kernels, tolerance=1e-4)


def test_elsewhere_than_on_a_cpu_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert lowered(random) is random
