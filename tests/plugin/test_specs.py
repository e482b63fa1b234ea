"""Each example spec refuses a model that is worse on purpose, for the reason that a practitioner would give."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.plugin.conftest import Project

SPECS = Path(__file__).parents[2] / "specs"
WORSE = """
from flax import nnx

from specs import models


class UpperHalf(nnx.Module):
    '''Sees the upper half of each image, where some digits look like others.'''

    def __init__(self, shape, features, classes, rngs):
        self.seen = (shape[0] // 2, shape[1])
        self.out = nnx.Linear(self.seen[0] * self.seen[1], classes, rngs=rngs)

    def __call__(self, image):
        return self.out(image[:, : self.seen[0]].reshape(image.shape[0], -1))


class OneMeasure(models.Dense):
    '''Sees the texture of the nuclei and nothing else, so it misses malignant biopsies.'''

    def __call__(self, features):
        return super().__call__(features.at[:, :1].set(0).at[:, 2:].set(0))


def one_measure(rngs, **arguments):
    return OneMeasure(**arguments, rngs=rngs)


class FirstSound(models.SpeakerClassifier):
    '''Hears one frame of each utterance, so it takes some speakers for others.'''

    def __call__(self, frames, present):
        return super().__call__(frames[:, :1], present[:, :1])


def first_sound(rngs, **arguments):
    return FirstSound(**arguments, rngs=rngs)
"""


@pytest.fixture
def specs(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = project.pytester.path
    shutil.copytree(SPECS, root / "specs")
    project.pytester.makepyfile(worse=WORSE)
    return root / "specs"


@pytest.mark.parametrize(
    ("name", "build", "worse", "failing", "passing"),
    [
        ("image", "specs.models:conv_classifier", "worse:UpperHalf", {"accuracy"}, {"learned"}),
        ("medical", "specs.models:dense_classifier", "worse:one_measure", {"missed", "sensitivity"}, {"completes"}),
        (
            "speech",
            "specs.models:speaker_classifier",
            "worse:first_sound",
            {"accuracy"},
            {"learned"},
        ),
    ],
)
def test_a_worse_model_is_refused_for_the_right_reason(
    project: Project, specs: Path, name: str, build: str, worse: str, failing: set[str], passing: set[str]
) -> None:
    spec = specs / f"{name}.yaml"
    assert build in spec.read_text()
    spec.write_text(spec.read_text().replace(build, worse))
    assert project.run(f"specs/{name}.yaml::train").ret == 1
    verdicts = {check["metric"]: check["verdict"] for check in project.spec["checks"]}
    assert {verdicts[metric] for metric in failing} == {"fail"}
    assert {verdicts[metric] for metric in passing} == {"pass"}
