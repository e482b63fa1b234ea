from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from deploycheck.errors import DeploycheckError
from deploycheck.serving.opening import open_for_serving
from deploycheck.serving.runtimes._xla_export import PROGRAM, WEIGHTS
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.serving.signature import SIGNATURE, read_signature
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.store import write_manifest
from tests.serving.models import KEY
from tests.serving.runtimes.networks import INPUTS, NETWORKS, export_all

ROOT = Path(__file__).parents[3]

Build = Callable[[int], Network]


@pytest.fixture(params=list(NETWORKS))
def build(request: pytest.FixtureRequest) -> Build:
    """Build the classifier in one of the forms, by seed."""
    return NETWORKS[request.param]


def flat(inputs: Mapping[str, Any]) -> jax.Array:
    image: jax.Array = inputs["image"]
    return image.reshape(image.shape[0], -1)


def named(call: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return a function that returns what ``call`` does as its one output, ``logits``."""
    return lambda weights, inputs: {"logits": call(weights, inputs)}


def written(made: Network, folder: Path) -> Path:
    folder.mkdir()
    XLA.export(made, INPUTS, "net", folder)
    return folder


def answers(folder: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Open what was written as a server would, and answer one batch."""
    write_manifest(folder, "model", KEY, {})
    engine = open_for_serving(folder, (), (len(next(iter(inputs.values()))),))
    engine.compile()
    return engine.run(inputs)


def test_the_same_network_gives_the_same_bytes(build: Build, tmp_path: Path) -> None:
    files = [
        {file.name: file.read_bytes() for file in written(build(0), tmp_path / name).iterdir()}
        for name in ("first", "second")
    ]
    assert files[0] == files[1]
    assert set(files[0]) == {PROGRAM, WEIGHTS, SIGNATURE}
    other = written(build(1), tmp_path / "third")
    assert (other / WEIGHTS).read_bytes() != files[0][WEIGHTS]
    assert (other / PROGRAM).read_bytes() == files[0][PROGRAM], "the weights are in a file of their own"


EXPORT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.serving.runtimes.networks import export_all
export_all(Path(sys.argv[2]))
"""


def test_another_process_in_another_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    here, elsewhere = export_all(tmp_path / "here"), tmp_path / "elsewhere"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", EXPORT, str(ROOT), str(elsewhere)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert len(here) == 9
    assert {path: (elsewhere / path).read_bytes() == content for path, content in here.items()} == dict.fromkeys(
        here, True
    )


def test_nothing_of_the_machine_is_in_the_files(build: Build, tmp_path: Path) -> None:
    folder = written(build(0), tmp_path / "out")
    for file in folder.iterdir():
        content = file.read_bytes()
        for trace in (ROOT, sys.prefix, Path.home(), tmp_path, "site-packages", "conftest", "networks"):
            assert str(trace).encode() not in content, (file.name, trace)
        assert not re.search(rb"\w\.pyc?\b", content), file.name


def test_what_jax_writes_of_source_lines_is_as_it_was_after_an_export(tmp_path: Path) -> None:
    def limit() -> int:
        found: int = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
        return found

    before = limit()
    assert before != 0
    written(Network({"w": jnp.ones(3)}, lambda weights, inputs: dict(inputs)), tmp_path / "good")
    assert limit() == before
    with pytest.raises(DeploycheckError):
        written(Network({}, lambda weights, inputs: weights["missing"]), tmp_path / "bad")
    assert limit() == before


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_one_program_answers_batches_of_any_size(build: Build, batch: int, tmp_path: Path) -> None:
    made = build(0)
    folder = written(made, tmp_path / "out")
    image = np.random.default_rng(0).normal(size=(batch, 6, 6, 1)).astype(np.float32)
    logits = answers(folder, {"image": image})["logits"]
    np.testing.assert_allclose(logits, made.apply(made.weights, {"image": image})["logits"], atol=1e-5)


def test_the_signature_says_what_the_protocol_will(build: Build, tmp_path: Path) -> None:
    folder = written(build(0), tmp_path / "out")
    signature = json.loads((folder / SIGNATURE).read_bytes())
    assert signature["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 6, 6, 1]}]
    assert signature["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    assert signature["jax_version"] == jax.__version__
    assert signature["platforms"] == [jax.default_backend()]


def test_the_weights_are_those_of_the_network(build: Build, tmp_path: Path) -> None:
    made = build(0)
    stored = load_file(written(made, tmp_path / "out") / WEIGHTS)
    assert stored.keys() == made.weights.keys()
    for name, array in made.weights.items():
        np.testing.assert_array_equal(stored[name], array)


def test_weights_are_stored_in_the_dtype_they_have(tmp_path: Path) -> None:
    weights = {"kernel": jnp.arange(108, dtype=jnp.int8).reshape(36, 3), "scale": jnp.float32(0.5)}

    def apply(weights: Any, inputs: Any) -> dict[str, jax.Array]:
        return {"logits": flat(inputs) @ (weights["kernel"].astype(jnp.float32) * weights["scale"])}

    made = Network(weights, apply)
    folder = written(made, tmp_path / "out")
    stored = load_file(folder / WEIGHTS)
    assert {name: array.dtype.name for name, array in stored.items()} == {"kernel": "int8", "scale": "float32"}
    image = np.ones((3, 6, 6, 1), np.float32)
    np.testing.assert_allclose(
        answers(folder, {"image": image})["logits"], apply(weights, {"image": image})["logits"], atol=1e-5
    )


def dot_of_int8(weights: Any, inputs: Any) -> jax.Array:
    return (flat(inputs).astype(jnp.int8) @ weights["kernel"].astype(jnp.int8)).astype(jnp.float32)


def dequantized(weights: Any, inputs: Any) -> jax.Array:
    return flat(inputs) @ weights["kernel"].astype(jnp.int8).astype(jnp.float32)


@pytest.mark.parametrize(
    ("call", "rounds"),
    [
        (lambda weights, inputs: flat(inputs) @ weights["kernel"], False),
        (dequantized, False),
        (dot_of_int8, True),
        (lambda weights, inputs: jnp.round(flat(inputs)) @ weights["kernel"], True),
        (lambda weights, inputs: (flat(inputs).astype(jnp.bfloat16) * 2).astype(jnp.float32)[:, :3], True),
        (lambda weights, inputs: (flat(inputs).astype(jnp.float16) * 2).astype(jnp.float32)[:, :3], True),
    ],
)
def test_the_signature_says_whether_the_program_rounds_to_fewer_bits(call: Any, rounds: bool, tmp_path: Path) -> None:
    folder = written(Network({"kernel": jnp.ones((36, 3))}, named(call)), tmp_path / "out")
    assert read_signature(folder / SIGNATURE).rounds is rounds


def test_a_network_with_several_outputs_answers_each_by_its_name(tmp_path: Path) -> None:
    def apply(weights: Any, inputs: Any) -> dict[str, jax.Array]:
        rows = flat(inputs)
        return {"logits": rows @ weights["w"], "best": (rows @ weights["w"]).argmax(axis=1), "large": rows > 0}

    folder = written(Network({"w": jnp.ones((36, 3))}, apply), tmp_path / "out")
    signature = read_signature(folder / SIGNATURE)
    assert {(each.name, each.datatype, each.shape) for each in signature.outputs} == {
        ("logits", "FP32", (3,)),
        ("best", "INT32", ()),
        ("large", "BOOL", (36,)),
    }
    found = answers(folder, {"image": np.ones((2, 6, 6, 1), np.float32)})
    assert {name: array.shape for name, array in found.items()} == {"logits": (2, 3), "best": (2,), "large": (2, 36)}
    np.testing.assert_allclose(found["logits"], 36)


def test_a_program_with_several_inputs_and_no_weights_is_a_program(tmp_path: Path) -> None:
    def apply(weights: Any, inputs: Any) -> dict[str, jax.Array]:
        return {"prediction": inputs["left"] @ jnp.ones((2, 3)) + inputs["right"].astype(jnp.float32)}

    XLA.export(
        Network({}, apply), {"right": TensorSpec((3,), "int32"), "left": TensorSpec((2,), "float32")}, "two", tmp_path
    )
    signature = json.loads((tmp_path / SIGNATURE).read_bytes())
    assert signature["inputs"] == [
        {"name": "right", "datatype": "INT32", "shape": [-1, 3]},
        {"name": "left", "datatype": "FP32", "shape": [-1, 2]},
    ]
    inputs = {"left": np.ones((4, 2), np.float32), "right": np.arange(12, dtype=np.int32).reshape(4, 3)}
    np.testing.assert_allclose(answers(tmp_path, inputs)["prediction"], 2 + inputs["right"])


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0, dtype=np.float32).reshape(2, 3).T, np.arange(12.0, dtype=np.float32).reshape(3, 4)[:, :2]],
    ids=["transposed", "columns"],
)
def test_weights_come_back_whatever_their_layout_in_memory(array: np.ndarray, tmp_path: Path) -> None:
    apply = named(lambda weights, inputs: inputs["image"][:, :3, 0, 0] @ weights["w"])
    made = Network({"w": array}, apply)  # type: ignore[dict-item]
    np.testing.assert_array_equal(load_file(written(made, tmp_path / "out") / WEIGHTS)["w"], array)


@pytest.mark.parametrize(
    ("apply", "says"),
    [
        (flat, "the model returns an array without a name, expected a mapping of output names to arrays"),
        ((flat, flat), "the model returns a tuple, expected a mapping of output names to arrays"),
        (None, "the model returns a NoneType, expected a mapping of output names to arrays"),
        ({}, "the model returns an empty mapping, expected a mapping of output names to arrays"),
        ({"logits": (flat, flat)}, "the model's output 'logits' is a tuple, expected one array"),
        ({"logits": None}, "the model's output 'logits' is a NoneType, expected one array"),
    ],
    ids=["array", "tuple", "none", "empty", "nested", "none-by-name"],
)
def test_what_is_not_named_arrays_is_refused(apply: Any, says: str, tmp_path: Path) -> None:
    def call(weights: Any, inputs: Any) -> Any:
        return jax.tree.map(lambda function: function(inputs), apply)

    with pytest.raises(DeploycheckError, match=says):
        written(Network({"w": jnp.ones(3)}, call), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("apply", "says"),
    [
        (lambda weights, inputs: weights["w"] if inputs["image"].shape[0] > 4 else flat(inputs), "can't be exported: "),
        (
            lambda weights, inputs: jnp.concatenate([flat(inputs)] * 2),
            "'logits' is .*, expected the batch as first axis",
        ),
        (lambda weights, inputs: flat(inputs) @ flat(inputs).T, "expected the batch as first axis alone"),
        (lambda weights, inputs: flat(inputs).astype(jnp.bfloat16), "'logits' is bfloat16, for which"),
        (lambda weights, inputs: flat(inputs).astype(jnp.complex64), "'logits' is complex64, for which"),
        (lambda weights, inputs: weights["w"] if inputs["image"].shape[0] == 4 else inputs["image"].sum(0), "batch as"),
        (lambda weights, inputs: inputs["image"].sum(), "expected the batch as first axis"),
        (lambda weights, inputs: float(inputs["image"].sum()), "can't be exported: ConcretizationTypeError"),
        (lambda weights, inputs: inputs["image"].reshape(7, -1), "can't be exported: "),
        (lambda weights, inputs: weights["missing"], "can't be exported: KeyError"),
    ],
    ids=["over-4", "twice", "squared", "bfloat16", "complex", "branch", "scalar", "number", "reshape", "missing"],
)
def test_what_cannot_be_exported_is_named_and_nothing_is_written(
    apply: Callable[..., Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(DeploycheckError, match=says):
        written(Network({"w": jnp.ones(3)}, named(apply)), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_what_cannot_be_exported_comes_with_what_to_do(tmp_path: Path) -> None:
    reshaped = named(lambda weights, inputs: inputs["image"].reshape(7, -1))
    with pytest.raises(DeploycheckError) as caught:
        written(Network({}, reshaped), tmp_path / "out")
    assert "a batch of any size" in caught.value.hint
    assert "\n" not in caught.value.what
    assert isinstance(caught.value.__cause__, Exception)
