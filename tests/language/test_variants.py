"""Variants: one method each, by its name or by its import path, with options that the method declares."""

from __future__ import annotations

import json

import pytest

from tests.language.writing import MINIMAL, VOCABULARY, Project, line_of


def with_variant(form: str) -> str:
    return MINIMAL + f"compress:\n  variants:\n    small: {form}\n"


def with_variants(variants: str) -> str:
    return MINIMAL + f"compress:\n  variants: {{{variants}}}\n"


def method(project: Project, form: str) -> tuple[str, dict[str, object]]:
    section = project.one(with_variant(form)).compress
    assert section is not None
    found = section.variants["small"].method
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("form", "name", "options"),
    [
        ("{quantize: {weights: int8}}", "quantize", {"weights": "int8"}),
        ("{half: {}}", "half", {}),
        ("{method: {half: {}}}", "half", {}),
        ("{method: {quantize: {weights: int8}}}", "quantize", {"weights": "int8"}),
        ("{method: {'specs.models:anything': {of: [1, 2]}}}", "specs.models:anything", {"of": [1, 2]}),
    ],
)
def test_a_method_goes_by_its_name_or_its_import_path(
    project: Project, form: str, name: str, options: dict[str, object]
) -> None:
    assert method(project, form) == (name, options)


@pytest.mark.parametrize("sparsity", ["80 %", "29 %", "0.1 %", "33.3333 %"])
@pytest.mark.parametrize("form", ["{{prune: {{sparsity: {}}}}}", "{{method: {{prune: {{sparsity: {}}}}}}}"])
def test_options_are_plain_data_that_the_method_accepts_again(project: Project, form: str, sparsity: str) -> None:
    name, options = method(project, form.format(sparsity))
    again = VOCABULARY.methods[name].model_validate(json.loads(json.dumps(options)))
    assert again.model_dump() == {"sparsity": pytest.approx(float(sparsity[:-2]) / 100, rel=1e-15), "pause": 0.0}
    assert again.model_dump(mode="json") == options


@pytest.mark.parametrize("form", ["{{{}}}", "{{method: {{{}}}}}"], ids=["by name", "under method"])
@pytest.mark.parametrize(
    ("options", "at", "what", "hint"),
    [
        ("quantize: {wieghts: int8}", "wieghts", "unknown key 'wieghts' in", "did you mean 'weights'?"),
        ("quantize: {weights: int9}", "int9", "'int9' is not one of: int8", "did you mean 'int8'?"),
        ("quantize: {weights: int4}", "int4", "'int4' is not one of: int8", "did you mean 'int8'?"),
        ("quantize: {}", "quantize", "has no 'weights'", "add `weights: ...`"),
        ("prune: {sparsity: 3 ms}", "3 ms", "expected a proportion", ""),
        ("prune: {sparsity: 100 %}", "{sparsity", "prune`: keep some of the weights", ""),
        ("half: {by: 2}", "by", "unknown key 'by' in", ""),
    ],
)
def test_a_mistake_in_options_is_reported_at_its_place(
    project: Project, form: str, options: str, at: str, what: str, hint: str
) -> None:
    text = with_variant(form.format(options))
    (error,) = project.errors(text).errors
    line = text.splitlines()[line_of(text, "small:") - 1]
    assert (error.place.line, error.place.column) == (line_of(text, "small:"), line.index(at) + 1)
    assert what in error.what
    assert error.hint == hint


def test_a_mistyped_method_is_one_mistake_with_what_was_meant(project: Project) -> None:
    (error,) = project.errors(with_variant("{quantise: {weights: int8}}")).errors
    assert error.what == "unknown key 'quantise' in `compress.variants.small`"
    assert error.hint == "did you mean 'quantize'?"


@pytest.mark.parametrize(
    "form", ["{half: }", "{half: 3}", "{half: true}", "3", "{method: half}", "{method: {half: 3}}"]
)
def test_a_method_takes_a_mapping(project: Project, form: str) -> None:
    text = with_variant(form)
    (error,) = project.errors(text).errors
    assert error.place.line == line_of(text, "small:")


def test_every_mistake_in_a_variant_is_reported_at_once(project: Project) -> None:
    text = with_variant("{from: 3, quantize: {weights: int9}, prune: {sparsity: 3}, expect: {size: 7}, extra: 1}")
    whats = " ".join(error.what for error in project.errors(text).errors)
    assert all(word in whats for word in ("from", "int9", "sparsity", "comparator", "extra"))


@pytest.mark.parametrize("word", ["distill: {model: {}}", "sharpen: {}"])
def test_a_method_that_is_not_installed_is_not_a_word(project: Project, word: str) -> None:
    assert "unknown key" in project.refused(with_variant(f"{{{word}}}"))[0]


def test_a_variant_keeps_its_own_expectations(project: Project) -> None:
    spec = project.one(with_variant("{half: {}, expect: {size: '<= 1 kB'}}"))
    assert (spec.expectations[-1].variant, spec.expectations[-1].name) == ("small", "size")


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ("trained: {quantize: {weights: int8}}", "'trained' is the model before compression"),
        ("a: {}", "a variant has one method, found none"),
        (
            "a: {quantize: {weights: int8}, prune: {sparsity: 50 %}}",
            "a variant has one method, found quantize, prune",
        ),
        ("a: {from: b, quantize: {weights: int8}}", "there is no variant 'b'"),
        ("a: {from: a, quantize: {weights: int8}}", "a is made from itself, directly or through others"),
        ("a: {method: {prun: {}}}", "unknown compression method 'prun'"),
        ("a: {runtime: onyx}", "unknown runtime 'onyx'"),
        ("a: {half: {}, runtime: xlaa}", "unknown runtime 'xlaa'"),
        ("a: {method: {quantize: {}}}", "has no 'weights'"),
        ("a: {method: {'specs.models:no': {}}}", "specs.models has no no"),
    ],
)
def test_a_variant_that_cannot_be_made_is_refused(project: Project, variants: str, words: str) -> None:
    text = with_variants(variants)
    (refused,) = project.refused(text)
    assert words in refused
    assert refused.startswith(f"{line_of(text, 'variants:')}:")


@pytest.mark.parametrize(
    ("form", "method", "runtime"),
    [
        ("{runtime: onnxruntime}", None, "onnxruntime"),
        ("{half: {}, runtime: onnxruntime}", ("half", {}), "onnxruntime"),
        ("{half: {}}", ("half", {}), None),
    ],
)
def test_a_variant_may_have_a_runtime_of_its_own(project: Project, form: str, method: object, runtime: object) -> None:
    section = project.one(with_variant(form)).compress
    assert section is not None
    assert (section.variants["small"].method, section.variants["small"].runtime) == (method, runtime)


def test_a_variant_with_nothing_is_told_what_it_may_have(project: Project) -> None:
    (error,) = project.errors(with_variant("{}")).errors
    assert (error.what, error.hint) == (
        "a variant has one method, found none",
        "add a method, or a `runtime` of its own",
    )


def test_a_circle_of_variants_is_refused_at_each_of_them(project: Project) -> None:
    how = "quantize: {weights: int8}"
    refused = project.refused(with_variants(f"a: {{from: b, {how}}}, b: {{from: a, {how}}}, c: {{from: a, {how}}}"))
    assert [text.partition(": ")[2] for text in refused] == [
        "a is made from itself, directly or through others",
        "b is made from itself, directly or through others",
    ]


def test_a_variant_from_another_in_any_order_is_fine(project: Project) -> None:
    text = with_variants("b: {from: a, quantize: {weights: int8}}, a: {from: trained, prune: {sparsity: 50 %}}")
    section = project.one(text).compress
    assert section is not None
    assert list(section.variants) == ["b", "a"]
