"""A search over recipes: what it finds, and that it sees no test example."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deploycheck.checks.size import bytes_of
from deploycheck.errors import DeploycheckError
from deploycheck.language.recipes import RecipeSearch
from deploycheck.ref import Ref
from deploycheck.stages import data as stored
from deploycheck.steps import STEP_KINDS
from deploycheck.steps import trained as files
from deploycheck.steps.model import ModelSettings
from deploycheck.steps.trained import Config
from deploycheck.steps.variant import VariantSettings
from deploycheck.steps.variant_search import FRONTIER, VariantSearchSettings
from deploycheck.store import Artifact, open_artifact, write_manifest
from tests.planning import HEAD, built_in, spec
from tests.stages.killing import run_until_killed
from tests.steps.making import INPUT, TRAIN, USES, Steps, data_settings
from tests.steps.test_search import changed_test_split

PLANTED = (("models", "tests.steps.planted:build"), ("tasks", "classification"))
UNIFORM = [{"quantize": {"weights": "int8"}}, {"quantize": {"weights": "int4"}}]
DROP = {"accuracy_drop": "<= 1 pp"}


def settings(over: list[Any], within: dict[str, Any] = DROP, **changed: Any) -> VariantSearchSettings:
    search = RecipeSearch.model_validate({"within": within, "over": over}, context=built_in().vocabulary)
    fields: dict[str, Any] = {
        "variant": "smallest",
        "source": "trained",
        "recipes": search.over,
        "before": {},
        "within": search.within,
        "metrics": {},
        "train": TRAIN,
        "model": "planted",
        "runtime": "xla",
        "uses": PLANTED,
    }
    return VariantSearchSettings(**{**fields, **changed})


@pytest.fixture(scope="module")
def examples(chain: Steps) -> Artifact:
    planted = data_settings(load="tests.steps.planted:examples", preprocess=())
    return chain.make("data", planted, "planted data")


@pytest.fixture(scope="module")
def model(chain: Steps) -> Artifact:
    config = Config(build=PLANTED[0][1], arguments={}, input=INPUT, task="classification", seed=0)
    out = chain.folder / "planted"
    out.mkdir()
    files.write(files.Trained(config, files.build(config, {}, chain.extensions, 0), {}), out)
    return write_manifest(out, "training", "0" * 64, {})


@pytest.fixture(scope="module")
def found(chain: Steps, model: Artifact, examples: Artifact) -> Artifact:
    return chain.make("variant_search", settings(UNIFORM), "planted search", **inputs(model, examples))


def inputs(model: Artifact, data: Artifact, **others: Artifact) -> dict[str, Artifact]:
    return {"variant trained": model, "data": data, **{f"variant {name}": it for name, it in others.items()}}


def frontier(artifact: Artifact) -> list[dict[str, Any]]:
    tried: list[dict[str, Any]] = json.loads(artifact.file(FRONTIER).read_text())
    return tried


def met_sizes(artifact: Artifact) -> list[int]:
    """Return the bytes of the recipes that meet the threshold on accuracy."""
    return [it["size"] for it in frontier(artifact) if it["reached"]["accuracy_drop"]["met"]]


def by_hand(artifact: Artifact) -> dict[str, Any]:
    """Return the recipe that the summary says, read as YAML."""
    *_, remark = artifact.meta["remarks"]
    line = next(line for line in remark.splitlines() if line.startswith("as written by hand: "))
    read: dict[str, Any] = yaml.safe_load(line.partition(": ")[2])
    return read


def test_only_the_layer_that_needs_them_gets_more_bits(found: Artifact, chain: Steps) -> None:
    weights = files.read(found, chain.extensions).model.weights
    assert weights["params/robust/qvalue"].dtype == "int4"
    assert "int4" not in {str(array.dtype) for name, array in weights.items() if "sensitive" in name}
    uniform = {it["recipe"]["methods"][0][1]["weights"]: it for it in frontier(found)[:2]}
    assert [uniform[name]["reached"]["accuracy_drop"]["met"] for name in ("int8", "int4")] == [True, False]
    (taken,) = (it for it in frontier(found) if it["size"] == min(met_sizes(found)))
    assert taken["size"] < 0.7 * uniform["int8"]["size"]


def test_the_recipe_written_by_hand_makes_the_same_artifact_of_the_size_that_was_found(
    found: Artifact, model: Artifact, chain: Steps
) -> None:
    ((method, options),) = by_hand(found)["smallest"].items()
    again = VariantSettings(variant="hand", method=method, options=options, train=TRAIN, uses=PLANTED)
    written = chain.make("variant", again, "planted by hand", weights=model)
    exports = [
        chain.make("model", ModelSettings(model="planted", runtime="xla", uses=PLANTED), name, weights=weights)
        for name, weights in (("planted export", found), ("planted export by hand", written))
    ]
    assert exports[0].digest == exports[1].digest
    assert bytes_of(exports[0]) == min(met_sizes(found))
    assert f"{bytes_of(exports[0]):,} bytes  taken" in found.meta["remarks"][-1]
    assert found.meta["remarks"][0] == written.meta["remarks"][0]


def test_the_test_split_is_never_seen(
    found: Artifact, model: Artifact, examples: Artifact, chain: Steps, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = changed_test_split(examples, tmp_path / "other")
    assert other.digest != examples.digest
    same = chain.make("variant_search", settings(UNIFORM), "planted search, other test", **inputs(model, other))
    assert same.digest == found.digest

    shutil.copytree(examples.path, tmp_path / "none")
    (tmp_path / "none" / "test.safetensors").unlink()
    without = replace(examples, path=tmp_path / "none")
    same = chain.make("variant_search", settings(UNIFORM), "planted search, no test", **inputs(model, without))
    assert same.digest == found.digest


def test_the_validation_split_decides(model: Artifact, examples: Artifact, chain: Steps, tmp_path: Path) -> None:
    dataset = stored.read(examples.path)
    validation = dataset.splits["validation"]
    wrong = replace(validation, labels=(validation.labels + 1) % 3)
    stored.write(replace(dataset, splits={**dataset.splits, "validation": wrong}), tmp_path)
    data = write_manifest(tmp_path, "data", "0" * 64, examples.meta)
    with pytest.raises(DeploycheckError, match="accuracy_drop on the validation split: every model meets <= 1 pp"):
        chain.make("variant_search", settings(UNIFORM), "wrong labels", **inputs(model, data))


def test_a_search_that_finds_nothing_names_the_nearest_and_makes_nothing(
    model: Artifact, examples: Artifact, chain: Steps
) -> None:
    within = {"accuracy_drop": "<= 1 pp", "size_ratio": "<= 0.01"}
    making = chain.making(settings(UNIFORM, within), "nothing found", **inputs(model, examples))
    with pytest.raises(DeploycheckError) as caught:
        STEP_KINDS["variant_search"].make(making)
    what = str(caught.value)
    assert "meets accuracy_drop <= 1 pp, size_ratio <= 0.01 on the validation split; the nearest, " in what
    assert "size_ratio 0." in what
    assert list(making.out.iterdir()) == []


def test_a_confidence_asks_for_more_than_the_value_alone(model: Artifact, examples: Artifact, chain: Steps) -> None:
    """No answer is lost of 18, which doesn't show that less than 1 in 100 would be."""
    strict = settings(UNIFORM[:1], {"accuracy_drop": "<= 1 pp @ 95 %"})
    with pytest.raises(DeploycheckError, match=r"accuracy_drop 0 pp \(.* to .*\)"):
        chain.make("variant_search", strict, "confident search", **inputs(model, examples))


def test_a_metric_of_the_spec_and_one_relative_to_the_trained_model_are_measured(
    model: Artifact, examples: Artifact, chain: Steps
) -> None:
    own = {"use": "tests.steps.test_variant_search:answered", "kind": "proportion", "direction": "higher"}
    within = {"answered": ">= 90 %", "accuracy": ">= 99 % of reference", "agreement": ">= 90 %"}
    searched = settings(UNIFORM[:1], within, metrics={"answered": own})
    tried = frontier(chain.make("variant_search", searched, "search by metrics", **inputs(model, examples)))
    assert {name: it["shown"] for name, it in tried[0]["reached"].items()} == {
        "answered": "100 %",
        "accuracy": "100 %",
        "agreement": "100 %",
    }


def answered(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return outputs.max(axis=-1) > outputs.min(axis=-1)


def test_an_error_says_in_which_recipe_it_came(model: Artifact, examples: Artifact, chain: Steps) -> None:
    broken = settings([{"quantize": {"weights": "int8", "per": {"group": 7}}}])
    with pytest.raises(
        DeploycheckError, match=r"^recipe \{quantize: .*group: 7.*weights can't be cut into groups of 7"
    ):
        chain.make("variant_search", broken, "broken recipe", **inputs(model, examples))


def test_a_variant_is_a_recipe_as_it_is_and_is_refined_from_what_it_is_made_from(
    model: Artifact, examples: Artifact, chain: Steps
) -> None:
    int4 = VariantSettings(variant="int4", method="quantize", options={"weights": "int4"}, train=TRAIN, uses=PLANTED)
    variant = chain.make("variant", int4, "planted int4", weights=model)
    searched = settings(["int4"], before={"int4": "trained"})
    found = chain.make("variant_search", searched, "search over int4", **inputs(model, examples, int4=variant))
    assert "sensitive" in str(by_hand(found)["smallest"]["quantize"])
    assert "from" not in by_hand(found)["smallest"]
    assert frontier(found)[0]["recipe"] == {"start": "int4", "methods": [], "models": []}


TUNED = {"prune": {"sparsity": "25 %", "finetune": {"epochs": 4}}}
CHAINS = [
    {"quantize": {"weights": "int8"}},
    [TUNED, {"quantize": {"weights": "int8"}}],
    [TUNED, {"dead_zone": {"range": 9}}],
]


def chains() -> VariantSearchSettings:
    return settings(CHAINS, {"accuracy_drop": "<= 60 pp"}, uses=USES)


@pytest.fixture(scope="module")
def chained(trained: Artifact, data: Artifact, chain: Steps) -> Artifact:
    return chain.make("variant_search", chains(), "search over chains", **inputs(trained, data))


def test_what_recipes_share_is_trained_once(chained: Artifact, chain: Steps) -> None:
    assert sum("prune: " in line and "epoch 4/4" in line for line in chain.said) == 1
    tried = [[name for name, _ in it["recipe"]["methods"]] for it in frontier(chained)]
    assert tried == [["quantize"], ["prune", "quantize"], ["prune", "dead_zone"]]


def killed_in_its_training(folder: Path, trained: Path, data: Path) -> None:
    def say(line: str) -> None:
        if "epoch 3/4" in line:
            os.kill(os.getpid(), signal.SIGKILL)

    making = Steps(folder).making(chains(), "killed", **inputs(open_artifact(trained), open_artifact(data)))
    STEP_KINDS["variant_search"].make(replace(making, progress=say))


def test_a_search_that_was_killed_goes_on_where_it_was(
    chained: Artifact, trained: Artifact, data: Artifact, tmp_path: Path
) -> None:
    run_until_killed(killed_in_its_training, tmp_path, trained.path, data.path)
    lines: list[str] = []
    making = Steps(tmp_path).making(chains(), "again", **inputs(trained, data))
    making = replace(making, scratch=tmp_path / "killed scratch", progress=lines.append)
    STEP_KINDS["variant_search"].make(making)
    assert lines[0].startswith("search smallest: {quantize: {weights: int8}}: was done before: ")
    assert any("resumed after epoch" in line for line in lines)
    assert not any("epoch 1/4" in line for line in lines)
    for name in chained.files:
        assert (making.out / name).read_bytes() == chained.file(name).read_bytes()


SEARCHED = f"""{HEAD}compress:
  variants:
    narrow: {{prune: {{channels: 50 %}}}}
    int4: {{from: narrow, quantize: {{weights: int4}}}}
    found:
      search:
        within: {{accuracy_drop: "<= 1 pp"}}
        over: [int4, trained, [narrow, quantize: {{weights: int8}}], dead_zone: {{range: 255}}]
    after: {{from: found, prune: {{sparsity: 50 %}}}}
    again: {{from: narrow, search: {{within: {{accuracy: ">= 9 %"}}, over: [found, prune: {{sparsity: 50 %}}]}}}}
"""


def test_its_steps_are_those_of_what_its_recipes_begin_with(tmp_path: Path) -> None:
    loaded, kind = spec(SEARCHED, tmp_path), STEP_KINDS["variant_search"]
    found, again = (Ref("variant_search", (name,)) for name in ("found", "again"))
    training, narrow, int4 = Ref("training"), Ref("variant", ("narrow",)), Ref("variant", ("int4",))
    assert kind.needs(loaded, found, built_in()) == {
        "data": Ref("data"),
        "variant int4": int4,
        "variant narrow": narrow,
        "variant trained": training,
    }
    assert set(kind.needs(loaded, again, built_in()).values()) == {Ref("data"), training, narrow, found}
    assert STEP_KINDS["variant"].needs(loaded, Ref("variant", ("after",)), built_in()) == {"weights": found}
    assert kind.settings(loaded, found, ()).model_dump()["before"] == {"int4": "narrow"}
    assert [ref for _, _, ref in kind.stages(loaded)] == [found, again]
    used = [name for kind_, name in kind.settings(loaded, again, ()).model_dump()["uses"] if kind_ == "methods"]
    assert sorted(used) == ["dead_zone", "prune", "quantize"]


def test_forms_that_follow_from_a_search_are_not_derived_before_it(tmp_path: Path) -> None:
    settings = STEP_KINDS["forms"].settings(spec(SEARCHED, tmp_path), Ref("forms"), ())
    assert [it["variant"] for it in settings.model_dump()["derivations"]] == ["narrow", "int4"]
