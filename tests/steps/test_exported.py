"""A model that deploycheck exported, as the model of another spec."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import Input
from deploycheck.serving.opening import open_compiled
from deploycheck.serving.runtimes import BUILT_IN
from deploycheck.serving.runtimes.onnxruntime import ONNXRUNTIME
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.serving.signature import read_signature
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.steps import exported
from deploycheck.steps import trained as files
from deploycheck.steps.artifact import ArtifactSettings
from deploycheck.steps.model import ModelSettings
from deploycheck.steps.trained import Trained
from deploycheck.steps.variant import VariantSettings
from deploycheck.store import Artifact, loadable_until, write_lifetime, write_manifest
from tests.planning import built_in
from tests.steps.making import INPUT, TRAIN, USES, Steps, data_settings, training_settings

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
FOLDER = "handed/over"


@pytest.fixture
def project(tmp_path: Path) -> Steps:
    (tmp_path / "project").mkdir()
    return Steps(tmp_path, built_in(tmp_path / "project"))


@pytest.fixture(scope="module")
def raw(chain: Steps) -> Artifact:
    """The data as it is given: the preprocessing is inside of what was exported."""
    return chain.make("data", data_settings(preprocess=()), "raw data")


@pytest.fixture(params=[runtime.name for runtime in BUILT_IN])
def handed(request: pytest.FixtureRequest, chain: Steps, trained: Artifact, project: Steps) -> Artifact:
    """The trained model of the chain, exported for each runtime, as a folder of the project."""
    return hand_over(project, chain, trained, request.param)


def hand_over(project: Steps, chain: Steps, weights: Artifact, runtime: str) -> Artifact:
    settings = ModelSettings(model="clusters", runtime=runtime, uses=USES)
    name = f"{weights.path.name} for {runtime}"
    known = chain.folder / name
    made = exported.open_artifact(known) if known.exists() else chain.make("model", settings, name, weights=weights)
    shutil.copytree(made.path, project.extensions.root / FOLDER)
    return made


def settings(**changed: Any) -> ArtifactSettings:
    given = {"artifact": FOLDER, "sha256": None, "input": INPUT, "task": "classification", "seed": 0, "preprocess": ()}
    return ArtifactSettings(**{**given, **changed})


def read(artifact: Artifact, project: Steps) -> Trained:
    return files.read(artifact, project.extensions)


def answers(of: Trained, steps: Steps) -> np.ndarray:
    network = files.network(of, steps.extensions)
    return np.asarray(network.apply(network.weights, {"x": X})["logits"])


def test_it_is_the_model_that_was_exported_with_its_preprocessing(
    project: Steps, chain: Steps, raw: Artifact, trained: Artifact, handed: Artifact
) -> None:
    artifact = project.make("artifact", settings(), data=raw)
    before, after = files.read(trained, chain.extensions), read(artifact, project)
    learned = {f"state/{name}": array for name, array in before.fitted.items()}
    assert after.model.weights.keys() == {**before.model.weights, **learned}.keys()
    np.testing.assert_allclose(answers(after, project), answers(before, chain), rtol=1e-5)
    digest = handed.digest.removeprefix("sha256:")
    runtime = read_signature(handed.file("signature.json")).runtime
    assert artifact.meta["sha256"] == digest
    assert artifact.meta["remarks"] == [f"model of {FOLDER}, exported for {runtime}, sha256:{digest[:12]}"]
    assert project.make("artifact", settings(sha256=digest), "again", data=raw).digest == artifact.digest


def test_it_is_exported_and_served_again(project: Steps, raw: Artifact, handed: Artifact) -> None:
    start = project.make("artifact", settings(), data=raw)
    runtime = read_signature(handed.file("signature.json")).runtime
    again = project.make("model", ModelSettings(model="again", runtime=runtime, uses=()), weights=start)
    engines = [open_compiled(each.path, (), (5,)) for each in (handed, again)]
    np.testing.assert_allclose(*(engine.run({"x": X})["logits"] for engine in engines), rtol=1e-5)
    assert engines[1].signature.model == "again"


def truncate(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])


def as_of(kind: str) -> Callable[[Path], None]:
    return lambda folder: void(write_manifest(folder, kind, "0" * 64, {}))


def expire(folder: Path) -> None:
    write_lifetime(folder, date(2024, 1, 31))
    write_manifest(folder, "model", "0" * 64, {})


def garble(folder: Path) -> None:
    """A folder whose manifest is right, and whose weights are those of another model."""
    (folder / "weights.safetensors").unlink()
    exported_weights = {"params/other": np.zeros(3, np.float32)}
    from deploycheck.store.weights import write_weights

    write_weights(exported_weights, folder / "weights.safetensors")
    write_manifest(folder, "model", "0" * 64, {})


def rename_output(folder: Path) -> None:
    text = (folder / "signature.json").read_text()
    (folder / "signature.json").write_text(text.replace('"logits"', '"scores"'))
    write_manifest(folder, "model", "0" * 64, {})


def claim(runtime: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "signature.json").read_text()) | {"runtime": runtime}
        (folder / "signature.json").write_text(json.dumps(content))
        write_manifest(folder, "model", "0" * 64, {})

    return change


def void(_: Any) -> None:
    """Nothing."""


@pytest.mark.parametrize(
    ("damage", "says", "hint"),
    [
        (truncate, "weights.safetensors is damaged: expected sha256", "get the whole folder again"),
        (lambda folder: void((folder / "more.txt").write_text("")), "more.txt is there, but the manifest", "get the"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing", "get the whole folder"),
        (
            as_of("training"),
            "is an artifact of kind 'training', expected an exported model",
            "name the folder of an exported",
        ),
        (expire, "could be loaded until 2024-01-31", "the gate of the spec that made it exports it again"),
        (garble, "its program can't be called: ", "get the whole folder again"),
        (rename_output, "its program gives other outputs than its signature says", "get the whole folder again"),
        (claim("onnxruntime"), "has no file model.onnx, only", ""),
        (claim("tensorrt"), "it was exported for 'tensorrt', whose exports can't be read back", "export it for xla or"),
    ],
    ids=["short", "more", "no manifest", "kind", "expired", "weights", "outputs", "no program", "runtime"],
)
def test_a_folder_that_is_not_what_was_exported_is_refused(
    damage: Callable[[Path], None],
    says: str,
    hint: str,
    project: Steps,
    chain: Steps,
    trained: Artifact,
    raw: Artifact,
) -> None:
    hand_over(project, chain, trained, "xla")
    damage(project.extensions.root / FOLDER)
    with pytest.raises(DeploycheckError, match=says) as refused:
        project.make("artifact", settings(), data=raw)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sha256": "0" * 64}, f"{FOLDER}: its sha256 is .*, the spec has 0000"),
        ({"artifact": f"../{FOLDER}"}, "is outside of the project"),
        ({"input": {"x": Input(shape=(5,), dtype="float32")}}, r"its input 'x' is \[4\] float32, the spec's is \[5\]"),
        (
            {"input": {"x": Input(shape=(4,), dtype="uint8")}},
            r"the spec's is \[4\] uint8\n  hint: the preprocessing that it was exported with is part of it",
        ),
    ],
)
def test_what_does_not_fit_the_spec_is_said(
    changed: dict[str, Any], says: str, project: Steps, chain: Steps, trained: Artifact, raw: Artifact
) -> None:
    hand_over(project, chain, trained, "xla")
    with pytest.raises(DeploycheckError, match=says):
        project.make("artifact", settings(**changed), data=raw)


def variant(method: str, **options: Any) -> VariantSettings:
    return VariantSettings(variant=method, method=method, options=options, train=TRAIN, uses=())


def test_methods_that_need_only_weights_or_answers_work_on_a_program_that_can_only_be_called(
    project: Steps, chain: Steps, trained: Artifact, raw: Artifact
) -> None:
    hand_over(project, chain, trained, "xla")
    start = project.make("artifact", settings(), data=raw)
    coded = project.make("variant", variant("dead_zone", range=128), "coded", weights=start)
    close = answers(read(start, project), project)
    np.testing.assert_allclose(answers(read(coded, project), project), close, atol=0.05 * np.abs(close).max())
    assert "params/hidden/qvalue" in read(coded, project).model.weights
    student = {"build": "tests.steps.users:build", "with": {"width": 2}}
    learned = project.make("variant", variant("distill", model=student, alpha=0.5), "s", weights=start, data=raw)
    settings_of_student = ModelSettings(model="student", runtime="onnxruntime", uses=())
    assert project.make("model", settings_of_student, "student", weights=learned).files


def test_what_was_exported_for_onnxruntime_is_compressed_and_trained_like_code(
    project: Steps, chain: Steps, trained: Artifact, raw: Artifact
) -> None:
    hand_over(project, chain, trained, "onnxruntime")
    start = project.make("artifact", settings(), data=raw)
    int8 = project.make("variant", variant("quantize", weights="int8"), "int8", weights=start)
    assert int8.meta["remarks"] == ["224 of 224 bytes of parameters are quantised"]
    cut = project.make("variant", variant("prune", channels="50 %"), "cut", weights=start)
    assert read(cut, project).model.weights["params/hidden"].shape == (4, 4)
    further = training_settings(build=None, arguments={}, artifact=FOLDER, preprocess=())
    more = project.make("training", further, "training", data=raw, start=start)
    before, after = (read(each, project).model.weights["params/out"] for each in (start, more))
    assert float(jnp.abs(before - after).max()) > 0


@pytest.mark.parametrize(
    ("runtime", "quantised", "says"),
    [
        ("xla", False, "a program that was exported for xla can't be trained"),
        ("onnxruntime", True, "a model with quantised weights can't be trained"),
    ],
)
def test_what_cannot_be_trained_says_so(
    runtime: str, quantised: bool, says: str, project: Steps, chain: Steps, trained: Artifact, raw: Artifact
) -> None:
    source = trained
    if quantised:
        int8 = VariantSettings(variant="int8", method="quantize", options={"weights": "int8"}, train=TRAIN, uses=USES)
        source = chain.make("variant", int8, "int8 to be handed over", weights=trained)
    hand_over(project, chain, source, runtime)
    model = read(project.make("artifact", settings(), data=raw), project).model
    with pytest.raises(DeploycheckError, match=says):
        model.train(model.params, model.state, {"x": X}, jax.random.key(0))


FILLED = Network(
    {"params/w": jnp.ones((4, 3)), "preprocess/mean/x": jnp.full(4, 2.0)},
    lambda weights, inputs: {
        "logits": jnp.where(jnp.isnan(inputs["x"]), weights["preprocess/mean/x"], inputs["x"]) @ weights["params/w"]
    },
)


@pytest.mark.parametrize("runtime", [XLA, ONNXRUNTIME], ids=lambda runtime: runtime.name)
def test_what_preprocessing_learned_is_kept_and_not_trained_and_missing_values_stay_allowed(
    runtime: Any, project: Steps, raw: Artifact, data: Artifact
) -> None:
    folder = project.extensions.root / FOLDER
    folder.mkdir(parents=True)
    runtime.export(FILLED, {"x": TensorSpec((4,), "float32", missing=True)}, "filled", folder)
    write_manifest(folder, "model", "0" * 64, {})
    start = project.make("artifact", settings(), data=raw)
    model = read(start, project).model
    assert (set(model.params), set(model.state)) == ({"w"}, {"preprocess/mean/x"})
    again = project.make("model", ModelSettings(model="m", runtime=runtime.name, uses=()), weights=start)
    assert read_signature(again.file("signature.json")).inputs[0].missing
    assert exported.TWICE not in start.meta["remarks"]
    scaled = project.make("artifact", settings(preprocess=(("scale", {"by": 0.5}),)), "scaled", data=data)
    assert scaled.meta["remarks"][1:] == [exported.TWICE]


def test_an_export_of_an_export_can_be_loaded_no_longer_than_the_first(
    project: Steps, chain: Steps, trained: Artifact, raw: Artifact
) -> None:
    hand_over(project, chain, trained, "xla")
    soon = datetime.now(UTC).date() + timedelta(days=40)
    write_lifetime(project.extensions.root / FOLDER, soon)
    write_manifest(project.extensions.root / FOLDER, "model", "0" * 64, {})
    start = project.make("artifact", settings(), data=raw)
    again = project.make("model", ModelSettings(model="m", runtime="xla", uses=()), weights=start)
    assert loadable_until(again) == soon
