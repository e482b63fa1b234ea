"""Data of the example specs: real sets that ship inside packages."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, PackagePath, files
from pathlib import Path

import numpy as np

from deploycheck.errors import DeploycheckError

MOST_FRAMES = 29
"""Of the longest utterance."""


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Load 1,797 handwritten digits: images ``[n, 8, 8, 1]`` of grey levels 0..16, and their classes ``[n]``.

    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return loaded.images[..., None].astype(np.float32), loaded.target.astype(np.int64)


def biopsies() -> tuple[np.ndarray, np.ndarray]:
    """Load 569 biopsies of breasts: 30 features of cell nuclei, ``[n, 30]``, and 1 for the malignant ones, ``[n]``.

    Wolberg, Street and Mangasarian, Breast Cancer Wisconsin (Diagnostic), UCI Machine Learning Repository, 1995.
    """
    from sklearn.datasets import load_breast_cancer

    loaded = load_breast_cancer()
    malignant = list(loaded.target_names).index("malignant")
    return loaded.data.astype(np.float32), (loaded.target == malignant).astype(np.int64)


def utterances() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Load 640 utterances of two vowels by nine men: who speaks, ``[n]``, 0 to 8.

    ``frames`` are 12 cepstrum coefficients of each frame, ``[n, 29, 12]``, zeros after the last; ``present`` says which
    frames there are, ``[n, 29]``. Kudo, Toyama and Shimbo, Japanese Vowels, UCI Machine Learning Repository, 1999.
    """
    found = [example for part in ("TRAIN", "TEST") for example in _read_ts(_packaged("sktime", f"Vowels_{part}.ts"))]
    frames = np.zeros((len(found), MOST_FRAMES, 12), np.float32)
    present = np.zeros((len(found), MOST_FRAMES), np.bool_)
    for row, (series, _) in enumerate(found):
        frames[row, : len(series)] = series
        present[row, : len(series)] = True
    return {"frames": frames, "present": present}, np.array([speaker - 1 for _, speaker in found])


def _packaged(package: str, ending: str) -> Path:
    """Return a file of an installed package, without importing the package."""
    try:
        listed: list[PackagePath] = files(package) or []
    except PackageNotFoundError as error:
        raise DeploycheckError(f"{package} is not installed", hint="pip install 'deploycheck[examples]'") from error
    return next(Path(str(file.locate())) for file in listed if str(file).endswith(ending))


def _read_ts(file: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Yield each example of a .ts file: its series, ``[frames, dimensions]``, and its class."""
    for line in file.read_text().partition("@data")[2].split():
        *dimensions, label = line.split(":")
        yield np.array([np.fromstring(values, sep=",") for values in dimensions]).T, int(label)
