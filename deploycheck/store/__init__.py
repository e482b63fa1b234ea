"""Artifacts by content address: made once, written whole or not at all, verified whenever they are read.

Under a store's root::

    <kind>/<key>/           finished artifacts, each with its manifest.json
    partial/<kind>-<key>/   an artifact being written; removed when its step starts again
    work/<kind>-<key>/      what a step keeps to resume from (checkpoints); removed once the step is finished
    locks/                  one file per key: one process does the step, the others wait
"""

from __future__ import annotations

from deploycheck.store.artifact import (
    MANIFEST,
    Artifact,
    CorruptArtifact,
    FileEntry,
    fingerprint,
    open_artifact,
    write_manifest,
)
from deploycheck.store.build import Building, Store
from deploycheck.store.disk import StoreError, explained, flush, flush_tree, hint_for
from deploycheck.store.lifetime import loadable_until, write_lifetime

__all__ = [
    "MANIFEST",
    "Artifact",
    "Building",
    "CorruptArtifact",
    "FileEntry",
    "Store",
    "StoreError",
    "explained",
    "fingerprint",
    "flush",
    "flush_tree",
    "hint_for",
    "loadable_until",
    "open_artifact",
    "write_lifetime",
    "write_manifest",
]
