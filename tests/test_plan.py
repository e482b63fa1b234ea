from __future__ import annotations

import graphlib
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.checks.metric import SUBJECTS
from deploycheck.language.fields import Section
from deploycheck.plan import (
    COMPLETES,
    REFERENCE,
    Plan,
    checks_of,
    make_plans,
    several_candidates,
    shared_aliases,
    subject_of,
    with_needs,
)
from deploycheck.ref import Ref
from deploycheck.steps import STEP_KINDS
from tests.planning import EXTENSIONS, HEAD, built_in, plan, specs

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
OPTIMIZE = """\
optimize:
  search: {trials: 2, maximize: validation.accuracy}
  space: {train.epochs: {integers: [1, 3]}}
"""
BODIES.append(HEAD + COMPRESS + OPTIMIZE)
DATA, TRAINING, SEARCH = Ref("data"), Ref("training"), Ref("search")


def model(variant: str) -> Ref:
    return Ref("model", (variant,))


def outputs(variant: str) -> Ref:
    return Ref("outputs", (variant,))


def sources(made: Plan, variant: str) -> list[Ref]:
    """Return the steps that hold the weights which a variant is made from, its own first."""
    found = [made.steps[model(variant)]["weights"]]
    while found[-1] != TRAINING:
        found.append(made.steps[found[-1]]["weights"])
    return found


def test_every_expectation_is_one_check_and_every_stage_begins_with_its_completion(tmp_path: Path) -> None:
    made = plan(HEAD + COMPRESS + SERVE, tmp_path)
    stages = {
        "data": ["completes", "missing_values"],
        "train": ["completes", "accuracy"],
        "compress[int8]": ["completes", "size", "size_ratio"],
        "compress[lighter]": ["completes", "size", "size_ratio", "accuracy_drop"],
        "serve[lighter]": ["completes", "latency.p99", "parity"],
    }
    assert [check.id for check in made.checks] == [
        f"spec.yaml::{stage}::{name}" for stage, names in stages.items() for name in names
    ]


def test_a_search_comes_between_the_data_and_the_training(tmp_path: Path) -> None:
    made = plan(HEAD + OPTIMIZE, tmp_path)
    stages = list(dict.fromkeys(check.stage for check in made.checks))
    assert stages == ["data", "optimize", "train"]
    (completes,) = [check for check in made.checks if check.stage == "optimize"]
    assert (completes.metric, completes.variant, completes.completes) == (COMPLETES, None, (SEARCH,))
    assert made.steps[SEARCH] == {"data": DATA}
    assert made.steps[TRAINING] == {"data": DATA, "search": SEARCH}
    assert SEARCH not in plan(HEAD, tmp_path).steps


def test_a_variants_own_expectation_replaces_that_of_its_section(tmp_path: Path) -> None:
    checks = {check.id: check for check in plan(HEAD + COMPRESS, tmp_path).checks}
    texts = {id: check.threshold.text for id, check in checks.items() if check.threshold}
    assert texts["spec.yaml::compress[int8]::size"] == "<= 10 kB"
    assert texts["spec.yaml::compress[lighter]::size"] == "<= 9 kB"
    assert "spec.yaml::compress[int8]::accuracy_drop" not in checks


def test_a_percentile_is_a_family_with_its_share(tmp_path: Path) -> None:
    (latency,) = [check for check in plan(HEAD + COMPRESS + SERVE, tmp_path).checks if check.family == "latency"]
    assert (latency.metric, latency.percentile, latency.key) == ("latency.p99", 0.99, "serve.latency.p99")
    assert latency.needs == (Ref("load", ("lighter",)),)


def test_a_variant_is_made_from_the_one_it_names(tmp_path: Path) -> None:
    made = plan(HEAD + COMPRESS, tmp_path)
    assert sources(made, "trained") == [TRAINING]
    assert sources(made, "int8") == [Ref("variant", ("int8",)), TRAINING]
    assert sources(made, "lighter") == [Ref("variant", ("lighter",)), Ref("variant", ("int8",)), TRAINING]


def test_a_variant_for_another_runtime_has_the_weights_of_the_one_it_names(tmp_path: Path) -> None:
    variants = (
        "{int8: {quantize: {weights: int8}}, onnx: {from: int8, runtime: onnxruntime}, plain: {runtime: onnxruntime}}"
    )
    made = plan(f"{HEAD}compress: {{variants: {variants}}}\nserve: {{variants: [onnx]}}\n", tmp_path)
    assert sources(made, "onnx") == [Ref("variant", ("int8",)), TRAINING]
    assert sources(made, "plain") == [TRAINING]
    assert made.steps[Ref("load", ("onnx",))]["expected"] == Ref("expected_outputs", ("onnx",))
    stage = next(check for check in made.checks if check.stage == "compress[onnx]" and check.metric == "completes")
    assert stage.completes == (Ref("model", ("onnx",)), Ref("outputs", ("onnx",)))


@pytest.mark.parametrize("kind", ["model", "outputs", "compress_properties", "serve_properties"])
def test_each_step_knows_the_runtime_of_its_variant(kind: str, tmp_path: Path) -> None:
    variants = "{int8: {quantize: {weights: int8}, runtime: onnxruntime}, next: {from: int8, prune: {sparsity: 50 %}}}"
    made = plan(f"{HEAD}compress: {{variants: {variants}}}\nserve: {{runtime: xla}}\n", tmp_path)
    runtimes = {
        variant: STEP_KINDS[kind].settings(made.spec, Ref(kind, (variant,)), ()).runtime
        for variant in ("trained", "int8", "next")
    }
    assert runtimes == {"trained": "xla", "int8": "onnxruntime", "next": "xla"}


def test_a_variant_may_be_made_from_one_that_is_written_after_it(tmp_path: Path) -> None:
    late = "  variants: {last: {from: first, quantize: {weights: int8}}, first: {quantize: {weights: int8}}}\n"
    made = plan(f"{HEAD}compress:\n{late}", tmp_path)
    assert made.steps[Ref("variant", ("last",))]["weights"] == Ref("variant", ("first",))
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
EVALUATED = (DATA, outputs("trained"))
LOAD = Ref("load", ("int8",))


@pytest.mark.parametrize(
    ("check", "needs"),
    [
        ("data::completes", (DATA,)),
        ("data::missing_values", (DATA,)),
        ("data::duplicates_across_splits", (DATA,)),
        ("data::smallest_class", (DATA,)),
        ("train::completes", (TRAINING, model("trained"), outputs("trained"))),
        ("train::accuracy", EVALUATED),
        ("train::accuracy.worst_class", EVALUATED),
        ("train::learned", (*EVALUATED, TRAINING)),
        ("train::parameters", (model("trained"),)),
        ("compress[int8]::completes", (Ref("variant", ("int8",)), model("int8"), outputs("int8"))),
        ("compress[int8]::accuracy", (DATA, outputs("int8"))),
        ("compress[int8]::accuracy_drop", (DATA, outputs("int8"), outputs("trained"))),
        ("compress[int8]::size", (model("int8"),)),
        ("compress[int8]::size_ratio", (model("int8"), model("trained"))),
        ("serve[int8]::completes", (LOAD,)),
        ("serve[int8]::latency.p50", (LOAD,)),
        ("serve[int8]::latency.p99.9", (LOAD,)),
        ("serve[int8]::throughput", (LOAD,)),
        ("serve[int8]::memory", (LOAD,)),
    ],
)
def test_a_check_needs_what_its_metric_looks_at(check: str, needs: tuple[Ref, ...], tmp_path: Path) -> None:
    checks = {found.id.removeprefix("spec.yaml::"): found for found in plan(EVERY_METRIC, tmp_path).checks}
    assert len(checks) == 19
    assert checks[check].needs == needs


PROMOTE = "promote: {model: digits, to: staging}\n"
BASELINE = Ref("baseline")
BESIDE_BASELINE, BESIDE_TRAINED = Ref("comparison", ("int8", "baseline")), Ref("comparison", ("int8", "trained"))


@pytest.mark.parametrize(
    ("section", "written", "against", "reads", "compared"),
    [
        (
            "compress",
            'accuracy: ">= 98 % of baseline"',
            "baseline",
            {"labels": DATA, "outputs": outputs("int8")},
            {"labels": DATA, "outputs": outputs("baseline")},
        ),
        (
            "compress",
            'accuracy: ">= 98 % of reference"',
            "trained",
            {"labels": DATA, "outputs": outputs("int8")},
            {"labels": DATA, "outputs": outputs("trained")},
        ),
        (
            "compress",
            'accuracy_drop: "<= 1 pp of baseline"',
            "baseline",
            {"labels": DATA, "outputs": outputs("int8"), "reference_outputs": outputs("baseline")},
            {},
        ),
        (
            "compress",
            'size: "<= 110 % of baseline"',
            "baseline",
            {"artifact": model("int8")},
            {"artifact": BASELINE},
        ),
        (
            "serve",
            'latency.p50: "<= 110 % of baseline"',
            "baseline",
            {"load": BESIDE_BASELINE},
            {"load": BESIDE_BASELINE},
        ),
        ("serve", 'throughput: ">= 2 x trained"', "trained", {"load": BESIDE_TRAINED}, {"load": BESIDE_TRAINED}),
    ],
)
def test_a_relative_threshold_reads_both_models(
    section: str, written: str, against: str, reads: dict[str, Ref], compared: dict[str, Ref], tmp_path: Path
) -> None:
    expect = {"compress": 'size: "<= 1 MB"', "serve": 'errors: "== 0"', section: written}
    compress = f"compress:\n  variants: {{int8: {{quantize: {{weights: int8}}}}}}\n  expect: {{{expect['compress']}}}\n"
    serve = f"serve: {{variants: [int8], expect: {{{expect['serve']}}}}}\n"
    made = plan(HEAD + compress + serve + PROMOTE, tmp_path)
    (check,) = [check for check in made.checks if check.against]
    assert (check.against, check.reads, check.compared) == (against, reads, compared)
    assert {*reads.values(), *compared.values()} <= made.steps.keys()


def test_two_models_are_measured_together_only_for_the_checks_that_compare_them(tmp_path: Path) -> None:
    serve = 'serve: {variants: [int8], expect: {throughput: ">= 9 /s", latency.p50: "<= 110 % of baseline"}}\n'
    compress = "compress: {variants: {int8: {quantize: {weights: int8}}}}\n"
    made = plan(HEAD + compress + serve + PROMOTE, tmp_path)
    assert made.steps[BESIDE_BASELINE] == {"data": DATA, "first": model("int8"), "second": BASELINE}
    assert [check.metric for check in checks_of(made, LOAD)] == ["throughput"]
    assert [check.metric for check in checks_of(made, BESIDE_BASELINE)] == ["latency.p50"]
    assert made.steps[BASELINE] == {}


def test_the_metrics_of_the_spec_itself_read_what_the_variant_answers(tmp_path: Path) -> None:
    own = "metrics: {sure: {use: specs.metrics:overconfident, kind: proportion, direction: lower, with: {sure: 0.9}}}\n"
    text = HEAD.replace('accuracy: ">= 97 %"', 'sure: "<= 3 %"') + own
    (check,) = [check for check in plan(text, tmp_path).checks if check.metric == "sure"]
    assert check.reads == {"labels": DATA, "outputs": outputs("trained")}


@pytest.mark.parametrize("name", EXTENSIONS.metrics)
def test_every_parameter_of_an_installed_metric_is_read_from_some_step(name: str) -> None:
    for parameter in EXTENSIONS.metrics[name].subjects:
        assert callable(subject_of(parameter).read)


def test_a_parameter_and_the_same_of_the_other_model_are_read_the_same_way() -> None:
    assert {name for name in SUBJECTS if name.startswith(REFERENCE)}
    for name in SUBJECTS:
        assert subject_of(name) is subject_of(name.removeprefix(REFERENCE))


def test_the_train_stage_is_about_the_trained_model(tmp_path: Path) -> None:
    checks = plan(EVERY_METRIC, tmp_path).checks
    assert {(check.stage, check.section, check.variant) for check in checks} == {
        ("data", "data", None),
        ("train", "train", "trained"),
        ("compress[int8]", "compress", "int8"),
        ("serve[int8]", "serve", "int8"),
    }


def test_a_check_knows_its_place_and_its_severity(tmp_path: Path) -> None:
    text = HEAD.replace('accuracy: ">= 97 %"', "accuracy: {threshold: '>= 97 %', severity: warn}") + COMPRESS
    made = plan(text, tmp_path)
    checks = {check.id.removeprefix("spec.yaml::"): check for check in made.checks}
    assert {id for id, check in checks.items() if check.severity == "warn"} == {"train::accuracy"}
    for id in ("train::accuracy", "compress[int8]::size", "compress[lighter]::size"):
        place = made.spec.place(*checks[id].path, key=True)
        assert text.splitlines()[place.line - 1][place.column - 1 :].startswith(id.partition("::")[2])
    both = [made.spec.place(*checks[f"compress[{variant}]::size"].path) for variant in ("int8", "lighter")]
    assert both[0] != both[1]
    assert made.spec.place(*checks["data::completes"].path, key=True).line == 2


@pytest.mark.parametrize(
    ("entry", "promote", "baseline"),
    [
        ("size: '<= 1 MB'", "", "required"),
        ("size: '<= 1 MB'", "promote: {model: digits, to: staging, baseline: optional}\n", "optional"),
        (
            "size: {threshold: '<= 110 % of baseline', baseline: required}",
            "promote: {model: digits, to: staging, baseline: optional}\n",
            "required",
        ),
    ],
)
def test_what_a_check_says_of_a_missing_baseline_counts_before_what_the_spec_says(
    entry: str, promote: str, baseline: str, tmp_path: Path
) -> None:
    text = HEAD + f"compress: {{variants: {{int8: {{quantize: {{weights: int8}}}}}}, expect: {{{entry}}}}}\n" + promote
    (check,) = [check for check in plan(text, tmp_path).checks if check.metric == "size"]
    assert check.baseline == baseline


def test_the_cells_of_a_matrix_are_plans_of_their_own(tmp_path: Path) -> None:
    cells = specs(HEAD + "matrix: {train.epochs: [1, 2]}\n", tmp_path)
    plans = make_plans(cells, "spec.yaml", EXTENSIONS)
    assert [made.spec.train.epochs for made in plans] == [1, 2]
    assert [(made.id, made.checks[0].id) for made in plans] == [
        (f"spec.yaml::[epochs={epochs}]", f"spec.yaml::[epochs={epochs}]::data::completes") for epochs in (1, 2)
    ]
    assert plans[0].steps == plans[1].steps


@pytest.mark.parametrize(
    ("text", "candidates"),
    [(HEAD, ("trained",)), (HEAD + COMPRESS, ("trained", "int8", "lighter")), (HEAD + COMPRESS + SERVE, ("lighter",))],
)
def test_the_served_variants_can_be_promoted_and_without_a_server_every_variant(
    text: str, candidates: tuple[str, ...], tmp_path: Path
) -> None:
    assert plan(text, tmp_path).candidates == candidates


@pytest.mark.parametrize("text", BODIES)
def test_every_need_is_in_the_plan_and_before_the_step_that_needs_it(text: str, tmp_path: Path) -> None:
    made = plan(text, tmp_path)
    before: list[Ref] = []
    for ref, needs in made.steps.items():
        assert set(needs.values()) <= set(before)
        before.append(ref)
    assert {need for check in made.checks for need in check.needs} <= made.steps.keys()
    assert all(check.needs for check in made.checks)
    assert len({check.id for check in made.checks}) == len(made.checks)
    assert {check.stage for check in made.checks} == {c.stage for c in made.checks if c.metric == COMPLETES}


def test_a_step_that_no_check_needs_can_be_added_with_its_needs(tmp_path: Path) -> None:
    made = plan(EVERY_METRIC, tmp_path)
    noise = Ref("noise", ("int8",))
    assert noise not in made.steps
    steps = with_needs(made.spec, [noise], EXTENSIONS)
    assert steps[noise] == {"data": DATA, "model": model("int8")}
    assert list(steps)[-1] == noise
    assert steps.keys() - {noise} <= made.steps.keys()


class Options(Section):
    """No options."""


class Tuned:
    """A compression method that trains, or one that doesn't."""

    options = Options

    def __init__(self, name: str, trains: bool) -> None:
        self.name = name
        self.trains = trains

    def compress(self, source: object, options: object, trainer: object) -> object:
        return source

    def structure(self, source: object, options: object, build: object) -> object:
        return source


def test_only_a_variant_whose_method_may_train_needs_the_data(tmp_path: Path) -> None:
    methods = {"trains": Tuned("trains", True), "plain": Tuned("plain", False)}
    extensions = replace(built_in(), methods=methods)
    variants = (
        "{a: {method: {trains: {}}}, b: {method: {plain: {}}}, c: {method: {'specs.models:conv_classifier': {}}}}"
    )
    made = plan(f"{HEAD}compress: {{variants: {variants}}}\n", tmp_path, extensions)
    needs = {name: made.steps[Ref("variant", (name,))] for name in "abc"}
    assert needs == {
        "a": {"weights": TRAINING, "data": DATA},
        "b": {"weights": TRAINING},
        "c": {"weights": TRAINING, "data": DATA},  # nothing is known of it before its code is imported
    }
    searched = plan(f"{HEAD}compress: {{variants: {variants}}}\n{OPTIMIZE}", tmp_path, extensions)
    needs = {name: set(searched.steps[Ref("variant", (name,))]) for name in "abc"}
    trains = {"weights", "data", "search"}
    assert needs == {"a": trains, "b": {"weights"}, "c": trains}


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """A spec with variants made from one another, in any order, some of them served."""
    names = [f"v{i}" for i in range(draw(st.integers(1, 5)))]
    made_from = {name: draw(st.sampled_from(["trained", *names[:i]])) for i, name in enumerate(names)}
    written = draw(st.permutations(names))
    served = draw(st.lists(st.sampled_from(["trained", *names]), unique=True))
    variants = ", ".join(f"{name}: {{from: {made_from[name]}, quantize: {{weights: int8}}}}" for name in written)
    compress = f"compress: {{variants: {{{variants}}}, expect: {{accuracy_drop: '<= 1 pp', size_ratio: '<= 0.5'}}}}\n"
    serve = f"serve: {{variants: [{', '.join(served)}], expect: {{memory: '<= 1 GB'}}}}\n" if served else ""
    return HEAD + compress + serve


@given(bodies())
def test_however_variants_are_made_from_each_other_every_need_is_there_and_there_is_no_cycle(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = plan(text, Path(folder))
    needs = {ref: set(roles.values()) for ref, roles in made.steps.items()}
    assert {need for every in needs.values() for need in every} <= needs.keys()
    assert len(list(graphlib.TopologicalSorter(needs).static_order())) == len(needs)
    assert {need for check in made.checks for need in check.needs} <= needs.keys()
    assert {model(name) for name in made.candidates} <= needs.keys()
    assert made.spec.compress is not None
    for name, section in made.spec.compress.variants.items():
        above = section.source or "trained"
        assert sources(made, name) == [Ref("variant", (name,)), *sources(made, above)]


@given(st.permutations(["accuracy: '>= 97 %'", "size: '<= 1 MB'", "parameters: '<= 1000000'"]))
def test_the_order_of_the_spec_is_the_order_of_the_checks(entries: list[str]) -> None:
    text = HEAD.replace('expect: {accuracy: ">= 97 %"}', f"expect: {{{', '.join(entries)}}}")
    with tempfile.TemporaryDirectory() as folder:
        checks = plan(text, Path(folder)).checks
    expected = [COMPLETES, *(entry.partition(":")[0] for entry in entries)]
    assert [check.metric for check in checks if check.stage == "train"] == expected


def test_an_alias_is_the_same_however_its_registry_is_written(tmp_path: Path) -> None:
    def named(id: str, promote: str) -> Plan:
        return replace(plan(HEAD + f"promote: {promote}\n", tmp_path), id=id)

    plans = [
        named("a", "{registry: 'sqlite:registry.db', model: digits, to: staging}"),
        named("b", "{registry: 'sqlite:./models/../registry.db', model: digits, to: staging}"),
        named("c", "{registry: 'sqlite:registry.db', model: digits, to: live}"),
        named("d", "{model: digits, to: staging}"),
    ]
    assert shared_aliases(plans) == {"a": ("a", "b"), "b": ("a", "b")}


def test_of_many_specs_that_would_move_one_alias_the_first_are_named(tmp_path: Path) -> None:
    made = plan(HEAD + "promote: {model: digits, to: staging}\n", tmp_path)
    plans = [replace(made, id=f"spec.yaml::[n={number}]") for number in range(1000)]
    shared = shared_aliases(plans)
    assert len(shared) == 1000
    assert len({id(group) for group in shared.values()}) == 1
    said = several_candidates(plans[1], shared[plans[1].id])
    others = ", ".join(f"spec.yaml::[n={number}]" for number in (0, *range(2, 11)))
    assert said == f"{others}, ... would move digits@staging too: an alias takes one candidate in a run"
    assert several_candidates(plans[0], shared[plans[0].id]).startswith("spec.yaml::[n=1], spec.yaml::[n=2], ")
