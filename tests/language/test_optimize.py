"""The ``optimize`` section: what it is read as, and every mistake in it at its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.language import SpecErrors
from deploycheck.language.space import put
from tests.language.writing import MINIMAL, Project, line_of

GOOD = """\
optimize:
  search: {trials: 20, maximize: validation.accuracy}
  space:
    train.optimizer.adam.learning_rate: {log: [1e-4, 1e-1]}
    train.batch_size: {integers: [16, 128]}
    train.regularize.l2: {uniform: [0, 1e-3]}
    train.stop_early: {choice: [null, {patience: 3}]}
    train.optimizer.adam.b1: {uniform: [0.8, 0.99]}
    model.with.features: {choice: [[16], [32], [16, 32]]}
    model.with.shape: {choice: [[8, 8, 1], [28, 28, 1]]}
"""


def with_space(entry: str, search: str = "{trials: 4, maximize: validation.accuracy}") -> str:
    """Return a spec that varies one part."""
    return f"{MINIMAL}optimize:\n  search: {search}\n  space:\n    {entry}\n"


def refused(project: Project, text: str) -> list[str]:
    """Return the errors of a spec, each with its line counted from that of ``optimize``."""
    first = line_of(text, "optimize:")
    found = []
    for error in project.errors(text).errors:
        hint = f" [{error.hint}]" if error.hint else ""
        found.append(f"{error.place.line - first}:{error.place.column}: {error.what}{hint}")
    return found


def test_a_search_is_read_with_its_defaults(project: Project) -> None:
    optimize = project.one(MINIMAL + GOOD).optimize
    assert optimize is not None
    assert (optimize.search.sampler, optimize.search.seed) == ("tpe", 0)
    assert optimize.search.objectives == ("validation.accuracy",)
    assert {path: parameter.kind for path, parameter in optimize.space.items()} == {
        "train.optimizer.adam.learning_rate": "log",
        "train.batch_size": "integers",
        "train.regularize.l2": "uniform",
        "train.stop_early": "choice",
        "train.optimizer.adam.b1": "uniform",
        "model.with.features": "choice",
        "model.with.shape": "choice",
    }
    assert optimize.space["model.with.features"].values == ([16], [32], [16, 32])


def test_without_it_there_is_no_search(project: Project) -> None:
    assert project.one(MINIMAL).optimize is None


def test_a_search_that_was_sent_to_another_process_is_the_same(project: Project) -> None:
    optimize = project.one(MINIMAL + GOOD).optimize
    assert optimize is not None
    assert type(optimize).model_validate_json(optimize.model_dump_json()) == optimize


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ("train.epochs: {integers: [5, 5]}", "3:30: a range goes from low to high, found 5 to 5"),
        ("train.regularize.l2: {uniform: [1, 0]}", "3:36: a range goes from low to high, found 1 to 0"),
        ("train.epochs: {integers: [5]}", "3:30: a range is two numbers, [low, high], found 1"),
        (
            "train.regularize.l2: {log: [0, 1]}",
            "3:32: a logarithmic range is above 0, found 0 [use `uniform`, or begin above 0]",
        ),
        ("train.epochs: {choice: []}", "3:28: a choice is between two values or more, found 0"),
        ("train.epochs: {choice: [3, 3]}", "3:28: the value 3 is listed twice"),
        (
            "train.epochs: {choice: [3, 4], integers: [1, 2]}",
            "3:5: a parameter has one of log, uniform, integers and choice, found integers, choice",
        ),
        ("train.epochs: {}", "3:5: a parameter has one of log, uniform, integers and choice, found none"),
        (
            "train.epochs: {integer: [1, 2]}",
            "3:20: unknown key 'integer' in `optimize.space.train.epochs` [did you mean 'integers'?]",
        ),
        (
            "train.epochs: {integers: [1, 2.5]}",
            "3:34: `optimize.space.train.epochs.integers.1`: expected a whole number, found 2.5",
        ),
    ],
)
def test_values_that_are_no_range_are_refused(entry: str, error: str, project: Project) -> None:
    assert refused(project, with_space(entry)) == [error]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (
            "train.optimiser.adam.learning_rate",
            "3:5: train.optimiser.adam.learning_rate is not a part of this spec: there is nothing in `train.optimiser` "
            "[did you mean 'train.optimizer.adam.learning_rate'?]",
        ),
        ("train.epoch", "3:5: unknown key 'epoch' in `train` [did you mean 'epochs'?]"),
        ("train.optimizer.adam.beta", "3:5: adam takes no 'beta' [there are: b1, "),
        ("model.with.featurs", "3:5: conv_classifier takes no 'featurs' [did you mean 'features'?]"),
        ("model.build", "3:5: a search varies parts of `train` and of `model.with`, not 'model.build'"),
        ("data.split.seed", "3:5: a search varies parts of `train` and of `model.with`, not 'data.split.seed'"),
        ("train.seeds", "3:5: a search can't vary `train.seeds`: a search must not choose by luck"),
        ("train.loss", "3:5: a search can't vary `train.loss`: another loss is another task"),
        ("train.expect.accuracy", "3:5: a search can't vary `train.expect`: what is expected decides no training"),
        ("train.epochs.most", "3:5: train.epochs.most is not a part of this spec: there is nothing in `train.epochs`"),
        ("train.stop_early.patience", "3:5: train.stop_early.patience is not a part of this spec: there is nothing"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_where_it_is_written(path: str, error: str, project: Project) -> None:
    (found,) = refused(project, with_space(f"{path}: {{integers: [3, 5]}}"))
    assert found.startswith(error)


def test_what_is_inside_of_an_argument_must_be_there(project: Project) -> None:
    build = MINIMAL.replace("specs.models:conv_classifier", "specs.models:anything")
    nested = build.replace("{features: [32], classes: 10}", "{encoder: {width: 3}}")
    optimize = with_space("model.with.encoder.width: {integers: [3, 5]}").removeprefix(MINIMAL)
    assert project.one(nested + optimize).optimize
    (error,) = refused(project, nested + optimize.replace("width", "widht"))
    assert error.startswith("3:5: model.with.encoder.widht is not a part of this spec")


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (
            "train.batch_size: {integers: [0, 64]}",
            "3:35: `train.batch_size`: input should be greater than or equal to 1, found 0",
        ),
        (
            "train.optimizer.adam.learning_rate: {uniform: [0.1, 1e6]}",
            "3:57: a learning rate is a number from 0 to 1,000, found 1000000.0",
        ),
        (
            "train.optimizer.adm: {choice: [{}, {learning_rate: 1}]}",
            "3:5: `train.optimizer` takes one name with its arguments, found adam, adm",
        ),
        ("train.epochs: {choice: [3, many]}", "3:32: `train.epochs`: expected a whole number, found 'many'"),
        (
            "train.optimizer: {choice: [{adam: {learning_rate: 0.1}}, {adm: {learning_rate: 0.1}}]}",
            "3:62: optax has no optimiser 'adm' [did you mean 'adam'?]",
        ),
        (
            "train.optimizer: {choice: [{adam: {learning_rate: 0.1}}, {sgd: {}}]}",
            "3:62: sgd needs learning_rate",
        ),
    ],
)
def test_a_value_that_the_part_can_not_have_is_refused(entry: str, error: str, project: Project) -> None:
    assert refused(project, with_space(entry)) == [error]


def test_a_part_inside_of_another_is_refused(project: Project) -> None:
    entry = "train.optimizer: {choice: [{adam: {learning_rate: 1}}, {sgd: {learning_rate: 1}}]}\n"
    entry += "    train.optimizer.adam.learning_rate: {log: [1e-3, 1]}"
    assert refused(project, with_space(entry)) == [
        "4:5: train.optimizer.adam.learning_rate is inside train.optimizer [vary one of them]"
    ]


@pytest.mark.parametrize(
    ("search", "error"),
    [
        ("{trials: 4}", "1:11: a search needs `maximize` or `minimize`"),
        ("{maximize: validation.accuracy}", "1:3: `optimize.search` has no 'trials' [add `trials: ...`]"),
        ("{trials: 0, minimize: validation.loss}", "1:20: `optimize.search.trials`: input should be greater than"),
        (
            "{sampler: tpa, trials: 4, minimize: validation.loss}",
            "1:21: unknown sampler 'tpa' [did you mean 'tpe'?]",
        ),
        (
            "{trials: 4, maximize: validation.acuracy}",
            "1:33: unknown objective 'validation.acuracy' [did you mean 'validation.accuracy'?]",
        ),
        (
            "{trials: 4, maximize: validation.rmse}",
            "1:33: with `loss: cross_entropy` training reports no validation.rmse "
            "[look for validation.accuracy or validation.loss or parameters]",
        ),
        (
            "{trials: 4, maximize: validation.loss}",
            "1:23: validation.loss is better the lower it is [write `minimize: validation.loss`]",
        ),
        (
            "{trials: 4, minimize: [parameters, validation.accuracy]}",
            "1:23: validation.accuracy is better the higher it is [write `maximize: validation.accuracy`]",
        ),
        (
            "{trials: 4, minimize: validation.loss, tolerance: 1 %}",
            "1:50: `tolerance` has no effect with one objective: the best trial is taken [leave it out]",
        ),
        (
            "{trials: 4, minimize: [validation.loss, parameters], stop_hopeless: true}",
            "1:64: a trial can be stopped only for a single objective that each epoch reports [leave it out]",
        ),
        (
            "{sampler: numbers, trials: 4, minimize: validation.loss}",
            "1:21: the sampler numbers varies 2 parts or more, found 1",
        ),
        (
            "{sampler: grid, trials: 4, minimize: validation.loss}",
            "1:35: the space has 3 points, and the sampler grid tries each once [write `trials: 3`]",
        ),
        (
            "{sampler: grid, trials: 3, minimize: [validation.loss, parameters]}",
            "1:21: the sampler grid has 1 objective, found 2 [for several, use tpe or random or numbers]",
        ),
    ],
)
def test_a_search_that_can_not_be_run_is_refused(search: str, error: str, project: Project) -> None:
    entry = "train.epochs: {choice: [1, 2, 3]}"
    if "numbers" in search:
        entry = "train.regularize.l2: {uniform: [0, 1]}"
    (found,) = refused(project, with_space(entry, search))
    assert found.startswith(error)


def test_a_kind_of_range_that_the_sampler_does_not_take_is_refused(project: Project) -> None:
    entry = "train.regularize.l1: {uniform: [0, 1]}\n    train.epochs: {choice: [1, 2]}"
    search = "{sampler: numbers, trials: 4, minimize: validation.loss}"
    assert refused(project, with_space(entry, search)) == [
        "4:20: the sampler numbers can't vary a part by `choice` [it takes log, uniform]"
    ]


def test_all_mistakes_are_reported_at_once_also_where_the_training_is_wrong(project: Project) -> None:
    text = with_space(
        "train.epoch: {integers: [3, 5]}\n"
        "    train.batch_size: {integers: [0, 5]}\n"
        "    model.with.width: {choice: [1, 2]}\n"
        "    train.regularize.l2: {log: [0, 1]}"
    ).replace("epochs: 10", "epochs: ten")
    assert [error.what for error in project.errors(text).errors] == [
        "`train.epochs`: expected a whole number, found 'ten'",
        "unknown key 'epoch' in `train`",
        "`train.batch_size`: input should be greater than or equal to 1, found 0",
        "conv_classifier takes no 'width'",
        "a logarithmic range is above 0, found 0",
    ]


def test_a_mistake_without_the_search_is_not_repeated(project: Project) -> None:
    text = with_space("train.epochs: {integers: [3, 5]}").replace("batch_size: 128", "batch_size: 0")
    (error,) = project.errors(text).errors
    assert error.place.line == line_of(text, "batch_size: 0")


def test_a_search_needs_a_training(project: Project) -> None:
    data = MINIMAL.partition("train:\n")[0]
    with pytest.raises(SpecErrors, match="`optimize` needs a section `train`"):
        project.load(data + GOOD)


def test_a_model_with_weights_can_be_searched_for_its_training_alone(project: Project) -> None:
    project.write("", "w.npz")
    weights = "  weights: {load: npz, path: w.npz}\ndata:\n"
    text = with_space("train.epochs: {integers: [3, 5]}").replace("data:\n", weights, 1)
    assert project.one(text).optimize
    structure = text.replace("train.epochs: {integers: [3, 5]}", "model.with.features: {choice: [[1], [2]]}")
    assert refused(project, structure) == [
        "3:5: a search can't vary the model: its weights are those of this one [vary parts of `train`]"
    ]
    untrained = text.replace("  optimizer: {adam: {learning_rate: 1e-3}}\n  epochs: 10\n  batch_size: 128\n", "")
    assert refused(project, untrained) == [
        "0:1: a search is for settings of a training, and there is none [add optimizer, epochs, batch_size to `train`]"
    ]


def test_a_standard_may_have_a_search_that_its_specs_complete(project: Project) -> None:
    project.write("deploycheck: 1\nname: slow\noptimize:\n  search: {trials: 50}\n", "specs/standard.yaml")
    text = "extends: standard.yaml\n" + MINIMAL + GOOD.replace("trials: 20, ", "")
    optimize = project.one(text).optimize
    assert optimize is not None
    assert optimize.search.trials == 50


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.integers())
def test_what_is_put_is_there_and_nothing_else_changes(path: list[str], value: int) -> None:
    data = {"a": {"a": {"a": {"a": 1}, "b": 2}, "b": {"c": {}}}, "b": 4, "c": {}}
    try:
        changed = put(data, tuple(path), value)
    except LookupError as error:
        inner = data
        for key in error.args[0].split("."):
            inner = inner.get(key)
        assert not isinstance(inner, dict)
        return
    inner, before = changed, data
    for key in path[:-1]:
        assert {name: part for name, part in inner.items() if name != key} == {
            name: part for name, part in before.items() if name != key
        }
        inner, before = inner[key], before[key]
    assert inner == {**before, path[-1]: value}
