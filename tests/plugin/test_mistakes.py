"""What is wrong with a spec is said at once, at its place, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from deploycheck.cli import main
from tests.plugin.conftest import SPEC, Project

MISTAKES = """\
optimize:
  search: {sampler: tpe, trials: 5, maximize: validation.accuracy}
  space: {train.optimizer.adan.learning_rate: {log: [1e-3, 1e-2]}}
compress:
  variants:
    four-of-two: {prune: {pattern: "4:2"}}
    int3: {quantize: {weights: int3}}
    uncalibrated: {quantize: {weights: int8, activations: int8, calibrate: {examples: 0}}}
    nothing: {prune: {sparsity: 100 %}}
    hollow: {prune: {layers: none}}
    unhinted: {distill: {model: {with: {feature: 8}}, alpha: 0.5, hints: {parts: {}, weight: 1}}}
"""
EXPECTED = [
    # where, what, hint
    ("train.optimizer.adan", "is not a part of this spec", "did you mean 'train.optimizer.adam.learning_rate'?"),
    ('"4:2"', "4:2 keeps more weights than there are", "kept are N of each M, so you may mean 2:4"),
    ("int3}", "'int3' is not one of: int8, int4, fp8", "did you mean 'int8'?"),
    ("0}}}", "should be greater than or equal to 1, found 0", ""),
    ("100 %", "100 % prunes everything", "give a share below 100 %"),
    ("none}}", "expected how many layers, 1 or more, or a list of their names, found 'none'", ""),
    ("feature:", "build_nnx takes no 'feature'", "did you mean 'features'?"),
    ("{}, weight", "no part is paired with one of the teacher", "give a part of each: {blocks/0: blocks/1}"),
]
UNFIT = """\
compress:
  variants:
    student: {distill: {model: {build: "net:build_other", with: {classes: 7}}, alpha: 0.5}}
    sharper: {from: student, distill: {model: {}, alpha: 0.5}}
    hinted: {distill: {model: {with: {features: 8}}, alpha: 0.5, hints: {parts: {hiden: hidden}, weight: 1}}}
    headless: {prune: {heads: 50 %}}
    shallow: {prune: {layers: [hidden]}}
    few: {prune: {layers: 2}}
    narrow: {prune: {channels: 50 %}}
    exported: {from: narrow, runtime: onnxruntime}
    patterned: {from: exported, prune: {pattern: "1:31"}}
"""
OTHER = """

def build_other(classes, rngs):
    return nnx.Sequential(lambda image: image.reshape(image.shape[0], -1), nnx.Linear(64, classes, rngs=rngs))
"""


def spec_with(parts: str) -> str:
    start, rest = SPEC.split("compress:\n")
    return start + parts + rest[rest.index("promote:\n") :]


def check_places(said: str, text: str, expected: Sequence[tuple[str, str, str]]) -> None:
    """Fail unless each mistake is said with its line and column, what it is, and a hint."""
    lines = text.splitlines()
    for where, what, hint in expected:
        place = next(
            f"spec.yaml:{number}:{line.index(where) + 1}: " for number, line in enumerate(lines, 1) if where in line
        )
        message = said.partition(place)[2].partition("spec.yaml:")[0]
        assert what in message, (place, what)
        assert hint in message


def test_bad_recipes_are_refused_all_at_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    text = spec_with(MISTAKES)
    project.write(text)
    assert main(["lint", "--cache", str(project.cache), "spec.yaml"]) == 1
    linted = capsys.readouterr().out
    project.run("spec.yaml")
    for said in (linted, capsys.readouterr().out):
        check_places(said, text, EXPECTED)
        assert f"{len(EXPECTED)} mistakes in the spec" in said


def test_variants_that_cannot_be_made_are_found_before_the_training(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    text = spec_with(UNFIT)
    project.write(text)
    net = project.pytester.path / "net.py"
    net.write_text(net.read_text() + OTHER)
    project.run("spec.yaml", "-m", "data")
    capsys.readouterr()
    assert main(["lint", "--cache", str(project.cache), "spec.yaml"]) == 1
    said = capsys.readouterr().out
    expected = [
        (
            "distill: {model: {build",
            "the student gives logits [2, 7], and its teacher logits [2, 10]",
            "the same outputs",
        ),
        ("distill: {model: {with", "in the student there is no part 'hiden'", "did you mean 'hidden'?"),
        ("prune: {heads", "no heads can be cut", "heads are an axis"),
        ("prune: {layers: [", "the model has no layer 'hidden'", "a residual connection goes around"),
        ("prune: {layers: 2", "2 layers can't be taken out of 0", "a residual connection goes around"),
        ("prune: {pattern", "no kernel has a summed axis that can be divided by 31", "hidden/kernel is [64, 32]"),
    ]
    check_places(said, text, expected)
    assert f"{len(expected)} errors, 0 warnings" in said
