"""JUnit's names of checks: ``specs.digits.yaml.compress[int8]`` is the class, ``accuracy_drop`` the name."""

from __future__ import annotations

import pytest
from _pytest.junitxml import xml_key  # the only way to the file that pytest will write


def name_in_junit(config: pytest.Config, report: pytest.TestReport) -> None:
    """Give a check its class and name in JUnit's XML, if there is one.

    pytest takes all that follows the first bracket of an id for parameters of one test.
    """
    xml = config.stash.get(xml_key, None)
    if xml is not None:
        file, *stage, metric = report.nodeid.split("::")
        folders = [xml.prefix] if xml.prefix else []
        reporter = xml.node_reporter(report)
        reporter.add_attribute("classname", ".".join([*folders, file.replace("/", "."), *stage]))
        reporter.add_attribute("name", metric)
