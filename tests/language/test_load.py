"""A whole file: everything it says, or every mistake in it at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploycheck.language import Recognition, SpecErrors, load
from deploycheck.language.recognize import recognize
from deploycheck.language.source import parse
from tests.language.writing import DATA, EDGE, EXAMPLE, MINIMAL, MODELS, VOCABULARY, Project


@pytest.fixture
def example(project: Project) -> Project:
    project.write(EDGE, "specs/standards/edge.yaml")
    return project


def test_the_whole_example_of_the_language_is_a_spec(example: Project) -> None:
    spec = example.one(EXAMPLE, "specs/digits.yaml")
    assert (spec.name, spec.owner, spec.label) == ("digits", "vision", "")
    assert spec.model.arguments == {"features": [32], "classes": 10}
    assert spec.model.input["image"].shape == (28, 28, 1)
    assert spec.data.split.stratify
    assert spec.data.preprocess == ({"scale": {"by": 0.0625}},)
    assert spec.train.optimizer == {"adam": {"learning_rate": 1e-3}}
    assert spec.train.schedule["cosine"].warmup == pytest.approx(0.05)
    assert spec.train.regularize.l2 == 1e-4
    assert spec.train.seeds == (0, 1, 2)
    assert spec.task == "classification"
    assert spec.compress is not None
    assert {name: variant.method for name, variant in spec.compress.variants.items()} == {
        "int8": ("quantize", {"weights": "int8", "activations": "int8"}),
        "sparse": ("prune", {"sparsity": "80 %", "pause": "0 s"}),
        "sparse-int8": ("quantize", {"weights": "int8"}),
        "half": ("half", {}),
        "own": ("specs.models:anything", {"percent": 3}),
    }
    assert spec.compress.variants["sparse-int8"].source == "sparse"
    assert spec.serve is not None
    assert spec.serve.batching.max_delay == pytest.approx(0.002)
    assert spec.serve.load.rate == 200
    assert spec.promote is not None
    assert (spec.promote.registry, spec.promote.choose) == ("sqlite:registry.db", "smallest")


EIGHT = """\
deploycheck: 1
name: Digits!
ownr: vision
model:
  build: specs.models:conv_clasifier
  input: {image: {shape: [28, 28, 1], dtype: float33}}
data:
  load: specs.data:digits
train:
  optimizer: {adamm: {learning_rate: 1e-3}}
  epochs: ten
  batch_size: 128
  expect:
    acuracy: ">= 97 %"
    learned: ">= 50 ms over majority"
"""


def test_eight_mistakes_are_eight_errors_each_at_its_own_place(project: Project) -> None:
    pytest.importorskip("optax")
    found = project.errors(EIGHT)
    expected = [
        (2, 7, "is not a name"),
        (3, 1, "unknown key 'ownr' at the top"),
        (5, 10, "specs.models has no conv_clasifier"),
        (6, 46, "'float33' is not one of"),
        (10, 15, "optax has no optimiser 'adamm'"),
        (11, 11, "`train.epochs`"),
        (14, 5, "unknown metric 'acuracy' in train"),
        (15, 21, "learned is a proportion, in %; found 'ms'"),
    ]
    assert [(error.place.line, error.place.column) for error in found.errors] == [place[:2] for place in expected]
    for error, (*_, words) in zip(found.errors, expected, strict=True):
        assert words in error.what
    assert str(found).endswith("8 mistakes in the spec")
    assert all(f"specs/spec.yaml:{line}:{column}: " in str(found) for line, column, _ in expected)


def test_mistakes_of_structure_are_reported_with_those_of_form(project: Project) -> None:
    text = MINIMAL.replace("load: specs.data:digits", "load: specs.data:digits\n  split: {train: 0.5}")
    assert [error.place.line for error in project.errors(text + "ownr: vision\n").errors] == [9, 16]


@pytest.mark.parametrize(
    ("old", "new", "rest", "lines"),
    [
        ("  epochs: 10\n", "", "serve: {variants: [ghost]}\n", (9, 14)),
        ("[28, 28, 1]", "[28, x, 1]", "serve: {variants: [ghost]}\n", (6, 15)),
        ("", "", "promote: {model: M!,\n  to: staging, choose: smalest}\n", (15, 16)),
    ],
    ids=["a key is missing", "deep in a list", "in the same section"],
)
def test_no_mistake_of_form_hides_one_of_structure(
    project: Project, old: str, new: str, rest: str, lines: tuple[int, ...]
) -> None:
    text = MINIMAL.replace(old, new, 1) + rest
    assert tuple(error.place.line for error in project.errors(text).errors) == lines


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("name: digits", "name: digits\npromot: {}", "did you mean 'promote'?"),
        ("  epochs: 10", "  epochs: 10\n  epoch: 10", "did you mean 'epochs'?"),
        ("  load:", "  splits: {}\n  load:", "did you mean 'split'?"),
        ("{shape:", "{shap: 1, shape:", "did you mean 'shape'?"),
        (
            'accuracy: ">= 97 %"',
            'accuracy: {threshold: ">= 97 %", severty: warn}',
            "did you mean 'severity'?",
        ),
        ("  with:", "  wiht: {}\n  with:", "did you mean 'with'?"),
    ],
)
def test_an_unknown_key_is_refused_at_the_key_with_what_was_meant(
    project: Project, old: str, new: str, hint: str
) -> None:
    (error,) = project.errors(MINIMAL.replace(old, new)).errors
    assert error.what.startswith("unknown key")
    assert error.hint == hint
    key = error.what.split("'")[1]
    assert error.place.text[error.place.column - 1 :].startswith(key + ":")


def test_an_internal_name_is_not_a_key_of_the_language(project: Project) -> None:
    assert "unknown key 'arguments'" in project.refused(MINIMAL.replace("  with:", "  arguments: {}\n  with:"))[0]


@pytest.mark.parametrize("version", ["2", "0", "'1'", "one", "true", "1.0"])
def test_an_unknown_version_of_the_language_is_refused(project: Project, version: str) -> None:
    (error,) = project.errors(MINIMAL.replace("deploycheck: 1", f"deploycheck: {version}")).errors
    assert "unknown language version" in error.what
    assert (error.place.line, error.place.column) == (1, 14)


@pytest.mark.parametrize("key", ["name", "build", "input", "load", "optimizer", "epochs", "batch_size"])
def test_a_key_that_is_needed_is_missed_by_its_name(project: Project, key: str) -> None:
    text = "".join(line for line in MINIMAL.splitlines(keepends=True) if not line.strip().startswith(f"{key}:"))
    if key == "load":
        text = text.replace("data:\n", "data: {split: {seed: 1}}\n")
    assert any(f"has no '{key}'" in refused for refused in project.refused(text))


@pytest.mark.parametrize("line", ["owner:", "serve:", "promote:", "waive: {train.accuracy: }"])
def test_a_key_without_a_value_is_refused_once(project: Project, line: str) -> None:
    text = MINIMAL + line + "\n"
    (refused,) = project.refused(text)
    assert refused.startswith("15:")


def test_an_argument_without_a_value_is_fine(project: Project) -> None:
    assert project.one(MINIMAL.replace("classes: 10", "classes: null")).model.arguments["classes"] is None


def test_a_quantity_in_the_wrong_unit_is_refused(project: Project) -> None:
    (error,) = project.errors(MINIMAL + "serve: {batching: {max_delay: 2 GB}}\n").errors
    assert "expected a time" in error.what


def test_a_quantity_that_is_not_finite_is_refused(project: Project) -> None:
    assert project.errors(MINIMAL + "serve: {batching: {max_delay: 1e400 s}}\n")


def test_a_mistake_in_an_inherited_value_is_placed_in_the_standard(project: Project) -> None:
    standard = EDGE.replace(">= 90 %", ">= 90 ms")
    project.write(standard, "specs/standards/edge.yaml")
    text = MINIMAL.replace('  expect:\n    accuracy: ">= 97 %"\n', "") + "extends: standards/edge.yaml\n"
    (error,) = project.errors(text).errors
    assert (error.place.file, error.place.line, error.place.column) == ("specs/standards/edge.yaml", 5, 22)
    assert error.place.text == '    accuracy: ">= 90 ms"'


def test_a_missing_file_is_refused(project: Project) -> None:
    with pytest.raises(SpecErrors, match="1 mistake in the spec"):
        load(project.root / "specs/none.yaml", project.root, VOCABULARY)


def test_the_digest_is_of_what_a_spec_says_not_of_how(project: Project) -> None:
    lines = MINIMAL.splitlines(keepends=True)
    reordered = "".join([*lines[8:], *lines[6:8], *lines[:6], "# a comment\n"])
    assert project.one(reordered).digest == project.one(MINIMAL).digest
    assert project.one(MINIMAL.replace("1e-3", "0.001")).digest == project.one(MINIMAL).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 10", "epochs: 11"),
        (">= 97 %", ">= 98 %"),
        ("features: [32]", "features: [33]"),
        ("name: digits", "name: digit"),
        ("name: digits", "name: digits\nconfidence: 99 %"),
    ],
)
def test_the_digest_differs_where_a_value_does(project: Project, old: str, new: str) -> None:
    assert project.one(MINIMAL.replace(old, new)).digest != project.one(MINIMAL).digest


def test_the_digest_covers_what_is_inherited(project: Project) -> None:
    digests = set()
    for share in (90, 91):
        project.write(EDGE.replace('accuracy: ">= 90', f'accuracy.worst_class: ">= {share}'), "specs/s.yaml")
        digests.add(project.one(MINIMAL + "extends: s.yaml\n").digest)
    assert len(digests) == 2


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("fuzzed"))
    for name, text in {"__init__": "", "models": MODELS, "data": DATA}.items():
        made.write(text, f"specs/{name}.py")
    made.write(EDGE, "specs/standards/edge.yaml")
    return made


def specs_or_errors(project: Project, raw: bytes) -> None:
    """Load; anything but specs or errors that can be shown is a bug."""
    found: SpecErrors | None = None
    try:
        specs = project.load(raw)
    except SpecErrors as error:
        found = error
    if found is None:
        assert all(spec.digest.startswith("sha256:") for spec in specs)
        return
    assert found.errors
    assert all(error.place.line >= 1 and error.place.column >= 1 for error in found.errors)
    assert str(found).endswith("in the spec")


FUZZ = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
VALUES = (
    "null",
    "[]",
    "{}",
    "0",
    "-1",
    "1e-3",
    "x",
    "'>= 1 %'",
    "[[1]]",
    "{a: {b: 1}}",
    "true",
    "2027-01-31",
    '""',
    ".nan",
    "&a 1",
    "*a",
)


@FUZZ
@given(st.one_of(st.text(), st.text(alphabet="a:-[]{}\n '\"#&*!|>?%@,0.~\t")))
def test_any_text_is_refused_or_a_spec(fuzzed: Project, text: str) -> None:
    specs_or_errors(fuzzed, text.encode("utf-8", "surrogatepass"))
    specs_or_errors(fuzzed, f"deploycheck: 1\n{text}".encode("utf-8", "surrogatepass"))


@FUZZ
@given(st.binary())
def test_any_bytes_are_refused_or_a_spec(fuzzed: Project, raw: bytes) -> None:
    specs_or_errors(fuzzed, raw)


@FUZZ
@given(st.data())
def test_any_mutation_of_a_spec_is_refused_or_a_spec(fuzzed: Project, data: st.DataObject) -> None:
    lines = EXAMPLE.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["delete", "duplicate", "move", "value", "indent", "text"])):
            case "delete" if len(lines) > 1:
                del lines[at]
            case "duplicate":
                lines.insert(data.draw(st.integers(0, len(lines))), lines[at])
            case "move":
                lines.insert(data.draw(st.integers(0, len(lines) - 1)), lines.pop(at))
            case "value":
                lines[at] = f"{lines[at].partition(':')[0]}: {data.draw(st.sampled_from(VALUES))}"
            case "indent":
                lines[at] = " " * data.draw(st.integers(0, 6)) + lines[at].lstrip()
            case _:
                lines[at] = data.draw(st.text(max_size=20))
    specs_or_errors(fuzzed, "\n".join(lines).encode("utf-8", "surrogatepass"))


def test_a_spec_in_json_is_loaded(project: Project) -> None:
    text = json.dumps(parse(MINIMAL, project.root, "spec.yaml").data)
    assert recognize(text.encode()) is Recognition.SPEC
    assert project.one(text).digest == project.one(MINIMAL).digest


def test_every_entry_under_expect_is_one_expectation(example: Project) -> None:
    spec = example.one(EXAMPLE, "specs/digits.yaml")
    assert [f"{item.section}.{item.name}" for item in spec.expectations] == [
        "data.missing_values",
        "data.duplicates_across_splits",
        "data.smallest_class",
        "train.accuracy",
        "train.accuracy.worst_class",
        "train.calibration_error",
        "train.learned",
        "compress.accuracy_drop",
        "compress.size",
        "compress.size_ratio",
        "serve.latency.p99",
        "serve.throughput",
        "serve.errors",
        "serve.parity",
        "serve.cold_start",
        "serve.memory",
        "serve.recompilations",
        "serve.speedup",
    ]
    found = {item.name: item for item in spec.expectations}
    assert found["latency.p99"].percentile == 0.99
    assert found["latency.p99"].threshold.confidence == pytest.approx(0.95)
    assert found["speedup"].severity == "warn"
    assert found["accuracy"].severity == "error"


@pytest.mark.parametrize(
    ("right", "wrong", "what", "hint"),
    [
        ("  epochs: 10", "\tepochs: 10", "not YAML", "indent with spaces"),
        ("  epochs: 10", "     epochs: 10", "not YAML", "check that it is indented as the lines around it"),
        ('accuracy: ">= 97 %"', "accuracy: >= 97 %", "not YAML", "put the threshold in quotes"),
        ("name: digits", "name: digits: small", "not YAML", "quote a text that contains ': '"),
        ('">= 97 %"', "0.97", "needs a comparator", "did you mean '>= 97 %'?"),
        ('">= 97 %"', '"97 %"', "needs a comparator", "did you mean '>= 97 %'?"),
        ("  epochs: 10", "  epochs: ten", "expected a whole number, found 'ten'", ""),
        ("shape: [28, 28, 1]", "shape: 28", "expected a list, found 28", ""),
        ("  optimizer:", "  optimiser:", "unknown key 'optimiser' in `train`", "did you mean 'optimizer'?"),
        ("classes: 10", "clases: 10", "conv_classifier takes no 'clases'", "did you mean 'classes'?"),
        ("load: specs.data:digits", "load: npz\n  with: {path: data/none.npz}", "there is no file", "paths are from"),
        ("load: specs.data:digits", "load: npz\n  with: {path: ../a.npz}", "is outside of", "move the file"),
    ],
)
def test_a_common_mistake_is_one_error_that_says_what_was_meant(
    project: Project, right: str, wrong: str, what: str, hint: str
) -> None:
    assert right in MINIMAL
    (error,) = project.errors(MINIMAL.replace(right, wrong)).errors
    assert what in error.what
    assert hint in error.hint


def test_of_a_long_line_an_error_shows_what_is_around_its_place(project: Project) -> None:
    wrong = ", ".join(f"a{number}: 1" for number in range(500))
    (first, *_, last) = project.errors(MINIMAL.replace("features: [32]", f"features: [32], {wrong}")).errors
    for error in (first, last):
        _, line, caret, *_ = str(error).splitlines()
        assert len(line) < 250
        assert line[caret.index("^") :].startswith("a")
