"""A check that is tried again counts by its worst attempt, in whatever way another plugin tries it again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugin.conftest import SPEC, Project

LUCKY = """
from pathlib import Path
import numpy as np

def lucky(labels, outputs):
    before = Path("asked.txt").read_text() if Path("asked.txt").exists() else ""
    Path("asked.txt").write_text(before + "x")
    return np.full(len(labels), before == "x")
"""
"""A metric that passes only when it is asked the second time."""

SPEC_WITH_LUCKY = SPEC.partition("compress:")[0].replace(
    '    learned: ">= 80 % over majority"', '    lucky: ">= 90 %"'
) + (
    "metrics:\n  lucky: {use: 'lucky:lucky', kind: proportion, direction: higher}\n"
    "promote: {registry: 'sqlite:registry.db', model: digits, to: staging}\n"
)

WAYS = {
    "the protocol runs again, and the first reports are dropped": """
        import pytest
        from _pytest.runner import runtestprotocol

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item, nextitem):
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            if any(report.failed for report in reports):
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
        """,
    "the item is set up and called again while its report is made, which then passes": """
        import pytest

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if report.when == "call" and report.failed:
                item._initrequest()
                item.ihook.pytest_runtest_setup(item=item)
                item.ihook.pytest_runtest_call(item=item)
                report.outcome, report.longrepr = "passed", None
            return report
        """,
    "the item is called again without a setup": """
        import pytest

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(item):
            try:
                return (yield)
            except Exception:
                return item.runtest()
        """,
    "the report is replaced by one that passed": """
        import pytest

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if report.failed:
                item.runtest()
                return pytest.TestReport(item.nodeid, item.location, {}, "passed", None, report.when)
            return report
        """,
}


def found(project: Project) -> dict[str, Any]:
    return next(check for check in project.spec["checks"] if check["metric"] == "lucky")


@pytest.mark.parametrize("way", WAYS)
def test_a_check_that_passes_when_it_is_tried_again_has_failed(project: Project, way: str) -> None:
    project.pytester.makepyfile(lucky=LUCKY)
    project.pytester.makeconftest(WAYS[way])
    project.write(SPEC_WITH_LUCKY)
    result = project.run("spec.yaml")
    assert result.parseoutcomes() == {"passed": 5}, "pytest takes it for passed"
    assert (found(project)["verdict"], found(project)["attempts"]) == ("fail", 2)
    assert project.spec["decision"] == "withheld"
    assert result.ret == 1
    result.stdout.fnmatch_lines(["retried: train::lucky: tried 2 times; the worst counts: fail"])


def test_a_retried_check_promotes_nothing(project: Project) -> None:
    project.pytester.makepyfile(lucky=LUCKY)
    project.pytester.makeconftest(next(iter(WAYS.values())))
    project.write(SPEC_WITH_LUCKY)
    assert project.run("--deploycheck-promote", "spec.yaml").ret == 1
    assert not project.promoted


@pytest.mark.parametrize(
    ("conftest", "verdict"),
    [
        ("def pytest_runtest_makereport(item, call):\n    if item.name == NAME: call.excinfo = None", "fail"),
        ("def pytest_collection_modifyitems(items):\n    for i in items: i.runtest = lambda: None", "error"),
        ("def pytest_runtest_setup(item):\n    if item.name == NAME: pytest.skip('not today')", "error"),
        (
            "def pytest_collection_modifyitems(items):\n"
            "    for i in items:\n"
            "        if i.name == NAME: i.add_marker(pytest.mark.xfail)",
            "fail",
        ),
    ],
    ids=["error hidden from the report", "check not run", "skipped", "xfail"],
)
def test_a_conftest_that_makes_a_check_look_passed_withholds_with_exit_code_1(
    project: Project, conftest: str, verdict: str
) -> None:
    project.pytester.makepyfile(lucky=LUCKY)
    project.pytester.makeconftest(f"import pytest\nNAME = 'train::lucky'\n{conftest}\n")
    project.write(SPEC_WITH_LUCKY)
    result = project.run("spec.yaml")
    assert found(project)["verdict"] == verdict
    assert project.spec["decision"] == "withheld"
    assert result.ret == 1


def test_a_check_that_passed_and_was_reported_as_failed_keeps_what_was_measured(project: Project) -> None:
    project.pytester.makepyfile(lucky=LUCKY)
    project.pytester.path.joinpath("asked.txt").write_text("x")  # so it passes at once
    project.pytester.makeconftest(
        "import pytest\ndef pytest_collection_modifyitems(items):\n"
        "    for i in items: i.add_marker(pytest.mark.xfail(strict=True)) if i.name == 'train::lucky' else None"
    )
    project.write(SPEC_WITH_LUCKY)
    assert project.run("spec.yaml").ret == 1
    check = found(project)
    assert (check["verdict"], check["value"], check["attempts"]) == ("error", 1.0, 1)
    assert check["reason"].startswith("it passed, but a plugin or a conftest.py reported: [XPASS(strict)]")
