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
from deploycheck.evidence.escape import one_line, visible
from deploycheck.evidence.show import NOTHING
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
        if one_line(str(self.path)) != str(self.path):
            self.gate.refused.add(self.path)
            raise DeploycheckError("its path has control characters", where=self.nodeid, hint="rename it")
        for plan in self.gate.plans_of(self.path, self.nodeid):
            for check in plan.checks:
                name = check.id.removeprefix(f"{self.nodeid}::")
                # The id is given, not derived: pytest's own would not equal what `--lf` reads back from its text.
                yield CheckItem.from_parent(self, name=name, nodeid=check.id, check=check, plan=plan, gate=self.gate)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:  # noqa: ARG002
        """Show mistakes in a spec as they are, without a traceback."""
        if isinstance(excinfo.value, DeploycheckError):
            return visible(str(excinfo.value))
        return visible(str(super().repr_failure(excinfo)))


class CheckItem(pytest.Item):
    """One check. The steps that it needs are done in its setup, so that their errors differ from its own.

    ``attempts`` has the record of each time that it was tried, whatever tried it and whatever became of the reports:
    a plugin that retries may run the item again within one report, drop a report, or change its outcome.
    """

    def __init__(self, *, check: Check, plan: Plan, gate: Gate, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check, self.plan, self.gate = check, plan, gate
        self.add_marker(gate.markers[check.section])
        self.attempts: list[CheckRecord] = []
        self.began: float | None = None

    def setup(self) -> None:
        """Do the steps that the check needs, or skip it where one of them has already failed."""
        from deploycheck.runner.execute import NotReached

        self.began = time.monotonic()
        self.gate.look_up_alias(self.plan)
        try:
            for ref in self.check.needs:
                self.gate.runner.step(self.plan, ref)
        except NoBaseline:
            pass  # the check itself decides what this means
        except NotReached as error:
            self.attempts.append(self._unmeasured(error, reached=False))
            pytest.skip(visible(error.what))
        except Exception as error:
            self.attempts.append(self._unmeasured(error))
            raise

    def runtest(self) -> None:
        """Measure and judge."""
        from deploycheck.runner.judge import judge

        try:
            record = judge(self.gate.subjects, self.plan, self.check, datetime.now(UTC).date())
        except Exception as error:
            self.attempts.append(self._unmeasured(error))
            raise
        self.attempts.append(record.model_copy(update={"seconds": self._seconds()}))
        shown = {"value": record.value, "threshold": record.threshold, "verdict": record.verdict.value}
        self.user_properties[:] = [pair for pair in self.user_properties if pair[0] not in shown]
        self.user_properties += [
            (name, visible(part) if isinstance(part, str) else part) for name, part in shown.items() if part is not None
        ]
        if record.verdict.blocks:
            raise CheckFailed(_explain(record))

    def _initrequest(self) -> None:
        """Do nothing. The name is pytest's: plugins that retry call it before they run an item again."""

    def note(self, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
        """Count what a phase's report says against the check and its attempts don't show, such as another's skip."""
        if self.attempts and self.attempts[-1].verdict.blocks:
            return
        was_replaced = report.when == "call" and not self.attempts
        if report.failed or (report.skipped and report.when == "setup") or was_replaced:
            if call.excinfo:
                error: BaseException | str = call.excinfo.value
            elif was_replaced:
                error = "a plugin or a conftest.py ran in place of the check: it was not measured"
            else:
                said = report.longreprtext.strip() or f"the outcome {report.outcome}"
                error = f"it passed, but a plugin or a conftest.py reported: {said}"
            measured = self.attempts.pop() if report.when != "setup" and self.attempts else None  # of the same attempt
            failed = self._unmeasured(error)
            self.attempts.append(
                measured.model_copy(update={"verdict": failed.verdict, "reason": failed.reason}) if measured else failed
            )

    def _unmeasured(self, error: BaseException | str, *, reached: bool = True) -> CheckRecord:
        from deploycheck.runner.judge import unjudged

        said = error.what if isinstance(error, DeploycheckError) else str(error)
        reason = without_paths(said, self.gate.cache, self.gate.root)
        record = unjudged(self.plan, self.check, Outcome.ERROR, visible(reason))  # JSON can't have all that is text
        return record.model_copy(update={"seconds": self._seconds(), "reached": reached})

    def _seconds(self) -> float:
        return round(time.monotonic() - self.began, 3) if self.began else 0.0

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
        if isinstance(error, DeploycheckError):
            return visible(str(error))
        first = next(iter(str(error).splitlines()), "")  # what pytest's short summary shows
        return visible(f"{type(error).__name__}: {first}\n\n{super()._repr_failure_py(excinfo, style)}")

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the check is written in its spec, and its title; pytest would replace the dots in an id."""
        place = self.plan.spec.place(*self.check.path)
        file, _, rest = self.nodeid.partition("::")
        return self.gate.root / place.file, place.line - 1, f"{file}: {rest}"


def _explain(record: CheckRecord) -> str:
    """Return why a check did not pass, and what was required."""
    if record.property:
        lines = [
            f"{record.verdict}: {record.metric} doesn't hold: {record.property.violation}",
            f"the smallest input that was found: {record.property.counterexample}",
            *([f"its arrays are in {record.property.inputs}"] if record.property.inputs else []),
            "an earlier run had saved it" if record.property.replayed else "it is saved: the next run asks it first",
        ]
        return visible("\n".join(lines))
    if not record.shown:
        return visible(f"{record.verdict}: {record.reason}\n{record.metric} must be {record.threshold}")
    found = f"{NOTHING} of {record.metric}" if record.shown == NOTHING else f"{record.metric} is {record.shown}"
    lines = [f"{record.verdict}: {found}, the standard is {record.threshold}"]
    if record.confidence is not None:
        lines.append(f"each bound at {record.confidence:.4g} confidence, from {record.samples:,} observations")
    if record.reason:
        lines.append(record.reason)
    return visible("\n".join(lines))
