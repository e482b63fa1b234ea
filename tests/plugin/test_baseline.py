"""Gates against what is promoted, with a real registry and real servers."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

import pytest

from deploycheck.serving import scenarios, throughput
from deploycheck.serving.load import LoadGenerator
from tests.plugin.conftest import SPEC, Project

AGAINST = SPEC.replace(
    'accuracy_drop: "<= 2 pp"\n',
    'accuracy_drop: "<= 1 pp of baseline"\n    accuracy: ">= 98 % of baseline"\n    agreement: ">= 95 % of baseline"\n',
)
FIRST = AGAINST.replace("to: staging", "to: staging\n  baseline: optional")
WORSE = AGAINST.replace("features: 64", "features: 10")
SERVED = """\
serve:
  variants: [int8]
  batching: {max_size: 2}
  load: {rate: 200 /s, requests: 100}
  expect:
    speedup: ">= 0.2 x baseline"
    latency.p50: "<= 2000 % of baseline"
"""


def check(project: Project, metric: str, stage: str = "compress[int8]") -> dict[str, Any]:
    (found,) = [it for it in project.spec["checks"] if (it["stage"], it["metric"]) == (stage, metric)]
    return dict(found)


def test_the_first_promotion_needs_leave(project: Project) -> None:
    project.write(AGAINST)
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 1
    assert not project.promoted
    refused = check(project, "accuracy_drop")
    assert refused["verdict"] == "fail"
    assert "nothing is promoted as digits@staging yet" in refused["reason"]
    assert "baseline: optional" in refused["reason"]
    project.write(FIRST)
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 0
    assert check(project, "accuracy_drop")["verdict"] == "warn"
    result.stdout.fnmatch_lines(["warned: compress*int8*::accuracy_drop: nothing is promoted as digits@staging yet*"])
    assert project.spec["decision"] == "promoted"


def test_a_worse_model_is_refused_with_the_interval_and_an_equal_one_passes(project: Project) -> None:
    project.write(FIRST)
    assert project.run("--deploycheck-promote", "spec.yaml").ret == 0
    promoted = project.spec["promotion"]["artifact"]

    project.write(WORSE)
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 1
    drop = check(project, "accuracy_drop")
    assert drop["verdict"] == "fail"
    low, high = drop["interval"]
    assert 0.01 < low < drop["value"] < high
    result.stdout.fnmatch_lines([f"*fail: accuracy_drop is {drop['shown']}, the standard is <= 1 pp of baseline*"])
    assert project.spec["decision"] == "withheld"

    project.write(AGAINST)
    assert project.run("--deploycheck-promote", "spec.yaml").ret == 0
    for metric, value in (("accuracy_drop", 0.0), ("accuracy", 1.0), ("agreement", 1.0)):
        equal = check(project, metric)
        assert (equal["verdict"], equal["value"]) == ("pass", value)
        assert equal["interval"][0] <= value <= equal["interval"][1]
    assert project.spec["promotion"]["previous"] == promoted


SPOILT = """
from dataclasses import replace

import jax.numpy as jnp
from deploycheck.language.fields import Section


class Options(Section):
    percent: int


class Spoil:
    name = "spoil"
    options = Options
    trains = False

    def compress(self, source, options, trainer):
        return self.structure(source, options, None)

    def structure(self, source, options, build):
        def apply(params, state, inputs):
            logits = source.apply(params, state, inputs)["logits"]
            wrong = (16 * inputs["image"]).sum(axis=(1, 2)) % 100 < options.percent
            return {"logits": jnp.where(wrong[:, None], jnp.roll(logits, 1, axis=-1), logits)}

        return replace(source, apply=apply)


spoil = Spoil()
"""


@pytest.mark.parametrize(("percent", "verdict"), [(2, "fail"), (0, "pass")])
def test_two_points_less_than_what_is_promoted_is_refused(project: Project, percent: int, verdict: str) -> None:
    project.pytester.makepyfile(spoilt=SPOILT)
    project.write(FIRST)
    assert project.run("--deploycheck-promote", "spec.yaml").ret == 0
    candidate = f"    candidate: {{from: int8, method: {{'spoilt:spoil': {{percent: {percent}}}}}}}\n"
    project.write(AGAINST.replace("  variants:\n", "  variants:\n" + candidate))
    result = project.run("--deploycheck-promote", "spec.yaml")
    drop = check(project, "accuracy_drop", "compress[candidate]")
    assert drop["verdict"] == verdict
    assert drop["value"] == pytest.approx(percent / 100, abs=0.003)
    low, high = drop["interval"]
    assert low > 0.01 if verdict == "fail" else high <= 0.01
    assert f"({100 * low:.3g} to {100 * high:.3g})" in drop["shown"]
    result.stdout.fnmatch_lines([f"*accuracy_drop *{verdict} *{drop['shown']} *<= 1 pp of baseline*"])
    assert project.spec["decision"] == {"fail": "withheld", "pass": "promoted"}[verdict]


def test_two_are_served_at_once_and_measured_in_turn(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "TURN_S", 0.1)
    monkeypatch.setattr(throughput, "BLOCK_S", 0.03)
    monkeypatch.setattr(LoadGenerator, "warm_up", partialmethod(LoadGenerator.warm_up, limit_s=0.5))
    project.write(FIRST)
    assert project.run("--deploycheck-promote", "spec.yaml").ret == 0
    project.write(AGAINST + SERVED)
    result = project.run("spec.yaml")
    assert result.ret == 0
    faster, slower = check(project, "speedup", "serve[int8]"), check(project, "latency.p50", "serve[int8]")
    assert faster["unit"] == "x"
    for ratio in (faster, slower):
        assert ratio["verdict"] == "pass"
        assert ratio["interval"][0] < ratio["value"] < ratio["interval"][1]
        assert "in turn A B B A" in ratio["reason"]
        assert ratio["samples"] >= 7
    assert {"comparison[int8,baseline]", "baseline"} <= {step["step"] for step in project.spec["steps"]}


SLICED = """\
    accuracy: {{threshold: ">= 60 %", slices: {{by: {by}, at_least: {least}}}}}
"""


@pytest.mark.parametrize(
    ("by", "least", "verdict", "said"),
    [
        ("label", 30, "pass", "label "),
        ("ward", 30, "undecided", "slice east has 10 examples, at least 30 are asked for"),
        ("ward", 9, "pass", "ward "),
    ],
)
def test_a_slice_of_ten_is_undecided_not_green(project: Project, by: str, least: int, verdict: str, said: str) -> None:
    project.pytester.makepyfile(
        wards="""
        import numpy as np
        from digits_data import digits

        def loaded():
            images, labels = digits()
            split = np.arange(len(labels))
            return images, labels, {"ward": np.where(split % 80 == 7, "east", "west")}
        """
    )
    spec = SPEC.replace("digits_data:digits", "wards:loaded")
    project.write(spec.replace('    accuracy: ">= 90 %"\n', SLICED.format(by=by, least=least)))
    result = project.run("spec.yaml::train", "-v", "--junitxml=junit.xml", "--deploycheck-evidence=report.md")
    record = check(project, "accuracy", "train")
    assert record["verdict"] == verdict
    assert said in record["reason"]
    word = {"pass": "PASSED", "undecided": "UNDECIDED"}[verdict]
    result.stdout.fnmatch_lines([f"spec.yaml::train::accuracy {word} *", f"train *accuracy *{verdict} *"])
    junit = (project.pytester.path / "junit.xml").read_text()
    assert f'value="{verdict}"' in junit
    if verdict == "undecided":
        result.stdout.fnmatch_lines([f"undecided: accuracy is * the standard is >= 60 %, in every {by}", f"*{said}*"])
        assert "undecided: accuracy is" in junit
        assert said in junit
    assert f"| train::accuracy | {verdict} |" in (project.pytester.path / "report.md").read_text()


def test_a_metric_of_the_users_own_is_a_check_like_any_other(project: Project) -> None:
    project.pytester.makepyfile(
        mine="""
        import numpy as np

        def missed_threes(labels, outputs):
            return (labels == 3) & (outputs.argmax(axis=-1) != 3)

        def cost(labels, outputs, price):
            return price * (outputs.argmax(axis=-1) != labels)

        def broken(labels, outputs):
            return 7
        """
    )
    own = """\
metrics:
  missed_threes: {use: mine:missed_threes, kind: proportion, direction: lower}
  cost: {use: mine:cost, kind: mean, direction: lower, with: {price: 10}}
  broken: {use: mine:broken, kind: proportion, direction: lower}
"""
    expected = '    missed_threes: "<= 5 %"\n    cost: "<= 2"\n    broken: "<= 1 %"\n'
    project.write(SPEC.replace("model:\n", own + "model:\n", 1).replace("    learned", expected + "    learned"))
    result = project.run("spec.yaml::train")
    assert result.ret == 1
    assert check(project, "missed_threes", "train")["verdict"] == "pass"
    assert check(project, "cost", "train")["verdict"] == "pass"
    broken = check(project, "broken", "train")
    assert broken["verdict"] == "error"
    assert broken["reason"].startswith("mine:broken returned int64 of shape []; a proportion is bool of shape [719]")


def test_two_candidates_for_one_alias_are_refused_before_anything_is_done(project: Project) -> None:
    project.write(FIRST)
    project.pytester.makefile(".yaml", other=FIRST)
    result = project.run("--deploycheck-promote", "spec.yaml", "other.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: spec.yaml: other.yaml would move digits@staging too*"])
    assert not (project.pytester.path / ".deploycheck" / "store").exists()
    assert not project.promoted
