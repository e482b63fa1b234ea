from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from deploycheck.errors import DeploycheckError
from deploycheck.serving import runtime
from deploycheck.stages import export
from deploycheck.stages.model import Model, Network, to_network
from deploycheck.store import write_manifest

INPUTS = {"image": ((6, 6, 1), "float32")}


def network(model: Model) -> Network:
    return to_network(model, lambda fitted, inputs: dict(inputs), {})


def written(made: Network, folder: Path) -> Path:
    folder.mkdir()
    export.write(made, INPUTS, "net", folder, "spec.yaml: model")
    return folder


def test_the_same_network_gives_the_same_bytes(builder: Callable[[int], Model], tmp_path: Path) -> None:
    files = [
        {file.name: file.read_bytes() for file in written(network(builder(0)), tmp_path / name).iterdir()}
        for name in ("first", "second")
    ]
    assert files[0] == files[1]
    assert set(files[0]) == {export.PROGRAM, export.WEIGHTS, export.SIGNATURE}
    other = written(network(builder(1)), tmp_path / "third")
    assert (other / export.WEIGHTS).read_bytes() != files[0][export.WEIGHTS]
    assert (other / export.PROGRAM).read_bytes() == files[0][export.PROGRAM], "weights stand beside the program"


def test_nothing_of_the_machine_is_in_the_files(builder: Callable[[int], Model], tmp_path: Path) -> None:
    folder = written(network(builder(0)), tmp_path / "out")
    for file in folder.iterdir():
        content = file.read_bytes()
        for trace in (Path(__file__).name, "site-packages", str(Path.home()), str(tmp_path), "conftest.py"):
            assert trace.encode() not in content, (file.name, trace)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_one_program_answers_batches_of_any_size(builder: Callable[[int], Model], batch: int, tmp_path: Path) -> None:
    made = network(builder(0))
    folder = written(made, tmp_path / "out")
    write_manifest(folder, "model", "ab" * 32, {})
    loaded = runtime.load(folder)
    image = np.random.default_rng(0).normal(size=(batch, 6, 6, 1)).astype(np.float32)
    (answer,) = loaded.program.call(loaded.weights, {"image": image}).values()
    np.testing.assert_allclose(answer, made.apply(made.weights, {"image": image}), atol=1e-5)


def test_the_signature_says_what_the_protocol_will(builder: Callable[[int], Model], tmp_path: Path) -> None:
    folder = written(network(builder(0)), tmp_path / "out")
    signature = json.loads((folder / export.SIGNATURE).read_bytes())
    assert signature["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 6, 6, 1]}]
    assert signature["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    assert signature["jax_version"] == jax.__version__
    assert signature["platforms"] == [jax.default_backend()]


def test_the_weights_are_those_of_the_network(builder: Callable[[int], Model], tmp_path: Path) -> None:
    made = network(builder(0))
    stored = load_file(written(made, tmp_path / "out") / export.WEIGHTS)
    assert stored.keys() == made.weights.keys()
    for name, array in made.weights.items():
        np.testing.assert_array_equal(stored[name], array)


@pytest.mark.parametrize(
    ("apply", "says"),
    [
        (lambda weights, inputs: weights["w"] if inputs["image"].shape[0] == 4 else inputs["image"].sum(0), "gives"),
        (lambda weights, inputs: inputs["image"].sum(), "expected the batch as first axis"),
        (lambda weights, inputs: float(inputs["image"].sum()), "can't be exported: ConcretizationTypeError"),
        (lambda weights, inputs: inputs["image"].reshape(7, -1), "can't be exported: "),
        (lambda weights, inputs: weights["missing"], "can't be exported: KeyError"),
    ],
    ids=["branch", "scalar", "number", "reshape", "missing"],
)
def test_what_cannot_be_exported_is_named_and_nothing_is_written(
    apply: Callable[..., jax.Array], says: str, tmp_path: Path
) -> None:
    with pytest.raises(DeploycheckError, match=says) as caught:
        written(Network({"w": jnp.ones(3)}, apply), tmp_path / "out")
    assert caught.value.where == "spec.yaml: model"
    assert not list((tmp_path / "out").iterdir())
