"""Each format gives the arrays that another library wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx, serialization
from safetensors.flax import save_file

from deploycheck.builtin import pytest_deploycheck_extensions
from deploycheck.stages.formats import WeightFormat

FORMATS = {each.name: each.read for each in pytest_deploycheck_extensions() if isinstance(each, WeightFormat)}
TREE = {"hidden": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float16)}}
FLAT = {f"hidden/{name}": array for name, array in TREE["hidden"].items()}


def write_npz(path: Path) -> None:
    with path.open("wb") as file:  # so that no suffix is added
        np.savez(file, **FLAT)


WRITERS: Mapping[str, Callable[[Path], Any]] = {
    "safetensors": lambda path: save_file({name: jnp.asarray(array) for name, array in FLAT.items()}, path),
    "npz": write_npz,
    "msgpack": lambda path: path.write_bytes(serialization.to_bytes(TREE)),
    "orbax": lambda path: ocp.PyTreeCheckpointer().save(path, TREE),
}


@pytest.mark.parametrize("name", FORMATS)
def test_it_reads_names_shapes_types_and_numbers(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "weights")
    read = FORMATS[name](tmp_path / "weights")
    assert read.keys() == FLAT.keys()
    for key, array in FLAT.items():
        assert read[key].dtype == array.dtype
        np.testing.assert_array_equal(np.asarray(read[key]), array)


def test_safetensors_may_be_in_bfloat16(tmp_path: Path) -> None:
    save_file({"w": jnp.ones(3, jnp.bfloat16)}, tmp_path / "weights")
    assert FORMATS["safetensors"](tmp_path / "weights")["w"].dtype == ml_dtypes.bfloat16


def test_an_npz_archive_with_a_pickle_is_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", w=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        FORMATS["npz"](tmp_path / "weights.npz")


def test_orbax_reads_what_its_standard_checkpointer_wrote_of_an_nnx_module(tmp_path: Path) -> None:
    module = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "weights", nnx.state(module))
    read = FORMATS["orbax"](tmp_path / "weights")
    assert {name.removesuffix("/value") for name in read} == {"kernel", "bias"}


def test_msgpack_reads_what_a_linen_model_was_saved_as(tmp_path: Path) -> None:
    variables = linen.Dense(3).init(jax.random.key(0), jnp.ones((1, 2)))
    (tmp_path / "weights").write_bytes(serialization.to_bytes(variables))
    assert FORMATS["msgpack"](tmp_path / "weights").keys() == {"params/kernel", "params/bias"}
