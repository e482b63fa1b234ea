"""Files of ONNX: what is read of them, and what is said of those that are damaged, hostile or out of reach."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.evaluate import evaluate
from deploycheck.stages.onnx.file import files_of, graph_of, read_graph
from tests.stages.onnx.comparing import check_model, floats

TEXT = """
    <ir_version: 10, opset_import: ["": 21]>
    net (float[N, 4] x) => (float[N, 3] y) <float[4, 3] w> { h = MatMul(x, w)  y = Relu(h) }"""


def model(text: str = TEXT, **tensors: np.ndarray) -> onnx.ModelProto:
    """Return the model of a text, with its tensors, ``w`` by default."""
    proto = parser.parse_model(text)
    del proto.graph.initializer[:]
    for name, array in (tensors or {"w": floats(4, 3)}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(model(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_a_file_is_nodes_and_tensors(path: Path) -> None:
    graph = read_graph(path)
    assert [node.op for node in graph.nodes] == ["MatMul", "Relu"]
    assert [(each.name, each.shape) for each in graph.inputs] == [("x", (None, 4))]
    np.testing.assert_array_equal(graph.held["w"], floats(4, 3))


@pytest.mark.parametrize("keep", [0, 10, 60, 100, -3, -1])
def test_a_truncated_file_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DeploycheckError, match="it can't be read as an ONNX file"):
        read_graph(path)


def test_every_byte_of_a_file_may_be_wrong(path: Path) -> None:
    """Whatever is damaged, the error is one that a user can act on."""
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        try:
            read_graph(path)
        except DeploycheckError:
            refused += 1
    assert refused > 20


def test_a_file_of_another_kind_is_refused(path: Path) -> None:
    for content in (b"PK\x03\x04 not ONNX", b"\x00" * 64, b"{}"):
        path.write_bytes(content)
        with pytest.raises(DeploycheckError, match="it can't be read as an ONNX file"):
            read_graph(path)
    with pytest.raises(DeploycheckError, match="No such file"):
        read_graph(path.parent / "none.onnx")


def external(path: Path, location: str, **entries: str) -> None:
    """Write a model whose tensor says that its numbers are in another file."""
    proto = model()
    (tensor,) = proto.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())


def test_numbers_may_be_in_a_file_beside_it(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(b"....." + floats(4, 3).tobytes())
    external(path, "w.bin", offset="5", length="48")
    np.testing.assert_array_equal(read_graph(path).held["w"], floats(4, 3))
    assert files_of(path) == [path, path.parent / "w.bin"]


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "deep/../../outside.bin", "link.bin"])
def test_numbers_outside_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(floats(4, 3).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    external(folder / "net.onnx", location)
    with pytest.raises(DeploycheckError, match=f"its file {re.escape(location)} is outside of its folder"):
        read_graph(folder / "net.onnx")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "none.bin"}, "its file none.bin is missing"),
        ({"location": "w.bin", "length": "4000"}, "can't be read"),
        ({"location": "w.bin", "offset": "-8"}, "can't be read"),
        ({"location": "w.bin", "offset": "many"}, "can't be read"),
        ({"location": "w.bin", "offset": str(2**62)}, "can't be read"),
        ({"location": "w.bin", "length": "40"}, "can't be read"),
    ],
)
def test_numbers_that_are_not_there_are_refused(path: Path, entries: dict[str, str], says: str) -> None:
    (path.parent / "w.bin").write_bytes(floats(4, 3).tobytes())
    external(path, **entries)
    with pytest.raises(DeploycheckError, match=says):
        read_graph(path)


def test_all_operators_that_are_not_known_are_named(path: Path) -> None:
    text = """
        <ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        net (float[N, 4] x) => (float[N, 4] y) {
            a = com.microsoft.FastGelu(x)
            b = NonMaxSuppression(a, a)
            c = com.microsoft.FastGelu(a)
            y = Relu(c)
        }"""
    path.write_bytes(parser.parse_model(text).SerializeToString())
    with pytest.raises(DeploycheckError) as refused:
        read_graph(path)
    assert refused.value.what == ("it has operators that aren't supported: NonMaxSuppression, com.microsoft.FastGelu")


def test_a_function_of_the_file_is_evaluated() -> None:
    text = """
        <ir_version: 10, opset_import: ["": 21, "own": 1]>
        net (float[N, 4] x) => (float[N, 4] y) { h = own.twice<times = 3.0>(x)  y = own.twice<times = 2.0>(h) }
        <domain: "own", opset_import: ["": 21]>
        twice <times> (a) => (b) { factor = Constant<value_float: float = @times>()  b = Mul(a, factor) }"""
    check_model(parser.parse_model(text), {"x": floats(2, 4)}, rtol=1e-6)


def test_an_older_file_is_converted() -> None:
    text = TEXT.replace("21", "9").replace("h = MatMul(x, w)", "h0 = MatMul(x, w)  h = Softmax(h0)")
    check_model(model(text), {"x": floats(2, 4)}, rtol=1e-6)


def test_constants_are_tensors_of_the_file() -> None:
    text = """
        <ir_version: 10, opset_import: ["": 21]>
        net (float[N, 4] x) => (float[N, 4] y) {
            a = Constant<value = float[4] {1, 2, 3, 4}>()
            b = Constant<value_float = 2.0>()
            c = Constant<value_ints = [0, -1]>()
            d = Add(x, a)
            e = Mul(d, b)
            y = Reshape(e, c)
        }"""
    graph = graph_of(parser.parse_model(text))
    assert {name: array.shape for name, array in graph.held.items()} == {"a": (4,), "b": (), "c": (2,)}
    check_model(parser.parse_model(text), {"x": floats(2, 4)}, rtol=1e-6)


def test_a_sparse_tensor_is_read_with_its_zeros() -> None:
    proto = model()
    del proto.graph.initializer[:]
    values = numpy_helper.from_array(np.array([2, 3], np.float32), "w")
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 11]), "i"), [4, 3])
    )
    wanted = np.zeros((4, 3), np.float32)
    wanted[0, 1], wanted[3, 2] = 2, 3
    np.testing.assert_array_equal(graph_of(proto).held["w"], wanted)


BRANCH = """
    <ir_version: 10, opset_import: ["": 21]>
    net (float[N, 4] x, bool c) => (float[N, 4] y) {
        y = If (c) <
            then_branch = one () => (float[N, 4] a) { a = Relu(x) },
            else_branch = two () => (float[N, 4] b) { b = Neg(x) }
        >
    }"""
LOOP = """
    <ir_version: 10, opset_import: ["": 21]>
    net (float[N, 4] x) => (y, all) {
        most = Constant<value = int64 {3}>()
        goes = Constant<value = bool {1}>()
        y, all = Loop (most, goes, x) <
            body = turn (int64 i, bool g, float[N, 4] s) => (bool g1, float[N, 4] s1, float[N, 4] o) {
                g1 = Identity(g)
                f = Cast<to = 1>(i)
                s1 = Add(s, f)
                o = Mul(s1, x)
            }
        >
    }"""
SCAN = """
    <ir_version: 10, opset_import: ["": 21]>
    net (float[5, 4] x, float[4] first) => (last, all) {
        last, all = Scan (first, x) <
            num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1],
            body = turn (float[4] s, float[4] e) => (float[4] s1, float[4] o) { s1 = Add(s, e)  o = Relu(s1) }
        >
    }"""


def test_branches_and_loops() -> None:
    for taken in (True, False):
        check_model(parser.parse_model(BRANCH), {"x": floats(2, 4), "c": np.array(taken)}, rtol=1e-6)
    check_model(parser.parse_model(LOOP), {"x": floats(2, 4)}, rtol=1e-6)
    check_model(parser.parse_model(SCAN), {"x": floats(5, 4), "first": floats(4, seed=1)}, rtol=1e-6)


UNTIL = """
    <ir_version: 10, opset_import: ["": 21]>
    net (float[N, 4] x, float limit) => (y) {
        goes = Constant<value = bool {1}>()
        y = Loop (MOST, goes, x) <
            body = turn (int64 i, bool g, float[N, 4] s) => (bool g1, float[N, 4] s1) {
                s1 = Add(s, s)
                all = ReduceMax<keepdims = 0>(s1)
                g1 = Less(all, limit)
            }
        >
    }"""


def test_a_loop_that_ends_when_its_condition_does() -> None:
    most = "most = Constant<value = int64 {2}>()\n        goes"
    for text in (UNTIL.replace("MOST", ""), UNTIL.replace("MOST", "most").replace("goes", most, 1)):
        for limit in (0.0, 1.5, 40.0):
            inputs = {"x": np.abs(floats(2, 4)) + 0.1, "limit": np.float32(limit)}
            check_model(parser.parse_model(text), {name: np.asarray(each) for name, each in inputs.items()}, rtol=1e-6)


def test_a_loop_that_may_end_early_collects_nothing() -> None:
    text = LOOP.replace("g1 = Identity(g)", "h = Cast<to = 1>(i)  g1 = IsNaN(h)")
    with pytest.raises(DeploycheckError, match="a loop that may end early can't collect what its turns give"):
        evaluate(graph_of(parser.parse_model(text)), {"x": floats(2, 4)})
