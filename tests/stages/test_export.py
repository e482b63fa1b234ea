from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deploycheck.errors import DeploycheckError
from deploycheck.language import load
from deploycheck.plan import make_plan
from deploycheck.runner.extensions import builtin_extensions
from deploycheck.runner.machine import Machine
from deploycheck.runner.steps import MAKERS, Work
from deploycheck.serving import runtime
from deploycheck.stages import export
from deploycheck.stages.model import Model, Network, build_model, to_network
from deploycheck.stages.quantize import compress
from deploycheck.store import Artifact, Building, open_artifact, write_manifest
from tests.stages.conftest import BUILDERS

ROOT = Path(__file__).parents[2]
INPUTS = {"image": ((6, 6, 1), "float32")}
KEY = "ab" * 32


def network(model: Model) -> Network:
    return to_network(model, lambda fitted, inputs: dict(inputs), {})


def written(made: Network, folder: Path) -> Path:
    folder.mkdir()
    export.write(made, INPUTS, "logits", "net", folder, "spec.yaml: model")
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


EXPORT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.stages.test_export import written_by_form
written_by_form(Path(sys.argv[2]))
"""


def written_by_form(folder: Path) -> dict[str, bytes]:
    """Export the classifier in every form; return what was written, by path."""
    folder.mkdir()
    for form, build in BUILDERS.items():
        model = build_model(build, {}, {"image": np.zeros((2, 6, 6, 1), np.float32)}, 0, where="model")
        written(network(model), folder / form)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/*")}


def test_another_process_in_another_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    here, elsewhere = written_by_form(tmp_path / "here"), tmp_path / "elsewhere"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", EXPORT, str(ROOT), str(elsewhere)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert len(here) == 9
    assert {path: (elsewhere / path).read_bytes() == content for path, content in here.items()} == dict.fromkeys(
        here, True
    )


def test_nothing_of_the_machine_is_in_the_files(builder: Callable[[int], Model], tmp_path: Path) -> None:
    folder = written(network(builder(0)), tmp_path / "out")
    for file in folder.iterdir():
        content = file.read_bytes()
        for trace in (ROOT, sys.prefix, Path.home(), tmp_path, "site-packages", "conftest", "test_export"):
            assert str(trace).encode() not in content, (file.name, trace)
        assert not re.search(rb"\w\.pyc?\b", content), file.name


def test_what_jax_writes_of_source_lines_is_as_it_was_after_an_export(tmp_path: Path) -> None:
    def limit() -> int:
        found: int = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
        return found

    before = limit()
    assert before != 0
    written(Network({"w": jnp.ones(3)}, lambda weights, inputs: inputs["image"]), tmp_path / "good")
    assert limit() == before
    with pytest.raises(DeploycheckError):
        written(Network({}, lambda weights, inputs: weights["missing"]), tmp_path / "bad")
    assert limit() == before


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


def test_a_quantised_network_is_stored_in_the_bits_it_is_worth(tmp_path: Path) -> None:
    model = build_model(BUILDERS["function"], {}, {"image": np.zeros((2, 6, 6, 1), np.float32)}, 0, where="model")
    example = {"image": np.zeros((2, 6, 6, 1), np.float32)}
    small = compress(network(model), {"weights": "int8", "activations": "int8"}, example, "compress")
    folder = written(small, tmp_path / "out")
    write_manifest(folder, "model", KEY, {})
    stored = load_file(folder / export.WEIGHTS)
    assert {name: array.dtype for name, array in stored.items()} == {
        name: array.dtype for name, array in small.weights.items()
    }
    assert sum(array.dtype == np.int8 for array in stored.values()) == 2
    loaded, image = runtime.load(folder), np.ones((3, 6, 6, 1), np.float32)
    (answer,) = loaded.program.call(loaded.weights, {"image": image}).values()
    np.testing.assert_allclose(answer, small.apply(small.weights, {"image": image}), atol=1e-5)


def test_a_program_with_several_inputs_and_no_weights_is_a_program(tmp_path: Path) -> None:
    made = Network({}, lambda weights, inputs: inputs["left"] @ jnp.ones((2, 3)) + inputs["right"].astype(jnp.float32))
    folder = tmp_path / "out"
    folder.mkdir()
    export.write(
        made, {"right": ((3,), "int32"), "left": ((2,), "float32")}, "prediction", "two", folder, "spec.yaml: model"
    )
    write_manifest(folder, "model", KEY, {})
    signature = json.loads((folder / export.SIGNATURE).read_bytes())
    assert signature["inputs"] == [
        {"name": "right", "datatype": "INT32", "shape": [-1, 3]},
        {"name": "left", "datatype": "FP32", "shape": [-1, 2]},
    ]
    loaded = runtime.load(folder)
    assert loaded.weights == {}
    inputs = {"left": np.ones((4, 2), np.float32), "right": np.arange(12, dtype=np.int32).reshape(4, 3)}
    (answer,) = loaded.program.call(loaded.weights, inputs).values()
    np.testing.assert_allclose(answer, 2 + inputs["right"])


SPEC = """\
deploycheck: 1
name: small
model:
  build: small_net:build
  input: {image: {shape: [2], dtype: float32}}
data: {load: "small_net:load", expect: {missing_values: "== 0"}}
train: {optimizer: {sgd: {learning_rate: 0.1}}, epochs: 1, batch_size: 2}
"""
CODE = """
import numpy as np


def build():
    return {"w": np.zeros((2, 3), np.float32)}, lambda params, image: image @ params["w"]


def load():
    ...
"""


def exported_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Work, Path, Mapping[str, Any]]:
    """Make the step ``model[trained]`` of a spec from weights that nobody trained; return its files and its meta."""
    (folder / "small_net.py").write_text(CODE)
    (folder / "spec.yaml").write_text(SPEC)
    monkeypatch.syspath_prepend(folder)
    extensions = builtin_extensions()
    (spec,) = load(folder / "spec.yaml", folder, extensions.vocabulary)
    plan = make_plan(spec, "spec.yaml", extensions.subjects)
    training, out, scratch = (folder / name for name in ("training", "out", "scratch"))
    for path in (training, out, scratch):
        path.mkdir()
    save_file({"params/w": np.ones((2, 3), np.float32)}, training / "weights.safetensors")
    source: Artifact = write_manifest(training, "training", KEY, {})
    machine = Machine(folder, print)
    work = Work(plan, plan.steps["model[trained]"], {"training": source}, folder, extensions, print, machine)
    make, _ = MAKERS["model"]
    return work, out, make(work, Building(out, scratch))


def test_when_and_on_what_it_was_exported_is_written_down_and_no_part_of_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earliest = datetime.now(UTC).date()
    _, out, meta = exported_step(tmp_path, monkeypatch)
    day = date.fromisoformat(meta["exported"])
    assert earliest <= day <= datetime.now(UTC).date()
    assert date.fromisoformat(meta["loadable_until"]) == day + timedelta(days=180)
    assert meta["device"] == jax.devices()[0].device_kind
    today = write_manifest(out, "model", KEY, meta)
    assert open_artifact(out).meta == meta
    tomorrow = write_manifest(out, "model", "cd" * 32, {**meta, "exported": "2031-01-01", "device": "another"})
    assert tomorrow.digest == today.digest
    for name in today.files:
        content = today.file(name).read_bytes()
        assert not [said for said in (meta["exported"], meta["loadable_until"]) if said.encode() in content], name


def test_the_versions_an_export_was_made_with_decide_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _, _ = exported_step(tmp_path, monkeypatch)
    _, decided_by = MAKERS["model"]
    decided = decided_by(work)
    assert decided["versions"]["jax"] == jax.__version__
    assert json.dumps(decided) == json.dumps(decided_by(work))
    assert not {"exported", "loadable_until"} & decided.keys()


def test_an_export_can_be_loaded_for_half_a_year() -> None:
    assert export.loadable_until(date(2026, 1, 1)) == date(2026, 6, 30)


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0, dtype=np.float32).reshape(2, 3).T, np.arange(12.0, dtype=np.float32).reshape(3, 4)[:, :2]],
    ids=["transposed", "columns"],
)
def test_weights_come_back_however_they_lie_in_memory(array: np.ndarray, tmp_path: Path) -> None:
    made = Network({"w": array}, lambda weights, inputs: inputs["image"][:, :3, 0, 0] @ weights["w"])  # type: ignore[dict-item]
    np.testing.assert_array_equal(load_file(written(made, tmp_path / "out") / export.WEIGHTS)["w"], array)


def flat(inputs: Mapping[str, Any]) -> jax.Array:
    image: jax.Array = inputs["image"]
    return image.reshape(image.shape[0], -1)


@pytest.mark.parametrize(
    ("apply", "says"),
    [
        (lambda weights, inputs: weights["w"] if inputs["image"].shape[0] > 4 else flat(inputs), "can't be exported: "),
        (lambda weights, inputs: jnp.concatenate([flat(inputs), flat(inputs)]), "expected the batch as first axis"),
        (lambda weights, inputs: (flat(inputs), flat(inputs)), "gives 2 arrays in a structure, expected one array"),
        (lambda weights, inputs: {"a": flat(inputs)}, "gives 1 arrays in a structure, expected one array"),
        (lambda weights, inputs: None, "gives 0 arrays in a structure, expected one array"),
        (lambda weights, inputs: flat(inputs) @ flat(inputs).T, "expected the batch as first axis alone"),
        (lambda weights, inputs: flat(inputs).astype(jnp.bfloat16), "gives bfloat16, for which"),
        (lambda weights, inputs: flat(inputs).astype(jnp.complex64), "gives complex64, for which"),
    ],
    ids=["batch-over-4", "batch-twice", "tuple", "dict", "none", "batch-squared", "bfloat16", "complex"],
)
def test_what_is_no_batch_of_logits_is_named(apply: Callable[..., Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match=says) as caught:
        written(Network({"w": jnp.ones(3)}, apply), tmp_path / "out")
    assert caught.value.where == "spec.yaml: model"
    assert not list((tmp_path / "out").iterdir())


def test_what_cannot_be_exported_comes_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError) as caught:
        written(Network({}, lambda weights, inputs: inputs["image"].reshape(7, -1)), tmp_path / "out")
    assert "a batch of any size" in caught.value.hint
    assert "\n" not in caught.value.what
    assert isinstance(caught.value.__cause__, Exception)


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
