from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deploycheck.serving import predict
from deploycheck.serving.opening import open_compiled
from tests.serving.models import expected


@pytest.mark.parametrize("count", [1, predict.BATCH, predict.BATCH + 5])
def test_predict_answers_a_split_of_any_size(
    artifact: Path, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(3).normal(size=(count, 4, 4, 1)).astype(np.float32)
    save_file({"inputs/image": images, "labels": np.zeros(len(images))}, tmp_path / "examples")
    engine = open_compiled(artifact, (), (1, predict.BATCH))
    sizes, run = set(), engine.run
    monkeypatch.setattr(engine, "run", lambda inputs: sizes.add(len(inputs["image"])) or run(inputs))
    predict.predict(engine, tmp_path / "examples", tmp_path / "answers")
    assert sizes == {predict.BATCH}, "one program answers all"
    answers = load_file(tmp_path / "answers")
    assert list(answers) == ["logits"]
    np.testing.assert_allclose(answers["logits"], expected(images), rtol=1e-4, atol=1e-4)
