from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from deploycheck.checks.size import bytes_of, parameters, quantized_share, size, size_ratio, sparsity
from deploycheck.store import MANIFEST, Artifact, CorruptArtifact, write_manifest
from deploycheck.store.weights import write_weights
from deploycheck.verdict import Exact, Measurement


def exported(folder: Path, weights: dict[str, np.ndarray] | None = None, program: int = 100) -> Artifact:
    """Return an artifact as the export leaves it: a program, a signature, and weights where there are any."""
    (folder / "notes").mkdir(parents=True)
    (folder / "model.jax_export.gz").write_bytes(bytes(program))
    (folder / "notes" / "signature.json").write_bytes(b"{}")
    if weights is not None:
        save_file(weights, folder / "weights.safetensors")
    return write_manifest(folder, "model", "ab" * 32, {"padding": "x" * 500})


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def test_size_is_the_bytes_of_all_files_but_the_manifest(tmp_path: Path) -> None:
    artifact = exported(tmp_path / "model", {"params/w": zeros(3, 4)})
    on_disk = sum(path.stat().st_size for path in artifact.path.rglob("*") if path.is_file())
    expected = on_disk - (artifact.path / MANIFEST).stat().st_size
    assert size.measure(artifact) == Measurement(Exact(expected))
    assert bytes_of(artifact) == expected > 100 + 2 + 48


def test_the_ratio_is_of_the_variant_to_the_trained(tmp_path: Path) -> None:
    variant, trained = exported(tmp_path / "int8", program=1198), exported(tmp_path / "trained", program=3998)
    measured = size_ratio.measure(variant, trained)
    assert measured.sample == Exact(0.3)
    assert measured.note == "1,200 of 4,000 bytes"


def test_a_variant_that_grew_has_a_ratio_over_one(tmp_path: Path) -> None:
    variant, trained = exported(tmp_path / "int8", program=3998), exported(tmp_path / "trained", program=1998)
    assert size_ratio.measure(variant, trained).sample == Exact(2.0)


@pytest.mark.parametrize(
    ("weights", "count"),
    [
        ({"params/w": zeros(3, 4), "params/b": zeros(4)}, 16),
        ({"params/w": zeros(3, 4, dtype=np.int8)}, 12),
        ({"params/temperature": zeros()}, 1),
        ({"params/w": zeros(0, 4)}, 0),
        ({"params/w": zeros(2, 2), "batch_stats/mean": zeros(100), "rngs/key": zeros(2)}, 4),
        ({"params/norm/scale": zeros(5), "params/norm/bias": zeros(5)}, 10),
        ({"params/w/qvalue": zeros(3, 4, dtype=np.int8), "params/w/scale": zeros(1, 4)}, 12),
        (
            {
                "params/w/qvalue": zeros(3, 4, dtype=np.int8),
                "params/w/scale": zeros(1, 4),
                "params/norm/scale": zeros(4),
            },
            16,
        ),
        ({}, 0),
    ],
    ids=["dense", "int8", "scalar", "empty", "statistics", "norm", "quantised", "quantised and norm", "none"],
)
def test_the_trained_weights_are_counted_whatever_their_type(
    tmp_path: Path, weights: dict[str, np.ndarray], count: int
) -> None:
    assert parameters.measure(exported(tmp_path / "model", weights)) == Measurement(Exact(count))


def test_quantising_does_not_change_how_many_parameters_there_are(tmp_path: Path) -> None:
    trained = exported(tmp_path / "trained", {"params/w": zeros(3, 4), "params/scale": zeros(4)})
    quantised = exported(
        tmp_path / "int8",
        {"params/w/qvalue": zeros(3, 4, dtype=np.int8), "params/w/scale": zeros(1, 4), "params/scale": zeros(4)},
    )
    assert parameters.measure(quantised) == parameters.measure(trained) == Measurement(Exact(16))


def test_what_the_safetensors_header_says_besides_is_no_weight(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"params/w": zeros(3, 4)}, folder / "weights.safetensors", metadata={"shape": "[9, 9]"})
    assert parameters.measure(write_manifest(folder, "model", "ab" * 32, {})).sample == Exact(12)


def test_an_artifact_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match=r"has no file weights\.safetensors"):
        parameters.measure(exported(tmp_path / "model"))


def test_the_quantised_share_is_of_the_bytes_before_and_names_what_is_left(tmp_path: Path) -> None:
    weights = {
        "params/w/qvalue": zeros(3, 4, dtype=np.int8),
        "params/w/scale": zeros(1, 4),
        "params/b": zeros(4),
        "params/norm/scale": zeros(2, dtype=np.float16),
        "batch_stats/mean": zeros(100),
    }
    measured = quantized_share.measure(exported(tmp_path / "int8", weights))
    note = "48 of 68 bytes of parameters are quantised; left in float: b (16), norm/scale (4)"
    assert measured == Measurement(Exact(48 / 68), note=note)
    whole = {name: weights[name] for name in ("params/w/qvalue", "params/w/scale")}
    measured = quantized_share.measure(exported(tmp_path / "whole", whole))
    assert measured == Measurement(Exact(1.0), note="48 of 48 bytes of parameters are quantised")


def test_the_sparsity_is_of_the_trained_numbers_however_they_are_stored(tmp_path: Path) -> None:
    large = np.zeros(4000, np.float32)
    large[:1000] = 1.0
    folder = tmp_path / "model"
    folder.mkdir()
    codes = np.array([[1, 0], [0, -3]], np.int8)
    weights = {"params/w": large, "params/v/qvalue": codes, "params/v/scale": zeros(1, 2), "state/mean": zeros(99)}
    write_weights(weights, folder / "weights.safetensors")
    measured = sparsity.measure(write_manifest(folder, "model", "ab" * 32, {}))
    assert measured == Measurement(Exact(3002 / 4004), note="3,002 of 4,004 parameters")
