from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deploycheck.serving import predict
from tests.serving.models import expected


@pytest.mark.parametrize("count", [1, predict.BATCH, predict.BATCH + 5])
def test_predict_answers_a_split_of_any_size(artifact: Path, tmp_path: Path, count: int) -> None:
    images = np.random.default_rng(3).normal(size=(count, 4, 4, 1)).astype(np.float32)
    save_file({"inputs/image": images, "labels": np.zeros(len(images))}, tmp_path / "examples")
    predict.predict(artifact, tmp_path / "examples", tmp_path / "answers")
    answers = load_file(tmp_path / "answers")
    assert list(answers) == ["logits"]
    np.testing.assert_allclose(answers["logits"], expected(images), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_opened_ends_it_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no such folder"):
        predict.main([str(tmp_path / "nowhere"), "examples", "answers"])


def test_what_fails_ends_it_with_the_traceback_and_one_last_line(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"inputs/image": np.zeros((3, 5, 5, 1), np.float32)}, tmp_path / "examples")
    with pytest.raises(SystemExit, match=r"^\w+Error: .") as ended:
        predict.main([str(artifact), str(tmp_path / "examples"), str(tmp_path / "answers")])
    assert "\n" not in str(ended.value)
    assert "Traceback" in capsys.readouterr().err
