"""A model that deploycheck exported: what a spec can't do with it, said before anything is loaded.

Only its signature is read here. The step that loads it verifies all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploycheck.language.errors import Mistake, SpecPath
from deploycheck.language.methods import Method, models_of
from deploycheck.language.references import get
from deploycheck.language.spec import Serve
from deploycheck.language.tree import Tree
from deploycheck.language.variants import TRAINED, Variant
from deploycheck.language.vocabulary import Vocabulary

SIGNATURE, FIRST_RUNTIME = "signature.json", "xla"
"""The file that says what an exported model is, and the runtime of one that names none: of then there was no other."""
ARTIFACT: SpecPath = ("model", "artifact")
INSTEAD = "give the model as code, or as an ONNX file"
TRAINING = "`optimizer`, `epochs` and `batch_size`"


def check_exported(tree: Tree, data: dict[str, Any], root: Path, installed: Vocabulary) -> list[Mistake]:
    """Return the mistakes in what is asked of an exported model; none where ``model.artifact`` is no folder.

    ``tree`` is the valid form of ``data``.
    """
    folder = _folder(get(data, ARTIFACT), root)
    if folder is None:
        return []
    runtime = _runtime_of(folder)
    if runtime is None:
        what = f"{get(data, ARTIFACT)} is a folder, and no model that deploycheck exported is in it"
        return [Mistake(ARTIFACT, what, "name the folder that has its `manifest.json`, or an ONNX file")]
    if runtime not in installed.opaque:
        what = f"it was exported for {runtime!r}, whose exports can't be read back"
        return [Mistake(ARTIFACT, what, INSTEAD)]
    return list(_OpaqueModel(runtime, tree, data, installed).mistakes()) if installed.opaque[runtime] else []


def _folder(written: Any, root: Path) -> Path | None:
    try:
        path = (root / written).resolve() if isinstance(written, str) else None
        return path if path and path.is_relative_to(root.resolve()) and path.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None  # which is reported where paths are checked


def _runtime_of(folder: Path) -> str | None:
    """Return the runtime that a model was exported for; None where the folder has no signature."""
    file = folder / SIGNATURE
    try:
        content = json.loads(file.read_bytes()) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    runtime = content.get("runtime", FIRST_RUNTIME) if isinstance(content, dict) else None
    return runtime if isinstance(runtime, str) else None


@dataclass(frozen=True)
class _OpaqueModel:
    """A spec whose model is a program that can only be called, and exported for its own runtime."""

    runtime: str
    tree: Tree
    data: dict[str, Any]
    installed: Vocabulary

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what can't be done with it."""
        if self.tree.train and self.tree.train.trains:
            what = f"a program that was exported for {self.runtime} can't be trained"
            yield Mistake(("train", "optimizer"), what, f"{INSTEAD}; or leave {TRAINING} out", key=True)
        serve = self.tree.serve or Serve()
        if serve.runtime != self.runtime:
            written = get(self.data, ("serve", "runtime")) is not None
            hint = f"write `serve: {{runtime: {self.runtime}}}`, or {INSTEAD}"
            yield Mistake(("serve", "runtime") if written else ARTIFACT, self._only(serve.runtime), hint)
        for name, variant in self._variants.items():
            yield from self._of_variant(name, variant)

    @property
    def _variants(self) -> Mapping[str, Variant]:
        return self.tree.compress.variants if self.tree.compress else {}

    def _of_variant(self, name: str, variant: Variant) -> Iterator[Mistake]:
        at: SpecPath = ("compress", "variants", name)
        for number, recipe in enumerate(variant.recipes):
            is_opaque = self._is_opaque(recipe.start or variant.source or TRAINED)
            for method in recipe.methods:
                if is_opaque and self._looks_inside(method):
                    what = f"`{method[0]}` looks inside of its model, and one exported for {self.runtime} can only "
                    hint = f"{INSTEAD}; or distil it into a model with code, and go on from that"
                    place = (*at, "search", "over", number) if variant.search else self._place_of(at, method)
                    yield Mistake(place, f"{what}be called", hint, key=not variant.search)
                is_opaque = is_opaque and not self._names_model(method)
        if variant.runtime not in (None, self.runtime) and self._is_opaque(name):
            yield Mistake((*at, "runtime"), self._only(str(variant.runtime)), INSTEAD)

    def _is_opaque(self, variant: str) -> bool:
        """Whether a variant is, or may be, still that program, or something around it."""
        if variant == TRAINED:
            return True
        section = self._variants[variant]
        return any(
            self._is_opaque(recipe.start or section.source or TRAINED)
            and not any(map(self._names_model, recipe.methods))
            for recipe in section.recipes
        )

    def _names_model(self, method: Method) -> bool:
        return bool(models_of(method, self.installed))

    def _looks_inside(self, method: Method) -> bool:
        """Whether an installed method's options say so; of another, that isn't known before it is imported."""
        name, options = method
        form = self.installed.methods.get(name)
        return form is not None and bool(getattr(form.model_validate(options), "looks_inside", False))

    def _place_of(self, at: SpecPath, method: Method) -> SpecPath:
        path = (*at, method[0])
        return path if get(self.data, path) is not None else (*at, "method", method[0])

    def _only(self, runtime: str) -> str:
        return f"a program that was exported for {self.runtime} can't be exported for {runtime}"
