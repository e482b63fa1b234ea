"""What a step is found again by, and what is said where that has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from deploycheck import builtin
from deploycheck.extensions import Extensions, collect
from deploycheck.language.fields import Section
from deploycheck.ref import Ref
from deploycheck.runner.digests import Digests
from deploycheck.runner.keys import Content, environment, key_content, module_of, why_different
from deploycheck.stages.loaders import CSV, Loader
from deploycheck.stages.methods.quantize import QUANTIZE
from deploycheck.stages.preprocess import scale
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.data import DATA
from deploycheck.steps.training import TRAINING
from deploycheck.store import Artifact, fingerprint
from tests.planning import HEAD, built_in, spec

CPU = {"backend": "cpu", "device": "cpu"}
MODELS = """\
def conv_classifier(shape, features, classes, rngs): ...


def other_classifier(shape, features, classes, rngs): ...
"""
LOADERS = "def digits(): ...\n"


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> Digests:
    """What is known of our own files, read once for all these tests."""
    return Digests(tmp_path_factory.mktemp("cache") / "digests.json")


def artifact(digest: str) -> Artifact:
    return Artifact(path=Path("/store"), kind="data", key="0" * 64, digest=digest, files={}, meta={})


@dataclass(frozen=True)
class Project:
    """The project that ``HEAD`` is a spec of, without anything that could run."""

    root: Path
    digests: Digests

    def settings(self, ref: Ref = TRAINING, text: str = HEAD) -> Any:
        return STEP_KINDS[ref.kind].settings(spec(text, self.root, built_in(self.root)), ref, ())

    def key(
        self,
        kind: str,
        settings: Any,
        *,
        inputs: Mapping[str, Artifact] | None = None,
        platform: Mapping[str, str] = CPU,
        extensions: Extensions | None = None,
    ) -> Content:
        return key_content(
            kind,
            settings,
            inputs=inputs or {},
            extensions=extensions or built_in(self.root),
            platform=platform,
            digests=self.digests,
        )

    def training(self, text: str = HEAD, platform: dict[str, str] = CPU, data: str = "sha256:a") -> Content:
        inputs = {"data": artifact(data)}
        settings = self.settings(text=text)
        return self.key("training", settings, inputs=inputs, platform=platform)

    def data(self, extensions: Extensions | None = None, **changed: Any) -> Content:
        settings = self.settings(DATA).model_copy(update=changed)
        return self.key("data", settings, extensions=extensions)


@pytest.fixture
def project(tmp_path: Path, digests: Digests) -> Project:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "models.py").write_text(MODELS)
    (tmp_path / "specs" / "data.py").write_text(LOADERS)
    return Project(tmp_path, digests)


def test_the_same_of_everything_is_the_same_key(project: Project) -> None:
    assert fingerprint(project.training()) == fingerprint(project.training())
    assert why_different(project.training(), project.training()) == ""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("epochs: 3", "epochs: 4", "setting train.epochs changed"),
        ("3e-3", "1e-3", "setting train.optimizer.adam.learning_rate changed"),
        (
            "adam: {learning_rate: 3e-3}",
            "sgd: {learning_rate: 3e-3}",
            "setting train.optimizer.adam is gone; setting train.optimizer.sgd is new",
        ),
        ("features: [32]", "features: [64]", "setting arguments.features changed"),
        ("build: specs.models:conv", "build: specs.models:other", "setting build changed"),
    ],
)
def test_a_changed_setting_is_named(old: str, new: str, says: str, project: Project) -> None:
    before, after = project.training(), project.training(HEAD.replace(old, new))
    assert fingerprint(before) != fingerprint(after)
    assert why_different(before, after) == says


def test_a_changed_input_is_named(project: Project) -> None:
    assert why_different(project.training(), project.training(data="sha256:b")) == "input data changed"


def test_a_changed_source_is_named(project: Project) -> None:
    before = project.training()
    (project.root / "specs" / "models.py").write_text("import specs.layers\n" + MODELS)
    (project.root / "specs" / "layers.py").write_text("x = 1\n")
    assert why_different(before, project.training()) == "source specs.layers is new; source specs.models changed"


def test_the_code_of_another_step_does_not_matter(project: Project) -> None:
    before = project.training()
    (project.root / "specs" / "data.py").write_text(LOADERS + "x = 1\n")
    assert project.training() == before


def test_a_changed_platform_is_named(project: Project) -> None:
    after = project.training(platform={**CPU, "device": "NVIDIA H100", "XLA_FLAGS": "--xla_x"})
    assert why_different(project.training(), after) == "platform XLA_FLAGS is new; platform device changed"


def test_a_changed_library_is_named(project: Project) -> None:
    before = project.training()
    after = {**before, "libraries": {**before["libraries"], "jax": "0.0.1"}}
    assert why_different(before, after) == "library jax changed"


def test_our_own_code_is_named_as_a_whole(project: Project) -> None:
    before = project.training()
    after = {**before, "own": {**before["own"], "deploycheck.stages.train": "0"}}
    assert why_different(before, after) == "deploycheck's own code changed"


def test_of_many_changes_the_first_are_named(project: Project) -> None:
    text = HEAD.replace("epochs: 3", "epochs: 4").replace("batch_size: 64", "batch_size: 32").replace("3e-3", "1e-3")
    after = project.training(text=text, platform={**CPU, "device": "H100"}, data="sha256:b")
    assert why_different(project.training(), after) == (
        "setting train.batch_size changed; setting train.epochs changed; "
        "setting train.optimizer.adam.learning_rate changed; and 2 more"
    )


def test_what_an_older_version_remembered_is_compared_as_far_as_it_goes(project: Project) -> None:
    after = project.training()
    assert "input data is new" in why_different({"settings": after["settings"]}, after)


def test_a_file_that_a_setting_names_counts_by_its_content(project: Project) -> None:
    named = {"arguments": {"path": "tables/a.csv", "labels": "tables"}}
    missing = project.data(**named)
    (project.root / "tables").mkdir()
    (project.root / "tables" / "a.csv").write_text("a,b\n")
    before = project.data(**named)
    # A folder counts too, where a text happens to be its name.
    assert why_different(missing, before) == "path tables is new; path tables/a.csv is new"
    (project.root / "tables" / "a.csv").write_text("a,c\n")
    assert why_different(before, project.data(**named)) == "path tables changed; path tables/a.csv changed"


@pytest.mark.parametrize("text", [".", "..", "/", "specs/models.py", "", "~", "a" * 300, "a" * 5000, "nul\0", "\n"])
def test_a_text_that_names_no_data_is_no_file(text: str, project: Project) -> None:
    assert project.data(arguments={"path": text})["files"] == {}


def test_texts_deep_in_the_settings_name_files_too(project: Project) -> None:
    (project.root / "words.txt").write_text("a b c")
    assert set(project.data(arguments={"vocabulary": [{"of": ("words.txt",)}]})["files"]) == {"words.txt"}


def test_a_model_in_the_cache_counts_by_its_content(project: Project) -> None:
    """What is read from the cache is not recorded while a step runs, and a promoted model may be there."""
    file = project.root / ".deploycheck" / "handed" / "manifest.json"
    file.parent.mkdir(parents=True)
    settings = project.settings().model_copy(update={"build": None, "artifact": ".deploycheck/handed"})
    keys = []
    for text in ("one", "another"):
        file.write_text(text)
        keys.append(project.key("training", settings))
    assert why_different(*keys) == "path .deploycheck/handed changed"


def test_a_plugins_file_counts_where_a_step_uses_what_it_declares(project: Project) -> None:
    file = project.root / "conftest.py"
    file.write_text("x = 1\n")
    mine = Loader("mine", lambda: ([], []))
    built = builtin.pytest_deploycheck_extensions()
    extensions = collect([(None, built), (file, [mine])], project.root)
    before = project.data(extensions, load="mine")
    file.write_text("x = 2\n")
    assert why_different(before, project.data(extensions, load="mine")) == "source conftest.py changed"
    assert "conftest.py" not in project.data(extensions)["sources"]


def test_the_code_of_what_is_used_by_name_counts(project: Project) -> None:
    sources = project.data(load="csv", preprocess=(("scale", {}),))["own"]
    assert {"deploycheck.stages.loaders", "deploycheck.stages.preprocess", "deploycheck.steps.data"} <= sources.keys()


@pytest.mark.parametrize(
    ("extension", "module"),
    [
        (CSV, "deploycheck.stages.loaders"),
        (scale, "deploycheck.stages.preprocess"),
        (QUANTIZE, "deploycheck.stages.methods.quantize"),
    ],
)
def test_the_module_of_an_extension_is_that_of_its_behaviour(extension: Any, module: str) -> None:
    assert module_of(extension) == module


def test_only_the_variables_that_jax_and_xla_read_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment()
    monkeypatch.setenv("EDITOR", "ed")
    monkeypatch.setenv("MY_JAX_NOTES", "x")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/compiled")
    monkeypatch.setenv("JAX_LOGGING_LEVEL", "DEBUG")
    assert environment() == before
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    assert environment() == before | {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true", "JAX_ENABLE_X64": "1"}
    assert before["python"].startswith("3.")


def test_settings_of_any_type_become_plain_json(project: Project) -> None:
    class Odd(Section):
        """Settings with types of their own."""

        runtime: str
        task: str
        folder: Path
        day: date

    settings = Odd(runtime="xla", task="classification", folder=Path("/x"), day=date(2026, 11, 25))
    content = project.key("outputs", settings)
    assert content["settings"] == {"runtime": "xla", "task": "classification", "folder": "/x", "day": "2026-11-25"}
    assert json.loads(json.dumps(content)) == content
