from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploycheck.store import (
    Artifact,
    Building,
    CorruptArtifact,
    Store,
    StoreError,
    fingerprint,
    loadable_until,
    open_artifact,
    write_lifetime,
    write_manifest,
)
from tests.registry.fail_points import kill_everywhere
from tests.registry.limited import run_on_a_small_disk, run_read_only
from tests.registry.processes import (
    KEY,
    build_together,
    build_until_killed,
    fill,
    killed_while_holding_the_lock,
    rebuild_then_forget_until_killed,
)

OTHER = "cd" * 32


def never(building: Building) -> Mapping[str, Any]:
    raise AssertionError("it was made already")


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Store(tmp_path / "store").get_or_build("model", KEY, fill)[0]


def rewritten(artifact: Artifact, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the manifest, with the digest made to fit: what someone who means harm would do."""
    path = artifact.path / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    listed = json.dumps(
        {"kind": manifest.get("kind"), "files": manifest.get("files")}, sort_keys=True, separators=(",", ":")
    )
    manifest["digest"] = f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"
    path.write_text(json.dumps(manifest))
    return artifact.path


# What an artifact is


def test_what_was_made_is_found_with_its_files_and_meta(artifact: Artifact) -> None:
    opened = open_artifact(artifact.path)
    assert opened == artifact
    assert opened.file("weights.bin").read_bytes() == bytes(range(64))
    assert set(opened.files) == {"weights.bin", "notes/signature.json"}
    assert opened.meta == {"created": "2026-11-23"}


def test_the_digest_is_that_of_kind_and_files_as_anyone_can_compute_it(artifact: Artifact) -> None:
    files = {
        name: {"sha256": hashlib.sha256(artifact.file(name).read_bytes()).hexdigest(), "size": size}
        for name, size in {"weights.bin": 64, "notes/signature.json": 19}.items()
    }
    canonical = json.dumps({"kind": "model", "files": files}, sort_keys=True, separators=(",", ":"))
    assert artifact.digest == f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def test_the_same_content_has_the_same_digest_under_any_key_and_meta(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fill_with_other_meta(building: Building) -> Mapping[str, Any]:
        return {**fill(building), "created": "later"}

    one, _ = store.get_or_build("model", KEY, fill)
    other, _ = store.get_or_build("model", OTHER, fill_with_other_meta)
    kind, _ = store.get_or_build("training", KEY, fill)
    assert one.digest == other.digest != kind.digest


def test_the_last_day_is_covered_by_the_digest(tmp_path: Path) -> None:
    def made(last: date, **meta: str) -> Artifact:
        folder = tmp_path / last.isoformat()
        folder.mkdir()
        write_lifetime(folder, last)
        return write_manifest(folder, "model", KEY, meta)

    soon, late = made(date(2026, 11, 23), loadable_until="2099-01-01"), made(date(2027, 1, 1))
    assert loadable_until(soon) == date(2026, 11, 23)
    assert soon.digest != late.digest
    write_lifetime(soon.path, date(2099, 1, 1))
    with pytest.raises(CorruptArtifact, match=r"lifetime\.json is damaged"):
        open_artifact(soon.path)


def test_the_last_day_of_an_older_artifact_is_in_its_meta(tmp_path: Path) -> None:
    assert loadable_until(write_manifest(tmp_path, "model", KEY, {"loadable_until": "2026-11-23"})) == date(
        2026, 11, 23
    )
    assert loadable_until(write_manifest(tmp_path, "model", KEY, {})) is None


@pytest.mark.parametrize("content", ["[]", "{}", '{"loadable_until": "soon"}', '{"loadable_until": 3}', "{"])
def test_a_last_day_that_is_not_a_date_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "lifetime.json").write_text(content)
    with pytest.raises(CorruptArtifact, match="loadable_until"):
        loadable_until(write_manifest(tmp_path, "model", KEY, {}))


def test_a_file_it_does_not_have_is_refused_by_name(artifact: Artifact) -> None:
    with pytest.raises(CorruptArtifact, match=r"has no file graph\.bin"):
        artifact.file("graph.bin")


@pytest.mark.parametrize("name", ["link", "pipe"])
def test_a_step_that_leaves_anything_but_files_makes_no_artifact(tmp_path: Path, name: str) -> None:
    def leave(building: Building) -> Mapping[str, Any]:
        make = {"link": lambda at: at.symlink_to("/etc/hostname"), "pipe": os.mkfifo}[name]
        make(building.out / name)
        return {}

    store = Store(tmp_path)
    with pytest.raises(CorruptArtifact, match=f"{name} is not a regular file"):
        store.get_or_build("model", KEY, leave)
    assert store.find("model", KEY) is None


def test_a_step_that_leaves_a_name_no_manifest_can_hold_makes_no_artifact(tmp_path: Path) -> None:
    def leave(building: Building) -> Mapping[str, Any]:
        (building.out / "weights\n.bin").write_bytes(b"")
        return {}

    with pytest.raises(CorruptArtifact, match="is not a name for a file"):
        Store(tmp_path).get_or_build("model", KEY, leave)


# Damage


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_in_any_file_is_refused_by_name(artifact: Artifact, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(artifact.files)))
    path = artifact.path / name
    content = path.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(flipped)
    try:
        with pytest.raises(CorruptArtifact, match=f"{name} is damaged"):
            open_artifact(artifact.path)
    finally:
        path.write_bytes(content)


def test_a_flipped_bit_of_the_manifest_is_refused_outside_of_meta(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fill_little(building: Building) -> Mapping[str, Any]:
        (building.out / "w").write_bytes(b"1")
        return {"device": "cpu"}

    path = store.get_or_build("model", KEY, fill_little)[0].path / "manifest.json"
    content = path.read_bytes()
    start = content.index(b'"meta"')
    meta = range(content.index(b"{", start), content.index(b"}", start) + 1)
    accepted = set()
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                store.find("model", KEY)
                accepted.add(position)
            except CorruptArtifact:
                pass
    assert accepted <= set(meta)


def test_the_error_names_the_file_and_what_was_expected_and_found(artifact: Artifact) -> None:
    (artifact.path / "weights.bin").write_bytes(b"other")
    with pytest.raises(CorruptArtifact) as caught:
        open_artifact(artifact.path)
    said = str(caught.value)
    assert str(artifact.path) in said
    expected = artifact.files["weights.bin"].sha256
    assert f"weights.bin is damaged: expected sha256 {expected} (64 bytes)" in said
    assert f"found {hashlib.sha256(b'other').hexdigest()} (5 bytes)" in said
    assert "remove that folder" in said


def swap(folder: Path) -> None:
    (folder / "notes" / "signature.json").replace(folder / "kept")
    (folder / "weights.bin").replace(folder / "notes" / "signature.json")
    (folder / "kept").replace(folder / "weights.bin")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda at: os.truncate(at / "weights.bin", 63), "weights.bin is damaged"),
    "emptied": (lambda at: os.truncate(at / "weights.bin", 0), "weights.bin is damaged"),
    "appended": (lambda at: (at / "weights.bin").open("ab").write(b"x"), "weights.bin is damaged"),
    "removed": (lambda at: (at / "weights.bin").unlink(), "weights.bin is missing"),
    "added": (lambda at: (at / "extra.pkl").write_bytes(b"x"), "extra.pkl is there"),
    "added below": (lambda at: (at / "notes" / "x").write_bytes(b"x"), "notes/x is there"),
    "swapped": (swap, "is damaged: expected"),
    "a link": (lambda at: (at / "link").symlink_to("weights.bin"), "link is not a regular file"),
    "a linked folder": (lambda at: (at / "up").symlink_to(".."), "up is not a regular file"),
    "a FIFO": (lambda at: os.mkfifo(at / "pipe"), "pipe is not a regular file"),
    "no manifest": (lambda at: (at / "manifest.json").unlink(), "manifest.json is missing"),
    "an empty manifest": (lambda at: os.truncate(at / "manifest.json", 0), "manifest.json is damaged"),
    "a deep manifest": (lambda at: (at / "manifest.json").write_text("[" * 100_000), "manifest.json is dam"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_refused_by_name(artifact: Artifact, how: str) -> None:
    damage, said = DAMAGE[how]
    damage(artifact.path)
    with pytest.raises(CorruptArtifact, match=said):
        open_artifact(artifact.path)


def test_a_file_replaced_by_a_link_to_the_same_bytes_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    (artifact.path / "weights.bin").rename(tmp_path / "elsewhere")
    (artifact.path / "weights.bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptArtifact, match=r"weights\.bin is not a regular file"):
        open_artifact(artifact.path)


@pytest.mark.parametrize("make", [os.mkfifo, lambda at: at.symlink_to("manifest")])
def test_a_manifest_that_is_no_file_is_never_read(artifact: Artifact, make: Callable[[Path], None]) -> None:
    manifest = artifact.path / "manifest.json"
    manifest.unlink()
    make(manifest)
    with pytest.raises(CorruptArtifact, match=r"manifest\.json is not a regular file"):
        open_artifact(artifact.path)


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/hostname",
        "notes/../../outside",
        "",
        ".",
        "./weights.bin",
        "a//b",
        "\ud800",
        "nul\0",
        "manifest.json",
    ],
)
def test_a_manifest_whose_names_leave_the_folder_is_refused(artifact: Artifact, name: str) -> None:
    (artifact.path.parent / "outside").write_bytes(b"")
    entry = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    rewritten(artifact, lambda manifest: manifest["files"].update({name: entry}))
    with pytest.raises(CorruptArtifact, match="names a file outside of the artifact"):
        open_artifact(artifact.path)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda manifest: manifest.update(format=2),
    "no format": lambda manifest: manifest.pop("format"),
    "no key": lambda manifest: manifest.pop("key"),
    "a key that is a path": lambda manifest: manifest.update(key="../../etc"),
    "a kind that is a path": lambda manifest: manifest.update(kind="../model"),
    "files as a list": lambda manifest: manifest.update(files=[]),
    "meta as text": lambda manifest: manifest.update(meta="none"),
    "an infinite size": lambda manifest: manifest["files"]["weights.bin"].update(size=float("inf")),
    "a size in words": lambda manifest: manifest["files"]["weights.bin"].update(size="64"),
    "no sha256": lambda manifest: manifest["files"]["weights.bin"].pop("sha256"),
    "an entry that is none": lambda manifest: manifest["files"].update({"weights.bin": None}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_manifest_of_another_form_is_refused(artifact: Artifact, change: str) -> None:
    with pytest.raises(CorruptArtifact, match=r"manifest\.json"):
        open_artifact(rewritten(artifact, CHANGES[change]))


FIELDS = st.sampled_from(["format", "kind", "key", "digest", "files", "meta"])


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(FIELDS, inner)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_manifest_whatever_breaks_the_reader(artifact: Artifact, content: object) -> None:
    (artifact.path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CorruptArtifact):
        open_artifact(artifact.path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="no such folder"):
        open_artifact(tmp_path / "nowhere")


def test_an_artifact_moved_to_another_address_is_refused(artifact: Artifact) -> None:
    artifact.path.rename(artifact.path.with_name(OTHER))
    with pytest.raises(CorruptArtifact, match="belongs at another address"):
        Store(artifact.path.parents[1]).find("model", OTHER)


# The store


def test_what_is_there_is_not_made_again(artifact: Artifact) -> None:
    assert Store(artifact.path.parents[1]).get_or_build("model", KEY, never) == (artifact, True)


def test_a_damaged_artifact_is_refused_not_replaced_until_it_is_forgotten(artifact: Artifact) -> None:
    store = Store(artifact.path.parents[1])
    (artifact.path / "weights.bin").write_bytes(b"other")
    with pytest.raises(CorruptArtifact, match=r"weights\.bin"):
        store.get_or_build("model", KEY, fill)
    assert store.forget("model", KEY)
    assert store.get_or_build("model", KEY, fill) == (artifact, False)


def test_forgetting_what_is_not_there_says_so(tmp_path: Path) -> None:
    assert not Store(tmp_path).forget("model", KEY)


def test_a_build_that_raises_leaves_nothing_but_its_scratch(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(building: Building) -> Mapping[str, Any]:
        fill(building)
        (building.scratch / "checkpoint").write_text("epoch 3")
        raise RuntimeError("diverged")

    def resume(building: Building) -> Mapping[str, Any]:
        assert (building.scratch / "checkpoint").read_text() == "epoch 3"
        assert not list(building.out.iterdir())
        return fill(building)

    with pytest.raises(RuntimeError, match="diverged"):
        store.get_or_build("training", KEY, fail)
    assert store.find("training", KEY) is None
    assert not list((tmp_path / "partial").iterdir())
    store.get_or_build("training", KEY, resume)
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("kind", ["", "Model", "../model", "a/b", "partial", "work", "locks", "9"])
def test_a_kind_that_is_no_folder_of_its_own_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="not an address of an artifact"):
        Store(tmp_path).get_or_build(kind, KEY, fill)


@pytest.mark.parametrize("key", ["", "ab", KEY.upper(), "../" + KEY[3:], KEY + "\n"])
def test_a_key_that_is_no_digest_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not an address of an artifact"):
        Store(tmp_path).find("model", key)
    with pytest.raises(ValueError, match="not an address of an artifact"):
        write_manifest(tmp_path, "model", key, {})


# Kills


def test_a_build_killed_anywhere_is_made_whole_by_the_next(tmp_path: Path) -> None:
    folders = kill_everywhere(build_until_killed, tmp_path)
    assert len(folders) > 8
    states = set()
    for folder in folders:
        store = Store(folder)
        found = store.find("model", KEY)
        half_written = (folder / "partial" / f"model-{KEY}").exists()
        manifest = (folder / "partial" / f"model-{KEY}" / "manifest.json").exists()
        states.add((found is not None, half_written, manifest))
        artifact, reused = store.get_or_build("model", KEY, fill)
        assert reused == (found is not None)
        assert open_artifact(folder / "model" / KEY) == artifact
        assert not list((folder / "partial").iterdir())
        assert not list((folder / "work").iterdir())
    writing, before_the_rename, done = (False, True, False), (False, True, True), (True, False, False)
    assert {writing, before_the_rename, done} <= states


def test_an_artifact_killed_while_forgotten_is_whole_or_gone(tmp_path: Path) -> None:
    for folder in kill_everywhere(rebuild_then_forget_until_killed, tmp_path):
        Store(folder).find("model", KEY)
        assert Store(folder).get_or_build("model", KEY, fill)[0].files


def test_scratch_left_by_a_kill_after_the_rename_is_removed_by_the_next(artifact: Artifact) -> None:
    scratch = artifact.path.parents[1] / "work" / f"model-{KEY}"
    scratch.mkdir(parents=True)
    Store(artifact.path.parents[1]).get_or_build("model", KEY, never)
    assert not scratch.exists()


def test_a_killed_builder_does_not_keep_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=killed_while_holding_the_lock, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    artifact, reused = Store(tmp_path).get_or_build("model", KEY, fill)
    assert not reused
    assert set(artifact.files) == {"weights.bin", "notes/signature.json"}


# Several processes


def test_two_processes_that_ask_at_once_build_once_and_one_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    said, barrier, waited = context.Queue(), context.Barrier(2), context.Event()
    processes = [context.Process(target=build_together, args=(tmp_path, (barrier, waited), said)) for _ in range(2)]
    for process in processes:
        process.start()
    heard = sorted(str(said.get(timeout=30)) for _ in range(3))
    for process in processes:
        process.join()
    assert heard == sorted(["built", "('reused', False)", "('reused', True)"])
    assert waited.is_set()


# The disk


SCRIPT = """
from pathlib import Path
from deploycheck.store import Store, StoreError
def build(building):
    (building.out / "weights.bin").write_bytes(bytes({size}))
    return {{}}
store = Store(Path({root!r}))
try:
    store.get_or_build("model", {key!r}, build)
except StoreError as error:
    print(error)
print("found", store.find("model", {key!r}))
print("partial", [str(path) for path in store.root.glob("partial/*")])
"""


def test_a_full_disk_is_named_and_nothing_half_written_is_kept(tmp_path: Path) -> None:
    script = SCRIPT.format(root=str(tmp_path), key=KEY, size=1 << 20)
    said = run_on_a_small_disk(script, tmp_path, kibibytes=128)
    assert f"{tmp_path}: can't be written: No space left on device\n  hint: the disk is full" in said
    assert "found None\npartial []" in said


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    said = run_read_only(SCRIPT.format(root=str(tmp_path), key=KEY, size=1), tmp_path)
    assert "can't be written: Read-only file system\n  hint: the file system is read-only" in said
    assert str(tmp_path) in said


def test_what_is_there_is_found_on_a_read_only_disk(artifact: Artifact) -> None:
    root = artifact.path.parents[1]
    said = run_read_only(SCRIPT.format(root=str(root), key=KEY, size=1), root)
    assert "can't be written" not in said
    assert f"found Artifact(path=PosixPath('{artifact.path}')" in said


def test_a_limit_on_file_sizes_is_named(tmp_path: Path) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))"
    done = subprocess.run(
        [sys.executable, "-c", limited + SCRIPT.format(root=str(tmp_path), key=KEY, size=1 << 20)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "can't be written: File too large\n  hint: the size of files is limited" in done.stdout
    assert "found None\npartial []" in done.stdout


def test_arrays_that_are_larger_than_a_limit_are_refused_as_files_are(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from deploycheck.store import StoreError, explained
from deploycheck.store.arrays import write_arrays
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))
folder = Path(sys.argv[1])
try:
    with explained(folder):
        write_arrays({"w": np.zeros(1 << 16)}, folder / "weights.safetensors")
except StoreError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith(f"{tmp_path / 'weights.safetensors'}: can't be written: File too large\n")
    assert "hint: the size of files is limited" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(StoreError, match="you may not write there"):
        Store(tmp_path / "store").get_or_build("model", KEY, fill)


def test_a_file_where_the_store_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="there is a file where a folder is needed"):
        Store(tmp_path / "store").get_or_build("model", KEY, fill)


def test_a_step_that_may_not_read_its_own_data_is_not_blamed_on_the_store(tmp_path: Path) -> None:
    def refused(building: Building) -> Mapping[str, Any]:
        raise PermissionError(13, "Permission denied", "/data/digits.npz")

    with pytest.raises(PermissionError, match=r"/data/digits\.npz"):
        Store(tmp_path).get_or_build("data", KEY, refused)


# Fingerprints


TEXT = st.text("aé/0 ", max_size=5)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def reordered(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: reordered(value) for key, value in reversed(content.items())}
    return [reordered(item) for item in content] if isinstance(content, list) else content


@given(JSON)
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(content: Any) -> None:
    assert fingerprint(reordered(content)) == fingerprint(content)


@given(JSON, JSON)
def test_a_fingerprint_tells_contents_apart(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) == same


@pytest.mark.parametrize("content", [Path("a"), b"a", {1, 2}, object()])
def test_what_is_not_plain_json_has_no_fingerprint(content: object) -> None:
    with pytest.raises(TypeError):
        fingerprint({"a": content})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_json_lacks_has_no_fingerprint(number: float) -> None:
    with pytest.raises(ValueError):
        fingerprint([number])
