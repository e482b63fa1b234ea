from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from deploycheck.errors import DeploycheckError
from deploycheck.language import SpecErrors
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods import Describes, Method, is_given_trainer, settle
from deploycheck.stages.methods.prune import PRUNE, PruneOptions
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.quantization import quantize_weights
from deploycheck.stages.recipe import Recipe
from deploycheck.stages.tasks.classification import CLASSIFICATION
from deploycheck.stages.trainer import Trainer
from tests.planning import HEAD, spec
from tests.stages.networks import IMAGE, LOGITS, plain
from tests.stages.trainers import RECIPE as SHORTER
from tests.stages.trainers import Splits, trainer_for

INT8 = QuantizeOptions(weights="int8")
RECIPE = replace(SHORTER, epochs=9)


def options(**given: Any) -> PruneOptions:
    return PruneOptions.model_validate(given)


def trainer(examples: Splits, scratch: Path, recipe: Recipe = RECIPE) -> Trainer:
    return trainer_for(examples, scratch, recipe)


def zeros(model: Model) -> dict[str, float]:
    return {name: float((model.params[name] == 0).mean()) for name in ("kernel", "head")}


def accuracy(model: Model, part: Examples) -> float:
    outputs = {"logits": np.asarray(model.apply(model.params, model.state, part.inputs)["logits"])}
    return CLASSIFICATION.scores(outputs, part.labels)["accuracy"]


def test_it_is_a_method_that_says_what_it_did_and_trains_where_the_options_say_so() -> None:
    assert isinstance(PRUNE, Method)
    assert isinstance(PRUNE, Describes)
    assert not is_given_trainer(PRUNE, options(sparsity="50 %"))
    assert is_given_trainer(PRUNE, options(sparsity="50 %", finetune={"epochs": 1}))


def test_one_shot_pruning_trains_nothing() -> None:
    model = plain(0)
    pruned = PRUNE.compress(model, options(sparsity="50 %", scope="layer"), None)
    assert zeros(pruned) == {"kernel": 0.5, "head": 0.5}
    left = pruned.params["kernel"] != 0
    np.testing.assert_array_equal(pruned.params["kernel"][left], model.params["kernel"][left])
    assert PRUNE.describe(model, pruned) == "312 of 624 weights of kernels are zero: kernel (50%), head (50%)"


def test_a_pattern_prunes_each_group() -> None:
    pruned = PRUNE.compress(plain(0), options(pattern="1:4", keep=["head"]), None)
    assert zeros(pruned) == {"kernel": 0.75, "head": 0.0}
    groups = np.asarray(pruned.params["kernel"] != 0).reshape(9, 4, 16)
    assert (groups.sum(axis=1) == 1).all()


def test_finetuning_keeps_zeros_and_learns(examples: Mapping[str, Examples], tmp_path: Path) -> None:
    chosen = options(sparsity="80 %", by="energy", finetune={"epochs": 6, "learning_rate": 0.05})
    pruned = PRUNE.compress(plain(0), chosen, trainer(examples, tmp_path))
    once = PRUNE.compress(plain(0), options(sparsity="80 %", by="energy"), None)
    for name in ("kernel", "head"):
        np.testing.assert_array_equal(pruned.params[name] == 0, once.params[name] == 0)
    assert accuracy(pruned, examples["validation"]) > 0.9 > accuracy(once, examples["validation"])


def test_gradual_pruning_ends_at_its_sparsity_even_if_an_earlier_epoch_was_better(
    examples: Mapping[str, Examples], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, watch="validation.loss", patience=1)
    chosen = options(sparsity="90 %", schedule="gradual", finetune={"epochs": 4, "learning_rate": 0.05})
    pruned = PRUNE.compress(plain(0), chosen, trainer(examples, tmp_path, recipe))
    assert sum(int((pruned.params[name] == 0).sum()) for name in ("kernel", "head")) == round(0.9 * 624)
    assert accuracy(pruned, examples["validation"]) > 0.9


def test_cut_channels_make_the_weights_smaller() -> None:
    model = plain(0)
    cut = PRUNE.compress(model, options(channels="50 %"), None)
    assert {name: leaf.shape for name, leaf in cut.params.items()} == {"kernel": (36, 8), "head": (8, 3), "bias": (3,)}
    assert PRUNE.describe(model, cut) == "315 of 627 parameters are left"
    form = PRUNE.structure(plain(1).form, options(channels="50 %"), lambda path, arguments: plain(0))
    assert form.weights == cut.form.weights
    image = jnp.ones((5, 6, 6, 1))
    again = form.with_weights(cut.weights)
    np.testing.assert_array_equal(*(it.apply(it.params, {}, {"image": image})["logits"] for it in (cut, again)))


def blocks() -> Model:
    """Three residual layers, of which the second changes least."""
    keys = jax.random.split(jax.random.key(0), 4)
    scales = zip(keys[:3], (0.3, 0.01, 0.3), strict=True)
    layers = [{"w": scale * jax.random.normal(key, (36, 36))} for key, scale in scales]

    def apply(params: Any, image: jax.Array) -> jax.Array:
        x = image.reshape(-1, 36)
        for layer in params["layers"]:
            x = x + jnp.tanh(x @ layer["w"])
        return x @ params["head"]

    params = {"layers": layers, "head": 0.1 * jax.random.normal(keys[3], (36, 3))}
    return build_model(lambda: (params, apply), {}, IMAGE, seed=0, outputs=LOGITS)


def test_the_layers_that_change_least_are_cut_out_and_recorded_by_name(
    examples: Mapping[str, Examples], tmp_path: Path
) -> None:
    model, chosen = blocks(), options(layers=1, finetune={"epochs": 4})
    assert is_given_trainer(PRUNE, options(layers=1))
    assert not is_given_trainer(PRUNE, options(layers=["layers/1"]))
    settled = settle(PRUNE, model, chosen, trainer(examples, tmp_path))
    assert settled == options(layers=["layers/1"], finetune={"epochs": 4})
    left = PRUNE.compress(model, settled, trainer(examples, tmp_path))
    assert set(left.weights) == {"params/head", "params/layers/0/w", "params/layers/2/w"}
    assert accuracy(left, examples["validation"]) > 0.9
    assert PRUNE.describe(model, left) == "2,700 of 3,996 parameters are left, without layers/1"
    form = PRUNE.structure(model.form, settled, lambda path, arguments: plain(0))
    assert form.weights == left.form.weights


def test_layers_with_a_kernel_that_is_kept_stay(examples: Mapping[str, Examples], tmp_path: Path) -> None:
    kept = options(layers=1, keep=["layers/1/*", "layers/0/*"])
    settled = settle(PRUNE, blocks(), kept, trainer(examples, tmp_path))
    assert settled == options(layers=["layers/2"])


def test_a_sparse_model_stays_sparse_when_its_channels_are_cut(
    examples: Mapping[str, Examples], tmp_path: Path
) -> None:
    sparse = PRUNE.compress(plain(0), options(sparsity="80 %", scope="layer"), None)
    cut = PRUNE.compress(sparse, options(channels="50 %", finetune={"epochs": 1}), trainer(examples, tmp_path))
    once = PRUNE.compress(sparse, options(channels="50 %"), None)
    assert zeros(cut) == zeros(once)
    assert zeros(cut)["kernel"] > 0.5


def test_a_cut_model_is_trained_further(examples: Mapping[str, Examples], tmp_path: Path) -> None:
    chosen = options(channels="75 %", finetune={"epochs": 6, "learning_rate": 0.05})
    cut = PRUNE.compress(plain(0), chosen, trainer(examples, tmp_path))
    assert cut.params["kernel"].shape == (36, 4)
    assert accuracy(cut, examples["validation"]) > 0.9


def test_a_cut_model_can_be_pruned_and_quantised() -> None:
    cut = PRUNE.compress(plain(0), options(channels="50 %"), None)
    sparse = PRUNE.compress(cut, options(sparsity="50 %", scope="layer"), None)
    assert zeros(sparse) == {"kernel": 0.5, "head": 0.5}
    small = quantize_weights(sparse, INT8)
    assert small.weights["params/kernel/qvalue"].shape == (36, 8)


def test_the_structure_is_that_of_the_source() -> None:
    form = plain(0).form
    pruned = PRUNE.structure(form, options(sparsity="50 %"), lambda path, arguments: plain(0))
    assert pruned.weights == form.weights


def test_zeros_stay_zeros_when_the_variant_is_quantised() -> None:
    pruned = PRUNE.compress(plain(0), options(sparsity="80 %"), None)
    small = quantize_weights(pruned, INT8)
    for name in ("kernel", "head"):
        codes = np.asarray(small.weights[f"params/{name}/qvalue"])
        assert (codes[np.asarray(pruned.params[name]) == 0] == 0).all()


def test_a_quantised_model_is_not_pruned() -> None:
    small = quantize_weights(plain(0), INT8)
    with pytest.raises(DeploycheckError, match="nothing to prune") as caught:
        PRUNE.compress(small, options(sparsity="50 %"), None)
    assert "prune before you quantise" in str(caught.value.hint)


def refusal(**given: Any) -> tuple[tuple[Any, ...], str, str]:
    """Return where the one mistake in these options is, what it is, and its hint."""
    with pytest.raises(ValidationError) as caught:
        options(**given)
    (error,) = caught.value.errors()
    context = error.get("ctx", {})
    return error["loc"], str(context.get("what", error["msg"])), str(context.get("hint", ""))


@pytest.mark.parametrize(
    ("given", "where", "what"),
    [
        ({}, (), "one of `sparsity`, `pattern`, `channels`, `heads`, `layers` says what is pruned, found none"),
        ({"sparsity": "50 %", "pattern": "2:4"}, (), "found sparsity and pattern"),
        ({"channels": "50 %", "sparsity": "50 %"}, (), "found sparsity and channels"),
        ({"channels": "50 %", "heads": "50 %"}, (), "found channels and heads"),
        ({"layers": 0}, ("layers",), "how many layers, 1 or more, or a list of their names, found 0"),
        ({"layers": []}, ("layers",), "expected how many layers"),
        ({"layers": ["a", "a"]}, ("layers",), "the layer 'a' is listed twice"),
        ({"layers": "blocks/0"}, ("layers",), "or a list of their names, found 'blocks/0'"),
        ({"layers": ["a"], "keep": ["b"]}, ("keep",), "`layers` says by name what is cut out"),
        ({"layers": 1, "schedule": "gradual"}, ("schedule",), "`schedule` is for `sparsity`"),
        ({"heads": "100 %"}, ("heads",), "100 % prunes everything"),
        ({"heads": "50 %", "scope": "layer"}, ("scope",), "`scope` is for `sparsity`"),
        ({"channels": "100 %"}, ("channels",), "100 % prunes everything"),
        ({"channels": "50 %", "by": "energy"}, ("by",), "`by` is for `sparsity`"),
        ({"sparsity": "100 %"}, ("sparsity",), "100 % prunes everything"),
        ({"sparsity": "0 %"}, ("sparsity",), "0 % prunes nothing"),
        ({"sparsity": "120 %"}, ("sparsity",), "less than or equal to 1"),
        ({"pattern": "4:2"}, ("pattern",), "4:2 keeps more weights than there are"),
        ({"pattern": "4:4"}, ("pattern",), "4:4 prunes nothing"),
        ({"pattern": "0:4"}, ("pattern",), "'0:4' is not a pattern N:M"),
        ({"pattern": "2-4"}, ("pattern",), "'2-4' is not a pattern N:M"),
        ({"pattern": "2:4", "by": "energy"}, ("by",), "`by` is for `sparsity`"),
        ({"pattern": "2:4", "scope": "layer"}, ("scope",), "`scope` is for `sparsity`"),
        ({"pattern": "2:4", "schedule": "gradual", "finetune": {"epochs": 1}}, ("schedule",), "is for `sparsity`"),
        ({"sparsity": "50 %", "by": "energy", "scope": "layer"}, ("scope",), "`scope` is for `by: magnitude`"),
        ({"sparsity": "50 %", "schedule": "gradual"}, ("schedule",), "while the model is trained further"),
        ({"sparsity": "50 %", "keep": ["a", "a"]}, ("keep",), "the pattern 'a' is listed twice"),
        ({"sparsity": "50 %", "by": "gradient"}, ("by",), "'magnitude' or 'energy'"),
        ({"sparsity": "50 %", "structure": "unstructured"}, ("structure",), "Extra inputs"),
    ],
)
def test_a_mistake_in_the_options_is_placed(given: dict[str, Any], where: tuple[Any, ...], what: str) -> None:
    found = refusal(**given)
    assert found[0] == where
    assert what in found[1]


def test_a_pattern_the_wrong_way_round_is_turned_round() -> None:
    assert refusal(pattern="4:2")[2] == "kept are N of each M, so you may mean 2:4"


def test_all_mistakes_of_a_spec_are_placed_at_once(tmp_path: Path) -> None:
    variants = """\
compress:
  variants:
    two: {prune: {pattern: "4:2"}}
    all: {prune: {sparsity: 100 %}}
    late: {prune: {channels: 50 %, schedule: gradual}}
    none: {prune: {finetune: {epochs: 1}}}
"""
    with pytest.raises(SpecErrors) as refused:
        spec(HEAD + variants, tmp_path)
    lines = (HEAD + variants).splitlines()
    places = [lines[error.place.line - 1][error.place.column - 1 :] for error in refused.value.errors]
    starts = ['"4:2"', "100 %", "schedule", "prune"]
    assert [place.startswith(start) for place, start in zip(places, starts, strict=True)] == [True] * 4


def test_options_are_read_again_as_they_are_written() -> None:
    for given in ({"sparsity": "80 %", "finetune": {"epochs": 2}}, {"pattern": "2:4"}, {"sparsity": "1 %"}):
        read = options(**given)
        assert options(**read.model_dump(mode="json", exclude_none=True)) == read


def test_the_smallest_of_all_weights_are_pruned() -> None:
    model = plain(3)
    pruned = PRUNE.compress(model, options(sparsity="30 %"), None)
    sizes = jnp.concatenate([jnp.abs(leaf).reshape(-1) for leaf in (model.params["kernel"], model.params["head"])])
    threshold = jnp.sort(sizes)[round(0.3 * 624)]
    by_hand = jax.tree.map(lambda leaf: jnp.where(jnp.abs(leaf) >= threshold, leaf, 0), model.params)
    for name in ("kernel", "head"):
        np.testing.assert_array_equal(pruned.params[name], by_hand[name])
