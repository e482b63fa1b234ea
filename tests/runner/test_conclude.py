"""What a run results in: each spec decided by all its checks, and the registry moved only by what was checked."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploycheck.evidence import CheckRecord, Evidence, SpecRecord, StepRecord
from deploycheck.evidence.forms.json import as_json
from deploycheck.extensions import Extensions
from deploycheck.plan import Plan
from deploycheck.promotion import Decision
from deploycheck.ref import Ref
from deploycheck.registry import RegistryError
from deploycheck.registry.sqlite import open_sqlite
from deploycheck.runner import conclude as module
from deploycheck.runner.conclude import Results, actor, conclude, promote, promote_recorded, record
from deploycheck.steps.outputs import exported
from deploycheck.store import Artifact, Building, Store, fingerprint
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
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_platform", lambda _: {"device": "a test"})


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Artifact]:
    last_day = (datetime.now(UTC).date() + timedelta(days=9)).isoformat()
    return {
        name: stored(tmp_path / "cache", name, bytes(size), loadable_until=last_day)
        for name, size in (("trained", 400), ("int8", 100))
    }


def stored(cache: Path, variant: str, weights: bytes, **meta: str) -> Artifact:
    """Make the exported artifact of a variant in the store, in place of the one that is there."""

    def write(building: Building) -> Mapping[str, Any]:
        (building.out / "weights.bin").write_bytes(weights)
        return meta

    store, key = Store(cache / "store"), fingerprint(variant)
    store.forget("model", key)
    return store.get_or_build("model", key, write)[0]


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def make(choose: str = "smallest", text: str = TEXT) -> Plan:
        return plan(text.replace("CHOOSE", choose), tmp_path)

    return make


@pytest.fixture
def extensions(tmp_path: Path) -> Extensions:
    return built_in(tmp_path)


def check_record(plan: Plan, id: str, models: Mapping[str, Artifact], **changed: Any) -> CheckRecord:
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
            results.add(plan.id, check_record(plan, check.id, models, **changes.get(short, {})), steps)
    return results


def decided(plan: Plan, results: Results, folder: Path) -> SpecRecord:
    (found,) = conclude([plan], results, "run", folder / "cache").specs
    return found


def test_what_passed_every_check_can_be_promoted(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned()
    found = decided(made, all_passed(made, models), tmp_path)
    assert (found.decision, found.reasons, found.not_run) == (Decision.PROMOTABLE, (), ())
    assert found.chosen is not None
    assert found.chosen.variant == "int8"
    key = models["int8"].key
    assert (found.chosen.artifact, found.chosen.key) == (models["int8"].digest, key)
    assert found.chosen.path == f"cache/store/model/{key}"
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


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ((Outcome.PASS, Outcome.UNDECIDED, Outcome.FAIL), Outcome.FAIL),
        ((Outcome.PASS, Outcome.ERROR, Outcome.PASS), Outcome.ERROR),
        ((Outcome.WARN, Outcome.PASS), Outcome.WARN),
    ],
)
def test_every_attempt_at_a_check_counts_and_the_worst_is_shown(
    verdicts: tuple[Outcome, ...],
    worst: Outcome,
    planned: Callable[..., Plan],
    models: dict[str, Artifact],
    tmp_path: Path,
) -> None:
    made = planned()
    results = all_passed(made, models, but={"train::accuracy": {"verdict": verdicts[0]}})
    for verdict in verdicts[1:]:
        results.add(made.id, check_record(made, "spec.yaml::train::accuracy", models, verdict=verdict), [])
    found = decided(made, results, tmp_path)
    assert found.decision is (Decision.WITHHELD if worst.blocks else Decision.PROMOTABLE)
    (shown,) = [check for check in found.checks if check.id == "spec.yaml::train::accuracy"]
    assert (shown.verdict, shown.attempts) == (worst, len(verdicts))
    assert found.reasons == ((f"{shown.id}: {worst}",) if worst.blocks else ())
    assert {check.attempts for check in found.checks if check is not shown} == {1}


def test_of_attempts_that_ended_with_an_error_the_one_that_says_why_is_shown(
    planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path
) -> None:
    made = planned()
    results = all_passed(made, models, but={"train::accuracy": {"verdict": Outcome.ERROR, "reached": False}})
    results.add(
        made.id, check_record(made, "spec.yaml::train::accuracy", models, verdict=Outcome.ERROR, reason="no file"), []
    )
    (shown,) = [check for check in decided(made, results, tmp_path).checks if check.metric == "accuracy"]
    assert (shown.reached, shown.reason) == (True, "no file")


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
    check = check_record(made, "spec.yaml::data::completes", models)
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
    ran = conclude([made], all_passed(made, models), "0f3a", tmp_path / "cache")
    assert (ran.run, ran.environment.device) == ("0f3a", "a test")
    assert {"deploycheck", "jax", "numpy"} <= ran.environment.versions.keys()
    assert conclude([made], Results(), "0f3a", tmp_path / "cache").environment.device == "none used"


@pytest.fixture
def promotable(planned: Callable[..., Plan], models: dict[str, Artifact], tmp_path: Path) -> Evidence:
    made = planned()
    return conclude([made], all_passed(made, models), "run", tmp_path / "cache")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
    specs = conclude([made, other], results, "run", tmp_path / "cache").specs
    assert [spec.decision for spec in specs] == [Decision.WITHHELD] * 2
    assert specs[0].reasons == ("other.yaml would move digits@staging too: an alias takes one candidate in a run",)
    del results.steps[other.id]
    assert conclude([made, other], results, "run", tmp_path / "cache").specs[0].decision is Decision.PROMOTABLE


def test_evidence_names_its_standards_by_digest_and_no_folder_of_the_machine(
    models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    standard = "deploycheck: 1\nname: standard\ntrain: {expect: {accuracy: '>= 90 %'}}\n"
    (tmp_path / "standard.yaml").write_text(standard)
    text = "extends: standard.yaml\n" + TEXT.replace("CHOOSE", "smallest")
    made = plan(text, tmp_path, extensions)
    results = all_passed(made, models)
    results.steps[made.id]["baseline"] = step_record(Ref("baseline"), models["int8"], path="/elsewhere/ab", reused=True)
    evidence, problems = promote(conclude([made], results, "run", tmp_path / "cache"), tmp_path / "cache", extensions)
    assert problems == ()
    assert {file.name: file.sha256 for file in evidence.specs[0].files} == {
        name: hashlib.sha256(content.encode()).hexdigest()
        for name, content in (("spec.yaml", text), ("standard.yaml", standard))
    }
    document = as_json(evidence)
    for named in (str(tmp_path), "/elsewhere", platform.release(), str(Path.home())):
        assert named not in document


def test_what_is_withheld_moves_nothing(
    planned: Callable[..., Plan], models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    made = planned()
    withheld = conclude([made], all_passed(made, models, but={"train::accuracy": None}), "run", tmp_path / "cache")
    assert promote(withheld, tmp_path / "cache", extensions) == (withheld, ())
    assert not (tmp_path / "registry.db").exists()


def test_without_a_registry_in_the_spec_that_of_the_cache_is_used(
    planned: Callable[..., Plan], models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    made = planned(text=TEXT.replace('registry: "sqlite:registry.db", ', ""))
    evidence = conclude([made], all_passed(made, models), "run", tmp_path / "cache")
    moved, _ = promote(evidence, tmp_path / "cache", extensions)
    assert moved.specs[0].promotion is not None
    assert moved.specs[0].promotion.registry == "cache/registry.db"
    assert current(tmp_path / "cache") == models["int8"].digest


@pytest.mark.parametrize("how", ["damaged", "swapped", "expired", "gone", "reused", "no such registry", "refused"])
def test_what_can_no_longer_be_promoted_is_withheld_for_that_reason(
    how: str,
    planned: Callable[..., Plan],
    models: dict[str, Artifact],
    extensions: Extensions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how == "expired":
        models["int8"] = stored(tmp_path / "cache", "int8", b"x", loadable_until="2026-01-01")
    made = planned()
    results = all_passed(made, models)
    if how == "reused":
        results.steps[made.id]["data"] = step_record(Ref("data"), models["int8"], reused=True)
    evidence = conclude([made], results, "run", tmp_path / "cache")
    says = {
        "damaged": "weights.bin is damaged",
        "swapped": f"the checks were run on {models['int8'].digest}",
        "expired": f"can't point at {models['int8'].digest}, which could be loaded until 2026-01-01",
        "gone": "the artifact of int8 is gone",
        "reused": "data: taken from the store, not made by this run",
        "no such registry": "promote.registry: unknown registry 'sqlite'",
        "refused": "the alias was moved meanwhile",
    }
    if how == "damaged":
        models["int8"].file("weights.bin").write_bytes(b"x" * 100)
    if how == "swapped":
        stored(tmp_path / "cache", "int8", b"other")
    if how == "gone":
        shutil.rmtree(models["int8"].path)
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


# Promoting later, on evidence


@pytest.fixture
def recorded(promotable: Evidence, extensions: Extensions, tmp_path: Path) -> Evidence:
    assert record(promotable, tmp_path / "cache", extensions) == ()
    return promotable


def changed(evidence: Evidence, **fields: Any) -> Evidence:
    """Change the record of the one spec."""
    return evidence.model_copy(update={"specs": (evidence.specs[0].model_copy(update=fields),)})


def refused(evidence: Evidence, extensions: Extensions, folder: Path) -> str:
    """Return why evidence promotes nothing."""
    before = open_sqlite("registry.db", folder).history()
    moved, problems = promote_recorded(evidence, folder / "cache", extensions)
    assert moved.specs[0].decision is Decision.WITHHELD
    assert open_sqlite("registry.db", folder).history() == before
    (problem,) = problems
    return problem


def test_recorded_evidence_promotes_once(
    recorded: Evidence, models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    assert current(tmp_path) is None
    for _ in range(2):
        moved, problems = promote_recorded(recorded, tmp_path / "cache", extensions)
        assert problems == ()
        assert moved.specs[0].decision is Decision.PROMOTED
    registry = open_sqlite("registry.db", tmp_path)
    assert len(registry.history()) == 1
    other = registry.propose("digits", stored(tmp_path / "other", "int8", b"other"), b"{}", now())
    registry.promote("digits", "staging", other.digest, expected=models["int8"].digest, actor="ada", time=now())
    assert "this evidence was used at" in refused(recorded, extensions, tmp_path)
    assert "it was promoted by its run, and staging has moved since" in refused(moved, extensions, tmp_path)


def test_evidence_does_not_promote_again_what_was_rolled_back(
    recorded: Evidence, models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    registry = open_sqlite("registry.db", tmp_path)
    first = registry.propose("digits", stored(tmp_path / "other", "int8", b"other"), b"{}", now())
    registry.promote("digits", "staging", first.digest, expected=None, actor="ada", time=now())
    (spec,) = recorded.specs
    assert spec.target is not None
    compared = changed(recorded, target=spec.target.model_copy(update={"replaces": first.digest}))
    record(compared, tmp_path / "cache", extensions)
    assert promote_recorded(compared, tmp_path / "cache", extensions)[1] == ()
    assert current(tmp_path) == models["int8"].digest
    registry.roll_back("digits", "staging", actor="ada", time=now())
    assert "evidence promotes once" in refused(compared, extensions, tmp_path)


def test_evidence_that_no_run_recorded_promotes_nothing(
    promotable: Evidence, extensions: Extensions, tmp_path: Path
) -> None:
    assert "this evidence is not recorded in the registry" in refused(promotable, extensions, tmp_path)


@pytest.mark.parametrize(
    "edit", ["no checks", "failed", "waived", "ended", "dropped", "other artifact", "old", "future"]
)
def test_the_promotion_rule_is_applied_to_the_evidence_again(
    edit: str, promotable: Evidence, models: dict[str, Artifact], extensions: Extensions, tmp_path: Path
) -> None:
    (spec,) = promotable.specs
    first, today = spec.checks[0], datetime.now(UTC)
    assert spec.chosen is not None
    edits: dict[str, tuple[Evidence, str]] = {
        "no checks": (changed(promotable, checks=()), "the spec has no checks"),
        "dropped": (changed(promotable, checks=spec.checks[1:], not_run=(first.id,)), f"{first.id}: did not run"),
        "other artifact": (
            changed(promotable, chosen=spec.chosen.model_copy(update={"artifact": "sha256:other"})),
            f"the artifact is sha256:other, its checks were run on {models['int8'].digest}",
        ),
        "old": (
            promotable.model_copy(update={"created": (today - timedelta(days=31)).isoformat()}),
            "more than 30 days old",
        ),
        "future": (
            promotable.model_copy(update={"created": (today + timedelta(days=1)).isoformat()}),
            "later than this machine's clock",
        ),
    }
    for name, fields, says in (
        ("failed", {"verdict": Outcome.FAIL}, "fail"),
        ("waived", {"verdict": Outcome.WAIVED}, "it is waived, but the evidence has no waiver for it"),
        ("ended", {"verdict": Outcome.WAIVED, "waived_until": date(2026, 1, 1)}, "its waiver ended on 2026-01-01"),
    ):
        checks = (first.model_copy(update=fields), *spec.checks[1:])
        edits[name] = (changed(promotable, checks=checks), f"{first.id}: {says}")
    evidence, says = edits[edit]
    record(evidence, tmp_path / "cache", extensions)
    assert says in refused(evidence, extensions, tmp_path)


def test_a_registry_that_can_not_record_evidence_is_named(
    promotable: Evidence, extensions: Extensions, tmp_path: Path
) -> None:
    (tmp_path / "registry.db").write_bytes(b"not a database, but somebody's notes" * 100)
    (problem,) = record(promotable, tmp_path / "cache", extensions)
    assert problem.startswith("spec.yaml: `deploycheck promote` will refuse this evidence: ")
    assert "not a database" in problem


def test_who_runs_it_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("uid 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert actor() == "unknown"
