"""A variant that a search found is gated, exported and chosen like any other."""

from __future__ import annotations

import yaml

from tests.plugin.conftest import SPEC, Project

SEARCH = """\
    smallest:
      search:
        within: {accuracy_drop: "<= 2 pp"}
        over: [quantize: {weights: int8}, quantize: {weights: int4}]
"""


def test_what_a_search_finds_is_judged_on_the_test_split_and_can_be_promoted(project: Project) -> None:
    before, int8, after = SPEC.partition("    int8: {quantize: {weights: int8, activations: int8}}\n")
    project.write(before + int8 + SEARCH + after)
    result = project.run("spec.yaml")
    found = {f"{check['stage']}::{check['metric']}": check for check in project.spec["checks"]}
    assert result.ret == 0, {name: check["verdict"] for name, check in found.items()}
    assert found["compress[smallest]::accuracy_drop"]["verdict"] == "pass"

    first, by_hand, *frontier = found["compress[smallest]::completes"]["reason"].partition("; the ")[2].splitlines()
    assert first.startswith("smallest of ")
    assert " within accuracy_drop <= 2 pp on the validation split has " in first
    assert [line.split()[2] for line in frontier].count("taken") == 1
    result.stdout.fnmatch_lines(
        [f"note: compress?smallest?::completes: *; the {first}", *(f"    {line}" for line in frontier)]
    )
    assert project.spec["chosen"]["variant"] == "smallest"

    hand = yaml.safe_load(by_hand.partition(": ")[2])["smallest"]
    project.write(before + int8 + f"    smallest: {hand}\n" + after)
    assert project.run("spec.yaml").ret == 0
    again = {f"{check['stage']}::{check['metric']}": check for check in project.spec["checks"]}
    name = "compress[smallest]::accuracy_drop"
    assert again[name]["artifact"] == found[name]["artifact"]
