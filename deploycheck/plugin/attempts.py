"""The attempts at checks: from the items of all processes to the results that a run is decided by.

An item's attempts travel with each of its reports, and once more when its process ends. So nothing depends on which
reports a plugin that retries lets through.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from deploycheck.evidence import CheckRecord, StepRecord
from deploycheck.verdict import Outcome

if TYPE_CHECKING:
    import pytest

    from deploycheck.plan import Plan
    from deploycheck.plugin.items import CheckItem
    from deploycheck.runner.conclude import Results

CRASHED = "???"
"""The phase in pytest-xdist's report of an item whose worker has ended."""


def payload(item: CheckItem, process: str) -> dict[str, Any]:
    """Return all attempts at a check in this process, its steps and its alias, as JSON that other processes read."""
    return {
        "process": process,
        "spec": item.plan.id,
        "check": item.check.id,
        "attempts": [record.model_dump(mode="json") for record in item.attempts],
        "steps": [step.model_dump(mode="json") for step in item.steps()],
        "alias": item.gate.aliases.get(item.plan.id),
    }


class Attempts:
    """Every attempt at every check, as far as it is known in this process."""

    def __init__(self) -> None:
        self._payloads: dict[tuple[str, str], dict[str, Any]] = {}
        self._crashed: list[str] = []

    def take(self, payload: dict[str, Any]) -> None:
        """Take over what a process knows of a check; it has all attempts there so far, so the longest list counts."""
        key = (payload["process"], payload["check"])
        known = self._payloads.get(key)
        if known is None or len(payload["attempts"]) >= len(known["attempts"]):
            self._payloads[key] = payload

    def take_crash(self, report: pytest.TestReport) -> None:
        """Count a report that says that an item's process crashed."""
        if str(report.when) == CRASHED:
            self._crashed.append(report.nodeid)

    def results(self, plans: Iterable[Plan]) -> Results:
        """Return the results of the run."""
        from deploycheck.runner.conclude import Results
        from deploycheck.runner.judge import unjudged

        results = Results()
        for payload in self._payloads.values():
            steps = [StepRecord.model_validate(step) for step in payload["steps"]]
            if payload["alias"]:
                results.add_alias(payload["spec"], *payload["alias"])
            for attempt in payload["attempts"]:
                results.add(payload["spec"], CheckRecord.model_validate(attempt), steps)
        for plan in plans:
            for check in plan.checks:
                for _ in range(self._crashed.count(check.id)):
                    results.add(plan.id, unjudged(plan, check, Outcome.ERROR, "the process that ran it crashed"), [])
        return results
