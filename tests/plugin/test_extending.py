"""What docs/extending.md shows, used as a user would."""

from __future__ import annotations

import re
from pathlib import Path

from tests.plugin.conftest import SPEC, Project

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def test_the_metric_of_the_documentation_gates_a_model(project: Project) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (example,) = [text for text in examples if "recall_of_threes" in text]
    project.pytester.makeconftest(example)
    added = SPEC.replace('    accuracy: ">= 90 %"\n', '    accuracy: ">= 90 %"\n    recall_of_threes: ">= 60 %"\n')
    assert added != SPEC
    project.write(added)
    project.run("spec.yaml::train::recall_of_threes")
    assert project.verdicts() == {"train::recall_of_threes": "pass"}
