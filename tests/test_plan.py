from __future__ import annotations

import graphlib
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.language import Spec, load
from deploycheck.plan import COMPLETES, STEPS_OF_SUBJECTS, Plan, make_plan, method_chain, named, unbuilt
from deploycheck.runner.extensions import builtin_extensions

EXTENSIONS = builtin_extensions()
SUBJECTS, METHODS = EXTENSIONS.subjects, frozenset(EXTENSIONS.compressors)
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


def test_a_chain_of_methods_runs_from_the_trained_model_to_the_variant(tmp_path: Path) -> None:
    made = spec(HEAD + COMPRESS, tmp_path)
    both = ("quantize", {"weights": "int8", "activations": "int8"})
    assert method_chain(made, "int8") == (both,)
    assert method_chain(made, "lighter") == (both, ("quantize", {"weights": "int8"}))


def test_a_variant_may_be_made_from_one_that_stands_after_it(tmp_path: Path) -> None:
    late = "  variants: {last: {from: first, quantize: {weights: int8}}, first: {quantize: {weights: int8}}}\n"
    made = plan(f"{HEAD}compress:\n{late}", tmp_path)
    assert made.steps["model[last]"].needs == ("model[first]",)
    assert made.candidates == ("trained", "last", "first")


EVERY_METRIC = """\
deploycheck: 1
name: digits
model:
  build: specs.models:conv_classifier
  with: {shape: [8, 8, 1], features: [32], classes: 10}
  input: {image: {shape: [8, 8, 1], dtype: float32}}
data:
  load: specs.data:digits
  expect: {missing_values: "== 0", duplicates_across_splits: "== 0", smallest_class: ">= 5 %"}
train:
  optimizer: {adam: {learning_rate: 3e-3}}
  epochs: 3
  batch_size: 64
  expect:
    accuracy: ">= 97 %"
    accuracy.worst_class: ">= 88 %"
    learned: ">= 90 % over majority"
    parameters: "<= 1000"
compress:
  variants: {int8: {quantize: {weights: int8}}}
  expect: {accuracy: ">= 97 %", accuracy_drop: "<= 1 pp", size: "<= 1 MB", size_ratio: "<= 0.5"}
serve:
  variants: [int8]
  expect: {latency.p50: "<= 1 ms", latency.p99.9: "<= 9 ms", throughput: ">= 9 /s", memory: "<= 1 GB"}
"""
EVALUATED = ("data", "outputs[trained]")


@pytest.mark.parametrize(
    ("check", "needs"),
    [
        ("data::completes", ("data",)),
        ("data::missing_values", ("data",)),
        ("data::duplicates_across_splits", ("data",)),
        ("data::smallest_class", ("data",)),
        ("train::completes", ("training", "model[trained]", "outputs[trained]")),
        ("train::accuracy", EVALUATED),
        ("train::accuracy.worst_class", EVALUATED),
        ("train::learned", (*EVALUATED, "training")),
        ("train::parameters", ("model[trained]",)),
        ("compress[int8]::completes", ("model[int8]", "outputs[int8]")),
        ("compress[int8]::accuracy", ("data", "outputs[int8]")),
        ("compress[int8]::accuracy_drop", ("data", "outputs[int8]", "outputs[trained]")),
        ("compress[int8]::size", ("model[int8]",)),
        ("compress[int8]::size_ratio", ("model[int8]", "model[trained]")),
        ("serve[int8]::completes", ("load[int8]",)),
        ("serve[int8]::latency.p50", ("load[int8]",)),
        ("serve[int8]::latency.p99.9", ("load[int8]",)),
        ("serve[int8]::throughput", ("load[int8]",)),
        ("serve[int8]::memory", ("load[int8]",)),
    ],
)
def test_a_check_needs_what_its_metric_looks_at(check: str, needs: tuple[str, ...], tmp_path: Path) -> None:
    checks = {found.id.removeprefix("spec.yaml::"): found for found in plan(EVERY_METRIC, tmp_path).checks}
    assert len(checks) == 19
    assert checks[check].needs == needs


def test_every_subject_of_an_installed_metric_has_a_step_that_makes_it() -> None:
    assert frozenset().union(*EXTENSIONS.subjects.values()) == STEPS_OF_SUBJECTS.keys()


def test_the_training_is_told_apart_from_its_variant(tmp_path: Path) -> None:
    checks = plan(EVERY_METRIC, tmp_path).checks
    assert {(check.stage, check.kind, check.variant) for check in checks} == {
        ("data", "data", None),
        ("train", "train", "trained"),
        ("compress[int8]", "compress", "int8"),
        ("serve[int8]", "serve", "int8"),
    }


def test_a_check_knows_where_it_stands_and_how_much_it_weighs(tmp_path: Path) -> None:
    text = HEAD.replace('accuracy: ">= 97 %"', "accuracy: {threshold: '>= 97 %', severity: warn}") + COMPRESS
    made = plan(text, tmp_path)
    checks = {check.id.removeprefix("spec.yaml::"): check for check in made.checks}
    assert {id for id, check in checks.items() if check.severity == "warn"} == {"train::accuracy"}
    for id in ("train::accuracy", "compress[int8]::size", "compress[lighter]::size"):
        place = made.spec.place(*checks[id].path, key=True)
        assert text.splitlines()[place.line - 1][place.column - 1 :].startswith(id.partition("::")[2])
    assert made.spec.place(*checks["compress[int8]::size"].path) != made.spec.place(
        *checks["compress[lighter]::size"].path
    )
    assert made.spec.place(*checks["data::completes"].path, key=True).line == 2


def test_the_cells_of_a_matrix_are_plans_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(HEAD + "matrix: {train.epochs: [1, 2]}\n")
    specs = load(path, ROOT, EXTENSIONS.vocabulary)
    plans = [make_plan(cell, f"spec.yaml::[{cell.label}]", EXTENSIONS.subjects) for cell in specs]
    assert [made.spec.train.epochs for made in plans] == [1, 2]
    assert [made.checks[0].id for made in plans] == [
        "spec.yaml::[epochs=1]::data::completes", "spec.yaml::[epochs=2]::data::completes"
    ]  # fmt: skip
    assert plans[0].steps == plans[1].steps


@pytest.mark.parametrize(("variant", "name"), [(None, "model"), ("int8", "model[int8]")])
def test_a_name_holds_the_variant_where_there_is_one(variant: str | None, name: str) -> None:
    assert named("model", variant) == name


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


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """A spec with variants made from one another, in any order, some of them served."""
    names = [f"v{i}" for i in range(draw(st.integers(1, 5)))]
    sources = {name: draw(st.sampled_from(["trained", *names[:i]])) for i, name in enumerate(names)}
    written = draw(st.permutations(names))
    served = draw(st.lists(st.sampled_from(["trained", *names]), unique=True))
    variants = ", ".join(f"{name}: {{from: {sources[name]}, quantize: {{weights: int8}}}}" for name in written)
    compress = f"compress: {{variants: {{{variants}}}, expect: {{accuracy_drop: '<= 1 pp', size_ratio: '<= 0.5'}}}}\n"
    serve = f"serve: {{variants: [{', '.join(served)}], expect: {{memory: '<= 1 GB'}}}}\n" if served else ""
    return HEAD + compress + serve


@given(bodies())
def test_however_variants_hang_together_every_need_is_there_and_none_goes_in_a_circle(text: str) -> None:
    (loaded,) = _loaded(text, Path("spec.yaml"))
    made = make_plan(loaded, "spec.yaml", EXTENSIONS.subjects)
    needs = {name: step.needs for name, step in made.steps.items()}
    assert {need for every in needs.values() for need in every} <= needs.keys()
    order = list(graphlib.TopologicalSorter(needs).static_order())
    assert len(order) == len(needs)
    assert {need for check in made.checks for need in check.needs} <= needs.keys()
    assert {f"model[{name}]" for name in made.candidates} <= needs.keys()
    for variant in made.spec.compress.variants if made.spec.compress else ():
        ancestors, at = 0, f"model[{variant}]"
        while at != "model[trained]":
            ancestors, (at,) = ancestors + 1, needs[at]
        assert len(method_chain(made.spec, variant)) == ancestors


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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / beside.name
        path.write_text(text)
        return load(path, ROOT, EXTENSIONS.vocabulary)


SEARCH = """\
optimize:
  search: {sampler: tpe, trials: 2, maximize: validation.accuracy}
  space: {train.optimizer.adam.learning_rate: {log: [1e-4, 1e-1]}}
"""


SLICES = "serve: {expect: {throughput: {threshold: '>= 9 /s', slices: {by: label}}}}\n"
OTHER = replace(EXTENSIONS, runtimes={**EXTENSIONS.runtimes, "other": "mine:Runtime"})


@pytest.mark.parametrize(
    ("added", "what", "at"),
    [
        (SEARCH, "`optimize` searches", "optimize:"),
        ("compress: {variants: {small: {prune: {sparsity: 80 %}}}}\n", "the method `prune`", "prune:"),
        ("compress: {variants: {tiny: {quantize: {weights: int4}}}}\n", "quantising to int4", "weights: int4"),
        ("compress: {variants: {tiny: {distill: {model: {}}}}}\n", "the method `distill`", "distill:"),
        ("serve: {properties: [finite]}\n", "`properties`", "properties:"),
        ("serve: {runtime: other}\n", "the runtime other", "runtime:"),
        ("serve: {expect: {throughput: {threshold: '>= 9 /s', samples: 9}}}\n", "a check's `samples`", "throughput:"),
        (SLICES, "`slices` of throughput, which isn't measured on test examples,", "throughput:"),
    ],
)
def test_what_cannot_be_run_yet_is_named_where_it_stands(added: str, what: str, at: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(HEAD + added)
    (loaded,) = load(path, ROOT, OTHER.vocabulary)
    (error,) = unbuilt(loaded, SUBJECTS, METHODS)
    assert error.what == f"{what} can't be run by this version"
    assert error.place.file == str(path)
    assert path.read_text().splitlines()[error.place.line - 1][error.place.column - 1 :].startswith(at)


def test_all_that_cannot_be_run_yet_is_named_at_once(tmp_path: Path) -> None:
    text = (
        HEAD
        + SEARCH
        + "serve: {properties: [finite], expect: {throughput: {threshold: '>= 2 x trained', samples: 3}}}\n"
    )
    errors = unbuilt(spec(text, tmp_path), SUBJECTS, METHODS)
    assert [error.what.removesuffix(" can't be run by this version") for error in errors] == [
        "`optimize` searches", "`properties`", "a check's `samples`",
    ]  # fmt: skip


def test_a_method_that_is_installed_or_named_by_its_path_can_be_run(tmp_path: Path) -> None:
    mine = replace(EXTENSIONS, compressors={**EXTENSIONS.compressors, "shrink": "mine:METHOD"})
    path = tmp_path / "spec.yaml"
    variants = "{a: {method: {shrink: {}}}, b: {method: {'specs.models:conv_classifier': {}}}}"
    path.write_text(f"{HEAD}compress: {{variants: {variants}}}\n")
    (loaded,) = load(path, ROOT, mine.vocabulary)
    assert unbuilt(loaded, SUBJECTS, frozenset(mine.compressors)) == []
    assert [name for name, _ in method_chain(loaded, "b")] == ["specs.models:conv_classifier"]


def test_all_that_the_example_asks_for_can_be_run() -> None:
    (digits,) = load(ROOT / "specs" / "digits.yaml", ROOT, EXTENSIONS.vocabulary)
    assert unbuilt(digits, SUBJECTS, METHODS) == []
