from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.language import Spec, load
from deploycheck.plan import COMPLETES, Plan, make_plan, method_chain, unbuilt
from deploycheck.runner.extensions import builtin_extensions

EXTENSIONS = builtin_extensions()
METRICS, METHODS = frozenset(EXTENSIONS.metrics), frozenset(EXTENSIONS.compressors)
ROOT = Path(__file__).parents[1]

HEAD = """\
deploycheck: 1
name: digits
model:
  build: specs.models:conv_classifier
  with: {shape: [8, 8, 1], features: [32], classes: 10}
  input: {image: {shape: [8, 8, 1], dtype: float32}}
data:
  load: specs.data:digits
  expect: {missing_values: "== 0"}
train:
  optimizer: {adam: {learning_rate: 3e-3}}
  epochs: 3
  batch_size: 64
  expect: {accuracy: ">= 97 %"}
"""
COMPRESS = """\
compress:
  variants:
    int8: {quantize: {weights: int8, activations: int8}}
    lighter: {from: int8, quantize: {weights: int8}, expect: {size: "<= 9 kB", accuracy_drop: "<= 0.5 pp"}}
  expect: {size: "<= 10 kB", size_ratio: "<= 0.5"}
"""
SERVE = """\
serve:
  variants: [lighter]
  expect: {latency.p99: "<= 20 ms", parity: "<= 1e-3"}
"""
BODIES = [HEAD, HEAD + COMPRESS, HEAD + COMPRESS + SERVE, HEAD + SERVE.replace("[lighter]", "[trained]")]


def spec(text: str, folder: Path) -> Spec:
    path = folder / "spec.yaml"
    path.write_text(text)
    (loaded,) = load(path, ROOT, EXTENSIONS.vocabulary)
    return loaded


def plan(text: str, folder: Path) -> Plan:
    return make_plan(spec(text, folder), "spec.yaml", EXTENSIONS.subjects)


def test_every_expectation_is_one_check_and_every_stage_begins_with_its_completion(tmp_path: Path) -> None:
    assert [check.id.removeprefix("spec.yaml::") for check in plan(HEAD + COMPRESS + SERVE, tmp_path).checks] == [
        "data::completes", "data::missing_values",
        "train::completes", "train::accuracy",
        "compress[int8]::completes", "compress[int8]::size", "compress[int8]::size_ratio",
        "compress[lighter]::completes", "compress[lighter]::size", "compress[lighter]::size_ratio",
        "compress[lighter]::accuracy_drop",
        "serve[lighter]::completes", "serve[lighter]::latency.p99", "serve[lighter]::parity",
    ]  # fmt: skip


def test_a_variants_own_expectation_stands_in_place_of_its_sections(tmp_path: Path) -> None:
    checks = {check.id: check for check in plan(HEAD + COMPRESS, tmp_path).checks}
    held_to = {id: check.threshold.text for id, check in checks.items() if check.threshold}
    assert held_to["spec.yaml::compress[int8]::size"] == "<= 10 kB"
    assert held_to["spec.yaml::compress[lighter]::size"] == "<= 9 kB"
    assert "spec.yaml::compress[int8]::accuracy_drop" not in checks


def test_a_percentile_is_a_family_with_its_share(tmp_path: Path) -> None:
    (latency,) = [check for check in plan(HEAD + COMPRESS + SERVE, tmp_path).checks if check.family == "latency"]
    assert (latency.metric, latency.percentile, latency.key) == ("latency.p99", 0.99, "serve.latency.p99")
    assert latency.needs == ("load[lighter]",)


def test_a_variant_is_made_from_the_one_it_names(tmp_path: Path) -> None:
    made = plan(HEAD + COMPRESS, tmp_path)
    assert made.steps["model[trained]"].needs == ("training",)
    assert made.steps["model[int8]"].needs == ("model[trained]",)
    assert made.steps["model[lighter]"].needs == ("model[int8]",)
    assert [name for name, _ in method_chain(made.spec, "lighter")] == ["quantize", "quantize"]
    assert method_chain(made.spec, "trained") == ()


@pytest.mark.parametrize(
    ("text", "candidates"),
    [(HEAD, ("trained",)), (HEAD + COMPRESS, ("trained", "int8", "lighter")), (HEAD + COMPRESS + SERVE, ("lighter",))],
)
def test_what_is_served_is_what_can_be_promoted_and_without_a_server_every_variant(
    text: str, candidates: tuple[str, ...], tmp_path: Path
) -> None:
    assert plan(text, tmp_path).candidates == candidates


@pytest.mark.parametrize("text", BODIES)
def test_whatever_is_needed_is_there_and_was_made_before(text: str, tmp_path: Path) -> None:
    made = plan(text, tmp_path)
    before: list[str] = []
    for name, step in made.steps.items():
        assert name == step.name
        assert set(step.needs) <= set(before), "steps stand in an order in which they can be done: there is no circle"
        before.append(name)
    assert {need for check in made.checks for need in check.needs} <= made.steps.keys()
    assert all(check.needs for check in made.checks)
    assert len({check.id for check in made.checks}) == len(made.checks)
    assert {check.stage for check in made.checks} == {c.stage for c in made.checks if c.metric == COMPLETES}


@given(st.permutations(["accuracy: '>= 97 %'", "size: '<= 1 MB'", "parameters: '<= 1000000'"]))
def test_the_order_of_the_spec_is_the_order_of_the_checks(entries: list[str]) -> None:
    path = ROOT / "specs" / "digits.yaml"
    text = HEAD.replace('expect: {accuracy: ">= 97 %"}', f"expect: {{{', '.join(entries)}}}")
    (loaded,) = _loaded(text, path)
    checks = make_plan(loaded, "x", EXTENSIONS.subjects).checks
    assert [check.metric for check in checks if check.stage == "train"] == [
        COMPLETES, *(entry.partition(":")[0] for entry in entries)
    ]  # fmt: skip


def _loaded(text: str, beside: Path) -> tuple[Spec, ...]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / beside.name
        path.write_text(text)
        return load(path, ROOT, EXTENSIONS.vocabulary)


SEARCH = """\
optimize:
  search: {sampler: tpe, trials: 2, maximize: validation.accuracy}
  space: {train.optimizer.adam.learning_rate: {log: [1e-4, 1e-1]}}
"""


@pytest.mark.parametrize(
    ("added", "what", "at"),
    [
        (SEARCH, "`optimize` searches", "optimize:"),
        ("compress: {variants: {small: {prune: {sparsity: 80 %}}}}\n", "the method `prune`", "compress:"),
        ("compress: {variants: {tiny: {quantize: {weights: int4}}}}\n", "quantising to int4", "compress:"),
        ("compress: {variants: {tiny: {distill: {model: {}}}}}\n", "the method `distill`", "compress:"),
        ("serve: {properties: [finite]}\n", "`properties`", "serve:"),
        ("serve: {load: {scenario: offline}}\n", "the scenario offline", "serve:"),
        ("serve: {variants: [trained], expect: {speedup: '>= 1.2 x trained'}}\n", "the metric speedup", "serve:"),
        ("serve: {expect: {throughput: '>= 99 % of baseline'}}\n", "a threshold of baseline", "serve:"),
        ("serve: {expect: {throughput: {threshold: '>= 9 /s', samples: 9}}}\n", "a check's `samples`", "serve:"),
    ],
)
def test_what_cannot_be_run_yet_is_named_where_it_stands(added: str, what: str, at: str, tmp_path: Path) -> None:
    text = HEAD + added
    errors = unbuilt(spec(text, tmp_path), METRICS, METHODS)
    assert [error.what for error in errors] == [f"{what} can't be run by this version"]
    assert text.splitlines()[errors[0].place.line - 1].startswith(at)


def test_all_that_the_example_asks_for_can_be_run() -> None:
    (digits,) = load(ROOT / "specs" / "digits.yaml", ROOT, EXTENSIONS.vocabulary)
    assert unbuilt(digits, METRICS, METHODS) == []
