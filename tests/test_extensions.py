"""Installed names: what they mean, where they are from, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploycheck import builtin
from deploycheck.errors import DeploycheckError
from deploycheck.extensions import KINDS, Extensions, collect, load_object, unknown
from deploycheck.language.fields import Section
from deploycheck.ref import Source
from deploycheck.stages.loaders import CSV, Loader
from deploycheck.stages.preprocess import Preprocessing, scale

BUILT_IN = builtin.pytest_deploycheck_extensions()
MINE = Loader("mine", lambda: ([], []))


class Options(Section):
    """No options."""


class Halve:
    """A compression method."""

    name, trains, options = "halve", False, Options

    def compress(self, source: Any, options: Any, trainer: Any) -> Any:
        return source

    def structure(self, source: Any, options: Any, build: Any) -> Any:
        return source


def of(*objects: object, root: Path = Path("/project"), file: Path | None = None) -> Extensions:
    return collect([(None, BUILT_IN), (file, objects)], root)


def test_each_built_in_object_is_found_by_its_name() -> None:
    extensions = of()
    found = [each for kind in KINDS for each in getattr(extensions, kind).values()]
    assert len(found) == len(BUILT_IN)
    for kind, description in KINDS.items():
        known = getattr(extensions, kind)
        assert known or kind == "sections", f"there is no built-in {description.word}"
        for name, each in known.items():
            assert description.name(each) == name
            assert isinstance(each, description.type)


def test_a_file_is_remembered_as_the_origin_of_what_it_declares() -> None:
    file = Path("/project/conftest.py")
    extensions = of(MINE, Halve(), file=file)
    assert extensions.files == (file,)
    assert extensions.origins == {Source("loaders", "mine"): file, Source("methods", "halve"): file}
    assert extensions.installed(Source("loaders", "mine")) is MINE
    assert extensions.installed(Source("loaders", "package.module:mine")) is None
    assert extensions.installed(Source("models", "package.module:build")) is None


def test_the_same_object_may_be_declared_twice_and_another_of_its_name_may_not() -> None:
    assert of(CSV).loaders["csv"] is CSV
    with pytest.raises(DeploycheckError) as raised:
        of(Loader("csv", lambda: None), file=Path("/project/conftest.py"))
    assert str(raised.value) == (
        "/project/conftest.py: two plugins define the loader 'csv'\n  hint: rename or remove one"
    )


def test_one_name_may_belong_to_two_kinds() -> None:
    extensions = of(Loader("scale", lambda: None))
    assert extensions.loaders["scale"] is not extensions.preprocessing["scale"]


@pytest.mark.parametrize("each", [object(), "csv", lambda: None, Halve])
def test_an_object_of_no_kind_is_refused_with_the_kinds_that_there_are(each: object) -> None:
    with pytest.raises(DeploycheckError, match="which is none of: metric, loader, format of weights"):
        of(each)


def test_the_language_gets_every_name() -> None:
    words = of(MINE, Halve()).vocabulary
    assert {"csv", "mine"} <= words.loaders.keys()
    assert words.methods["halve"] is Options
    assert "scale" in words.preprocessing
    assert "xla" in words.runtimes
    assert "sqlite" in words.registries
    assert {"classification", "regression"} <= words.tasks.keys()
    assert words.scenarios["server"] == {"arrivals", "rate"}
    assert words.metrics["accuracy"].name == "accuracy"


USERS = """\
from deploycheck.stages.loaders import Loader
from deploycheck.stages.preprocess import Preprocessing


def load():
    return "loaded"


class Halve:
    name, trains, options = "halve", False, dict

    def compress(self, source, options, trainer): ...
    def structure(self, source, options, build): ...


LOADER = Loader("users", load)
STEP = Preprocessing("users", dict, dict)
METHOD = Halve()


class Holder:
    METHOD = METHOD
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Extensions:
    """A project with code of the user's; the path and the modules are put back after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("users_code", "broken_code"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "users_code.py").write_text(USERS)
    (tmp_path / "broken_code.py").write_text("def f():\n    1 / 0\nf()\n")
    return of(MINE, Halve(), root=tmp_path)


def test_a_loader_is_an_installed_one_or_a_function_or_object_by_import_path(project: Extensions) -> None:
    assert project.loader("mine") is MINE.load
    assert project.loader("users_code:load")() == "loaded"
    assert project.loader("users_code:LOADER")() == "loaded"
    with pytest.raises(DeploycheckError, match="users_code:METHOD is Halve, expected a function"):
        project.loader("users_code:METHOD")


def test_a_preprocessing_step_is_an_installed_one_or_one_by_import_path(project: Extensions) -> None:
    assert project.preprocessing_step("scale") is scale
    assert isinstance(project.preprocessing_step("users_code:STEP"), Preprocessing)
    with pytest.raises(DeploycheckError, match="users_code:load is function, expected a deploycheck"):
        project.preprocessing_step("users_code:load")


def test_a_method_is_an_installed_one_or_one_by_import_path(project: Extensions) -> None:
    assert project.method("halve") is project.methods["halve"]
    assert project.method("users_code:METHOD").name == "halve"
    assert project.method("users_code:Holder.METHOD").name == "halve"
    with pytest.raises(DeploycheckError, match="users_code:load is function, expected a compression method"):
        project.method("users_code:load")
    with pytest.raises(DeploycheckError, match="users_code:Halve is type, expected a compression method"):
        project.method("users_code:Halve")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("broken_code:x", "can't import broken_code:x: ZeroDivisionError: division by zero"),
        ("users_code:missing", "can't import users_code:missing: AttributeError"),
        ("no_such_module:x", "can't import no_such_module:x: ModuleNotFoundError"),
    ],
)
def test_an_import_that_fails_says_how_to_see_why(path: str, says: str, project: Extensions) -> None:
    with pytest.raises(DeploycheckError, match=says) as raised:
        load_object(path, project.root)
    assert raised.value.hint == f"python -c 'import {path.partition(':')[0]}' shows the whole traceback"


def test_code_of_the_standard_library_is_never_called(project: Extensions, tmp_path: Path) -> None:
    (project.root / "reexports.py").write_text("import os\nfrom math import sqrt\n")
    for path in ("os:system", "reexports:os.system", "builtins:print"):
        with pytest.raises(DeploycheckError, match="is code of Python's standard library"):
            load_object(path, project.root)
    assert load_object("reexports:sqrt", project.root)(4) == 2


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    error = unknown("registries", "sqlit", ["sqlite", "mlflow"])
    assert error.what == "unknown registry 'sqlit'"
    assert "sqlite" in error.hint


def test_the_vocabulary_is_made_once() -> None:
    extensions = of()
    assert extensions.vocabulary is extensions.vocabulary
    assert replace(extensions, loaders={}).vocabulary.loaders == {}
