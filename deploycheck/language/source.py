"""Text to plain data with places: YAML 1.2 core, and nothing that builds objects.

PyYAML parses; what a scalar means is decided here, by the YAML 1.2 core schema: ``1e-3`` is a number, ``no`` a
string. Duplicate keys, tags, anchors and aliases, numbers that are not finite, and keys that are not strings
are refused, each at its place.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from deploycheck.language.errors import Place, SpecError, SpecErrors, SpecPath

MOST_BYTES = 1_000_000
DEEPEST = 50


class _Loader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
    """Composes nodes without resolving them: ``_scalar`` decides what a scalar means."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        """Return the one tag that every node gets; nobody reads it."""
        del kind, value, implicit
        return "?"


_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NESTED = re.compile(r"(?:[-?]\s+){8}")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls (C0, C1) but for tab and newline, separators of lines, controls of a text's direction, lone surrogates.

A terminal or an editor would show another text than the one that is read.
"""
_ESCAPED = re.compile(rf"{_CONTROL.pattern}|\r")
"""What no escape may mean: a carriage return too, which ends a line where it is not an escape."""
_FIRST_OF_NUMBER = frozenset("+-.0123456789")


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """One parsed file: its text and its plain data, equal to itself alone. ``file`` is the name that errors show.

    ``sha256`` is that of the file's bytes, where it was read from a file.
    """

    path: Path
    file: str
    lines: tuple[str, ...]
    data: dict[str, Any]
    text: str = field(repr=False)
    sha256: str = ""

    @functools.cached_property
    def root(self) -> yaml.MappingNode:
        """The node tree, which has each part's place; composed again only where a place is needed."""
        root: yaml.MappingNode = _Loader(self.text).get_single_node()
        return root

    def place(self, path: SpecPath, *, key: bool = False) -> Place:
        """Return the place of the value at ``path``, or of its key; of the nearest enclosing part if it is not here."""
        return self._place(self._find(path, key=key)[0])

    def depth(self, path: SpecPath) -> int:
        """Return how many parts of ``path`` lead to something in this file."""
        return self._find(path, key=False)[1]

    def _find(self, path: SpecPath, *, key: bool) -> tuple[yaml.Node, int]:
        node: yaml.Node = self.root
        for depth, part in enumerate(path):
            at = _child(node, part)
            if at is None:
                return node, depth
            key_node, node = at
            if key and depth == len(path) - 1 and key_node is not None:
                return key_node, depth + 1
        return node, len(path)

    def _place(self, node: yaml.Node) -> Place:
        return _at(node.start_mark, self.file, self.lines)


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None


def _at(mark: Any, file: str, lines: tuple[str, ...]) -> Place:
    line = lines[mark.line] if mark.line < len(lines) else ""
    return Place(file, mark.line + 1, mark.column + 1, line)


def read_standard(path: Path, file: str) -> Document:
    """Read a file that many specs extend: it is parsed once for all of them, until it changes.

    The document is shared: don't change it.
    """
    try:
        facts = path.stat()
    except OSError:
        return read(path, file)
    return _read_once(path, file, (facts.st_mtime_ns, facts.st_size, facts.st_ino))


@functools.lru_cache(maxsize=64)
def _read_once(path: Path, file: str, version: tuple[int, ...]) -> Document:
    del version
    return read(path, file)


def read(path: Path, file: str) -> Document:
    """Read and parse one file; raise ``SpecErrors`` with every mistake that parsing can find."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecErrors([SpecError(f"can't be read: {error.strerror}", Place(file, 1, 1))]) from error
    if len(raw) > MOST_BYTES:
        raise SpecErrors([SpecError(f"is larger than {MOST_BYTES:,} bytes", Place(file, 1, 1))])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpecErrors([SpecError("is not UTF-8", Place(file, line, 1))]) from error
    return replace(parse(text, path, file), sha256=hashlib.sha256(raw).hexdigest())


def parse(text: str, path: Path, file: str) -> Document:
    """Parse a spec's text; raise ``SpecErrors`` with every mistake that parsing can find."""
    lines = tuple(text.splitlines())
    control = _CONTROL.search(text)
    if control:
        before = text[: control.start()]
        line, column = before.count("\n") + 1, control.start() - before.rfind("\n")
        place = Place(file, line, column, "")
        raise SpecErrors([_refuse_control(control[0], place)])
    try:
        errors = list(_refused_syntax(text, file, lines))
        root = None if errors else _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _at(mark, file, lines) if mark else Place(file, 1, 1)
        raise SpecErrors([SpecError(f"not YAML: {error.problem or error}", place, _yaml_hint(place))]) from error
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        raise SpecErrors([SpecError(f"not YAML: {first}", Place(file, 1, 1))]) from error
    except RecursionError as error:
        raise SpecErrors([SpecError("is nested too deeply", Place(file, 1, 1))]) from error
    if errors:
        raise SpecErrors(errors)
    if not isinstance(root, yaml.MappingNode):
        raise SpecErrors([SpecError("a spec is a mapping of sections", Place(file, 1, 1, lines[0] if lines else ""))])
    data = _plain(root, 0, errors, file, lines)
    if errors:
        raise SpecErrors(errors)
    return Document(path=path, file=file, lines=lines, data=data, text=text)


@dataclass(frozen=True)
class Key:
    """A key of a mapping: how many collections it is in, and its value if that is a scalar, else nothing."""

    name: str
    depth: int
    value: str | None


def mapping_keys(text: str) -> Iterator[Key]:
    """Yield the keys of every mapping of a text, of all its documents, as far as it is YAML; then raise ``YAMLError``.

    Nothing is composed, so neither tags nor aliases matter.
    """
    counts: list[int] = []  # of each open collection: the nodes in it so far; -1 in a sequence
    pending: tuple[str, int] | None = None
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            counts.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        scalar = event.value if isinstance(event, yaml.ScalarEvent) else None
        if pending is not None:
            yield Key(*pending, scalar)
            pending = None
        if counts and counts[-1] >= 0:
            if counts[-1] % 2 == 0 and scalar is not None:
                pending = (scalar, len(counts))
            counts[-1] += 1
        if isinstance(event, yaml.CollectionStartEvent):
            counts.append(0 if isinstance(event, yaml.MappingStartEvent) else -1)


def _yaml_hint(place: Place) -> str:
    """Return what is usually meant by a line that isn't YAML."""
    indentation = place.text[: len(place.text) - len(place.text.lstrip())]
    if "\t" in indentation:
        return "indent with spaces: YAML has no tabs there"
    if re.search(r":\s*>", place.text):
        return "put the threshold in quotes: a bare > begins a block of text"
    if ": " in place.text.strip()[:-1].partition(": ")[2]:
        return "quote a text that contains ': '"
    return "check that it is indented as the lines around it, and quote a text that starts with a special character"


def _refused_syntax(text: str, file: str, lines: tuple[str, ...]) -> Iterator[SpecError]:
    """Yield an error for each alias, anchor and tag, and for nesting that is too deep for the composer.

    Searched event by event, before any alias is expanded, and only if the text contains their characters.
    """
    deep = any(len(line) - len(line.lstrip(" ")) > DEEPEST or _NESTED.search(line) for line in lines)
    if not (deep or any(sign in text for sign in "&*!") or text.count("[") + text.count("{") > DEEPEST):
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        place = _at(event.start_mark, file, lines)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            yield SpecError("anchors and aliases are not part of the language", place, "use `extends` or `matrix`")
        elif (tag := getattr(event, "tag", None)) and tag != "!":
            yield SpecError(f"the tag {tag} is not part of the language", place, "write the plain value")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                yield SpecError(f"nested more than {DEEPEST} deep", place)
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refuse_control(character: str, place: Place) -> SpecError:
    return SpecError(f"the character {character!r} can't be part of a text", place, "remove it")


def _find_escaped(node: yaml.ScalarNode, file: str, lines: tuple[str, ...]) -> Iterator[SpecError]:
    """Yield an error for a text with a control character that is written as an escape, such as ``\\x1b``."""
    control = _ESCAPED.search(node.value) if node.style == '"' else None
    if control:
        yield _refuse_control(control[0], _at(node.start_mark, file, lines))


def _plain(node: yaml.Node, depth: int, errors: list[SpecError], file: str, lines: tuple[str, ...]) -> Any:
    """Return a node as plain data, adding what is refused to ``errors``."""
    if isinstance(node, yaml.ScalarNode):
        if node.style:
            errors.extend(_find_escaped(node, file, lines))
            return node.value
        value = _scalar(node.value)
        if isinstance(value, float) and not math.isfinite(value):
            errors.append(SpecError(f"{node.value} is not a finite number", _at(node.start_mark, file, lines)))
        return value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, depth + 1, errors, file, lines) for item in node.value]
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if isinstance(key_node, yaml.ScalarNode):
            errors.extend(_find_escaped(key_node, file, lines))
        if key is None or (not key_node.style and not isinstance(_scalar(key), str)):
            place = _at(key_node.start_mark, file, lines)
            errors.append(SpecError("a key must be a string", place, "put it in quotes to make it a string"))
        elif key in mapping:
            errors.append(SpecError(f"duplicate key {key!r}", _at(key_node.start_mark, file, lines)))
        else:
            mapping[key] = _plain(value_node, depth + 1, errors, file, lines)
    return mapping


def _scalar(text: str) -> Any:
    """Return what an unquoted scalar means in the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _FIRST_OF_NUMBER:
        return text
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        digits = text[2:] if base != 10 else text
        return int(digits, base) if len(digits) <= 400 else math.inf
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return math.nan
    return text
