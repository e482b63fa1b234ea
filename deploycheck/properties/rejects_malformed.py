"""``rejects_malformed``: a request that is wrong gets a 4xx, or the right answer; never a 5xx, and never none in time.

Each case is a right request with one thing changed: a part of its JSON, its text, its binary part, or its HTTP.
No change makes another right request of it, so that a 200 must have the answer to the request without the change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deploycheck.language.fields import Seconds
from deploycheck.lazy import np
from deploycheck.properties.domain import Domain
from deploycheck.properties.outputs import difference
from deploycheck.properties.property import Property
from deploycheck.properties.settings import PropertySettings

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from deploycheck.properties.served import Reply, Served

DEEPEST = 20
"""How deep lists are nested: how long a server takes for thousands is another question."""
MOST_NUMBERS = 3
"""How many of an input's numbers are changed in turn; the others are like them."""
MOST_SHOWN = 300
HEADER_LENGTH = "Inference-Header-Content-Length"
TOLERANCE = 1e-4

Path = tuple[str | int, ...]


class MalformedSettings(PropertySettings):
    """``deadline``: how long the server may take for an answer."""

    deadline: Seconds = 5.0


@dataclass(frozen=True)
class Malformed:
    """A request with one thing changed; ``what`` says which.

    ``path`` is that of the model's ``infer`` by default. If it ``ends`` early, our side of the connection is closed
    after it, and the server may close its own without an answer. ``plain`` are the inputs of the request without the
    change.
    """

    what: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"
    path: str = "/v2/models/{model}/infer"
    ends: bool = False
    plain: Any = field(default=None, repr=False, compare=False)

    def request(self, model: str) -> bytes:
        """Return the request's bytes for a model of this name."""
        given = {name.lower() for name, _ in self.headers}
        defaults = {"Host": "localhost", "Content-Length": str(len(self.body)), "Connection": "close"}
        lines = [f"{self.method} {self.path.format(model=model)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in defaults.items() if name.lower() not in given]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join((*lines, "", "")).encode("latin-1") + self.body

    def __str__(self) -> str:
        headers = "".join(f"; {name}: {value}" for name, value in self.headers)
        shown = self.body[:MOST_SHOWN] + (b"..." if len(self.body) > MOST_SHOWN else b"")
        return f"{self.method} {self.path}, {self.what}{headers}; body {shown!r}"


def _datatype(dtype: np.dtype[Any]) -> str:
    kinds = {"b": "BOOL", "f": f"FP{8 * dtype.itemsize}", "i": f"INT{8 * dtype.itemsize}"}
    return kinds.get(dtype.kind, f"UINT{8 * dtype.itemsize}")


def _content(inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return a right request for one example, as JSON."""
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _datatype(array.dtype),
            "data": array.ravel().tolist(),
        }
        for name, array in inputs.items()
    ]
    return {"id": "1", "inputs": tensors, "outputs": []}


def _paths(content: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the path of each part; of the numbers of an input only the first few."""
    parts: Iterable[tuple[str | int, Any]] = ()
    if isinstance(content, dict):
        parts = content.items()
    elif isinstance(content, list):
        parts = enumerate(content[:MOST_NUMBERS])
    for key, part in parts:
        yield (*at, key)
        yield from _paths(part, (*at, key))


def _changed(content: Any, path: Path, change: Callable[[Any, Any], None]) -> Any:
    """Return a copy of the content, changed at a path: ``change(parent, key)``."""
    copied = json.loads(json.dumps(content))
    parent = copied
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return copied


def _nested(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


MISSING: tuple[Any, ...] = (None, float("nan"))
"""How a missing value is written; in place of a number a model may take it."""
JUNK: tuple[Any, ...] = (*MISSING, "", "x", {}, [], {"a": []}, _nested(DEEPEST), float("inf"), "\ud800", "\0")
NUMBERS: tuple[Any, ...] = (True, 0, -1, 1.5, 2**31, 2**63, 10**400, -(2**70))


def _json_cases(content: dict[str, Any], inputs: Any, takes_missing: Collection[str]) -> SearchStrategy[Malformed]:
    from hypothesis import strategies as st

    def case(what: str, changed: Any) -> Malformed:
        body = json.dumps(changed).encode("utf-8", "surrogatepass")
        return Malformed(what, body, plain=inputs)

    def put(path: Path, junk: Any) -> Malformed:
        def change(parent: Any, key: str | int) -> None:
            parent[key] = junk

        return case(f"{_dotted(path)} is {json.dumps(junk)[:60]}", _changed(content, path, change))

    def drop(path: Path) -> Malformed:
        def change(parent: Any, key: str | int) -> None:
            del parent[key]

        return case(f"{_dotted(path)} is missing", _changed(content, path, change))

    def twice(path: Path) -> Malformed:
        def change(parent: Any, key: Any) -> None:
            part = parent[key]
            if isinstance(parent, list):
                parent.append(part)
            else:
                parent["unknown"] = part

        return case(f"{_dotted(path)} is there twice", _changed(content, path, change))

    paths = list(_paths(content))
    numbers = [path for path in paths if "data" in path[:-1]]
    others = [path for path in paths if path not in numbers]
    in_numbers = [
        (path, junk)
        for path in numbers
        for junk in JUNK
        if not (junk in MISSING and content["inputs"][path[1]]["name"] in takes_missing)
    ]
    wholes = [junk for junk in (*JUNK, *NUMBERS) if junk != []]
    return st.one_of(
        st.builds(put, st.sampled_from(others), st.sampled_from(wholes)),
        *([st.sampled_from(in_numbers).map(lambda each: put(*each))] if in_numbers else []),
        st.builds(drop, st.sampled_from(paths)),
        st.builds(twice, st.sampled_from(paths)),
        st.sampled_from([case(f"the body is {json.dumps(junk)[:60]}", junk) for junk in (*JUNK, *NUMBERS)]),
    )


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _text_cases(body: bytes, inputs: Any) -> SearchStrategy[Malformed]:
    from hypothesis import strategies as st

    def cut(length: int) -> Malformed:
        return Malformed(f"the body is cut after {length} bytes", body[:length], plain=inputs)

    def insert(at: int, junk: bytes) -> Malformed:
        return Malformed(f"{junk!r} is inserted at byte {at}", body[:at] + junk + body[at:], plain=inputs)

    junk = (b"\xff", b"\x00", b"{", b"]", b"\xed\xa0\x80", b"\xc0\xaf")
    encodings = ("utf-16", "utf-8-sig", "utf-32")
    return st.one_of(
        st.builds(cut, st.integers(0, len(body) - 1)),
        st.builds(insert, st.integers(0, len(body)), st.sampled_from(junk)),
        st.sampled_from(
            [Malformed(f"the body is in {name}", body.decode().encode(name), plain=inputs) for name in encodings]
        ),
    )


def _binary_cases(content: dict[str, Any], inputs: dict[str, np.ndarray]) -> SearchStrategy[Malformed]:
    from hypothesis import strategies as st

    arrays = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for array in inputs.values()]
    tail = b"".join(array.tobytes() for array in arrays)
    tensors = [
        {**tensor, "parameters": {"binary_data_size": array.nbytes}}
        for tensor, array in zip(content["inputs"], arrays, strict=True)
    ]
    for tensor in tensors:
        del tensor["data"]

    def case(what: str, first: Any = None, rest: bytes = tail, length: str | None = None) -> Malformed:
        size = tensors[0]["parameters"] if first is None else {"binary_data_size": first}
        head = json.dumps({**content, "inputs": [{**tensors[0], "parameters": size}, *tensors[1:]]}).encode()
        headers = ((HEADER_LENGTH, str(len(head)) if length is None else length.format(len(head), len(head) + 1)),)
        return Malformed(what, head + rest, headers, plain=inputs)

    lengths = ("", "x", "-1", "0", "1", "{1}", "1e3", "{0}.0", "+{0}", "0x10", "9" * 30, "{0}, {0}")
    sizes: tuple[Any, ...] = (0, -1, 1, True, 1.5, "4", [], {}, 2**31, 2**63, 10**30)
    return st.one_of(
        st.sampled_from([case(f"{HEADER_LENGTH} is wrong", length=length) for length in lengths]),
        st.sampled_from([case(f"binary_data_size is {size}", size) for size in sizes]),
        st.builds(lambda by: case(f"{by} bytes are missing", rest=tail[: len(tail) - by]), st.integers(1, len(tail))),
        st.builds(lambda by: case(f"{by} bytes too many", rest=tail + b"\0" * by), st.integers(1, 64)),
    )


def _http_cases(body: bytes, inputs: Any) -> SearchStrategy[Malformed]:
    from hypothesis import strategies as st

    def case(what: str, **changed: Any) -> Malformed:
        return Malformed(what, **{"body": body, "plain": inputs, **changed})

    length = len(body)
    methods = [case("another method", method=method) for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW")]
    places = (
        "/v2/models/other/infer",
        "/v2/models/%00/infer",
        "/v2/models/{model}/versions/99/infer",
        "/" + "a" * 5000,
    )
    paths = [case("another path", path=path) for path in (*places, "/v2/models/{model}/infer/../x", "/%ff%fe", "//")]
    lengths = [
        case("Content-Length is too small", headers=(("Content-Length", str(size)),)) for size in (0, 1, length - 1)
    ]
    lengths += [
        case("Content-Length is not a size", headers=(("Content-Length", size),)) for size in ("-1", "x", "1e3")
    ]
    early = case("Content-Length is too large", headers=(("Content-Length", str(length + 7)),), ends=True)
    huge = case("Content-Length is huge", headers=(("Content-Length", "9" * 15),))
    encodings = [
        case("Content-Encoding of a body that isn't compressed", headers=(("Content-Encoding", name),))
        for name in ("gzip", "br", "x")
    ]
    kinds = [case("another type", headers=(("Content-Type", name),)) for name in ("text/html", "", "x" * 5000)]
    chunks = case(
        "a chunk size that is not a number", headers=(("Transfer-Encoding", "chunked"),), body=b"zz\r\n" + body
    )
    return st.sampled_from([*methods, *paths, *lengths, early, huge, *encodings, *kinds, chunks])


def _cases(domain: Domain, settings: MalformedSettings) -> SearchStrategy[Malformed]:
    from hypothesis import strategies as st

    del settings
    inputs = {name: each.at(np.full(each.low.shape, 0.5))[None] for name, each in domain.inputs.items()}
    content = _content(inputs)
    body = json.dumps(content).encode()
    kinds = [_binary_cases(content, inputs), _http_cases(body, inputs)]
    if all(array.dtype != np.float16 for array in inputs.values()):  # which JSON can't carry
        takes_missing = [name for name, each in domain.inputs.items() if each.takes_missing]
        kinds = [_json_cases(content, inputs, takes_missing), _text_cases(body, inputs), *kinds]
    return st.one_of(kinds)


def _check(served: Served, case: Malformed, settings: MalformedSettings) -> str:
    reply = served.exchange(case.request(served.model), settings.deadline, ends=case.ends)
    if reply is None:
        return "" if case.ends else "the server closed the connection without an answer"
    if 400 <= reply.status < 500:
        return ""
    if reply.status != 200:
        return f"the server answered {reply.status}: {reply.body[:200].decode(errors='replace')}"
    try:
        outputs = _outputs(reply)
    except (ValueError, KeyError, TypeError) as error:
        return f"the server answered 200 and a body that is not an answer ({type(error).__name__})"
    plain = served.predict(case.plain)
    wrong = (
        difference(outputs, plain, TOLERANCE, "without the change")
        if outputs.keys() == plain.keys()
        else "other outputs"
    )
    return wrong and f"the server answered 200, and wrongly: {wrong}"


def _outputs(reply: Reply) -> dict[str, np.ndarray]:
    content = json.loads(reply.body)
    return {each["name"]: np.asarray(each["data"]).reshape(each["shape"]) for each in content["outputs"]}


REJECTS_MALFORMED = Property(
    name="rejects_malformed",
    check=_check,
    settings=MalformedSettings,
    cases=_cases,
    stages=frozenset({"serve"}),
)
