"""Properties as a user sees them: what is refused, with which input, and what the next run does with it."""

from __future__ import annotations

from safetensors.numpy import load_file

from tests.plugin.conftest import SPEC, Project

CHECK = "compress[int8]::bounded"
PROPERTIES = """\
  properties:
    - finite
    - {bounded: {high: 0, examples: 20, seed: 3}}
promote:
"""


def test_a_violated_property_is_refused_and_its_input_is_tried_first_by_the_next_run(project: Project) -> None:
    project.write(SPEC.replace("promote:\n", PROPERTIES))
    result = project.run("spec.yaml::compress[int8]")
    verdicts = project.verdicts()
    assert (verdicts["compress[int8]::finite"], verdicts[CHECK]) == ("pass", "fail")
    result.stdout.fnmatch_lines(
        [
            "*fail: bounded doesn't hold: the output* is *, expected -inf to 0",
            "*the smallest input that was found: test example 0*",
            "*it is saved: the next run asks it first",
        ]
    )
    finite, bounded = (check["property"] for check in project.spec["checks"] if check["property"])
    assert (finite["violation"], finite["seed"], finite["saved"]) == ("", 0, 0)
    assert (bounded["seed"], bounded["saved"], bounded["replayed"]) == (3, 0, False)
    assert bounded["key"] == "digits compress_properties[int8] bounded"
    shown = {check["metric"]: (check["shown"], check["threshold"]) for check in project.spec["checks"]}
    assert shown["finite"] == (f"none in {finite['examples']} examples", "no counterexample")
    assert load_file(project.cache.parent / bounded["inputs"])["image"].shape == (1, 8, 8)
    again = project.run(f"spec.yaml::{CHECK}")
    again.stdout.fnmatch_lines(["*an earlier run had saved it"])
    (replayed,) = (check["property"] for check in project.spec["checks"])
    assert (replayed["replayed"], replayed["examples"], replayed["saved"]) == (True, 1, 1)
    assert not (project.pytester.path / ".hypothesis").exists()
