"""Weights come back as they were, in as few bytes as their numbers need."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file, save_file

from deploycheck.errors import DeploycheckError
from deploycheck.store.weights import STORED, read_layout, read_weights, write_weights

DTYPES = st.sampled_from(["float32", "float64", "float16", "int8", "uint8", "int32", "bool"])


def sparse(shape: tuple[int, ...], share: float, dtype: str = "float32") -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.uniform(0.5, 90, shape) * (random.uniform(size=shape) < share)).astype(dtype)


def identical(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


@given(data=st.data(), dtype=DTYPES, zeros=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_weights_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: str, zeros: float, seed: int
) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40))
    random = np.random.default_rng(seed)
    array = random.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8).view(dtype)[..., 0]
    array = np.where(random.uniform(size=shape) < zeros, np.zeros((), dtype), array).astype(dtype)
    if dtype == "bool":
        array = array != 0
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    write_weights({"w": array, "other/w": array[..., None]}, file)
    read = read_weights(file)
    assert read.keys() == {"w", "other/w"}
    assert identical(read["w"], array)
    assert identical(read["other/w"], array[..., None])
    layout = read_layout(file)
    assert {name: (it.shape, it.dtype, it.width) for name, it in layout.items()} == {
        name: (it.shape, it.dtype.name, it.itemsize) for name, it in read.items()
    }


@pytest.mark.parametrize("dtype", ["int4", "uint4"])
@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (1,), (0, 3), ()])
def test_four_bit_integers_take_half_a_byte_each(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    low, high = (-8, 8) if dtype == "int4" else (0, 16)
    codes = np.random.default_rng(0).integers(low, high, shape).astype(getattr(ml_dtypes, dtype))
    file = tmp_path / "weights.safetensors"
    write_weights({"w": codes}, file)
    (tensor,) = load_file(file).values()
    assert tensor.nbytes == -(-codes.size // 2)
    assert identical(read_weights(file)["w"], codes)
    assert read_layout(file)["w"].dtype == dtype


@pytest.mark.parametrize("share", [1.0, 0.1], ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "bfloat16"])
def test_floats_that_numpy_does_not_have_come_back(tmp_path: Path, dtype: str, share: float) -> None:
    array = sparse((90, 90), share).astype(getattr(ml_dtypes, dtype))
    file = tmp_path / "weights.safetensors"
    write_weights({"w": array}, file)
    assert file.stat().st_size < max(share + 0.13, 0.5) * array.nbytes + 500
    assert identical(read_weights(file)["w"], array)
    layout = read_layout(file)["w"]
    assert (layout.dtype, layout.width, layout.shape) == (dtype, array.itemsize, (90, 90))


def test_a_weight_of_which_four_in_five_are_zero_takes_less_than_a_quarter(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    dense, kept = sparse((300, 300), 1.0), sparse((300, 300), 0.2)
    write_weights({"w": dense}, file)
    before = file.stat().st_size
    write_weights({"w": kept}, file)
    assert file.stat().st_size < 0.25 * before
    assert identical(read_weights(file)["w"], kept)


def test_what_sparse_would_not_make_smaller_is_a_plain_tensor(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    weights = {
        "dense": sparse((300, 300), 1.0),
        "small": np.zeros(9, np.float32),
        "codes": sparse((99, 99), 0.9, "int8"),
    }
    write_weights(weights, file)
    plain = load_file(file)
    assert plain.keys() == weights.keys()
    assert all(identical(plain[name], array) for name, array in weights.items())


def test_a_negative_zero_and_a_nan_are_kept(tmp_path: Path) -> None:
    array = np.zeros(10_000, np.float32)
    array[7], array[8] = -0.0, np.nan
    file = tmp_path / "weights.safetensors"
    write_weights({"w": array}, file)
    assert file.stat().st_size < 3_000
    assert identical(read_weights(file)["w"], array)


def test_the_same_weights_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    one, other = sparse((64, 64), 0.1), sparse((64, 64), 0.2)
    write_weights({"a": one, "b": other}, tmp_path / "ab")
    write_weights({"b": other, "a": one}, tmp_path / "ba")
    assert (tmp_path / "ab").read_bytes() == (tmp_path / "ba").read_bytes()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda tensors, about: tensors.pop("w/@values"), "w is not whole"),
        (lambda tensors, about: tensors.update({"w/@values": np.zeros(3, np.float32)}), "w is not whole"),
        (lambda tensors, about: tensors.update({"w/@bits": np.zeros(3, np.uint8)}), "w is not whole"),
        (lambda tensors, about: about["w"].pop("shape"), "can't be read"),
        (lambda tensors, about: about["w"].update(form="folded"), "w is not whole"),
    ],
)
def test_tensors_that_do_not_fit_their_description_are_refused(tmp_path: Path, damage: object, says: str) -> None:
    from safetensors import safe_open

    file = tmp_path / "weights.safetensors"
    write_weights({"w": sparse((64, 64), 0.1)}, file)
    with safe_open(file, framework="numpy") as opened:
        about = json.loads(opened.metadata()[STORED])
    tensors = load_file(file)
    damage(tensors, about)  # type: ignore[operator]
    save_file(tensors, file, {STORED: json.dumps(about)})
    with pytest.raises(DeploycheckError, match=says) as refused:
        read_weights(file)
    assert refused.value.where == str(file)
