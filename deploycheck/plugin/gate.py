"""The gate: one object for a run, from collecting specs to deciding on them."""

from __future__ import annotations

import gc
import os
import time
import uuid
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.evidence import Evidence
from deploycheck.evidence.escape import one_line, visible
from deploycheck.evidence.record import withheld
from deploycheck.extensions import Extensions
from deploycheck.language import SUFFIXES, Recognition, load, recognize_file
from deploycheck.language.expect import SECTIONS
from deploycheck.plan import Plan, make_plans, only_plan, several_candidates, shared_aliases
from deploycheck.plugin.attempts import Attempts, payload
from deploycheck.plugin.items import CheckItem, SpecFile
from deploycheck.plugin.junit import name_in_junit
from deploycheck.plugin.spec_digests import digests_of, file_id_of
from deploycheck.plugin.summary import show_ids_as_given, write_summary
from deploycheck.promotion import Decision
from deploycheck.runner.cache import cache_of, without_paths
from deploycheck.runner.installed import extensions_of
from deploycheck.store.disk import explained, write_whole

if TYPE_CHECKING:  # collecting imports what is above; what running needs is imported where it is used
    from deploycheck.runner.execute import Runner
    from deploycheck.runner.measuring import Subjects

PROGRESS_EVERY_S = 10.0
REPORT_KEY = "deploycheck"
SKIPPED_KEY = "deploycheck-skipped"
WORDS = {"undecided": ("U", "UNDECIDED"), "warn": ("W", "WARN"), "waived": ("w", "WAIVED")}
"""Verdicts for which pytest has no letter and word."""


class Gate:
    """Collects specs, gives each check what it needs, and decides when all have run.

    Under pytest-xdist every worker has a gate, and the controller's gate decides on what the workers report.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.root = config.rootpath
        self.cache = cache_of(config)
        worker = getattr(config, "workerinput", None)
        self.run_id: str = worker["testrunuid"] if worker else _run_id(config)
        self.is_worker = worker is not None
        self.process: str = worker["workerid"] if worker else ""
        self.plans: dict[str, Plan] = {}
        self.attempts = Attempts()
        self.digests: dict[str, set[str]] = {}
        self.aliases: dict[str, tuple[str | None, str]] = {}
        self.evidence: Evidence | None = None
        self.written: list[Path] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.selected: list[tuple[Path, str]] = []
        self.refused: set[Path] = set()
        self.read: set[str] = set()
        self.skipped: set[str] = set()
        self.markers = {section: getattr(pytest.mark, section) for section in (*SECTIONS, "optimize")}
        self._last_progress = time.monotonic()

    @cached_property
    def extensions(self) -> Extensions:
        """What is installed. It must be asked for only when the conftest files of all given paths are loaded."""
        return extensions_of(self.config)

    @cached_property
    def runner(self) -> Runner:
        """The runner of steps in this process."""
        from deploycheck.runner.execute import Runner

        fresh = bool(self.config.getoption("deploycheck_promote") or self.config.getoption("deploycheck_fresh"))
        return Runner(self.cache, self.run_id, self.extensions, self.progress, fresh=fresh)

    @cached_property
    def subjects(self) -> Subjects:
        """What metrics are given."""
        from deploycheck.runner.measuring import Subjects

        return Subjects(self.runner)

    def plans_of(self, path: Path, file_id: str) -> list[Plan]:
        """Return the plans of a spec file; raise ``SpecErrors`` for its mistakes, and for checks that can't be run."""
        self.refused.add(path)
        specs = load(path, self.root, self.extensions.vocabulary)
        plans = make_plans(specs, file_id, self.extensions)
        self.refused.remove(path)
        self.read.add(file_id)
        self.plans.update({plan.id: plan for plan in plans})
        return plans

    def look_up_alias(self, plan: Plan) -> None:
        """Note what the alias of a plan's model points at, before anything is compared with it."""
        if plan.spec.promote and plan.id not in self.aliases:
            try:
                self.aliases[plan.id] = (self.runner.replaced_by(plan), "")
            except DeploycheckError as error:
                self.aliases[plan.id] = (None, without_paths(str(error), self.cache, self.root))

    def plan_for(self, path: Path) -> Plan:
        """Return the plan of a spec file that has one spec."""
        known = [plan for plan in self.plans.values() if plan.spec.path == path]
        if not known:
            before = dict(self.plans)
            known = self.plans_of(path, path.relative_to(self.root).as_posix())
            self.plans = before  # the run decides only on specs that were collected
        return only_plan(known, path)

    def progress(self, line: str) -> None:
        """Show a line of progress: in place on a terminal, now and then in a log."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if terminal is None or capture is None or self.config.getoption("verbose") < 0:
            return
        line = one_line(line)
        with capture.global_and_fixture_disabled():
            if terminal.isatty:
                terminal.rewrite(line[: terminal._tw.fullwidth - 1], erase=True)
            elif time.monotonic() - self._last_progress > PROGRESS_EVERY_S:
                self._last_progress = time.monotonic()
                terminal.write_line(f"  {line}")

    # collection

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> Any:
        """Replace the id of a stage or a check by its file: pytest would look for a node for each ``::`` in it."""
        arguments = []
        for argument in session.config.args:
            file, _, rest = str(argument).partition("::")
            if rest and file.lower().endswith(SUFFIXES):
                # As pytest does it: made absolute, links not followed.
                path = Path(os.path.abspath(session.config.invocation_params.dir / file))  # noqa: PTH100
                self.selected.append((path, rest))
                argument = file
            if argument not in arguments:
                arguments.append(argument)
        session.config.args = arguments
        # Thousands of nodes stay until the end: to collect garbage among them again and again would free nothing.
        if gc.get_freeze_count():  # by an earlier run in this process: its nodes are garbage now
            gc.unfreeze()
            gc.collect()
        gc.disable()
        try:
            return (yield)
        finally:
            gc.freeze()
            gc.enable()

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect a YAML or JSON file that says it is a spec; keep the name of one that only looks like a spec."""
        if file_path.suffix.lower() not in SUFFIXES:
            return None
        asked_for = parent.session.isinitpath(file_path)
        recognized = Recognition.SPEC if asked_for else recognize_file(file_path)
        if recognized is Recognition.SPEC:
            name = os.path.relpath(file_path, self.root)
            # pytest prints an id as it is. A file whose name has controls has an id without, and is then refused.
            id = one_line(name) if one_line(name) != name else None
            return SpecFile.from_parent(parent, path=file_path, gate=self, nodeid=id)
        if recognized is Recognition.SKIPPED:
            inside = file_path.is_relative_to(self.root)
            self.skipped.add(file_path.relative_to(self.root).as_posix() if inside else str(file_path))
        return None

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect what the given ids don't name."""
        unknown = [
            f"{file.name}::{name}"
            for file, name in self.selected
            if file not in self.refused and not any(item.path == file and _within(item.nodeid, name) for item in items)
        ]
        if unknown:
            what = one_line(f"no such check or stage: {', '.join(unknown)}")
            raise pytest.UsageError(f"{what}; --collect-only lists what there is")
        files = {file for file, _ in self.selected}

        def asked_for(item: pytest.Item) -> bool:
            return item.path not in files or any(
                item.path == file and _within(item.nodeid, name) for file, name in self.selected
            )

        dropped = [item for item in items if not asked_for(item)]
        if dropped:
            items[:] = [item for item in items if asked_for(item)]
            config.hook.pytest_deselected(items=dropped)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuse two candidates for one alias, before anything is done for either; workers leave it to the end."""
        if not self.is_worker and not self.config.getoption("collectonly"):
            plans = {item.plan.id: item.plan for item in session.items if isinstance(item, CheckItem)}
            for id, sharing in shared_aliases(list(plans.values())).items():
                hint = "give each an alias of its own, or run one of them"
                raise pytest.UsageError(f"{id}: {several_candidates(plans[id], sharing)}\nhint: {hint}")

    # running

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Attach all attempts at a check to its report, by which the controller gets them."""
        report = yield
        if isinstance(item, CheckItem):
            item.note(report, call)
            report.sections = [(title, visible(printed)) for title, printed in report.sections]
            if item.attempts:
                setattr(report, REPORT_KEY, payload(item, self.process))
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the attempts at a check, and name the check for JUnit."""
        attached = getattr(report, REPORT_KEY, None)
        if attached:
            self.attempts.take(attached)
            name_in_junit(self.config, report)
        else:
            self.attempts.take_crash(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Read the spec files that a worker collected now, and not at the end, when they may have been edited."""
        for file_id in dict.fromkeys(id.partition("::")[0] for id in ids):
            file = self.root / file_id
            if file_id.lower().endswith(SUFFIXES) and recognize_file(file) is Recognition.SPEC:
                self._read_collected(file, file_id)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker collected and skipped, and all attempts at its checks."""
        self.skipped |= set(getattr(node, "workeroutput", {}).get(SKIPPED_KEY, ()))
        output = getattr(node, "workeroutput", {}).get(REPORT_KEY)
        if output:
            for file_id, (file, digest) in output["files"].items():
                self._read_collected(Path(file), file_id)
                self.digests.setdefault(file_id, set()).add(digest)
            for attached in output["attempts"]:
                self.attempts.take(attached)

    def _read_collected(self, file: Path, file_id: str) -> None:
        if file in self.refused or file_id in self.read:
            return
        try:
            self.plans_of(file, file_id)
        except DeploycheckError as error:
            self.problems.append(f"{file_id} was edited while it was checked, and can't be read any more: {error}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show a verdict other than pass and fail by its own letter and word."""
        attached = getattr(report, REPORT_KEY, None)
        if not attached or report.when != "call" or report.outcome not in ("passed", "failed"):
            return None
        verdict = attached["attempts"][-1]["verdict"]
        return (report.outcome, *WORDS[verdict]) if verdict in WORDS else None

    # deciding

    def pytest_unconfigure(self) -> None:
        """End what was started for this run."""
        if "runner" in vars(self):
            self.runner.close()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Decide on every spec, write the evidence, and promote what may be promoted."""
        tried = [item for item in getattr(session, "items", ()) if isinstance(item, CheckItem) and item.attempts]
        attempts = [payload(item, self.process) for item in tried]
        if self.is_worker:
            paths = {file_id_of(plan): str(plan.spec.path) for plan in self.plans.values()}
            files = {file_id: (paths[file_id], digest) for file_id, digest in digests_of(self.plans.values()).items()}
            session.config.workeroutput[REPORT_KEY] = {"files": files, "attempts": attempts}  # type: ignore[attr-defined]
            session.config.workeroutput[SKIPPED_KEY] = sorted(self.skipped)  # type: ignore[attr-defined]
            return
        if self.config.getoption("collectonly"):
            return
        if not self.plans:
            if not self.refused:
                self.problems.append("no spec was collected: nothing was checked")
            if session.exitstatus == pytest.ExitCode.OK:
                nothing = pytest.ExitCode.NO_TESTS_COLLECTED
                session.exitstatus = pytest.ExitCode.TESTS_FAILED if self.refused else nothing
            return
        for attached in attempts:
            self.attempts.take(attached)
        self._conclude()
        if (self.problems or self._falls_short()) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _conclude(self) -> None:
        from deploycheck.runner.conclude import conclude, promote, record
        from deploycheck.runner.execute import prune_runs

        plans = list(self.plans.values())
        self.evidence = self._withhold_edited(conclude(plans, self.attempts.results(plans), self.run_id, self.cache))
        if self.config.getoption("deploycheck_promote"):
            self.evidence, refused = promote(self.evidence, self.cache, self.extensions)
            self.problems += refused
        else:
            self.notes += record(self.evidence, self.cache, self.extensions)
        for path in self.config.getoption("deploycheck_evidence") or [self.cache / "evidence.json"]:
            try:
                self._write(self.evidence, path.absolute())
            except (OSError, DeploycheckError) as error:
                self.problems.append(f"the evidence was not written: {error}")
        prune_runs(self.cache)

    def _withhold_edited(self, evidence: Evidence) -> Evidence:
        """Withhold each spec of which not all processes read the same text."""
        read = digests_of(self.plans.values())
        edited = {file_id for file_id, digest in read.items() if self.digests.get(file_id, set()) - {digest}}
        why = "the spec, or a standard that it extends, was edited while it was checked; run the gate again"
        specs = (withheld(spec, why) if file_id_of(self.plans[spec.id]) in edited else spec for spec in evidence.specs)
        return evidence.model_copy(update={"specs": tuple(specs)})

    def _falls_short(self) -> bool:
        """Whether a spec is withheld for more than checks that did not run, or is not promoted although it should be.

        pytest's own exit code can't say so: a plugin that retries may have made a failed check pass.
        """
        promotes = self.config.getoption("deploycheck_promote")
        return any(
            any(check.verdict.blocks for check in spec.checks)
            or spec.other_reasons
            or (promotes and spec.decision is not Decision.PROMOTED and self.plans[spec.id].spec.promote)
            for spec in (self.evidence.specs if self.evidence else ())
        )

    def _write(self, evidence: Evidence, path: Path) -> None:
        reports = self.extensions.reports
        if path.suffix not in reports:
            known = ", ".join(sorted(reports))
            raise DeploycheckError(
                f"no report has the suffix {path.suffix!r}", where=str(path), hint=f"there are: {known}"
            )
        with explained(path.parent):
            write_whole(path, reports[path.suffix].render(evidence))
        self.written.append(path)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show what was promoted, and why the rest was not."""
        show_ids_as_given(terminalreporter)
        if self.evidence or self.problems or self.skipped:
            write_summary(
                terminalreporter,
                evidence=self.evidence,
                skipped=self.skipped,
                notes=self.notes,
                problems=self.problems,
                written=self.written,
            )


def _within(nodeid: str, name: str) -> bool:
    """Whether an item is the check ``name`` of its file, or is in the stage or the matrix cell ``name``."""
    rest = nodeid.partition("::")[2]
    return rest == name or rest.startswith(f"{name}::")


def _run_id(config: pytest.Config) -> str:
    """Return the run's id: pytest-xdist's, which its workers are given too, or a new one."""
    given: str | None = getattr(config.option, "testrunuid", None)
    return given or uuid.uuid4().hex
