"""How far a student's outputs are from its teacher's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deploycheck.stages.divergences import softened_divergence, squared_difference

logits = st.lists(
    st.tuples(*[st.floats(-20, 20, width=32)] * 3, *[st.floats(-20, 20, width=32)] * 3), min_size=1, max_size=4
).map(lambda rows: (np.array([row[:3] for row in rows], np.float32), np.array([row[3:] for row in rows], np.float32)))


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values.astype(np.float64) - values.max(axis=-1, keepdims=True))
    softened: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return softened


@given(logits, st.sampled_from([0.5, 1.0, 4.0]))
@settings(max_examples=50, deadline=None)
def test_the_divergence_is_that_of_the_formula(pair: tuple[np.ndarray, np.ndarray], temperature: float) -> None:
    of_student, of_teacher = (softmax(each / temperature) for each in pair)
    expected = temperature**2 * (of_teacher * np.log(of_teacher / of_student)).sum(axis=-1)
    found = softened_divergence(temperature)(*map(jnp.asarray, pair))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@given(logits, st.floats(0.5, 100))
@settings(max_examples=50, deadline=None)
def test_a_teacher_diverges_from_nobody_who_gives_the_same(
    pair: tuple[np.ndarray, np.ndarray], temperature: float
) -> None:
    divergence, (one, other) = softened_divergence(temperature), map(jnp.asarray, pair)
    shifted = one + 3.0  # the same classes: softmax doesn't see what all logits share
    np.testing.assert_allclose(divergence(shifted, one), 0, atol=1e-4 * temperature**2)
    assert float(divergence(one, other).min()) >= -1e-4 * temperature**2


def test_at_a_high_temperature_the_gradient_is_the_difference_of_the_logits() -> None:
    # Hinton et al., equation 4: with T^2, its size does not depend on the temperature.
    one, other = np.array([[1.0, -2.0, 1.0]], np.float32), np.array([[3.0, 0.0, -3.0]], np.float32)
    gradient = jax.grad(lambda x: softened_divergence(200.0)(x, jnp.asarray(other)).sum())(jnp.asarray(one))
    np.testing.assert_allclose(gradient, (one - other) / 3, atol=0.03)


def test_numbers_are_compared_by_their_mean_squared_difference() -> None:
    one, other = jnp.array([[[1.0, 2.0]], [[0.0, 0.0]]]), jnp.array([[[3.0, 2.0]], [[1.0, -1.0]]])
    np.testing.assert_allclose(squared_difference(one, other), [2.0, 1.0])
