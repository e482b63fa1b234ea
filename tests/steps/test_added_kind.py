"""A kind of step with a section of its own is one file: the plan, the language and the runner don't change for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from deploycheck import builtin, plan
from deploycheck.check import Check
from deploycheck.checks import metric
from deploycheck.extensions import Extensions, collect
from deploycheck.language import Dimension, Section, Spec, SpecErrors, SpecSection, load
from deploycheck.plan import Plan, make_plans
from deploycheck.ref import Ref
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.data import DATA
from deploycheck.steps.kind import Making, Metadata, StepKind
from deploycheck.verdict import Exact, Measurement


class Audit(Section):
    rows: int
    expect: dict[str, str] = {}  # noqa: RUF012 - a field of pydantic


class NoSettings(Section):
    """The data alone decides the audit."""


class AuditStep(StepKind):
    name = "audit"
    isolated = True
    settings_type = NoSettings

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        if "audit" in spec.sections:
            yield "audit", None, Ref(self.name)

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        return {"data": DATA}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> NoSettings:
        return NoSettings()

    def make(self, making: Making) -> Metadata:
        return {}


@metric("rows_read", dimension=Dimension.COUNT, direction="higher", stages=["audit"], sample=Exact)
def rows_read(dataset: object) -> Measurement:
    return Measurement(Exact(20))


SPEC = """\
deploycheck: 1
name: blobs
model: {build: "models:net", input: {x: {shape: [4], dtype: float32}}}
data: {load: "models:data"}
train:
  optimizer: {adam: {learning_rate: 1e-2}}
  epochs: 1
  batch_size: 8
  expect: {accuracy: ">= 50 %"}
audit:
  rows: 20
  expect: {rows_read: ">= 20"}
"""
MODELS = "def net(key): ...\ndef data(): ...\n"


@pytest.fixture
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Extensions:
    kinds = {"data": STEP_KINDS["data"], "audit": AuditStep(), **STEP_KINDS}
    monkeypatch.setattr(plan, "STEP_KINDS", kinds)
    added = [SpecSection("audit", Audit), rows_read]
    return collect([(None, builtin.pytest_deploycheck_extensions()), (tmp_path / "audit.py", added)], tmp_path)


def planned(text: str, folder: Path, extensions: Extensions) -> Plan:
    (folder / "models.py").write_text(MODELS)
    (folder / "spec.yaml").write_text(text)
    (made,) = make_plans(load(folder / "spec.yaml", folder, extensions.vocabulary), "spec.yaml", extensions)
    return made


def test_its_stage_has_checks_in_its_place_and_its_step_is_planned(tmp_path: Path, extensions: Extensions) -> None:
    made = planned(SPEC, tmp_path, extensions)
    assert [check.id.removeprefix("spec.yaml::") for check in made.checks] == [
        "data::completes",
        "audit::completes",
        "audit::rows_read",
        "train::completes",
        "train::accuracy",
    ]
    assert made.steps[Ref("audit")] == {"data": DATA}


def test_a_mistake_in_its_section_is_placed_like_any_other(tmp_path: Path, extensions: Extensions) -> None:
    with pytest.raises(SpecErrors) as caught:
        planned(SPEC.replace("rows: 20", "row: 20"), tmp_path, extensions)
    assert "spec.yaml:11:3: unknown key 'row' in `audit`" in str(caught.value)
    assert "did you mean 'rows'?" in str(caught.value)


def test_without_it_the_section_is_an_unknown_key(tmp_path: Path) -> None:
    built_in = collect([(None, builtin.pytest_deploycheck_extensions())], tmp_path)
    with pytest.raises(SpecErrors, match="unknown key 'audit'"):
        planned(SPEC, tmp_path, built_in)
