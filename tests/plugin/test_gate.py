from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from deploycheck.evidence import json_schema
from deploycheck.registry import RegistryError
from deploycheck.registry.sqlite import SqliteRegistry
from deploycheck.store import open_artifact, write_lifetime, write_manifest
from tests.plugin.conftest import SERVE, SPEC, Project, copy_of


def test_a_spec_is_gated_from_data_to_promotion(project: Project) -> None:
    project.write(SPEC + SERVE)
    result = project.run("--deploycheck-promote", "--junitxml=junit.xml", "spec.yaml")
    assert result.ret == 0
    assert set(project.verdicts().values()) == {"pass"}
    assert project.spec["decision"] == "promoted"
    promotion = project.spec["promotion"]
    result.stdout.fnmatch_lines(["promoted: int8 is now digits@staging *", f"stored in {promotion['path']}"])
    assert open_artifact(Path(promotion["path"])).digest == promotion["artifact"]
    jsonschema.validate(project.evidence, json_schema())
    served = [check for check in project.spec["checks"] if check["stage"] == "serve[int8]"]
    assert {check["artifact"] for check in served} == {promotion["artifact"]}
    (load,) = next(step["loads"] for step in project.spec["steps"] if step["step"] == "load[int8]")
    assert HdrHistogram.decode(load["histogram"]).get_total_count() == load["requests"] >= 1
    assert load["failed"] == 0
    assert (
        f"{load['requests']} requests, poisson arrivals at 100 /s, over {load['seconds']:.1f} s, after"
        in load["schedule"]
    )
    assert all(0 <= load["machine"][share] <= 1 for share in ("others", "stolen"))
    cases = {
        f"{case.get('classname')} {case.get('name')}": case
        for case in ElementTree.parse(project.pytester.path / "junit.xml").iter("testcase")
    }
    properties = {p.get("name"): p.get("value") for p in cases["spec.yaml.train accuracy"].iter("property")}
    assert properties["verdict"] == "pass"
    assert properties["threshold"] == ">= 90 %"
    assert 0.9 < float(properties["value"] or 0) <= 1


def test_without_the_flag_it_says_what_would_be_promoted_and_moves_nothing(project: Project) -> None:
    project.write()
    result = project.run("spec.yaml")
    assert result.ret == 0
    assert project.spec["decision"] == "promotable"
    assert project.spec["chosen"]["variant"] == "int8"
    result.stdout.fnmatch_lines(["promotable: int8 * with --deploycheck-promote"])
    assert not project.promoted


def test_evidence_that_can_not_be_recorded_is_said_and_fails_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RegistryError("the file system is read-only")

    monkeypatch.setattr(SqliteRegistry, "record_evidence", refuse)
    project.write()
    result = project.run("--deploycheck-fresh", "spec.yaml")
    assert result.ret == 0
    says = "note: spec.yaml: `deploycheck promote` will refuse this evidence: the file system is read-only"
    result.stdout.fnmatch_lines([says])


def test_an_unchanged_spec_is_not_done_again_and_a_changed_one_only_from_there(
    project: Project, empty_cache: Path
) -> None:
    spec = SPEC.replace("epochs: 12", "epochs: 1")
    project.write(spec)
    project.run("spec.yaml", cache=empty_cache)
    assert {step["reused"] for step in project.spec["steps"]} == {False}
    project.run("spec.yaml", cache=empty_cache)
    assert {step["reused"] for step in project.spec["steps"]} == {True}
    project.write(spec.replace(">= 90 %", ">= 91 %"))
    project.run("spec.yaml", cache=empty_cache)
    assert {step["reused"] for step in project.spec["steps"]} == {True}
    project.write(spec.replace(", activations: int8", ""))
    project.run("spec.yaml", cache=empty_cache)
    made = {step["step"] for step in project.spec["steps"] if not step["reused"]}
    assert made == {"variant[int8]", "model[int8]", "outputs[int8]"}


def test_a_model_that_learned_nothing_is_refused_by_name(project: Project) -> None:
    """The run that is always green: labels shuffled, the loss stays at ln 10 and accuracy at chance."""
    project.pytester.makepyfile(
        classic="""
        from flax import nnx
        import numpy as np
        from sklearn.datasets import load_digits

        class Classic(nnx.Module):
            def __init__(self, rngs):
                self.conv = nnx.Conv(1, 32, (3, 3), rngs=rngs)
                self.dense = nnx.Linear(14 * 14 * 32, 10, rngs=rngs)

            def __call__(self, image):
                image = nnx.max_pool(nnx.relu(self.conv(image)), (2, 2), strides=(2, 2))
                return self.dense(image.reshape(image.shape[0], -1))

        def build(rngs):
            return Classic(rngs)

        def shuffled():
            digits = load_digits()
            images = np.kron(digits.images[:600], np.ones((3, 3)))
            images = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None].astype(np.float32) / 16
            return images, np.random.default_rng(0).permutation(digits.target[:600])
        """
    )
    spec = SPEC.replace("net:build_nnx", "classic:build").replace("  with: {features: 64}\n", "")
    spec = spec.replace("digits_data:digits", "classic:shuffled").replace("[8, 8]", "[28, 28, 1]")
    spec = spec.replace("epochs: 12", "epochs: 3").replace("batch_size: 64", "batch_size: 128")
    spec = spec.replace("  preprocess: [{scale: {by: 0.0625}}]\n", "").replace("5e-3", "1e-3")
    project.write(spec.replace('    accuracy: ">= 90 %"\n', ""))
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 1
    assert project.verdicts()["train::learned"] == "fail"
    learned = next(check for check in project.spec["checks"] if check["metric"] == "learned")
    said = re.search(
        r"for the majority class; training loss ([\d.]+) in the first epoch, ([\d.]+) in the last of 3",
        learned["reason"],
    )
    assert said
    assert float(said[2]) == pytest.approx(math.log(10), abs=0.1)
    assert project.spec["decision"] == "withheld"
    assert not project.promoted


def test_eight_mistakes_are_eight_located_errors_and_nothing_is_trained(project: Project, tmp_path: Path) -> None:
    wrong = SPEC
    for right, mistake in (
        ("digits_data:digits", "digits_data:digit"),
        ("{features: 64}", "{featurs: 64}"),
        ("missing_values", "missing_value"),
        ("{adam: {learning_rate", "{adm: {learning_rate"),
        ("  epochs: 12", "  epochs: twelve"),
        ('accuracy: ">= 90 %"', 'accuracy: "90 %"'),
        ('size_ratio: "<= 0.6"', 'size: "<= 20 ms"'),
        ("  to: staging", "  too: staging"),
    ):
        assert right in wrong
        wrong = wrong.replace(right, mistake)
    project.write(wrong)
    result = project.run("spec.yaml", cache=tmp_path / "cache")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    text = result.stdout.str()
    expected = {
        5: "did you mean 'features'?",
        8: "did you mean 'digits'?",
        12: "did you mean 'missing_values'?",
        14: "did you mean 'adam'?",
        15: "expected a whole number, found 'twelve'",
        18: "did you mean '>= 90 %'?",
        25: "size is a size, in B or kB",
        29: "did you mean 'to'?",
    }
    for line, hint in expected.items():
        assert f"spec.yaml:{line}:" in text, line
        assert hint in text
    assert "8 mistakes in the spec" in text
    assert not (tmp_path / "cache" / "store").exists()


def test_mistakes_in_arguments_are_found_without_running_the_code(project: Project) -> None:
    project.write(SPEC.replace("{features: 64}", "{featurs: 64}"))
    result = project.run("spec.yaml")
    result.stdout.fnmatch_lines(["*spec.yaml:5:*build_nnx takes no 'featurs'*", "*did you mean 'features'?*"])


def test_a_word_that_does_not_exist_is_refused_before_anything_is_run(project: Project, tmp_path: Path) -> None:
    project.write(SPEC.replace("int8: {quantize: {weights: int8, activations: int8}}", "small: {shrink: {by: 80 %}}"))
    result = project.run("spec.yaml", cache=tmp_path / "cache")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*spec.yaml:22:*unknown key 'shrink' in `compress.variants.small`*"])
    assert not (tmp_path / "cache" / "store").exists()


def test_a_selection_withholds_and_names_what_did_not_run(project: Project) -> None:
    project.write()
    result = project.run("--deploycheck-promote", "-k", "accuracy", "spec.yaml")
    assert result.ret == 1
    result.assert_outcomes(passed=2, deselected=6)
    assert project.spec["decision"] == "withheld"
    assert "spec.yaml::train::learned: did not run" in project.spec["reasons"]
    assert not project.promoted


def test_stopping_at_the_first_failure_withholds(project: Project) -> None:
    project.write(SPEC.replace('accuracy: ">= 90 %"', 'accuracy: ">= 99.9 %"'))
    result = project.run("--deploycheck-promote", "-x", "spec.yaml")
    assert result.ret != 0
    assert "spec.yaml::compress[int8]::size_ratio: did not run" in project.spec["reasons"]
    assert "spec.yaml::train::accuracy: fail" in project.spec["reasons"]


def test_a_crash_in_one_check_is_an_error_and_withholds(project: Project) -> None:
    project.pytester.makeconftest(
        """
        from deploycheck.checks import metric
        from deploycheck.language import Dimension
        from deploycheck.verdict import Exact

        @metric("crashing", dimension=Dimension.COUNT, direction="lower", stages=["train"], sample=Exact)
        def crashing(labels):
            raise ZeroDivisionError("the metric itself is broken")

        def pytest_deploycheck_extensions():
            return [crashing]
        """
    )
    project.write(SPEC.replace('    accuracy: ">= 90 %"', '    accuracy: ">= 90 %"\n    crashing: "== 0"'))
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 1
    assert project.verdicts()["train::crashing"] == "error"
    assert project.verdicts()["train::accuracy"] == "pass"
    assert project.spec["reasons"] == ["spec.yaml::train::crashing: error"]
    assert not project.promoted


def test_a_stage_that_breaks_is_one_failure_at_its_root(project: Project) -> None:
    net = project.pytester.path / "net.py"
    net.write_text(net.read_text() + "\ndef build_broken():\n    raise RuntimeError('no weights today')\n")
    project.write(SPEC.replace("net:build_nnx", "net:build_broken").replace("  with: {features: 64}\n", ""))
    result = project.run("-rs", "spec.yaml")
    result.assert_outcomes(passed=2, errors=1, skipped=5)
    result.stdout.fnmatch_lines(["*RuntimeError: no weights today*", "SKIPPED*not reached: training failed*"])
    assert result.stdout.str().count("Traceback") == 1
    assert project.verdicts()["compress[int8]::size_ratio"] == "error"
    assert "deploycheck/runner" not in result.stdout.str()


def test_a_broken_stage_is_not_green_when_its_own_check_is_deselected(project: Project) -> None:
    net = project.pytester.path / "net.py"
    net.write_text(net.read_text() + "\ndef build_broken():\n    raise RuntimeError('no weights today')\n")
    project.write(SPEC.replace("net:build_nnx", "net:build_broken").replace("  with: {features: 64}\n", ""))
    result = project.run("-k", "size_ratio", "spec.yaml")
    assert result.ret == 1
    result.assert_outcomes(errors=1, deselected=7)


def test_linen_nnx_and_a_plain_function_pass_through_the_same_spec(project: Project) -> None:
    builders = "[net:build_nnx, net:build_linen, net:build_function]"
    project.write(SPEC.partition("promote:")[0] + f"matrix:\n  model.build: {builders}\n")
    result = project.run("spec.yaml")
    assert result.ret == 0
    specs = {spec["id"]: spec["decision"] for spec in project.evidence["specs"]}
    assert specs == {f"spec.yaml::[build=net:build_{form}]": "promotable" for form in ("nnx", "linen", "function")}


@pytest.mark.parametrize("file", ["weights.safetensors", "model.jax_export.gz"])
def test_a_flipped_byte_in_a_stored_artifact_is_refused_by_name(project: Project, file: str, tmp_path: Path) -> None:
    project.write(SPEC + SERVE)
    project.run("-k", "compress or train", "spec.yaml")
    cache = copy_of(project.cache, tmp_path)
    step = next(step for step in project.spec["steps"] if step["step"] == "model[int8]")
    damaged = cache / "store" / "model" / step["key"] / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    result = project.run("--deploycheck-promote", "spec.yaml", cache=cache)
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*{file} is damaged: expected sha256*"])
    assert project.spec["decision"] == "withheld"
    assert not project.promoted
    assert not any(
        check["stage"].startswith("serve") and check["verdict"] == "pass" for check in project.spec["checks"]
    )


def test_evidence_of_an_artifact_that_changed_since_promotes_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from deploycheck.cli import main

    project.write()
    project.run("spec.yaml")
    cache = copy_of(project.cache, tmp_path)
    project.run("--deploycheck-fresh", "spec.yaml", cache=cache)
    monkeypatch.chdir(project.pytester.path)
    assert not project.promoted
    chosen = cache / "store" / "model" / project.spec["chosen"]["key"] / "weights.safetensors"
    whole = chosen.read_bytes()
    chosen.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert main(["promote", "evidence.json", "--cache", str(cache)]) == 1
    assert "weights.safetensors is damaged" in capsys.readouterr().err
    chosen.write_bytes(whole)
    assert main(["promote", "evidence.json", "--cache", str(cache)]) == 0
    assert SqliteRegistry(project.pytester.path / "registry.db").current("digits", "staging") is not None


def test_two_workers_agree_with_one_and_promote_once(project: Project, tmp_path: Path) -> None:
    project.write()
    result = project.pytester.runpytest_subprocess(
        "--deploycheck",
        f"--deploycheck-cache={tmp_path}",
        "--deploycheck-evidence=evidence.json",
        "--deploycheck-promote",
        "-n",
        "2",
        "spec.yaml",
    )
    assert result.ret == 0
    assert project.spec["decision"] == "promoted"
    parallel = project.verdicts()
    assert len(SqliteRegistry(project.pytester.path / "registry.db").history()) == 1
    assert len(list((tmp_path / "store" / "training").iterdir())) == 1
    project.run("spec.yaml")
    assert project.verdicts() == parallel


def test_a_second_promotion_of_the_same_bytes_adds_no_history(project: Project) -> None:
    project.write()
    for _ in range(2):
        assert project.run("--deploycheck-promote", "spec.yaml").ret == 0
    assert len(SqliteRegistry(project.pytester.path / "registry.db").history()) == 1


def test_a_registry_that_refuses_fails_the_run(project: Project) -> None:
    project.write()
    (project.pytester.path / "registry.db").write_bytes(b"SQLite format 3\0" + b"damaged" * 100)
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 1
    assert project.spec["decision"] == "withheld"
    result.stdout.fnmatch_lines(["*what digits@staging points at is not known: *registry.db: sqlite says: *"])


def test_a_waiver_lets_a_failing_check_through_and_is_shown(project: Project) -> None:
    until = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    waived = SPEC.replace("<= 0.6", "<= 0.1") + (
        f'waive: {{"compress.size_ratio": {{because: the tablet has room, until: {until}, by: mara}}}}\n'
    )
    project.write(waived)
    result = project.run("spec.yaml")
    assert result.ret == 0
    assert project.verdicts()["compress[int8]::size_ratio"] == "waived"
    result.stdout.fnmatch_lines([f"waived: *size_ratio, the tablet has room (until {until}, by mara)"])
    project.write(waived.replace(until, "2020-01-31"))
    assert project.run("spec.yaml").ret == 1
    assert project.spec["decision"] == "withheld"


def test_a_warning_does_not_withhold(project: Project) -> None:
    project.write(SPEC.replace('size_ratio: "<= 0.6"', 'size_ratio: {threshold: "<= 0.1", severity: warn}'))
    assert project.run("spec.yaml").ret == 0
    assert project.verdicts()["compress[int8]::size_ratio"] == "warn"
    assert project.spec["decision"] == "promotable"


def test_evidence_can_be_markdown_too(project: Project) -> None:
    project.write()
    project.run("--deploycheck-evidence=report.md", "-k", "data", "spec.yaml")
    text = (project.pytester.path / "report.md").read_text()
    assert text.startswith("## spec.yaml: withheld")
    assert "| data::missing_values | pass | 0 | == 0 |" in text


def test_the_deployment_fixture_gives_what_the_spec_built(project: Project) -> None:
    project.write()
    project.pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.mark.deploycheck("spec.yaml", variant="int8")
        def test_own(deployment):
            assert deployment.artifact.kind == "model"
            assert deployment.data.splits["test"].inputs["image"].shape[1:] == (8, 8)

        @pytest.mark.deploycheck("spec.yaml", variant="imt8")
        def test_other(deployment):
            pass
        """
    )
    result = project.run("spec.yaml", "test_own.py")
    result.assert_outcomes(passed=9, errors=1)
    result.stdout.fnmatch_lines(["*UsageError: spec.yaml has no variant 'imt8'; did you mean 'int8'?"])
    assert json.dumps(project.spec)  # the spec was decided as well


def test_a_file_that_a_loader_is_given_is_part_of_what_it_makes(project: Project, empty_cache: Path) -> None:
    project.pytester.makepyfile(
        read_data="""
        import numpy as np

        def read(path):
            with np.load(path / "digits.npz") as stored:
                return stored["image"], stored["label"]
        """
    )
    folder = project.pytester.mkdir("images")
    generator = np.random.default_rng(0)
    image, label = generator.normal(size=(200, 8, 8)).astype(np.float32), np.arange(200) % 10
    np.savez(folder / "digits.npz", image=image, label=label)
    project.write(SPEC.replace("load: digits_data:digits", "load: read_data:read\n  with: {path: images}"))

    def reused() -> bool:
        assert project.run("spec.yaml::data", cache=empty_cache).ret == 0
        return all(step["reused"] for step in project.spec["steps"])

    assert not reused()
    assert reused()
    np.savez(folder / "digits.npz", image=image + 1, label=label)
    assert not reused()
    project.write(SPEC.replace("load: digits_data:digits", "load: read_data:read\n  with: {path: ../images}"))
    result = project.run("spec.yaml::data", cache=empty_cache)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["spec.yaml:9:16: ../images is outside of *", "  move the file into the project"])
    assert "no spec was collected" not in result.stdout.str()
    assert "no such check" not in result.stderr.str()


def test_an_export_that_will_not_last_is_made_again(project: Project, empty_cache: Path) -> None:
    def exported() -> dict[str, Any]:
        assert project.run("spec.yaml::compress[int8]", "-k", "size_ratio", cache=empty_cache).ret == 0
        return next(step for step in project.spec["steps"] if step["step"] == "model[trained]")

    project.write(SPEC.replace("epochs: 12", "epochs: 1"))
    first = exported()
    assert not first["reused"]
    made = empty_cache / "store" / "model" / first["key"]
    before = open_artifact(made)
    write_lifetime(made, (datetime.now(UTC) + timedelta(days=80)).date())
    (made / "manifest.json").unlink()
    write_manifest(made, before.kind, before.key, before.meta)
    again = exported()
    assert not again["reused"]
    assert again["because"] == "the exported program can't be loaded for much longer"
    assert again["digest"] == first["digest"]
    assert exported()["reused"]


@pytest.mark.parametrize(
    ("body", "gives"),
    [
        ("image.reshape(-1, 64) @ params['w'][:, :1]", "[2, 1], expected logits [2, 10] or more"),
        ("(image.reshape(-1, 64) @ params['w']).sum(0)", "[10], expected logits [2, 10] or more"),
        ("image @ params['w'][:8]", "[2, 8, 10], expected logits [2, 10] or more"),
        ("(image.reshape(-1, 64) @ params['w'], image)", "a tuple, expected one array"),
    ],
)
def test_a_model_without_a_logit_for_each_class_is_refused_before_training(
    project: Project, body: str, gives: str
) -> None:
    project.pytester.makepyfile(
        odd=f"""
        import jax.numpy as jnp

        def build():
            return {{"w": jnp.ones((64, 10))}}, lambda params, image: {body}
        """
    )
    project.write(SPEC.replace("net:build_nnx\n  with: {features: 64}", "odd:build"))
    result = project.run("spec.yaml::train")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*the model gives {gives.replace('[', '[[]')}*"])


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_an_id_in_the_summary_can_be_given_back(project: Project, workers: tuple[str, ...]) -> None:
    project.write(SPEC.replace('size_ratio: "<= 0.6"', 'size_ratio: "<= 0.1"'))
    result = project.run(*workers, "-k", "size_ratio", "spec.yaml")
    (failed,) = [line for line in result.outlines if line.startswith("FAILED ")]
    assert failed.startswith("FAILED spec.yaml::compress[int8]::size_ratio - ")
