"""A spec as pytest nodes: a file, and one item per check."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploycheck.check import Check
from deploycheck.errors import DeploycheckError
from deploycheck.evidence import CheckRecord, StepRecord
from deploycheck.evidence.escape import visible
from deploycheck.plan import Plan
from deploycheck.runner.cache import without_paths
from deploycheck.steps.kind import NoBaseline
from deploycheck.verdict import Outcome

if TYPE_CHECKING:
    from deploycheck.plugin.gate import Gate


class CheckFailed(DeploycheckError):
    """A check that did not pass; the text says what was measured and what was required."""


class SpecFile(pytest.File):
    """A spec file."""

    def __init__(self, *, gate: Gate, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = gate

    def collect(self) -> Iterable[pytest.Item]:
        """Yield one item per check, named by its stage and its metric (and its cell, where there is a matrix)."""
        for plan in self.gate.plans_of(self.path, self.nodeid):
            for check in plan.checks:
                name = check.id.removeprefix(f"{self.nodeid}::")
                # The id is given, not derived: pytest's own would not equal what `--lf` reads back from its text.
                yield CheckItem.from_parent(self, name=name, nodeid=check.id, check=check, plan=plan, gate=self.gate)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:  # noqa: ARG002
        """Show mistakes in a spec as they are, without a traceback."""
        if isinstance(excinfo.value, DeploycheckError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class CheckItem(pytest.Item):
    """One check. The steps that it needs are done in its setup, so that their errors differ from its own."""

    def __init__(self, *, check: Check, plan: Plan, gate: Gate, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check, self.plan, self.gate = check, plan, gate
        self.add_marker(gate.markers[check.section])
        self.record: CheckRecord | None = None
        self.reached = True
        self.began: float | None = None

    def setup(self) -> None:
        """Do the steps that the check needs, or skip it where one of them has already failed."""
        from deploycheck.runner.execute import NotReached

        self.began = time.monotonic()
        self.record, self.reached = None, True
        self.gate.look_up_alias(self.plan)
        try:
            for ref in self.check.needs:
                self.gate.runner.step(self.plan, ref)
        except NoBaseline:
            pass  # the check itself decides what this means
        except NotReached as error:
            self.reached = False
            pytest.skip(error.what)

    def runtest(self) -> None:
        """Measure and judge."""
        from deploycheck.runner.judge import judge

        self.record = judge(self.gate.subjects, self.plan, self.check, datetime.now(UTC).date())
        measured = {"value": self.record.value, "threshold": self.record.threshold}
        self.user_properties += [(name, part) for name, part in measured.items() if part is not None]
        self.user_properties.append(("verdict", self.record.verdict.value))
        if self.record.verdict.blocks:
            raise CheckFailed(_explain(self.record))

    def record_of(self, report: pytest.TestReport, call: pytest.CallInfo[None]) -> CheckRecord | None:
        """Return the record of the check if this phase's report decides it, or None if it doesn't."""
        from deploycheck.runner.judge import unjudged

        seconds = {"seconds": round(time.monotonic() - self.began, 3) if self.began else 0.0}
        if report.when == "call" and self.record is not None and not (report.failed and not self.record.verdict.blocks):
            return self.record.model_copy(update=seconds)
        if report.passed or (report.when == "teardown" and not report.failed):
            return None
        error = call.excinfo.value if call.excinfo else None
        said = error.what if isinstance(error, DeploycheckError) else str(error)
        reason = without_paths(said, self.gate.cache, self.gate.root)
        return unjudged(self.plan, self.check, Outcome.ERROR, reason).model_copy(
            update={**seconds, "reached": self.reached}
        )

    def steps(self) -> list[StepRecord]:
        """Return the records of the steps that the check needs, as far as they are done."""
        from deploycheck.runner.judge import steps_of

        return steps_of(self.gate.runner, self.plan, self.check)

    def _repr_failure_py(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show our own errors as they are; show where code that a spec names has failed.

        The name is pytest's: this method is called for a failure in any phase, ``repr_failure`` only in the call.
        """
        from deploycheck.runner.execute import StepFailed

        error = excinfo.value
        if isinstance(error, StepFailed) and error.trace:
            return visible(f"{error}\n\n{error.trace}")
        return visible(str(error)) if isinstance(error, DeploycheckError) else super()._repr_failure_py(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the check is written in its spec, and its title; pytest would replace the dots in an id."""
        place = self.plan.spec.place(*self.check.path)
        file, _, rest = self.nodeid.partition("::")
        return self.gate.root / place.file, place.line - 1, f"{file}: {rest}"


def _explain(record: CheckRecord) -> str:
    """Return why a check did not pass, and what was required."""
    if not record.shown:
        return visible(f"{record.verdict}: {record.reason}\n{record.metric} must be {record.threshold}")
    lines = [f"{record.verdict}: {record.metric} is {record.shown}, the standard is {record.threshold}"]
    if record.confidence is not None:
        lines.append(f"each bound at {record.confidence:.4g} confidence, from {record.samples:,} observations")
    if record.reason:
        lines.append(record.reason)
    return visible("\n".join(lines))
