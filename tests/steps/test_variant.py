"""Variants: one more method in a model's config, and a ``Trainer`` only for a method that trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from deploycheck.checks.size import bytes_of, sparsity
from deploycheck.errors import DeploycheckError
from deploycheck.ref import Ref
from deploycheck.stages.trainer import Trainer
from deploycheck.steps import STEP_KINDS
from deploycheck.steps import trained as files
from deploycheck.steps.model import ModelSettings
from deploycheck.steps.trained import Config
from deploycheck.steps.variant import VariantSettings, uses_of
from deploycheck.store import Artifact, write_manifest
from tests.planning import HEAD, built_in, spec
from tests.steps.making import INPUT, TRAIN, USES, Steps
from tests.steps.users import Scaled


@pytest.fixture
def given() -> Iterator[list[tuple[float, Trainer | None]]]:
    """What the methods were given."""
    Scaled.given.clear()
    yield Scaled.given
    Scaled.given.clear()


def settings(method: str, **options: Any) -> VariantSettings:
    return VariantSettings(
        variant="smaller", method=f"tests.steps.users:{method}", options=options, train=TRAIN, uses=USES
    )


def weights_of(artifact: Artifact, chain: Steps) -> np.ndarray:
    return np.asarray(files.read(artifact, chain.extensions).model.weights["params/out"])


def test_a_method_that_does_not_train_is_given_no_trainer_and_needs_no_data(
    chain: Steps, trained: Artifact, given: list[tuple[float, Trainer | None]]
) -> None:
    artifact = chain.make("variant", settings("PLAIN", by=3.0), "plain", weights=trained)
    assert given == [(3.0, None)]
    np.testing.assert_allclose(weights_of(artifact, chain), 3 * weights_of(trained, chain))
    config = files.read(artifact, chain.extensions).config
    assert config.methods == (("tests.steps.users:PLAIN", {"by": 3.0}),)
    assert chain.said[-1] == "compress: smaller by tests.steps.users:PLAIN"
    assert "remarks" not in artifact.meta


def test_a_method_that_trains_is_given_a_trainer_without_the_test_split(
    chain: Steps, trained: Artifact, data: Artifact, given: list[tuple[float, Trainer | None]]
) -> None:
    chain.make("variant", settings("TRAINS"), "trains", weights=trained, data=data)
    ((by, trainer),) = given
    assert by == 2.0  # the default of its options
    assert trainer is not None
    assert {name: len(part) for name, part in trainer.examples.items()} == {"train": 54, "validation": 18}
    raw = STEP_KINDS["data"].subjects["dataset"].read(data, None).splits["train"].inputs["x"]
    np.testing.assert_allclose(trainer.examples["train"].inputs["x"], raw * 0.5)
    assert (trainer.recipe.optimizer, trainer.recipe.epochs, trainer.seed) == ("adam", 3, 0)
    other = trainer.build("tests.steps.users:build", {"width": 2})
    assert other.weights["params/out"].shape == (2, 3)


def test_a_variant_of_a_variant_has_both_methods_in_order(chain: Steps, trained: Artifact) -> None:
    first = chain.make("variant", settings("PLAIN", by=3.0), "first", weights=trained)
    both = chain.make("variant", settings("PLAIN", by=5.0), "both", weights=first)
    config = files.read(both, chain.extensions).config
    assert [options["by"] for _, options in config.methods] == [3.0, 5.0]
    np.testing.assert_allclose(weights_of(both, chain), 15 * weights_of(trained, chain), rtol=1e-6)


def test_an_installed_method_is_used_by_its_name(chain: Steps, trained: Artifact) -> None:
    int8 = VariantSettings(variant="int8", method="quantize", options={"weights": "int8"}, train=TRAIN, uses=USES)
    artifact = chain.make("variant", int8, "int8", weights=trained)
    weights = files.read(artifact, chain.extensions).model.weights
    assert {"int8"} <= {array.dtype.name for array in weights.values()}
    assert artifact.meta["remarks"] == ["224 of 224 bytes of parameters are quantised"]


def test_ranges_are_calibrated_on_the_training_split(chain: Steps, trained: Artifact, data: Artifact) -> None:
    options = {"weights": "int8", "activations": "int8", "calibrate": {"examples": 54}}
    int8 = VariantSettings(variant="int8", method="quantize", options=options, train=TRAIN, uses=USES)
    artifact = chain.make("variant", int8, "calibrated", weights=trained, data=data)
    weights = files.read(artifact, chain.extensions).model.weights
    inputs = STEP_KINDS["data"].subjects["dataset"].read(data, None).splits["train"].inputs["x"] * 0.5
    np.testing.assert_allclose(weights["params/hidden/input_scale"], np.abs(inputs).max() / 127.5, rtol=1e-6)
    too_many = int8.model_copy(update={"options": {**options, "calibrate": {"examples": 55}}})
    with pytest.raises(DeploycheckError, match="55 examples are asked for, and the training split has 54"):
        chain.make("variant", too_many, "too many", weights=trained, data=data)


@pytest.mark.parametrize(("calibrate", "needed"), [("", {"weights"}), (", calibrate: {}", {"weights", "data"})])
def test_only_a_calibration_needs_the_data(calibrate: str, needed: set[str], tmp_path: Any) -> None:
    quantize = f"quantize: {{weights: int8, activations: int8{calibrate}}}"
    loaded = spec(f"{HEAD}compress: {{variants: {{a: {{{quantize}}}}}}}\n", tmp_path)
    assert STEP_KINDS["variant"].needs(loaded, Ref("variant", ("a",)), built_in()).keys() == needed


def test_layers_are_chosen_on_training_examples_and_recorded_by_name(chain: Steps, data: Artifact) -> None:
    config = Config(
        build="tests.steps.users:residual", arguments={"depth": 4}, input=INPUT, task="classification", seed=0
    )
    out = chain.folder / "residual"
    out.mkdir()
    files.write(files.Trained(config, files.build(config, {}, chain.extensions, 0), {}), out)
    deep = write_manifest(out, "training", "0" * 64, {})
    prune = VariantSettings(variant="shallow", method="prune", options={"layers": 2}, train=TRAIN, uses=USES)
    shallow = chain.make("variant", prune, "shallow", weights=deep, data=data)
    assert shallow.meta["remarks"] == ["44 of 76 parameters are left, without layer2, layer3"]
    read = files.read(shallow, chain.extensions)
    assert set(read.model.weights) == {"params/layer0/w", "params/layer1/w", "params/out/w"}
    assert read.config.methods[0][1]["layers"] == ["layer2", "layer3"]
    int8 = VariantSettings(variant="int8", method="quantize", options={"weights": "int8"}, train=TRAIN, uses=USES)
    small = files.read(chain.make("variant", int8, "shallow int8", weights=shallow), chain.extensions)
    assert small.model.weights["params/layer0/w/qvalue"].shape == (4, 4)


@pytest.mark.parametrize(("layers", "needed"), [("[a, b]", {"weights"}), ("2", {"weights", "data"})])
def test_only_a_number_of_layers_needs_the_data(layers: str, needed: set[str], tmp_path: Any) -> None:
    loaded = spec(f"{HEAD}compress: {{variants: {{a: {{prune: {{layers: {layers}}}}}}}}}\n", tmp_path)
    assert STEP_KINDS["variant"].needs(loaded, Ref("variant", ("a",)), built_in()).keys() == needed


def test_what_is_no_method_is_refused(chain: Steps, trained: Artifact) -> None:
    with pytest.raises(DeploycheckError, match=r"users:CLASSES is int, expected a compression method"):
        chain.make("variant", settings("CLASSES"), "refused", weights=trained)


def test_a_student_is_built_as_the_spec_builds_its_model_or_by_another_function(
    chain: Steps, trained: Artifact, data: Artifact
) -> None:
    student = VariantSettings(
        variant="student",
        method="distill",
        options={"model": {"with": {"width": 2}}, "alpha": 0.7, "temperature": 4.0, "train": {"epochs": 2}},
        train=TRAIN,
        uses=USES,
    )
    artifact = chain.make("variant", student, "student", weights=trained, data=data)
    read = files.read(artifact, chain.extensions)
    assert {name: array.shape for name, array in read.model.weights.items()} == {
        "params/hidden": (4, 2),
        "params/out": (2, 3),
    }
    assert read.config.build == "tests.steps.users:build"
    int8 = VariantSettings(variant="int8", method="quantize", options={"weights": "int8"}, train=TRAIN, uses=USES)
    smaller = files.read(chain.make("variant", int8, "student-int8", weights=artifact), chain.extensions)
    assert smaller.model.weights["params/hidden/qvalue"].shape == (4, 2)
    assert [name for name, _ in smaller.config.methods] == ["distill", "quantize"]
    other = student.model_copy(update={"options": {"model": {"build": "tests.steps.users:line"}, "alpha": 1.0}})
    line = files.read(chain.make("variant", other, "line", weights=trained, data=data), chain.extensions)
    assert set(line.model.weights) == {"params/line"}


def test_a_student_that_is_no_model_is_refused_by_its_name(chain: Steps, trained: Artifact, data: Artifact) -> None:
    options = {"model": {"build": "tests.steps.users:by_name"}, "alpha": 1.0}
    broken = VariantSettings(variant="broken", method="distill", options=options, train=TRAIN, uses=USES)
    with pytest.raises(DeploycheckError, match="it returned str, which is not a model") as caught:
        chain.make("variant", broken, "broken", weights=trained, data=data)
    assert caught.value.where == "tests.steps.users:by_name"


def test_the_code_behind_a_variant_is_that_of_all_it_is_made_from(tmp_path: Any) -> None:
    variants = "{a: {quantize: {weights: int8}}, b: {from: a, method: {'specs.models:halve': {}}}}"
    loaded = spec(f"{HEAD}compress: {{variants: {variants}}}\n", tmp_path)
    model, task = ("models", "specs.models:conv_classifier"), ("tasks", "classification")
    quantize = ("methods", "quantize")
    assert uses_of(loaded, "trained") == (model, task)
    assert uses_of(loaded, "a") == (model, task, quantize)
    assert uses_of(loaded, "b") == (model, task, quantize, ("methods", "specs.models:halve"))
    other = "{build: 'specs.models:ConvClassifier', with: {shape: [8, 8, 1], features: [2], classes: 10}}"
    distilled = f"{{distill: {{model: {other}, alpha: 1}}}}"
    variants = f"{{a: {distilled}, b: {{from: a, quantize: {{weights: int8}}}}}}"
    students = spec(f"{HEAD}compress: {{variants: {variants}}}\n", tmp_path)
    student, distill = ("models", "specs.models:ConvClassifier"), ("methods", "distill")
    assert uses_of(students, "trained") == (model, task)
    assert uses_of(students, "b") == (model, student, task, distill, quantize)
    kind = STEP_KINDS["variant"]
    assert kind.settings(loaded, Ref("variant", ("b",)), ()).model_dump()["method"] == "specs.models:halve"


@pytest.fixture(scope="module")
def wide(chain: Steps) -> Artifact:
    """A model of 105,000 parameters."""
    arguments = {"width": 15_000}
    config = Config(build=USES[0][1], arguments=arguments, input=INPUT, task="classification", seed=0)
    out = chain.folder / "wide"
    out.mkdir()
    files.write(files.Trained(config, files.build(config, {}, chain.extensions, 0), {}), out)
    return write_manifest(out, "training", "0" * 64, {})


def exported(chain: Steps, weights: Artifact, name: str) -> Artifact:
    return chain.make("model", ModelSettings(model="wide", runtime="xla", uses=USES), f"{name} model", weights=weights)


def test_a_sparse_variant_is_small_on_disk_and_smaller_in_int8(chain: Steps, wide: Artifact) -> None:
    prune = {"variant": "sparse", "method": "prune", "options": {"sparsity": "80 %"}}
    sparse = chain.make("variant", VariantSettings(**prune, train=TRAIN, uses=USES), "sparse", weights=wide)
    assert sparse.meta["remarks"] == ["84,000 of 105,000 weights of kernels are zero: hidden (80%), out (80%)"]
    quantize = {"variant": "both", "method": "quantize", "options": {"weights": "int8", "per": "tensor"}}
    both = chain.make("variant", VariantSettings(**quantize, train=TRAIN, uses=USES), "both of them", weights=sparse)
    models = [exported(chain, it, name) for it, name in ((wide, "float"), (sparse, "pruned"), (both, "in int8"))]
    sizes = [bytes_of(it) for it in models]
    assert sizes[1] <= 0.30 * sizes[0]
    assert sizes[2] <= 0.15 * sizes[0]
    assert [sparsity.measure(it).sample.value >= 0.8 for it in models] == [False, True, True]


def test_a_variant_with_channels_cut_is_read_with_its_smaller_weights(chain: Steps, trained: Artifact) -> None:
    prune = {"variant": "narrow", "method": "prune", "options": {"channels": "50 %"}}
    narrow = chain.make("variant", VariantSettings(**prune, train=TRAIN, uses=USES), "narrow", weights=trained)
    assert narrow.meta["remarks"] == ["28 of 56 parameters are left"]
    model = files.read(narrow, chain.extensions).model
    assert {name: array.shape for name, array in model.weights.items()} == {
        "params/hidden": (4, 4),
        "params/out": (4, 3),
    }
    logits = model.apply(model.params, model.state, {"x": np.ones((5, 4), np.float32)})["logits"]
    assert logits.shape == (5, 3)
