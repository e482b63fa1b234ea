"""What holds for every kind of step, with a spec that uses every part of the language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deploycheck.checks.metric import SUBJECTS
from deploycheck.language.expect import SECTIONS
from deploycheck.language.fields import Section
from deploycheck.plan import Plan
from deploycheck.ref import Ref
from deploycheck.runner.digests import Digests
from deploycheck.runner.keys import key_content
from deploycheck.steps import STEP_KINDS, StepKind
from deploycheck.steps.kind import FoundElsewhere
from deploycheck.store import Artifact, fingerprint
from tests.steps.rich import SPEC, SPEC_OF_A_FILE, extensions_of, other, rich_plan, settings_of

CPU = {"backend": "cpu", "device": "cpu"}
REFS = (
    Ref("data"),
    Ref("weights"),
    Ref("search"),
    Ref("training"),
    *(Ref("variant", (variant,)) for variant in ("int8", "smaller")),
    Ref("variant_search", ("found",)),
    *(Ref(kind, (variant,)) for kind in ("model", "outputs") for variant in ("trained", "int8", "smaller", "found")),
    *(Ref(kind, (variant,)) for kind in ("expected_outputs", "load") for variant in ("trained", "int8")),
    *(Ref("comparison", (variant, "baseline")) for variant in ("trained", "int8")),
    *(Ref("compress_properties", (variant,)) for variant in ("int8", "smaller", "found")),
    *(Ref("serve_properties", (variant,)) for variant in ("trained", "int8")),
    Ref("baseline"),
    Ref("noise", ("int8",)),
    Ref("forms"),
)
"""Every step of the spec."""
ARTIFACT = Ref("artifact")
ALL_REFS = (*REFS, ARTIFACT)

Key = Callable[[Plan, Ref, Section], str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def plan(root: Path) -> Plan:
    return rich_plan(root)


@pytest.fixture(scope="module")
def plan_with(root: Path, plan: Plan) -> Callable[[Ref], Plan]:
    """Return a function that gives the plan with a step."""
    of_a_file = rich_plan(root, SPEC_OF_A_FILE)
    return lambda ref: of_a_file if ref == ARTIFACT else plan


@pytest.fixture(scope="module")
def key(root: Path) -> Key:
    """Return a function that gives the key of a step with some settings, its inputs always the same."""
    digests, extensions = Digests(root / "digests.json"), extensions_of(root)

    def key_of(plan: Plan, ref: Ref, settings: Section) -> str:
        inputs = {
            role: Artifact(path=root, kind=need.kind, key="", digest=f"{need}", files={}, meta={})
            for role, need in plan.steps[ref].items()
        }
        return fingerprint(
            key_content(ref.kind, settings, inputs=inputs, extensions=extensions, platform=CPU, digests=digests)
        )

    return key_of


@pytest.fixture(scope="module")
def keys(plan: Plan, key: Key) -> Mapping[Ref, str]:
    return {ref: key(plan, ref, settings_of(plan, ref)) for ref in REFS}


def test_the_spec_has_steps_of_every_kind(plan: Plan) -> None:
    assert set(plan.steps) == set(REFS)
    assert {ref.kind for ref in ALL_REFS} == set(STEP_KINDS)


@pytest.mark.parametrize("ref", ALL_REFS, ids=str)
def test_settings_survive_json_unchanged(ref: Ref, plan_with: Callable[[Ref], Plan]) -> None:
    plan = plan_with(ref)
    settings = settings_of(plan, ref)
    assert type(settings) is STEP_KINDS[ref.kind].settings_type
    assert type(settings).model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("ref", ALL_REFS, ids=str)
def test_every_part_of_the_settings_changes_the_key(
    ref: Ref, plan_with: Callable[[Ref], Plan], key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_with(ref)
    settings = settings_of(plan, ref)
    plain = settings.model_dump(mode="json")
    assert plain.keys() == type(settings).model_fields.keys()
    keys = {key(plan, ref, settings)}
    changes = [(name, {**plain, name: changed}) for name in plain for changed in other(plain[name])]
    for name, changed in changes:
        monkeypatch.setattr(type(settings), "model_dump", lambda *_, changed=changed, **__: changed)
        before = len(keys)
        keys.add(key(plan, ref, settings))
        assert len(keys) > before, f"{name} changes nothing"


@pytest.mark.parametrize("ref", ALL_REFS, ids=str)
def test_every_input_changes_the_key(ref: Ref, plan_with: Callable[[Ref], Plan], key: Key) -> None:
    plan = plan_with(ref)
    settings = settings_of(plan, ref)
    before = key(plan, ref, settings)
    for role in plan.steps[ref]:
        needs = {**plan.steps[ref], role: Ref("another")}
        assert key(replace(plan, steps={ref: needs}), ref, settings) != before


def _variants(*kinds: str, of: tuple[str, ...] = ("trained", "int8", "smaller", "found")) -> set[Ref]:
    return {ref for ref in REFS if ref.kind in kinds and (set(ref.of) & set(of))}


BUILT = _variants("variant", "variant_search", "model", "expected_outputs")
"""The steps that put a model together from its code."""
TIMED = _variants("load", "comparison", "noise")
PROPERTIES = _variants("compress_properties", "serve_properties")
DATA, WEIGHTS, SEARCH, TRAINING, BASELINE = map(Ref, ("data", "weights", "search", "training", "baseline"))
FORMS = Ref("forms")
VARIANTS = _variants("variant", "variant_search")
FOUND = Ref("variant_search", ("found",))


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("description: Handwritten digits", "description: others", set()),
        ("owner: vision", "owner: sound", set()),
        ("deploycheck: 1\n", "deploycheck: 1\n# a comment\n", set()),
        ("\nname: digits", "\nname: letters", {*_variants("model"), *PROPERTIES, FOUND}),
        ("confidence: 90 %", "confidence: 80 %", TIMED),
        ("over: 0.9", "over: 0.8", {FOUND}),
        ("<= 4 %", "<= 5 %", {FOUND}),
        ("{by: 5}", "{by: 6}", {FOUND}),
        ("SEARCHED", "OTHER", {FOUND, *_variants("model", "expected_outputs", of=("found",))}),
        ("build: project_code:build", "build: project_code:build_another", {WEIGHTS, SEARCH, TRAINING, *BUILT, FORMS}),
        ("features: [32]", "features: [64]", {WEIGHTS, SEARCH, TRAINING, FORMS}),
        ("head: {bias: null}", "head: {bias: 0}", {WEIGHTS, SEARCH, TRAINING, FORMS}),
        ("shape: [8, 8]", "shape: [9, 8]", {DATA, WEIGHTS, SEARCH, TRAINING, FORMS}),
        ("dtype: float32", "dtype: uint8", {DATA, WEIGHTS, SEARCH, TRAINING, FORMS}),
        ("load: npz", "load: safetensors", {WEIGHTS}),
        ("path: start.npz", "path: project_code.py", {WEIGHTS}),
        ("names: project_code:named", "names: {hidden: fc}", {WEIGHTS}),
        ("project_code:digits", "project_code:letters", {DATA}),
        ("rows: 100", "rows: 90", {DATA}),
        ("train: 0.5, validation: 0.1", "train: 0.4, validation: 0.2", {DATA}),
        ("stratify: false", "stratify: true", {DATA}),
        ("by: 0.0625", "by: 0.125", {DATA, WEIGHTS, SEARCH, TRAINING, FORMS}),
        ("[{scale: {by: 0.0625}}]", "[{standardize: {}}]", {DATA, WEIGHTS, SEARCH, TRAINING, *BUILT, FORMS}),
        ('missing_values: "== 0"', 'missing_values: "<= 9"', set()),
        ("learning_rate: 3e-3", "learning_rate: 1e-3", {SEARCH, TRAINING, *VARIANTS}),
        ("warmup: 5 %", "warmup: 6 %", {SEARCH, TRAINING, *VARIANTS}),
        ("l1: 1e-5", "l1: 2e-5", {SEARCH, TRAINING, *VARIANTS}),
        ("epochs: 3", "epochs: 4", {SEARCH, TRAINING, *VARIANTS}),
        ("batch_size: 64", "batch_size: 32", {SEARCH, TRAINING, *VARIANTS}),
        ("seeds: [0, 1]", "seeds: [1, 0]", {WEIGHTS, SEARCH, TRAINING, *VARIANTS, FORMS}),
        ("sampler: random", "sampler: tpe", {SEARCH}),
        ("trials: 7", "trials: 8", {SEARCH}),
        ("[0.9, 0.99]", "[0.9, 0.98]", {SEARCH}),
        ("patience: 5", "patience: 6", {SEARCH, TRAINING, *VARIANTS}),
        ('accuracy: ">= 97 %"', 'accuracy: ">= 96 %"', set()),
        (
            "quantize: {weights: int8}",
            "quantize: {weights: int8, activations: int8}",
            {Ref("variant", ("int8",)), FORMS},
        ),
        ("{by: 2}", "{by: 3}", {Ref("variant", ("smaller",)), FORMS}),
        (
            "project_code:METHOD",
            "project_code:OTHER",
            {*_variants("variant", "model", "expected_outputs", of=("smaller",)), FORMS},
        ),
        ("from: int8, ", "", {*_variants("variant", "model", "expected_outputs", of=("smaller",)), FORMS}),
        ('size: "<= 10 kB"', 'size: "<= 11 kB"', set()),
        ("at_least: 9", "at_least: 8", set()),
        ("runtime: xla", "runtime: other", {*_variants("model", "outputs"), *TIMED, *PROPERTIES, FOUND}),
        ("max_delay: 1 ms", "max_delay: 2 ms", {*TIMED, *PROPERTIES}),
        ("{examples: 5}", "{examples: 6}", _variants("compress_properties")),
        ("[deterministic]", "[finite]", _variants("serve_properties")),
        ("rate: 50 /s", "rate: 60 /s", TIMED),
        ("2 s, seed: 3", "3 s, seed: 4", TIMED),
        ('"<= 20 ms"', '"<= 21 ms"', _variants("load")),
        ("latency.p99:", "latency.p90:", _variants("load")),
        ('"<= 110 % of baseline @ 99 %"', '"<= 120 % of baseline @ 99 %"', _variants("comparison")),
        ("@ 99 %", "@ 98 %", _variants("comparison")),
        ("severity: warn", "severity: error", set()),
        ("registry: sqlite:registry.db", "registry: sqlite:other.db", {BASELINE}),
        ("model: digits\n", "model: letters\n", {BASELINE}),
        ("to: staging", "to: production", {BASELINE}),
        ("choose: smallest", "choose: fastest", set()),
        ("  baseline: optional", "  baseline: required", set()),
        ("until: 2020-01-01", "until: 2020-01-02", set()),
    ],
    ids=lambda part: part.strip() if isinstance(part, str) else f"{len(part)} keys",
)
def test_a_change_in_the_spec_changes_the_keys_of_the_steps_that_it_concerns(
    old: str, new: str, changed: set[Ref], keys: Mapping[Ref, str], key: Key, root: Path
) -> None:
    assert SPEC.count(old) == 1
    after = rich_plan(root, SPEC.replace(old, new))
    assert set(after.steps) == set(REFS)
    found = {ref for ref in REFS if key(after, ref, settings_of(after, ref)) != keys[ref]}
    # A step that is made from another one by now has another key for that alone.
    assert found == changed


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("artifact: net.onnx", "artifact: start.npz", {ARTIFACT, SEARCH, TRAINING, FORMS}),
        ("sha256: ab", "sha256: cd", {ARTIFACT}),
        ("shape: [8, 8]", "shape: [9, 8]", {DATA, ARTIFACT, SEARCH, TRAINING, FORMS}),
        ("epochs: 3", "epochs: 4", {SEARCH, TRAINING, *VARIANTS}),
    ],
)
def test_a_change_of_a_file_changes_the_keys_of_the_steps_that_it_concerns(
    old: str, new: str, changed: set[Ref], key: Key, root: Path
) -> None:
    plans = [rich_plan(root, text) for text in (SPEC_OF_A_FILE, SPEC_OF_A_FILE.replace(old, new))]
    assert WEIGHTS not in plans[0].steps
    before, after = ({ref: key(plan, ref, settings_of(plan, ref)) for ref in plan.steps} for plan in plans)
    assert {ref for ref in after if after[ref] != before[ref]} == changed


@pytest.mark.parametrize("ref", ALL_REFS, ids=str)
def test_every_need_is_a_step_of_the_plan(ref: Ref, plan_with: Callable[[Ref], Plan], root: Path) -> None:
    plan = plan_with(ref)
    needs = STEP_KINDS[ref.kind].needs(plan.spec, ref, extensions_of(root))
    assert needs == plan.steps[ref]
    assert set(needs.values()) <= set(plan.steps)
    assert ref not in needs.values()


@pytest.mark.parametrize("kind", STEP_KINDS.values(), ids=lambda kind: kind.name)
def test_its_subjects_are_parameters_that_a_metric_can_have(kind: StepKind) -> None:
    of_properties = {"compress_properties", "serve_properties"}
    assert set(kind.subjects) <= SUBJECTS | of_properties


@pytest.mark.parametrize("variant", ["trained", "int8", "baseline"])
@pytest.mark.parametrize("name", sorted({name.removeprefix("reference_") for name in SUBJECTS}))
def test_a_parameter_of_a_metric_is_read_from_one_step_of_a_variant(name: str, variant: str) -> None:
    offering = [kind for kind in STEP_KINDS.values() if name in kind.subjects]
    subjects = [kind.subjects[name] for kind in offering]
    assert len({(subject.per_example, subject.per_variant) for subject in subjects}) == 1
    refs = [ref for kind in offering if not kind.pairs and (ref := kind.ref_for(variant))]
    only_beside_a_variant = (name, variant) == ("load", "baseline")
    assert len(refs) == (0 if only_beside_a_variant else 1)


@pytest.mark.parametrize("kind", STEP_KINDS.values(), ids=lambda kind: kind.name)
def test_it_answers_for_every_variant_with_a_step_of_its_own_kind(kind: StepKind) -> None:
    for variant in (None, "trained", "int8", "baseline"):
        ref = kind.ref_for(variant)
        assert ref is None or (ref.kind == kind.name and set(ref.of) <= {variant})


@pytest.mark.parametrize("kind", STEP_KINDS.values(), ids=lambda kind: kind.name)
def test_its_stages_are_sections_with_steps_of_its_own(kind: StepKind, plan: Plan) -> None:
    for section, variant, ref in kind.stages(plan.spec):
        assert section in (*SECTIONS, "optimize")
        assert ref.kind == kind.name
        assert ref in plan.steps
        assert variant is None or ref.of == (variant,)


@pytest.mark.parametrize("ref", ALL_REFS, ids=str)
def test_what_it_uses_by_name_is_found_or_is_an_import_path(
    ref: Ref, plan_with: Callable[[Ref], Plan], root: Path
) -> None:
    plan = plan_with(ref)
    extensions = extensions_of(root)
    for source in STEP_KINDS[ref.kind].sources(settings_of(plan, ref)):
        assert ":" in source.name or extensions.installed(source) is not None


@pytest.mark.parametrize("kind", STEP_KINDS.values(), ids=lambda kind: kind.name)
def test_only_a_step_that_is_cached_names_what_it_uses(kind: StepKind, plan_with: Callable[[Ref], Plan]) -> None:
    refs = [ref for ref in ALL_REFS if ref.kind == kind.name]
    named = [source for ref in refs for source in kind.sources(settings_of(plan_with(ref), ref))]
    is_cached = not kind.timed and not isinstance(kind, FoundElsewhere)
    assert bool(named) is is_cached
    assert is_cached or not kind.isolated
