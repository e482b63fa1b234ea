"""What a run results in: each spec decided by all its checks, and the registry moved only by what was checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploycheck.evidence import CheckRecord, Evidence, SpecRecord, StepRecord
from deploycheck.extensions import Extensions
from deploycheck.plan import Plan
from deploycheck.promotion import Decision
from deploycheck.ref import Ref
from deploycheck.registry import RegistryError
from deploycheck.registry.sqlite import open_sqlite
from deploycheck.runner import conclude as module
from deploycheck.runner.conclude import Results, actor, conclude, promote
from deploycheck.steps.outputs import exported
from deploycheck.store import Artifact
from deploycheck.verdict import Outcome
from tests.planning import HEAD, built_in, plan
from tests.runner.done import write_artifact

TEXT = (
    HEAD
    + """\
compress:
  variants: {int8: {quantize: {weights: int8}}}
  expect: {accuracy_drop: "<= 1 pp"}
serve: {variants: [trained, int8], expect: {latency.p99: "<= 20 ms"}}
promote: {registry: "sqlite:registry.db", model: digits, to: staging, choose: CHOOSE}
"""
)
VALUES = {
    ("trained", "accuracy"): 0.98,
    ("int8", "accuracy_drop"): 0.02,
    ("trained", "latency.p99"): 0.001,
    ("int8", "latency.p99"): 0.002,
}
"""What was measured of each variant. The trained model is larger."""


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_platform", lambda _: {"device": "a test"})


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Artifact]:
    last_day = (datetime.now(UTC).date() + timedelta(days=9)).isoformat()
    return {
        name: write_artifact(tmp_path, exported(name), {"weights.bin": bytes(size)}, loadable_until=last_day)
        for name, size in (("trained", 400), ("int8", 100))
    }


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def make(choose: str = "smallest", text: str = TEXT) -> Plan:
        return plan(text.replace("CHOOSE", choose), tmp_path)

    return make


@pytest.fixture
def extensions(tmp_path: Path) -> Extensions:
    return built_in(tmp_path)


def record(plan: Plan, id: str, models: Mapping[str, Artifact], **changed: Any) -> CheckRecord:
    check = next(check for check in plan.checks if check.id == id)
    fields: dict[str, Any] = {
        "id": id,
        "stage": check.stage,
        "variant": check.variant,
        "metric": check.metric,
        "verdict": Outcome.PASS,
        "value": VALUES.get((str(check.variant), check.metric)),
        "artifact": models[check.variant].digest if check.variant else "",
    }
    return CheckRecord(**{**fields, **changed})


def step_record(ref: Ref, artifact: Artifact, **changed: Any) -> StepRecord:
    fields: dict[str, Any] = {
        "step": str(ref),
        "key": artifact.key,
        "digest": artifact.digest,
        "path": str(artifact.path),
        "reused": False,
        "seconds": 1.0,
    }
    return StepRecord(**{**fields, **changed})


def all_passed(plan: Plan, models: Mapping[str, Artifact], *, but: Mapping[str, Any] | None = None) -> Results:
    """Return the results of a run in which every check passed; ``but`` leaves out or changes checks by their id."""
    results, changes = Results(), but or {}
    steps = [step_record(exported(name), artifact) for name, artifact in models.items()]
    for check in plan.checks:
        short = check.id.removeprefix("spec.yaml::")
        if changes.get(short, {}) is not None:
            results.add(plan.id, record(plan, check.id, models, **changes.get(short, {})), steps)
    return results


def decided(plan: Plan, results: Results, cache: Path) -> SpecRecord:
    (found,) = conclude([plan], results, "run", cache).specs
    return found


def test_what_passed_every_check_can_be_promoted(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned()
    found = decided(made, all_passed(made, models), tmp_path)
    assert (found.decision, found.reasons, found.not_run) == (Decision.PROMOTABLE, (), ())
    assert found.chosen is not None
    assert found.chosen.variant == "int8"
    assert (found.chosen.artifact, found.chosen.path) == (models["int8"].digest, str(models["int8"].path))
    assert found.chosen.size == 100
    assert found.target is not None
    assert (found.target.registry, found.target.model, found.target.alias) == (
        *("sqlite:registry.db", "digits", "staging"),
    )
    assert [check.id for check in found.checks] == [check.id for check in made.checks]
    assert [step.step for step in found.steps] == ["model[trained]", "model[int8]"]


@pytest.mark.parametrize(
    ("choose", "variant"),
    [("smallest", "int8"), ("fastest", "trained"), ("most_accurate", "trained"), ("int8", "int8")],
)
def test_the_policy_compares_what_was_measured(
    choose: str, variant: str, planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned(choose)
    chosen = decided(made, all_passed(made, models), tmp_path).chosen
    assert chosen is not None
    assert chosen.variant == variant


@pytest.mark.parametrize(
    "expect",
    [
        'accuracy_drop: "<= 1 % rel"',
        'accuracy_drop: "<= 1 pp of baseline"',
        'accuracy: ">= 99 % of baseline"',
        "accuracy: {threshold: '>= 90 %', slices: {by: label}}",
    ],
)
def test_a_value_that_is_not_an_accuracy_is_not_compared_as_one(
    expect: str, planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned("most_accurate", TEXT.replace('accuracy_drop: "<= 1 pp"', expect))
    name = expect.partition(":")[0]
    found = decided(made, all_passed(made, models, but={f"compress[int8]::{name}": {"value": 0.99}}), tmp_path)
    assert (found.decision, found.reasons) == (
        *(Decision.WITHHELD, ("`choose: most_accurate` can't compare the variants: no value was measured for int8",)),
    )


def test_without_a_promote_the_first_candidate_is_chosen(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned(text=TEXT.partition("promote:")[0])
    found = decided(made, all_passed(made, models), tmp_path)
    assert (found.decision, found.target) == (Decision.PROMOTABLE, None)
    assert found.chosen is not None
    assert found.chosen.variant == "trained"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "spec.yaml::train::accuracy: did not run"),
        ({"verdict": Outcome.FAIL}, "spec.yaml::train::accuracy: fail"),
        ({"verdict": Outcome.UNDECIDED}, "spec.yaml::train::accuracy: undecided"),
        ({"artifact": "sha256:other"}, "trained: its checks were run on 2 different artifacts"),
    ],
)
def test_a_check_that_is_missing_or_blocks_withholds(
    change: Any, reason: str, planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned()
    found = decided(made, all_passed(made, models, but={"train::accuracy": change}), tmp_path)
    assert (found.decision, found.chosen, found.reasons) == (Decision.WITHHELD, None, (reason,))
    assert found.not_run == (("spec.yaml::train::accuracy",) if change is None else ())
    assert found.other_reasons == (() if "accuracy:" in reason else (reason,))


def test_every_attempt_at_a_check_counts_and_the_worst_is_shown(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned()
    results = all_passed(made, models, but={"train::accuracy": {"verdict": Outcome.FAIL, "reason": "the first"}})
    results.add(made.id, record(made, "spec.yaml::train::accuracy", models, reason="the second"), [])
    found = decided(made, results, tmp_path)
    assert found.decision is Decision.WITHHELD
    (shown,) = [check for check in found.checks if check.id == "spec.yaml::train::accuracy"]
    assert (shown.verdict, shown.reason) == (Outcome.FAIL, "the first")


def test_a_variant_whose_artifact_is_damaged_by_now_is_not_a_candidate(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned()
    models["int8"].file("weights.bin").write_bytes(b"other")
    chosen = decided(made, all_passed(made, models), tmp_path).chosen
    assert chosen is not None
    assert chosen.variant == "trained"


def test_of_a_step_that_one_process_did_and_another_found_that_it_was_done_is_kept(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made, data = planned(), write_artifact(tmp_path, Ref("data"), {"a": b""})
    check = record(made, "spec.yaml::data::completes", models)
    found, done = (
        step_record(Ref("data"), data, reused=reused, because=why) for reused, why in ((True, ""), (False, "x"))
    )
    for order in ([found, done], [done, found], [found, done, found]):
        results = Results()
        for step in order:
            results.add(made.id, check, [step])
        assert results.steps[made.id]["data"] == done


def test_what_the_run_ran_on_is_part_of_the_evidence(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned()
    ran = conclude([made], all_passed(made, models), "0f3a", tmp_path)
    assert (ran.run, ran.environment.device) == ("0f3a", "a test")
    assert {"deploycheck", "jax", "numpy"} <= ran.environment.versions.keys()
    assert conclude([made], Results(), "0f3a", tmp_path).environment.device == "none used"


@pytest.fixture
def promotable(planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path) -> Evidence:
    made = planned()
    return conclude([made], all_passed(made, models), "run", tmp_path / "cache")


def current(root: Path) -> str | None:
    version = open_sqlite("registry.db", root).current("digits", "staging")
    return version.digest if version else None


def test_a_promotion_moves_the_alias_and_is_recorded(
    promotable: Evidence, models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    moved, problems = promote(promotable, tmp_path / "cache", extensions)
    assert problems == ()
    assert current(tmp_path) == models["int8"].digest
    (found,) = moved.specs
    assert found.decision is Decision.PROMOTED
    assert found.promotion is not None
    assert (found.promotion.variant, found.promotion.artifact, found.promotion.previous) == (
        *("int8", models["int8"].digest, None),
    )
    again, problems = promote(moved, tmp_path / "cache", extensions)
    assert (again, problems) == (moved, ())


def test_a_candidate_replaces_only_what_it_was_compared_with(
    planned: Callable[..., Plan], models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    made = planned()
    results = all_passed(made, models)
    results.add_alias(made.id, None)
    first = conclude([made], results, "run", tmp_path / "cache")
    trained = conclude([planned("trained")], results, "run", tmp_path / "cache")
    assert promote(first, tmp_path / "cache", extensions)[1] == ()
    moved, problems = promote(trained, tmp_path / "cache", extensions)
    assert "staging points at" in problems[0]
    assert moved.specs[0].decision is Decision.WITHHELD
    assert current(tmp_path) == models["int8"].digest

    results.aliases.clear()
    results.add_alias(made.id, models["int8"].digest)
    compared = conclude([planned("trained")], results, "run", tmp_path / "cache")
    assert compared.specs[0].target is not None
    assert compared.specs[0].target.replaces == models["int8"].digest
    assert promote(compared, tmp_path / "cache", extensions)[1] == ()
    assert current(tmp_path) == models["trained"].digest


def test_an_alias_that_moves_during_the_run_or_can_not_be_read_withholds(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned()
    results = all_passed(made, models)
    results.add_alias(made.id, None)
    results.add_alias(made.id, "sha256:1")
    found = decided(made, results, tmp_path)
    assert (found.decision, found.reasons) == (
        *(Decision.WITHHELD, ("digits@staging was moved while the run went on: run the gate again",)),
    )
    results = all_passed(made, models)
    results.add_alias(made.id, None, "registry.db: sqlite says no")
    assert decided(made, results, tmp_path).reasons == (
        "what digits@staging points at is not known: registry.db: sqlite says no",
    )


def test_two_specs_that_would_move_one_alias_are_both_withheld(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned()
    other = replace(made, id="other.yaml", checks=tuple(replace(it, id=f"other{it.id}") for it in made.checks))
    results = all_passed(made, models)
    for id, attempts in list(all_passed(other, models).checks.items()):
        results.checks[id] = attempts
    results.steps[other.id] = results.steps[made.id]
    specs = conclude([made, other], results, "run", tmp_path).specs
    assert [spec.decision for spec in specs] == [Decision.WITHHELD] * 2
    assert specs[0].reasons == ("other.yaml would move digits@staging too: an alias takes one candidate in a run",)
    del results.steps[other.id]
    assert conclude([made, other], results, "run", tmp_path).specs[0].decision is Decision.PROMOTABLE


def test_what_is_withheld_moves_nothing(
    planned: Callable[..., Plan], models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    made = planned()
    withheld = conclude([made], all_passed(made, models, but={"train::accuracy": None}), "run", tmp_path)
    assert promote(withheld, tmp_path, extensions) == (withheld, ())
    assert not (tmp_path / "registry.db").exists()


def test_without_a_registry_in_the_spec_that_of_the_cache_is_used(
    planned: Callable[..., Plan], models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    made = planned(text=TEXT.replace('registry: "sqlite:registry.db", ', ""))
    evidence = conclude([made], all_passed(made, models), "run", tmp_path / "cache")
    moved, _ = promote(evidence, tmp_path / "cache", extensions)
    assert moved.specs[0].promotion is not None
    assert moved.specs[0].promotion.registry == str(tmp_path / "cache" / "registry.db")
    assert current(tmp_path / "cache") == models["int8"].digest


def swap(artifact: Artifact, folder: Path) -> None:
    """Put another, undamaged artifact in an artifact's place."""
    other = write_artifact(folder / "other", exported("int8"), {"weights.bin": b"other"})
    for name in ("weights.bin", "manifest.json"):
        (artifact.path / name).write_bytes((other.path / name).read_bytes())


@pytest.mark.parametrize("how", ["damaged", "swapped", "expired", "no such registry", "refused"])
def test_what_can_no_longer_be_promoted_is_withheld_for_that_reason(
    how: str,
    planned: Callable[..., Plan],
    models: dict[str, Artifact],
    extensions: Extensions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how == "expired":
        models["int8"] = write_artifact(
            tmp_path / "expired", exported("int8"), {"weights.bin": b"x"}, loadable_until="2026-01-01"
        )
    made = planned()
    evidence = conclude([made], all_passed(made, models), "run", tmp_path / "cache")
    says = {
        "damaged": "weights.bin is damaged",
        "swapped": f"the checks were run on {models['int8'].digest}",
        "expired": "the exported program could be loaded until 2026-01-01",
        "no such registry": "promote.registry: unknown registry 'sqlite'",
        "refused": "the alias was moved meanwhile",
    }
    if how == "damaged":
        models["int8"].file("weights.bin").write_bytes(b"x" * 100)
    if how == "swapped":
        swap(models["int8"], tmp_path)
    if how == "no such registry":
        extensions = Extensions(**{**vars(extensions), "registries": {}})
    if how == "refused":

        def refuse(*_: object, **__: object) -> None:
            raise RegistryError("the alias was moved meanwhile")

        monkeypatch.setattr("deploycheck.registry.sqlite.SqliteRegistry.promote", refuse)
    moved, problems = promote(evidence, tmp_path / "cache", extensions)
    (found,) = moved.specs
    assert (found.decision, found.promotion) == (Decision.WITHHELD, None)
    assert says[how] in found.reasons[-1]
    assert found.other_reasons[-1] == found.reasons[-1]
    (problem,) = problems
    assert problem.startswith("spec.yaml: ")
    assert says[how] in problem
    if how != "no such registry":
        assert current(tmp_path) is None


def test_who_runs_it_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("uid 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert actor() == "unknown"
