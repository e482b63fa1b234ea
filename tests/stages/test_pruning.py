from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deploycheck.errors import DeploycheckError
from deploycheck.stages import pruning
from deploycheck.stages.pruning import energy, magnitude, magnitude_by_layer, pattern_masks
from tests.stages.networks import from_function, plain

KERNELS = {"large": jnp.arange(1.0, 9.0).reshape(2, 4) * 10, "small": jnp.arange(1.0, 5.0).reshape(2, 2)}
NUMBERS = st.floats(-2, 2, width=32, allow_subnormal=False)
CRITERIA = [magnitude, magnitude_by_layer, energy]


def kept(masks: pruning.Masks) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


def test_magnitude_compares_all_weights() -> None:
    masks = magnitude(KERNELS, 0.5)
    np.testing.assert_array_equal(masks["large"], [[False, False, True, True], [True] * 4])
    assert kept(masks) == {"large": 6, "small": 0}


def test_the_sign_of_a_weight_says_nothing() -> None:
    masks = magnitude({"w": jnp.array([[-3.0, 1.0], [2.0, -0.5]])}, 0.5)
    np.testing.assert_array_equal(masks["w"], [[True, False], [True, False]])


def test_by_layer_each_kernel_becomes_as_sparse() -> None:
    masks = magnitude_by_layer(KERNELS, 0.5)
    np.testing.assert_array_equal(masks["large"], [[False] * 4, [True] * 4])
    np.testing.assert_array_equal(masks["small"], [[False] * 2, [True] * 2])


def test_by_energy_each_kernel_keeps_weights_in_proportion_to_its_energy() -> None:
    # Energies: 8 equal weights have 8, one large weight among small ones has little more than 1.
    even = jnp.full((2, 4), 0.1)
    peaked = jnp.array([[5.0, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]])
    assert kept(energy({"even": even, "peaked": peaked}, 7 / 16)) == {"even": 8, "peaked": 1}
    masks = energy({"even": even, "peaked": 1000 * peaked}, 7 / 16)
    assert kept(masks) == {"even": 8, "peaked": 1}  # whatever the scale
    assert bool(masks["peaked"][0, 0])


def test_energy_takes_a_kernel_of_zeros() -> None:
    assert kept(energy({"zero": jnp.zeros((2, 2)), "w": jnp.ones((2, 2))}, 0.25))["w"] >= 2


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 40),
    arrays(np.float32, (4, 5), elements=NUMBERS),
    arrays(np.float32, (5, 4), elements=NUMBERS),
    st.sampled_from(CRITERIA),
)
def test_exactly_the_share_is_pruned_also_among_equal_weights(
    count: int, one: np.ndarray, other: np.ndarray, criterion: pruning.Criterion
) -> None:
    kernels = {"one": jnp.asarray(one), "other": jnp.asarray(other)}
    masks = criterion(kernels, count / 40)
    if criterion is magnitude_by_layer:
        assert set(kept(masks).values()) == {int(np.round(20 - count / 2))}
    else:
        assert sum(kept(masks).values()) == 40 - count
    for name, kernel in kernels.items():  # within a kernel, the largest are kept
        magnitudes, mask = np.abs(kernel), np.asarray(masks[name])
        assert mask.all() or not mask.any() or magnitudes[mask].min() >= magnitudes[~mask].max()


@settings(deadline=None, max_examples=60)
@given(arrays(np.float32, (8, 3), elements=NUMBERS), st.sampled_from([(1, 4), (2, 4), (1, 2)]))
def test_a_pattern_keeps_the_largest_of_each_group_along_the_summed_axis(kernel: np.ndarray, pattern: Any) -> None:
    n, m = pattern
    mask = np.asarray(pattern_masks({"w": jnp.asarray(kernel)}, {"w": 0}, n, m)["w"])
    groups, magnitudes = mask.reshape(8 // m, m, 3), np.abs(kernel).reshape(8 // m, m, 3)
    assert (groups.sum(axis=1) == n).all()
    assert (np.where(groups, magnitudes, 9).min(axis=1) >= np.where(groups, -1, magnitudes).max(axis=1)).all()


def test_a_pattern_follows_the_axis_that_is_summed() -> None:
    masks = pattern_masks({"w": jnp.array([[4.0, 3.0, 2.0, 1.0]])}, {"w": 1}, 2, 4)
    np.testing.assert_array_equal(masks["w"], [[True, True, False, False]])


def test_a_pattern_leaves_out_kernels_that_it_does_not_divide() -> None:
    kernels = {"odd": jnp.ones((3, 4)), "even": jnp.ones((4, 3)), "split": jnp.ones((4, 4))}
    summed = {"odd": 0, "even": 0, "split": None}
    assert kept(pattern_masks(kernels, summed, 2, 4)) == {"even": 6}
    with pytest.raises(DeploycheckError, match=r"no kernel has a summed axis that can be divided by 8"):
        pattern_masks(kernels, summed, 4, 8)


def test_kernels_that_match_keep_are_left_out() -> None:
    assert set(pruning.choose_kernels(plain(0), ())) == {"kernel", "head"}
    assert set(pruning.choose_kernels(plain(0), ("h*",))) == {"kernel"}


def test_a_pattern_of_names_that_matches_nothing_is_refused() -> None:
    with pytest.raises(DeploycheckError, match=r"`keep: conv\*` matches none of the kernels") as caught:
        pruning.choose_kernels(plain(0), ("head", "conv*"))
    assert caught.value.hint == "they are: head, kernel"


def test_a_model_without_kernels_is_refused() -> None:
    scaled = from_function({"w": jnp.ones((4, 4))}, lambda params, x: x * params["w"][0], (4,))
    with pytest.raises(DeploycheckError, match="nothing to prune"):
        pruning.choose_kernels(scaled, ())
    with pytest.raises(DeploycheckError, match="nothing to prune"):
        pruning.choose_kernels(plain(0), ("*",))


def test_a_layer_with_nothing_left_is_refused_by_name() -> None:
    model = plain(0)
    uneven = replace(model, params={**model.params, "head": 1e-6 * model.params["head"]})
    masks = magnitude(pruning.kernels_of(uneven.params, ("kernel", "head")), 0.5)
    with pytest.raises(DeploycheckError, match="nothing would be left of head"):
        pruning.with_masks(uneven, masks)


def test_the_source_and_its_other_params_stay_as_they_are() -> None:
    model = plain(0)
    pruned = pruning.with_masks(model, {"head": jnp.arange(48).reshape(16, 3) % 2 == 0})
    np.testing.assert_array_equal(pruned.params["kernel"], plain(0).params["kernel"])
    np.testing.assert_array_equal(model.params["head"], plain(0).params["head"])
    assert int((pruned.params["head"] == 0).sum()) == 24
    assert pruning.describe_zeros(pruned) == "24 of 624 weights of kernels are zero: kernel (0%), head (50%)"


def sparsities(criterion: pruning.Criterion, steps: int, begin: float, end: float) -> list[float]:
    """Return the sparsity after each step of a gradual pruning with random updates."""
    kernel = jax.random.normal(jax.random.key(0), (40, 25))
    params = {"w": jnp.where(magnitude({"w": kernel}, begin)["w"], kernel, 0), "b": jnp.ones(25)}
    constraint = pruning.prune_gradually({"w": params["w"]}, criterion, end, steps)
    state, found = constraint.init(params), []

    @jax.jit
    def advance(params: Any, state: Any, key: jax.Array) -> Any:
        updates = {"w": 0.1 * jax.random.normal(key, (40, 25)), "b": jnp.ones(25)}
        updates, state = constraint.update(updates, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(steps):
        params, state = advance(params, state, jax.random.key(step))
        found.append(int((params["w"] == 0).sum()) / 1000)
    np.testing.assert_array_equal(params["b"], 1 + steps)
    return found


@pytest.mark.parametrize("criterion", CRITERIA)
def test_gradual_pruning_follows_the_cubic_schedule_and_then_stays(criterion: pruning.Criterion) -> None:
    found = sparsities(criterion, 40, begin=0.2, end=0.8)
    expected = [0.8 + (0.2 - 0.8) * (1 - min(1, step / 30)) ** 3 for step in range(1, 41)]
    np.testing.assert_allclose(found, expected, atol=6e-4)
    assert found[29:] == [0.8] * 11


def test_masks_of_a_long_gradual_pruning_change_only_now_and_then() -> None:
    found = sparsities(magnitude, 400, begin=0.0, end=0.5)
    assert len(set(found)) <= pruning.UPDATES + 1
    assert found == sorted(found)
    assert found[-1] == 0.5


def test_zeros_of_all_kernels_are_held_and_a_kernel_of_zeros_alone_is_free() -> None:
    def function(params: Any, x: jax.Array) -> jax.Array:
        return x @ params["sparse"] + x @ params["zero"] + params["bias"]

    sparse = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    model = from_function({"sparse": sparse, "zero": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}, function, (2,))
    constraint = pruning.hold_zeros(model)
    updates, _ = constraint.update(jax.tree.map(jnp.ones_like, model.params), constraint.init(model.params), None)
    np.testing.assert_array_equal(updates["sparse"], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(updates["zero"], jnp.ones((2, 2)))
    np.testing.assert_array_equal(updates["bias"], jnp.ones(2))
