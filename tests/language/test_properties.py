"""``properties``: each entry is one check, and what is wrong with it is reported at its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deploycheck.language import Spec, SpecErrors, load
from tests.language.writing import MINIMAL, Project
from tests.planning import EXTENSIONS

VARIANTS = "  variants: {int8: {quantize: {weights: int8}}}\n"
OWN = "from deploycheck.properties import Property\nSUM = Property(name='sum', check=print)\n"


def written(project: Project, text: str) -> Spec:
    (spec,) = load(project.write(text), project.root, EXTENSIONS.vocabulary)
    return spec


def refused(project: Project, text: str) -> list[str]:
    with pytest.raises(SpecErrors) as caught:
        written(project, text)
    return [f"{error.place.line}:{error.place.column}: {error.what} [{error.hint}]" for error in caught.value.errors]


def serve(properties: str) -> str:
    return MINIMAL + f"serve:\n  properties: {properties}\n"


def test_a_property_is_a_name_or_a_name_with_settings(project: Project) -> None:
    project.write(OWN, "specs/own.py")
    spec = written(project, serve('[finite, {bounded: {low: 0, examples: 7}}, {"specs.own:SUM": {}}]'))
    assert spec.serve is not None
    assert [name for name, _ in spec.serve.properties] == ["finite", "bounded", "specs.own:SUM"]
    assert spec.serve.properties[0][1] == {"examples": 100, "seed": 0}
    assert spec.serve.properties[1][1] == {"low": 0.0, "examples": 7, "seed": 0}


def test_each_is_an_expectation_of_no_counterexample(project: Project) -> None:
    spec = written(
        project, MINIMAL + f"compress:\n{VARIANTS}  properties: [finite, {{finite: {{label: b, seed: 1}}}}]\n"
    )
    found = [(item.section, item.name, item.threshold.text) for item in spec.expectations if item.property_name]
    assert found == [("compress", "finite", "no counterexample"), ("compress", "finite.b", "no counterexample")]


@pytest.mark.parametrize(
    ("listed", "error", "hint"),
    [
        ("[fnite]", "16:16: unknown property 'fnite'", "did you mean 'finite'?"),
        ("[{fnite: {}}]", "16:17: unknown property 'fnite'", "did you mean 'finite'?"),
        (
            "[{finite: {exmples: 3}}]",
            "16:26: unknown key 'exmples' in `serve.properties.0.finite`",
            "did you mean 'examples'?",
        ),
        (
            "[{finite: {examples: 0}}]",
            "16:36: `serve.properties.0.finite.examples`: input should be greater than or equal to 1, found 0",
            "",
        ),
        ("[stable_under]", "16:16: `serve.properties.0.stable_under` has no 'noise'", "add `noise: ...`"),
        ("[bounded]", "16:16: `bounded` has neither `low` nor `high`", "add `low: NUMBER` or `high: NUMBER`"),
        (
            "[finite, finite]",
            "16:24: the property finite is listed twice",
            "give each a label of its own: {finite: {label: NAME}}",
        ),
        (
            "[{finite: {}, bounded: {}}]",
            "16:16: a property is its name, or one name with its settings: `finite`, `{bounded: {low: 0}}`",
            "",
        ),
        (
            "[]",
            "16:15: `properties` is empty: it would pass without a check",
            "add a property, or leave `properties` out",
        ),
        ('["specs.models:nothing"]', "16:16: specs.models has no nothing", "did you mean 'anything'?"),
        (
            "[{monotone_in: {feature: 3}}]",
            "16:40: image of the shape [28, 28, 1] has no such feature",
            "give 3 numbers, each below the size of its axis",
        ),
        (
            "[{monotone_in: {input: imge, feature: 3}}]",
            "16:38: the model has no input 'imge'",
            "did you mean 'image'?",
        ),
        (
            "[{invariant_to: {transformation: flip_vert}}]",
            "16:48: unknown transformation 'flip_vert'",
            "did you mean 'flip_vertical'?",
        ),
        ("[{invariant_to: {transformation: shift}}]", "16:48: shift needs by", ""),
        (
            "[{invariant_to: {transformation: {scale: {factor: 3}}}}]",
            "16:48: scale takes no 'factor'",
            "there are: by",
        ),
        (
            '[{invariant_to: {transformation: "os:system"}}]',
            "16:48: os is part of Python's standard library",
            "a spec names code of the project or of an installed package: write a function there that calls it",
        ),
    ],
)
def test_a_mistake_is_reported_at_its_place(project: Project, listed: str, error: str, hint: str) -> None:
    assert refused(project, serve(listed)) == [f"{error} [{hint}]"]


def test_a_property_of_servers_is_refused_under_compress(project: Project) -> None:
    (error,) = refused(project, MINIMAL + f"compress:\n{VARIANTS}  properties: [rejects_malformed]\n")
    assert "rejects_malformed can't be checked in compress [move it to serve.properties]" in error


def test_a_property_can_be_waived(project: Project) -> None:
    until = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    waiver = f"waive: {{serve.finite: {{because: known, until: {until}, by: ada}}}}\n"
    assert written(project, serve("[finite]") + waiver).waive
    assert "there is no check 'serve.finite' to waive" in refused(project, serve("[deterministic]") + waiver)[0]


STANDARD = """\
deploycheck: 1
name: edge
serve: {properties: [{batch_invariant: {examples: 50, tolerance: 1e-3}}, finite]}
"""


def test_a_property_that_is_listed_twice_is_not_looser_than_itself(project: Project) -> None:
    (error,) = refused(project, serve("[{bounded: {low: 0}}, {bounded: {low: 1}}]"))
    assert "the property bounded is listed twice" in error


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ("[batch_invariant, finite, deterministic]", ""),
        ("[finite, {batch_invariant: {seed: 9, tolerance: 1e-4, examples: 60}}]", ""),
        ("[batch_invariant]", "this leaves out a check that specs/edge.yaml:3 asks for"),
        ("[{batch_invariant: {tolerance: 0.1}}, finite]", "these settings of batch_invariant may be looser"),
        ("[{batch_invariant: {examples: 49}}, finite]", "these settings of batch_invariant may be looser"),
    ],
)
def test_a_standard_can_only_be_tightened(project: Project, listed: str, says: str) -> None:
    project.write(STANDARD, "specs/edge.yaml")
    text = serve(listed) + "extends: edge.yaml\n"
    if says:
        (error,) = refused(project, text)
        assert says in error
    else:
        assert written(project, text)


@pytest.mark.parametrize(
    ("section", "listed", "error"),
    [
        ("serve", "[]", "3:21: `properties` is empty: it would pass without a check"),
        ("serve", "[finite, finite]", "3:30: the property finite is listed twice"),
        ("compress", "[rejects_malformed]", "3:25: rejects_malformed can't be checked in compress"),
    ],
)
def test_a_mistake_in_a_standard_is_reported_in_the_standard_itself_too(
    project: Project, section: str, listed: str, error: str
) -> None:
    standard = f"deploycheck: 1\nname: edge\n{section}: {{properties: {listed}}}\n"
    (found,) = refused(project, standard)
    assert found.startswith(error)
    project.write(standard, "specs/edge.yaml")
    with pytest.raises(SpecErrors) as caught:
        written(project, MINIMAL + f"{section}: {{properties: [finite]}}\nextends: edge.yaml\n")
    (found,) = [str(at) for at in caught.value.errors if at.place.file == "specs/edge.yaml"]
    assert error in found
