"""``extends`` and ``matrix``: what is merged, what a cell is, and what is refused where."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploycheck.language import load
from deploycheck.language.resolve import resolve
from tests.language.writing import MINIMAL, VOCABULARY, Project, line_of

LOADING = sys.modules["deploycheck.language.load"]
"""The module: the function has its name in the package."""

STANDARD = """\
deploycheck: 1
name: edge
description: the standard's own
owner: its owner
confidence: 90 %
data:
  split: {train: 0.5, validation: 0.1, test: 0.4, seed: 7}
  expect:
    missing_values: "== 0"
train:
  optimizer: {sgd: {learning_rate: 0.1}}
  expect:
    learned: ">= 50 % over majority"
"""

CHILD = MINIMAL + "extends: standards/edge.yaml\n"


@pytest.fixture
def standard(project: Project) -> Project:
    project.write(STANDARD, "specs/standards/edge.yaml")
    return project


def test_a_spec_gets_what_its_standard_says_and_it_does_not(standard: Project) -> None:
    spec = standard.one(CHILD)
    assert [(item.section, item.name) for item in spec.expectations] == [
        ("data", "missing_values"),
        ("train", "learned"),
        ("train", "accuracy"),
    ]
    assert spec.confidence == 0.9


def test_mappings_merge_and_the_spec_has_the_last_word(standard: Project) -> None:
    split = standard.one(CHILD.replace("  load:", "  split: {seed: 3}\n  load:")).data.split
    assert (split.seed, split.train) == (3, 0.5)


def test_an_optimizer_replaces_the_one_of_the_standard(standard: Project) -> None:
    assert standard.one(CHILD).train.optimizer == {"adam": {"learning_rate": 1e-3}}


def test_a_list_replaces_the_one_of_the_standard(standard: Project) -> None:
    standard.write(
        STANDARD.replace("  expect:\n    learned", "  seeds: [1, 2, 3]\n  expect:\n    learned"),
        "specs/standards/edge.yaml",
    )
    assert standard.one(CHILD).train.seeds == (1, 2, 3)
    assert standard.one(CHILD.replace("  epochs:", "  seeds: [9]\n  epochs:")).train.seeds == (9,)


def test_name_description_and_owner_are_not_inherited(standard: Project) -> None:
    spec = standard.one(CHILD)
    assert (spec.name, spec.description, spec.owner) == ("digits", "", "")
    assert standard.refused(CHILD.replace("name: digits\n", "")) == ["1: the spec has no 'name' [add `name: ...`]"]


def test_a_standard_may_extend_a_standard(standard: Project) -> None:
    standard.write("deploycheck: 1\nname: base\ndata: {expect: {smallest_class: '>= 5 %'}}\n", "specs/base.yaml")
    standard.write(STANDARD + "extends: ../base.yaml\n", "specs/standards/edge.yaml")
    spec = standard.one(CHILD)
    assert {item.name for item in spec.expectations} == {
        "accuracy",
        "missing_values",
        "learned",
        "smallest_class",
    }
    assert spec.place("data", "expect", "smallest_class").file == "specs/base.yaml"
    assert spec.place("data", "expect", "missing_values").file == "specs/standards/edge.yaml"
    assert spec.place("train", "expect", "accuracy").file == "specs/spec.yaml"


def test_a_standard_itself_has_no_specs(standard: Project) -> None:
    assert load(standard.root / "specs/standards/edge.yaml", standard.root, VOCABULARY) == ()


@pytest.mark.parametrize("back", ["edge.yaml", "../standards/edge.yaml", "other.yaml"])
def test_a_cycle_is_refused_where_it_closes(standard: Project, back: str) -> None:
    standard.write("deploycheck: 1\nname: o\nextends: edge.yaml\n", "specs/standards/other.yaml")
    text = STANDARD + f"extends: {back}\n"
    standard.write(text, "specs/standards/edge.yaml")
    (error,) = standard.errors(CHILD).errors
    assert "extends itself, directly or not" in error.what
    assert error.place.file.startswith("specs/standards/")


def test_a_spec_that_extends_itself_is_refused(project: Project) -> None:
    text = MINIMAL + "extends: spec.yaml\n"
    assert project.refused(text) == [f"{line_of(text, 'extends')}: spec.yaml extends itself, directly or not"]


def test_a_standard_above_the_project_is_refused(tmp_path: Path, project: Project) -> None:
    inner = Project(tmp_path / "inner")
    project.write(STANDARD, "edge.yaml")
    for name in ("models.py", "data.py"):
        inner.write((tmp_path / "specs" / name).read_text(), f"specs/{name}")
    text = MINIMAL + "extends: ../../edge.yaml\n"
    (error,) = inner.errors(text).errors
    assert error.what == "../../edge.yaml is outside of inner/"
    assert (error.place.line, error.place.column) == (line_of(text, "extends"), 10)


def test_a_standard_at_an_absolute_path_outside_is_refused(project: Project) -> None:
    assert "is outside of" in project.refused(MINIMAL + "extends: /etc/passwd\n")[0]


def test_dots_within_the_project_are_fine(project: Project) -> None:
    project.write(STANDARD, "edge.yaml")
    assert len(project.one(MINIMAL + "extends: ../edge.yaml\n").expectations) == 3


def test_a_link_out_of_the_project_is_refused(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, project: Project
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "edge.yaml"
    outside.write_text(STANDARD)
    (tmp_path / "specs/edge.yaml").symlink_to(outside)
    assert "edge.yaml is outside of" in project.refused(MINIMAL + "extends: edge.yaml\n")[0]


def test_a_missing_standard_is_refused_with_what_was_meant(standard: Project) -> None:
    text = MINIMAL + "extends: standards/egde.yaml\n"
    assert standard.refused(text) == [
        f"{line_of(text, 'extends')}: there is no file standards/egde.yaml [did you mean 'standards/edge.yaml'?]"
    ]


def test_a_directory_is_not_a_standard(standard: Project) -> None:
    assert "there is no file standards" in standard.refused(MINIMAL + "extends: standards\n")[0]


@pytest.mark.parametrize(
    "name", ['"a\\0b.yaml"', "a" * 300 + ".yaml", "a/" * 3000], ids=["nul", "long name", "long path"]
)
def test_a_name_that_no_file_can_have_is_refused(project: Project, name: str) -> None:
    (error,) = project.errors(MINIMAL + f"extends: {name}\n").errors
    assert error.place.line == line_of(MINIMAL + "extends:", "extends")


def test_a_spec_with_a_model_is_not_a_standard(standard: Project) -> None:
    standard.write(MINIMAL, "specs/standards/edge.yaml")
    (error,) = standard.errors(CHILD).errors
    assert error.what == "standards/edge.yaml is not a standard: it has a model"
    assert error.place.line == line_of(CHILD, "extends")


def test_a_mistake_in_a_standard_is_placed_there(standard: Project) -> None:
    standard.write(STANDARD.replace("seed: 7", "seed: seven"), "specs/standards/edge.yaml")
    (error,) = standard.errors(CHILD).errors
    assert (error.place.file, error.place.line, error.place.column) == ("specs/standards/edge.yaml", 7, 57)


def test_a_standard_that_is_not_yaml_is_refused_there(standard: Project) -> None:
    standard.write("deploycheck: 1\nname: 'open\n", "specs/standards/edge.yaml")
    assert standard.errors(CHILD).errors[0].place.file == "specs/standards/edge.yaml"


def test_a_matrix_makes_a_spec_of_every_combination(project: Project) -> None:
    text = MINIMAL + "matrix: {train.epochs: [1, 2], train.batch_size: [8, 16, 32]}\n"
    specs = project.load(text)
    assert [spec.label for spec in specs] == [
        f"epochs={epochs},batch_size={size}" for epochs in (1, 2) for size in (8, 16, 32)
    ]
    assert [(spec.train.epochs, spec.train.batch_size) for spec in specs] == [
        (epochs, size) for epochs in (1, 2) for size in (8, 16, 32)
    ]


def test_cells_differ_in_their_digests(project: Project) -> None:
    specs = project.load(MINIMAL + "matrix: {train.epochs: [1, 2]}\n")
    assert len({spec.digest for spec in specs}) == 2


def test_a_cell_is_the_spec_that_says_so_itself(project: Project) -> None:
    cell = project.load(MINIMAL + "matrix: {train.epochs: [3, 4]}\n")[0]
    assert cell.digest == project.one(MINIMAL.replace("epochs: 10", "epochs: 3")).digest


def test_a_spec_without_a_matrix_has_no_label(project: Project) -> None:
    assert project.one(MINIMAL).label == ""


def test_a_list_in_a_matrix_is_one_value_and_its_label_has_no_brackets(project: Project) -> None:
    specs = project.load(MINIMAL + "matrix: {model.with.features: [[16], [16, 32]]}\n")
    assert [spec.label for spec in specs] == ["features=16", "features=16-32"]
    assert [spec.model.arguments["features"] for spec in specs] == [[16], [16, 32]]


def test_a_mapping_in_a_matrix_gives_a_label_that_an_id_can_hold(project: Project) -> None:
    values = "[{features: [1], classes: 2}, {features: [2], classes: 2}]"
    labels = [spec.label for spec in project.load(MINIMAL + f"matrix: {{model.with: {values}}}\n")]
    assert len(set(labels)) == 2
    assert not any(sign in label for label in labels for sign in "[] ")


def test_two_paths_with_the_same_end_are_labelled_in_full(project: Project) -> None:
    text = (
        MINIMAL.replace("load: specs.data:digits", "load: specs.data:digits\n  split: {seed: 0}")
        .replace("{features: [32], classes: 10}", "{features: [32], classes: 10, seed: 1}")
        .replace("conv_classifier", "anything")
    )
    (spec,) = project.load(text + "matrix: {data.split.seed: [4], model.with.seed: [5]}\n")
    assert spec.label == "data.split.seed=4,model.with.seed=5"


def test_a_matrix_reaches_what_is_inherited(standard: Project) -> None:
    specs = standard.load(CHILD + "matrix: {data.split.seed: [1, 2]}\n")
    assert [spec.data.split.seed for spec in specs] == [1, 2]
    assert [spec.data.split.train for spec in specs] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ("{train.epoch: [1]}", "train.epoch is not a part of this spec"),
        ("{train.epochs.x: [1]}", "train.epochs.x is not a part of this spec"),
        ("{train.seeds.0: [1]}", "train.seeds.0 is not a part of this spec"),
        ("{'': [1]}", "is not a part of this spec"),
        ("{train.epochs: 3}", "expected a list of values"),
        ("{train.epochs: []}", "expected a list of values"),
        ("{train.epochs: [1, 1]}", "two cells of the matrix are the same"),
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused_on_its_line(project: Project, matrix: str, words: str) -> None:
    text = MINIMAL + f"matrix: {matrix}\n"
    (error,) = project.errors(text).errors
    assert words in error.what
    assert error.place.line == line_of(text, "matrix:")


@pytest.mark.parametrize("matrix", ["[]", "3", "x"])
def test_a_matrix_that_is_not_a_mapping_is_refused(project: Project, matrix: str) -> None:
    text = MINIMAL + f"matrix: {matrix}\n"
    assert project.errors(text).errors[0].place.line == line_of(text, "matrix:")


@pytest.mark.parametrize(
    "matrix",
    [
        "{model.with: [1, 2], model.with.features: [[1]]}",
        "{name: [a, b], matrix.name: [[a]]}",
        "{extends: [x.yaml]}",
    ],
    ids=["one in the other", "the matrix itself", "extends"],
)
def test_a_matrix_over_parts_that_it_cannot_vary_is_refused(project: Project, matrix: str) -> None:
    project.write("deploycheck: 1\nname: x\n", "specs/y.yaml")
    text = MINIMAL + f"extends: y.yaml\nmatrix: {matrix}\n"
    assert project.errors(text).errors[0].place.line == line_of(text, "matrix:")


def test_a_mistake_in_a_matrix_value_is_placed_at_the_value(project: Project) -> None:
    text = MINIMAL + "matrix:\n  train.epochs:\n    - 1\n    - many\n    - 0\n"
    errors = project.errors(text).errors
    assert [(error.place.line, error.place.column) for error in errors] == [
        (line_of(text, "- many"), 7),
        (line_of(text, "- 0"), 7),
    ]


def test_a_threshold_in_a_matrix_value_is_placed_there(project: Project) -> None:
    text = MINIMAL + 'matrix:\n  train.expect.accuracy: [">= 95 %", ">= 95 ms"]\n'
    (error,) = project.errors(text).errors
    assert (error.place.line, error.place.column) == (16, 45)


def test_a_mistake_in_every_cell_is_reported_once(project: Project) -> None:
    text = MINIMAL.replace("batch_size: 128", "batch_size: big") + "matrix: {train.epochs: [1, 2, 3]}\n"
    assert len(project.errors(text).errors) == 1


def test_a_standard_has_no_matrix(standard: Project) -> None:
    standard.write(STANDARD + "matrix: {data.split.seed: [1, 2]}\n", "specs/standards/edge.yaml")
    (error,) = standard.errors(CHILD).errors
    assert error.what == "a standard can't have `matrix`"
    assert error.place.file == "specs/standards/edge.yaml"


def test_a_standard_has_no_matrix_where_the_spec_has_one_too(standard: Project) -> None:
    standard.write(STANDARD + "matrix: {data.split.seed: [1, 2]}\n", "specs/standards/edge.yaml")
    assert standard.errors(CHILD + "matrix: {train.epochs: [1]}\n")


def test_a_standard_with_a_matrix_is_refused_when_it_is_loaded_itself(project: Project) -> None:
    assert project.errors(STANDARD + "matrix: {data.split.seed: [1, 2]}\n")


def test_a_circle_of_links_is_not_a_standard(project: Project) -> None:
    (project.root / "specs/edge.yaml").symlink_to("edge.yaml")
    (error,) = project.errors(MINIMAL + "extends: edge.yaml\n").errors
    assert "no file can be reached by 'edge.yaml'" in error.what


@pytest.mark.parametrize("matrix", ["{}", "null", ""])
def test_a_matrix_without_cells_is_refused(project: Project, matrix: str) -> None:
    text = MINIMAL + f"matrix: {matrix}\n"
    (error,) = project.errors(text).errors
    assert error.place.line == line_of(text, "matrix:")


def test_a_matrix_reaches_a_name_with_dots_of_its_own(project: Project) -> None:
    text = MINIMAL.replace("accuracy:", "accuracy.worst_class:")
    specs = project.load(text + "matrix: {train.expect.accuracy.worst_class: ['>= 80 %', '>= 90 %']}\n")
    assert [spec.expectations[0].threshold.value for spec in specs] == [0.8, 0.9]


def test_a_wrong_matrix_hides_no_other_mistake(project: Project) -> None:
    text = MINIMAL.replace("epochs: 10", "epochs: ten") + "matrix: {train.seed: [1]}\n"
    assert [error.place.line for error in project.errors(text).errors] == [
        line_of(text, "ten"),
        line_of(text, "matrix:"),
    ]


@pytest.mark.parametrize(("count", "refused"), [(10, False), (11, True)])
def test_a_matrix_has_at_most_a_thousand_cells(project: Project, count: int, refused: bool) -> None:
    axes = f"train.epochs: {list(range(1, 11))}, data.split.seed: {list(range(10))}, train.batch_size: "
    text = MINIMAL.replace("  load:", "  split: {seed: 1}\n  load:")
    text += f"matrix: {{{axes}{list(range(1, count + 1))}}}\n"
    cells, errors = resolve(project.write(text), project.root)
    if not refused:
        assert (len(cells), errors) == (1000, [])
        return
    (error,) = errors
    assert (error.place.line, error.place.column) == (line_of(text, "matrix:"), 1)
    assert error.what == "the matrix has 1,100 cells, more than 1,000"


def test_a_huge_matrix_is_refused_before_it_is_expanded(project: Project) -> None:
    values = list(range(1, 1001))
    text = MINIMAL.replace("  load:", "  split: {seed: 1}\n  load:")
    text += f"matrix: {{train.epochs: {values}, data.split.seed: {values}, train.batch_size: {values}}}\n"
    assert "has 1,000,000,000 cells" in project.refused(text)[0]


def test_a_matrix_over_many_parts_is_refused_before_they_are_compared(project: Project) -> None:
    names = [f"a{number}" for number in range(33)]
    arguments = ", ".join(f"{name}: 1" for name in names)
    text = MINIMAL.replace("specs.models:conv_classifier", "specs.models:anything").replace("features: [32]", arguments)
    text += "matrix: {" + ", ".join(f"model.with.{name}: [1]" for name in names) + "}\n"
    (refused,) = project.refused(text)
    assert "the matrix varies 33 parts, more than 32" in refused


def test_a_large_spec_in_many_cells_is_refused(project: Project) -> None:
    text = MINIMAL + f"description: {'x' * 200_000}\nmatrix: {{train.epochs: {list(range(1, 1001))}}}\n"
    assert "1,000 cells of a spec of" in project.refused(text)[0]


def test_the_cells_of_a_spec_with_many_mistakes_are_not_all_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    validate = LOADING._validate
    monkeypatch.setattr(LOADING, "_validate", lambda *given: read.append(given) or validate(*given))
    wrong = ", ".join(f"m{number}: '>= 1 %'" for number in range(101))
    text = MINIMAL.replace('expect:\n    accuracy: ">= 97 %"', f"expect: {{{wrong}}}")
    project.refused(text + "matrix: {train.epochs: [1, 2, 3]}\n")
    assert len(read) == 1


@pytest.mark.parametrize(
    ("under", "over", "found"),
    [
        ("schedule: {cosine: {warmup: 5 %}}", "schedule: {linear: {}}", ["linear"]),
        ("schedule: {cosine: {warmup: 5 %}}", "schedule: {cosine: {}}", ["cosine"]),
    ],
)
def test_a_choice_replaces_the_one_of_the_standard_as_a_whole(
    standard: Project, under: str, over: str, found: list[str]
) -> None:
    standard.write(STANDARD.replace("train:\n", f"train:\n  {under}\n"), "specs/standards/edge.yaml")
    schedule = standard.one(CHILD.replace("train:\n", f"train:\n  {over}\n")).train.schedule
    assert list(schedule) == found
    assert next(iter(schedule.values())).warmup == 0


def test_the_arguments_of_a_methods_other_model_replace_those_of_the_standard(standard: Project) -> None:
    variant = "compress: {{variants: {{small: {{learn: {{model: {{with: {}}}, alpha: 0.5}}}}}}}}\n"
    standard.write(STANDARD + variant.format("{a: 1, b: 2}"), "specs/standards/edge.yaml")
    file = standard.write(CHILD + variant.replace(", alpha: 0.5", "").format("{a: 3}"))
    ((cell,), _) = resolve(file, standard.root)
    assert cell.data["compress"]["variants"]["small"] == {"learn": {"model": {"with": {"a": 3}}, "alpha": 0.5}}


@pytest.mark.parametrize(
    ("under", "over", "method"),
    [
        ("method: {'specs.models:anything': {a: 1}}", "method: {half: {}}", ("half", {})),
        (
            "method: {'specs.models:anything': {a: 1}}",
            "method: {'specs.models:anything': {b: 2}}",
            ("specs.models:anything", {"b": 2}),
        ),
        ("quantize: {weights: int8}", "half: {}", ("half", {})),
        ("quantize: {weights: int8}", "method: {half: {}}", ("half", {})),
        ("method: {half: {}}", "quantize: {weights: int8}", ("quantize", {"weights": "int8"})),
        (
            "quantize: {weights: int8}",
            "quantize: {activations: int8}",
            ("quantize", {"weights": "int8", "activations": "int8"}),
        ),
        ("quantize: {weights: int8}", "expect: {size: '<= 1 kB'}", ("quantize", {"weights": "int8"})),
        ("quantize: {weights: int8}", "runtime: xla", ("quantize", {"weights": "int8"})),
    ],
)
def test_a_variants_method_replaces_the_one_of_the_standard(
    standard: Project, under: str, over: str, method: tuple[str, dict[str, object]]
) -> None:
    variant = "compress:\n  variants:\n    small:\n      {}\n"
    standard.write(STANDARD + variant.format(under), "specs/standards/edge.yaml")
    section = standard.one(CHILD + variant.format(over)).compress
    assert section is not None
    assert section.variants["small"].method == method


def test_the_arguments_of_a_call_replace_those_of_the_standard(standard: Project) -> None:
    standard.write(STANDARD.replace("data:\n", "data:\n  with: {a: 1}\n"), "specs/standards/edge.yaml")
    text = CHILD.replace("specs.data:digits", "specs.models:anything\n  with: {b: 2}")
    assert standard.one(text).data.arguments == {"b": 2}
