"""What is collected, chosen and refused, before anything is run."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deploycheck.language.source import parse
from tests.plugin.conftest import SERVE, SPEC, Project

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("jax", "jaxlib", "flax", "optax", "orbax", "qwix", "safetensors", "numpy", "scipy", "sklearn", "optuna"),
    *("starlette", "uvicorn", "aiohttp", "prometheus_client", "matplotlib", "rich", "sqlite3", "specs"),
)

COLLECT = """
import json, sys
import pytest

code = pytest.main(["--deploycheck", "--collect-only", "-q", "-p", "no:cacheprovider", "specs/"])
print("IMPORTED", json.dumps([int(code), sorted({name.partition(".")[0] for name in sys.modules})]))
"""

STAGES = ("data", "train", "compress[int8]", "serve[int8]")


@pytest.fixture
def collected(project: Project) -> Project:
    project.write(SPEC + SERVE)
    return project


def ids(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line and not line.startswith(("ERROR", "FAILED"))]


def listed(project: Project, *arguments: str) -> list[str]:
    result = project.run("--collect-only", "-q", *arguments)
    assert result.ret == 0
    return ids(result)


def test_collecting_imports_nothing_heavy_and_none_of_the_users_code() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("IMPORTED ")]
    code, modules = json.loads(line.removeprefix("IMPORTED "))
    assert code == 0
    assert "specs/digits.yaml::compress[int8]::size_ratio" in done.stdout
    assert "deploycheck" in modules
    assert not set(HEAVY) & set(modules)


def test_every_check_is_listed_by_its_stage_and_its_metric(collected: Project) -> None:
    found = listed(collected, "spec.yaml")
    assert found[0] == "spec.yaml::data::completes"
    assert found[-1] == "spec.yaml::serve[int8]::recompilations"
    assert [stage for stage in STAGES if f"spec.yaml::{stage}::completes" in found] == list(STAGES)


@pytest.mark.parametrize(
    ("arguments", "stages", "count"),
    [
        (["spec.yaml::compress[int8]::size_ratio"], {"compress[int8]"}, 1),
        (["spec.yaml::train"], {"train"}, 3),
        (["spec.yaml::train", "spec.yaml::data::completes"], {"train", "data"}, 4),
        (["spec.yaml::train", "spec.yaml"], {"train"}, 3),
        (["-m", "serve", "spec.yaml"], {"serve[int8]"}, 5),
        (["-m", "data or compress", "spec.yaml"], {"data", "compress[int8]"}, 5),
        (["-k", "accuracy", "spec.yaml"], {"train", "compress[int8]"}, 2),
        (["-k", "accuracy and not accuracy_drop", "."], {"train"}, 1),
    ],
)
def test_checks_are_chosen_by_id_marker_and_keyword(
    collected: Project, arguments: list[str], stages: set[str], count: int
) -> None:
    found = listed(collected, *arguments)
    assert {id.split("::")[1] for id in found} == stages
    assert len(found) == count


def test_a_file_is_the_same_file_however_its_path_is_written(collected: Project) -> None:
    chosen = ["spec.yaml::train::completes", "spec.yaml::train::accuracy", "spec.yaml::train::learned"]
    (collected.pytester.path / "inner").mkdir()
    for written in ("./spec.yaml", "inner/../spec.yaml", str(collected.pytester.path / "spec.yaml")):
        assert listed(collected, f"{written}::train") == chosen, written


@pytest.mark.parametrize("target", ["spec.yaml", "."])
def test_a_link_to_a_spec_or_to_its_folder_takes_ids_too(collected: Project, target: str) -> None:
    link = collected.pytester.path / ("link.yaml" if target == "spec.yaml" else "link")
    link.symlink_to(target)
    file = link if target == "spec.yaml" else link / "spec.yaml"
    assert len(listed(collected, str(file))) == 13
    assert len(listed(collected, f"{file}::train")) == 3


def test_ids_of_two_files_are_each_for_its_own(collected: Project) -> None:
    folder = collected.pytester.path / "more"
    folder.mkdir()
    (folder / "other.yml").write_text(SPEC)
    collected.pytester.makepyfile(test_of_mine="def test_one(): pass\n\ndef test_two(): pass")
    assert listed(collected, "more/other.yml::data", "spec.yaml::train::learned", "test_of_mine.py::test_two") == [
        "more/other.yml::data::completes",
        "more/other.yml::data::missing_values",
        "spec.yaml::train::learned",
        "test_of_mine.py::test_two",
    ]
    both = {id.partition("::")[0] for id in listed(collected, "more", "spec.yaml::train")}
    assert both == {"more/other.yml", "spec.yaml"}


def test_what_is_not_asked_for_is_counted_as_deselected(collected: Project) -> None:
    result = collected.run("--collect-only", "spec.yaml::train")
    result.stdout.fnmatch_lines(["*3/13 tests collected (10 deselected)*"])


def test_a_stage_can_be_left_out(collected: Project) -> None:
    found = listed(collected, "spec.yaml", "--deselect", "spec.yaml::serve[int8]")
    assert {id.split("::")[1] for id in found} == set(STAGES) - {"serve[int8]"}


@pytest.mark.parametrize("id", ["spec.yaml::compress", "spec.yaml::train::acuracy", "spec.yaml::tr"])
def test_an_id_that_names_nothing_is_a_usage_error(collected: Project, id: str) -> None:
    result = collected.run("--collect-only", id)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"no such check or stage: {id}; --collect-only lists what there is" in result.stderr.str()


def test_of_several_ids_the_one_that_names_nothing_is_named(collected: Project) -> None:
    result = collected.run("--collect-only", "spec.yaml::train", "spec.yaml::trian", "spec.yaml::dta::completes")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no such check or stage: spec.yaml::trian, spec.yaml::dta::completes;" in result.stderr.str()


def test_a_mistake_in_the_spec_is_told_before_the_id_that_is_not_found(project: Project) -> None:
    project.write(SPEC.replace("epochs: 12", "epoch: 12"))
    result = project.run("--collect-only", "spec.yaml::trian")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["spec.yaml:15:3: unknown key 'epoch' in `train`", "*did you mean 'epochs'?"])
    assert "no such check or stage" not in result.stdout.str() + result.stderr.str()


def test_a_cell_of_a_matrix_is_an_id_too(project: Project) -> None:
    project.write(SPEC + "matrix:\n  train.epochs: [1, 2]\n")
    found = listed(project, "spec.yaml")
    assert len(found) == 16
    assert found[0] == "spec.yaml::[epochs=1]::data::completes"
    cell = listed(project, "spec.yaml::[epochs=2]")
    assert cell == [id for id in found if "[epochs=2]" in id]
    assert listed(project, "spec.yaml::[epochs=2]::train::learned") == ["spec.yaml::[epochs=2]::train::learned"]
    unknown = project.run("--collect-only", "spec.yaml::[epochs=3]")
    assert unknown.ret == pytest.ExitCode.USAGE_ERROR
    assert "no such check or stage: spec.yaml::[epochs=3]" in unknown.stderr.str()


def test_what_failed_last_time_is_chosen_by_lf(project: Project) -> None:
    project.write(SPEC.replace('accuracy: ">= 90 %"', 'accuracy: ">= 99.9 %"'))
    arguments = ("--deploycheck", f"--deploycheck-cache={project.cache}", "spec.yaml")
    first = project.pytester.runpytest_inprocess(*arguments)
    first.assert_outcomes(passed=7, failed=1)
    again = project.pytester.runpytest_inprocess("--lf", "--collect-only", "-q", *arguments)
    assert ids(again) == ["spec.yaml::train::accuracy"]


def test_yaml_that_is_no_spec_is_left_alone_unless_it_is_asked_for(collected: Project) -> None:
    (collected.pytester.path / "compose.yaml").write_text("services: {db: {image: postgres}}\n")
    assert {id.partition("::")[0] for id in listed(collected, ".")} == {"spec.yaml"}
    asked_for = collected.run("--collect-only", "compose.yaml")
    assert asked_for.ret == pytest.ExitCode.INTERRUPTED
    asked_for.stdout.fnmatch_lines(["compose.yaml:1:1: *"])


def test_a_spec_in_json_is_collected_from_its_folder(project: Project) -> None:
    text = json.dumps(parse(SPEC, Path("spec.yaml"), "spec.yaml").data)
    (project.pytester.path / "specs").mkdir()
    project.write(text, "specs/spec.json")
    found = listed(project, "specs")
    assert "specs/spec.json::train::accuracy" in found
    assert listed(project, "specs/spec.json::train::accuracy") == ["specs/spec.json::train::accuracy"]


@pytest.mark.parametrize(
    ("content", "name", "error"),
    [
        (SPEC.encode("utf-16"), "bad.yaml", "bad.yaml:1:1: is not UTF-8"),
        (SPEC.encode("utf-16-le"), "bad.YML", "bad.YML:1:*"),
        ("\t" + SPEC.replace("\n", "\n\t"), "bad.yaml", "bad.yaml:1:1: not YAML*"),
        (b'{"deploycheck": 1, "nam": "x"}', "bad.json", "bad.json:1:20: unknown key 'nam' at the top"),
    ],
)
def test_a_spec_that_cannot_be_read_is_an_error_beside_a_good_one(
    collected: Project, content: str | bytes, name: str, error: str
) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    (collected.pytester.path / name).write_bytes(raw)
    result = collected.run("--collect-only", ".")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([error])


@pytest.mark.parametrize(
    ("location", "says"), [("../x.db", "is outside of"), ("notes.txt", "is not an SQLite database")]
)
def test_a_registry_that_cannot_be_opened_stops_the_run_before_it_begins(
    project: Project, location: str, says: str
) -> None:
    (project.pytester.path / "notes.txt").write_text("notes")
    project.write(SPEC.replace("sqlite:registry.db", f"sqlite:{location}"))
    result = project.run("spec.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"spec.yaml:*{says}*"])


def test_files_that_look_like_specs_and_do_not_say_so_are_named(collected: Project) -> None:
    for number in range(12):
        (collected.pytester.path / f"a{number:02}.yaml").write_text(SPEC.replace("deploycheck: 1\n", ""))
    result = collected.run("--collect-only", ".")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["skipped: 12 files without a top-level key `deploycheck`: a00.yaml, *a09.yaml and 2 more"]
    )


def test_a_file_that_is_asked_for_and_is_no_text_is_an_error_that_names_it(collected: Project) -> None:
    (collected.pytester.path / "binary.yaml").write_bytes(b"\xff\xfe\x00deploycheck\x80")
    assert {id.partition("::")[0] for id in listed(collected, ".")} == {"spec.yaml"}
    asked_for = collected.run("--collect-only", "binary.yaml")
    assert asked_for.ret == pytest.ExitCode.INTERRUPTED
    asked_for.stdout.fnmatch_lines(["binary.yaml:1:1: is not UTF-8"])


def test_a_mistyped_version_key_is_not_quietly_no_spec(project: Project) -> None:
    project.write(SPEC.replace("deploycheck: 1", "deploychek: 1"))
    result = project.run("--collect-only", ".")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["spec.yaml:1:1: unknown key 'deploychek' at the top", "*did you mean 'deploycheck'?"])


@pytest.mark.parametrize("arguments", [(), ("--deploycheck-promote",)])
def test_no_spec_at_all_is_never_a_pass(project: Project, arguments: tuple[str, ...]) -> None:
    project.pytester.makepyfile(test_of_mine="def test_it(): pass")
    result = project.run(*arguments, ".")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["error: no spec was collected: nothing was checked"])


def test_a_standard_alone_has_nothing_to_check(project: Project) -> None:
    project.write("deploycheck: 1\nname: edge\ntrain: {expect: {accuracy: '>= 90 %'}}\n", "edge.yaml")
    assert project.run(".").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_promoting_needs_the_gate_to_be_on(collected: Project) -> None:
    result = collected.pytester.runpytest_inprocess("--deploycheck-promote", "spec.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--deploycheck-promote needs --deploycheck" in result.stderr.str()


def test_collecting_writes_nothing(collected: Project) -> None:
    before = {path.name for path in collected.pytester.path.iterdir()}
    result = collected.run("--collect-only", "spec.yaml", cache=Path("fresh"))
    assert result.ret == 0
    assert {path.name for path in collected.pytester.path.iterdir()} - {"__pycache__"} == before - {"__pycache__"}


def test_without_the_flag_specs_are_no_tests(collected: Project) -> None:
    collected.pytester.makepyfile(test_of_mine="def test_it(): pass")
    result = collected.pytester.runpytest_inprocess("--collect-only", "-q")
    assert ids(result) == ["test_of_mine.py::test_it"]


@pytest.mark.parametrize("id", ["spec.yaml", "spec.yaml::trian", "compose.yaml"])
def test_the_garbage_collector_is_on_again_however_collection_ends(collected: Project, id: str) -> None:
    (collected.pytester.path / "compose.yaml").write_text("services: {}\n")
    during: list[bool] = []

    class Watching:
        def pytest_collectstart(self) -> None:
            during.append(gc.isenabled())

    collected.pytester.runpytest_inprocess("--deploycheck", "--collect-only", id, plugins=[Watching()])
    assert set(during) == {False}
    assert gc.isenabled()


TWICE = """
import gc, weakref
import pytest

seen = []

class Watching:
    def pytest_collection_finish(self, session):
        seen.append([weakref.ref(item) for item in session.items])

for _ in range(3):
    pytest.main(["--deploycheck", "--collect-only", "-q", "-p", "no:cacheprovider", "specs/"], plugins=[Watching()])
    assert gc.isenabled() and seen[-1]
gc.collect()
# The first run is not looked at: other plugins keep hold of the first session they see.
print("ALIVE", sum(item() is not None for item in seen[1]), "OF", len(seen[1]))
"""


def test_a_run_gives_the_nodes_of_the_one_before_it_to_the_garbage_collector() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, capture_output=True, text=True, check=True)
    alive, of, count = done.stdout.rpartition("ALIVE ")[2].split()
    assert (alive, of) == ("0", "OF")
    assert int(count) > 30


@pytest.mark.parametrize("part", ["deploycheck-gate", "deploycheck-builtin"])
def test_a_part_of_the_gate_that_is_turned_off_fails_the_run(project: Project, part: str) -> None:
    project.write()
    project.pytester.makepyfile(test_own="def test_own(): pass")
    result = project.run("-p", f"no:{part}", "spec.yaml", "test_own.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--deploycheck needs the plugin {part}: leave out -p no:{part}"])


def test_collecting_only_can_not_be_asked_to_promote(project: Project) -> None:
    project.write()
    result = project.run("--collect-only", "--deploycheck-promote", "spec.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--deploycheck-promote can't be used with --collect-only*"])


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_junit_names_the_file_the_cell_and_the_stage_as_class(project: Project, workers: tuple[str, ...]) -> None:
    project.pytester.mkdir("specs")
    text, _, _ = SPEC.partition("promote:")  # the cells would move one alias
    project.write(text + "matrix:\n  train.epochs: [1, 2]\n", "specs/one.yaml")
    result = project.run(*workers, "-k", "missing_values", "--junitxml=junit.xml", "--junit-prefix=gate", "specs")
    cases = ElementTree.parse(project.pytester.path / "junit.xml").iter("testcase")
    assert [(case.get("classname"), case.get("name")) for case in cases] == [
        (f"gate.specs.one.yaml.[epochs={number}].data", "missing_values") for number in (1, 2)
    ], result.stdout.str()


def test_junit_names_a_variants_check_without_a_bracket_too_many(project: Project) -> None:
    net = project.pytester.path / "net.py"
    net.write_text(net.read_text() + "\ndef build_broken():\n    raise RuntimeError('no weights today')\n")
    project.write(SPEC.replace("net:build_nnx\n  with: {features: 64}", "net:build_broken"))
    project.run("-k", "size_ratio", "--junitxml=junit.xml", "spec.yaml")
    (case,) = ElementTree.parse(project.pytester.path / "junit.xml").iter("testcase")
    assert (case.get("classname"), case.get("name")) == ("spec.yaml.compress[int8]", "size_ratio")


def test_yaml_of_another_plugin_is_not_taken_for_a_spec_by_the_controller(project: Project) -> None:
    project.write()
    project.pytester.makeconftest(
        """
        import pytest

        class Item(pytest.Item):
            def runtest(self): pass

        class File(pytest.File):
            def collect(self):
                yield Item.from_parent(self, name="one")

        def pytest_collect_file(file_path, parent):
            if file_path.name == "test_api.tavern.yaml":
                return File.from_parent(parent, path=file_path)
        """
    )
    (project.pytester.path / "test_api.tavern.yaml").write_text("test_name: one\nstages: []\n")
    result = project.run("-n", "1", ".", "-k", "one or missing_values")
    result.stdout.no_fnmatch_line("*was edited while it was checked*")
    assert result.ret == 0
