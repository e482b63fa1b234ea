from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.builtin import pytest_deploycheck_extensions
from deploycheck.errors import DeploycheckError
from deploycheck.extensions import Extensions, collect
from deploycheck.language.spec import Input
from deploycheck.stages.data import Dataset
from deploycheck.stages.examples import Examples
from deploycheck.stages.network import TensorSpec
from deploycheck.stages.preprocess import fit_all
from deploycheck.steps import trained
from deploycheck.steps.trained import Config, Named, Trained
from deploycheck.store import Artifact, write_manifest
from tests.steps import models

FORMS = {"nnx": "NnxNet", "linen": "LinenNet", "function": "plain_net"}
RAW = {"x": np.random.default_rng(0).integers(0, 256, (6, 16)).astype(np.uint8)}
PREPROCESS: tuple[Named, ...] = (("scale", {"by": 1 / 255}), ("tests.steps.models:add_halves", {}), ("standardize", {}))
ROUND = "tests.steps.models:ROUND"
INT8 = {"weights": "int8", "activations": "int8"}


@pytest.fixture(scope="module")
def extensions() -> Extensions:
    root = Path(__file__).resolve().parents[2]
    return collect([(None, pytest_deploycheck_extensions())], root)


def config_for(build: str, **changes: Any) -> Config:
    fields: dict[str, Any] = {
        "build": f"tests.steps.models:{build}",
        "arguments": {"width": 4},
        "input": {"x": Input(shape=(16,), dtype="uint8")},
        "task": "classification",
        "seed": 3,
        "preprocess": PREPROCESS,
    }
    return Config(**{**fields, **changes})


def made(config: Config, extensions: Extensions) -> Trained:
    """Return a model with weights that its builder doesn't give for any seed, as training leaves them."""
    fitted = fit_all(trained.preprocessing(config.preprocess, extensions), RAW).arrays
    model = trained.build(config, fitted, extensions, config.seed)
    shifted = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.125, leaf.dtype), (model.params, model.state))
    return Trained(config, trained.with_arrays(model, *shifted), fitted)


def compressed_by(method: str, options: dict[str, Any], source: Trained, extensions: Extensions) -> Trained:
    chosen = extensions.method(method)
    model = chosen.compress(source.model, chosen.options.model_validate(options), None)
    return trained.compressed(source, model, method, options)


def stored(model: Trained, folder: Path) -> Artifact:
    folder.mkdir(exist_ok=True)
    trained.write(model, folder)
    return write_manifest(folder, "training", "0" * 64, {})


def answers(model: Trained, extensions: Extensions) -> np.ndarray:
    network = trained.network(model, extensions)
    return np.asarray(network.apply(network.weights, RAW)["logits"])


@pytest.mark.parametrize("preprocess", [PREPROCESS, (("tests.steps.models:add_halves", {}),)], ids=["steps", "one"])
@pytest.mark.parametrize("build", FORMS.values(), ids=FORMS)
def test_a_model_is_read_as_it_was_written(
    build: str, preprocess: tuple[Named, ...], extensions: Extensions, tmp_path: Path
) -> None:
    model = made(config_for(build, preprocess=preprocess), extensions)
    again = trained.read(stored(model, tmp_path), extensions)
    assert again.config == model.config
    assert again.model.weights.keys() == model.model.weights.keys()
    assert again.fitted.keys() == model.fitted.keys()
    np.testing.assert_array_equal(answers(again, extensions), answers(model, extensions))


@pytest.mark.parametrize("build", FORMS.values(), ids=FORMS)
def test_a_quantised_model_is_read_as_it_was_written(build: str, extensions: Extensions, tmp_path: Path) -> None:
    model = compressed_by("quantize", INT8, made(config_for(build), extensions), extensions)
    again = trained.read(stored(model, tmp_path), extensions)
    assert again.config.methods == (("quantize", INT8),)
    assert {name for name, array in again.model.weights.items() if array.dtype == "int8"} == {
        f"{name}/qvalue" for name, array in made(config_for(build), extensions).model.weights.items() if array.ndim > 1
    }
    np.testing.assert_array_equal(answers(again, extensions), answers(model, extensions))


def test_a_model_in_bfloat16_keeps_its_dtype(extensions: Extensions, tmp_path: Path) -> None:
    model = made(config_for("plain_net", arguments={"width": 4, "dtype": "bfloat16"}), extensions)
    again = trained.read(stored(model, tmp_path), extensions)
    assert {str(array.dtype) for array in again.model.weights.values()} == {"bfloat16"}
    np.testing.assert_array_equal(answers(again, extensions), answers(model, extensions))


def test_a_method_by_import_path_is_applied_when_the_model_is_read(extensions: Extensions, tmp_path: Path) -> None:
    source = made(config_for("plain_net"), extensions)
    model = compressed_by(ROUND, {"digits": 5}, source, extensions)
    again = trained.read(stored(model, tmp_path), extensions)
    np.testing.assert_array_equal(answers(again, extensions), answers(model, extensions))
    np.testing.assert_allclose(answers(again, extensions), 2 * answers(source, extensions), rtol=1e-3, atol=1e-3)


def test_several_methods_are_applied_in_their_order(extensions: Extensions, tmp_path: Path) -> None:
    rounded = compressed_by(ROUND, {"digits": 0}, made(config_for("plain_net"), extensions), extensions)
    model = compressed_by("quantize", INT8, rounded, extensions)
    again = trained.read(stored(model, tmp_path), extensions)
    assert again.config.methods == ((ROUND, {"digits": 0}), ("quantize", INT8))
    assert again.model.weights["params/head/qvalue"].dtype == "int8"
    np.testing.assert_array_equal(answers(again, extensions), answers(model, extensions))


def test_what_is_not_a_method_is_refused(extensions: Extensions) -> None:
    config = config_for("plain_net", methods=(("tests.steps.models:add_halves", {}),))
    with pytest.raises(DeploycheckError, match=r"add_halves is Preprocessing, expected a compression method"):
        trained.form_of(config, made(config, extensions).fitted, extensions)


@pytest.mark.parametrize("method", [None, "quantize"])
@pytest.mark.parametrize(
    ("other", "names"),
    [
        (models.net_with_bias, ["params/bias"]),
        (models.wider_net, ["params/head", "params/hidden"]),
        (models.half_net, ["params/head", "params/hidden"]),
    ],
)
def test_a_build_whose_weights_differ_is_refused_by_name(
    other: Callable[..., Any],
    names: list[str],
    method: str | None,
    extensions: Extensions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = made(config_for("plain_net"), extensions)
    artifact = stored(compressed_by(method, INT8, source, extensions) if method else source, tmp_path)
    monkeypatch.setattr(models, "plain_net", other)
    with pytest.raises(DeploycheckError, match="plain_net gives now has other weights than the stored one") as caught:
        trained.read(artifact, extensions)
    assert all(name in caught.value.what for name in names)
    assert caught.value.where == str(tmp_path)


def test_what_is_not_a_model_is_refused_at_its_import_path(extensions: Extensions) -> None:
    with pytest.raises(DeploycheckError, match="it returned int, which is not a model") as caught:
        made(config_for("broken_net"), extensions)
    assert caught.value.where == "tests.steps.models:broken_net"


def test_a_config_comes_back_from_its_json(extensions: Extensions, tmp_path: Path) -> None:
    config = config_for(
        "plain_net",
        arguments={"width": 4, "dtype": "float32"},
        preprocess=(("fill_missing", {}), *PREPROCESS),
        methods=(("quantize", INT8), (ROUND, {"digits": 2})),
    )
    assert Config.model_validate_json(config.model_dump_json()) == config
    model = made(config_for("plain_net"), extensions)
    stored(model, tmp_path)
    assert Config.model_validate_json((tmp_path / "config.json").read_bytes()) == model.config


def test_a_method_can_have_another_model_built_for_the_same_inputs(extensions: Extensions) -> None:
    config = config_for("plain_net", methods=(("tests.steps.models:REPLACE", {}),))
    form = trained.form_of(config, made(config, extensions).fitted, extensions)
    assert {name: leaf.shape for name, leaf in form.weights.items()} == {
        "params/hidden": (8, 10),
        "params/head": (10, 3),
    }


def test_another_model_is_built_freshly_from_the_configs_seed(extensions: Extensions) -> None:
    config = config_for("NnxNet")
    fitted = made(config, extensions).fitted
    build = trained.builder(config, fitted, extensions)
    one, again = (build("tests.steps.models:plain_net", {"width": 2}) for _ in range(2))
    expected = models.plain_net(2, jax.random.key(config.seed))[0]
    for name, array in expected.items():
        np.testing.assert_array_equal(one.params[name], array)
        np.testing.assert_array_equal(again.params[name], array)


def test_only_training_and_validation_examples_are_prepared(extensions: Extensions) -> None:
    config = config_for("plain_net")
    model = made(config, extensions)
    splits = {name: Examples(RAW, np.arange(6) % 3) for name in ("train", "validation", "test")}
    prepared = trained.prepared_examples(config, Dataset(splits, model.fitted), extensions)
    assert prepared.keys() == {"train", "validation"}
    inputs, labels = prepared["validation"].inputs, prepared["validation"].labels
    assert (inputs["x"].shape, inputs["x"].dtype) == ((6, 8), np.float32)
    np.testing.assert_array_equal(labels, np.arange(6) % 3)
    logits = model.model.apply(model.model.params, model.model.state, inputs)["logits"]
    np.testing.assert_allclose(logits, answers(model, extensions), rtol=1e-5)


def test_raw_inputs_are_those_before_preprocessing(extensions: Extensions) -> None:
    model = made(config_for("plain_net"), extensions)
    assert trained.raw_inputs(model, extensions) == {"x": TensorSpec((16,), "uint8")}


@pytest.mark.parametrize(
    ("steps", "missing"), [((), False), (("fill_missing",), True), (("scale", "fill_missing"), True)]
)
def test_an_input_may_hold_missing_values_where_the_preprocessing_fills_them(
    steps: tuple[str, ...], missing: bool, extensions: Extensions
) -> None:
    config = config_for(
        "plain_net",
        preprocess=tuple((step, {}) for step in steps),
        input={"x": Input(shape=(8,), dtype="float32"), "n": Input(shape=(), dtype="int32")},
    )
    model = made(config_for("plain_net"), extensions).model
    inputs = trained.raw_inputs(trained.Trained(config, model, {}), extensions)
    assert inputs == {"x": TensorSpec((8,), "float32", missing=missing), "n": TensorSpec((), "int32")}
