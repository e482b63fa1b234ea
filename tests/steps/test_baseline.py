"""The baseline: what is promoted now, found in the registry that the spec names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.extensions import Extensions
from deploycheck.registry.sqlite import open_sqlite
from deploycheck.steps.baseline import BaselineSettings, BaselineStep, open_registry
from deploycheck.steps.kind import FoundElsewhere, NoBaseline
from deploycheck.store import Artifact, CorruptArtifact, write_manifest
from tests.planning import HEAD, built_in, spec

NOW = "2026-11-25T00:00:00+00:00"
DEFAULT = BaselineSettings(registry=None, model="digits", alias="staging")
IN_PROJECT = BaselineSettings(registry="sqlite:registry.db", model="digits", alias="staging")
Promote = Callable[[Path], Artifact]


@pytest.fixture
def extensions(tmp_path: Path) -> Extensions:
    (tmp_path / "project").mkdir()
    return built_in(tmp_path / "project")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def promote(tmp_path: Path) -> Promote:
    """Return a function that promotes an artifact as digits@staging, in the registry of a folder."""

    def move(folder: Path) -> Artifact:
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "weights.bin").write_bytes(b"weights")
        artifact = write_manifest(tmp_path / "made", "model", "ab" * 32, {})
        registry = open_sqlite("registry.db", folder)
        version = registry.propose("digits", artifact, b"{}", NOW)
        registry.promote("digits", "staging", version.digest, expected=None, actor="ada", time=NOW)
        return artifact

    return move


def find(settings: BaselineSettings, extensions: Extensions, cache: Path) -> Artifact:
    kind = BaselineStep()
    return kind.find(settings, kind.look_up(settings, extensions, cache))


@pytest.mark.parametrize("settings", [DEFAULT, IN_PROJECT], ids=["default", "named"])
def test_what_is_promoted_now_is_found(
    settings: BaselineSettings, extensions: Extensions, cache: Path, promote: Promote
) -> None:
    artifact = promote(extensions.root if settings.registry else cache)
    found = find(settings, extensions, cache)
    assert found.digest == artifact.digest
    assert found.path != artifact.path, "the registry has a copy of its own"


def test_another_whole_artifact_in_the_registrys_folder_is_not_the_baseline(
    extensions: Extensions, cache: Path, promote: Promote
) -> None:
    artifact = promote(cache)
    copy = cache / "registry.artifacts" / artifact.digest.removeprefix("sha256:")
    (copy / "weights.bin").write_bytes(b"other weights")
    (copy / "manifest.json").unlink()
    other = write_manifest(copy, "model", "ab" * 32, {})
    with pytest.raises(CorruptArtifact, match=f"it is {other.digest}, the registry says {artifact.digest}"):
        find(DEFAULT, extensions, cache)


@pytest.mark.parametrize("settings", [DEFAULT, IN_PROJECT], ids=["default", "named"])
def test_before_the_first_promotion_there_is_none(
    settings: BaselineSettings, extensions: Extensions, cache: Path
) -> None:
    with pytest.raises(NoBaseline, match="nothing is promoted as digits@staging yet: there is no baseline"):
        find(settings, extensions, cache)


def test_what_is_promoted_by_another_name_is_not_the_baseline(
    extensions: Extensions, cache: Path, promote: Promote
) -> None:
    promote(cache)
    for other in ({"model": "letters"}, {"alias": "production"}):
        with pytest.raises(NoBaseline):
            find(DEFAULT.model_copy(update=other), extensions, cache)


def test_an_unknown_registry_is_named(extensions: Extensions, cache: Path) -> None:
    with pytest.raises(DeploycheckError, match="unknown registry 'sqlit'"):
        open_registry("sqlit:registry.db", extensions, cache)
    with pytest.raises(DeploycheckError, match="unknown registry 'sqlite'"):
        open_registry(None, replace(extensions, registries={}), cache)


def test_it_is_found_and_never_made(extensions: Extensions) -> None:
    assert isinstance(BaselineStep(), FoundElsewhere)


def test_its_settings_are_where_the_spec_promotes_to(tmp_path: Path) -> None:
    kind, ref = BaselineStep(), BaselineStep().ref_for("baseline")
    assert ref is not None
    promoting = spec(HEAD + "promote: {registry: sqlite:r.db, model: digits, to: staging}\n", tmp_path)
    assert kind.settings(promoting, ref, ()) == IN_PROJECT.model_copy(update={"registry": "sqlite:r.db"})
    with pytest.raises(DeploycheckError, match="there is no baseline without a `promote`"):
        kind.settings(spec(HEAD, tmp_path), ref, ())
