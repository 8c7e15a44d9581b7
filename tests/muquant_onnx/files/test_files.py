"""Files: external data in and out, whole or not at all, and memory for one weight at a time."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings, strategies as st
from onnx import TensorProto, helper, numpy_helper

import muquant_onnx.files.write as writer
from muquant_onnx import compress_onnx, decode_file, load_session
from muquant_onnx.files.check import check
from muquant_onnx.files.external import locate, tensors_of
from muquant_onnx.files.parse import parse
from muquant_onnx.files.wire import LARGE, attach, detach, is_external, range_of, total, write_pieces

FLOAT = TensorProto.FLOAT


def chain(size: int = 64, layers: int = 3) -> onnx.ModelProto:
    """Multiply by matrices, the last one in a branch, and add one that no layer computes with."""
    random = np.random.default_rng(0)
    tensors = {
        f"w{index}": random.standard_normal((size, size)).astype(np.float32) for index in range(layers)
    }
    tensors["offset"] = random.standard_normal((8, size)).astype(np.float32)
    info = helper.make_tensor_value_info
    branches = {
        name: helper.make_graph(
            [helper.make_node("Add", [f"h{layers}", name], [f"{name}_out"])],
            name,
            [],
            [info(f"{name}_out", FLOAT, (8, size))],
            [numpy_helper.from_array(random.standard_normal((8, size)).astype(np.float32), name)],
        )
        for name in ("then_branch", "else_branch")
    }
    nodes = [
        helper.make_node("MatMul", [f"h{index}", f"w{index}"], [f"h{index + 1}"]) for index in range(layers)
    ]
    nodes += [
        helper.make_node("If", ["yes"], ["branch"], **branches),
        helper.make_node("Add", ["branch", "offset"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    initializers.append(numpy_helper.from_array(np.array(True), "yes"))
    graph = helper.make_graph(
        nodes, "g", [info("h0", FLOAT, (8, size))], [info("y", FLOAT, (8, size))], initializers
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save_external(proto: onnx.ModelProto, path: Path) -> None:
    onnx.save(proto, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)


def test_external_data_makes_no_difference(tmp_path: Path) -> None:
    (tmp_path / "inline.onnx").write_bytes(chain().SerializeToString())
    save_external(chain(), tmp_path / "external.onnx")
    sizes = [
        compress_onnx(tmp_path / f"{kind}.onnx", tmp_path / f"{kind}-small.onnx").source_nbytes
        for kind in ("inline", "external")
    ]
    data = (tmp_path / "external.onnx.data").stat().st_size
    assert sizes[1] == (tmp_path / "external.onnx").stat().st_size + data
    inline, external = ((tmp_path / f"{kind}-small.onnx").read_bytes() for kind in ("inline", "external"))
    assert inline == external


def everywhere(size: int) -> onnx.ModelProto:
    """A chain with tensors in initializers, attributes, branches and a function."""
    proto = chain(size)
    moved = next(each for each in proto.graph.initializer if each.name == "w1")
    constant = helper.make_node("Constant", [], ["w1"], value=moved)
    proto.graph.initializer.remove(moved)
    inner = helper.make_node("Constant", [], ["k"], value=proto.graph.initializer[0])
    add = helper.make_node("MatMul", ["a", "k"], ["b"])
    proto.functions.append(
        helper.make_function("f", "F", ["a"], ["b"], [inner, add], [helper.make_opsetid("", 17)])
    )
    proto.opset_import.append(helper.make_opsetid("f", 1))
    proto.graph.node.insert(0, constant)
    proto.graph.node[-1].output[0] = "last"
    proto.graph.node.append(helper.make_node("F", ["last"], ["y"], domain="f"))
    return proto


ENTRIES = {"location": "other.data", "offset": "0", "length": "64"}


@pytest.mark.parametrize("entries", [{}, ENTRIES], ids=["no entries", "entries"])
@pytest.mark.parametrize("location", [None, TensorProto.DEFAULT], ids=["no location", "default"])
@pytest.mark.parametrize("size", [16, 256], ids=["small", "large"])
def test_a_tensor_with_its_own_bytes_is_not_external(
    size: int, location: Any, entries: dict[str, str], tmp_path: Path
) -> None:
    proto = everywhere(size)
    (tmp_path / "clean.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "other.data").write_bytes(bytes(4 * size**2))
    for tensor in tensors_of(proto):
        if location is not None:
            tensor.data_location = location
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    for name in ("clean", "model"):
        compress_onnx(tmp_path / f"{name}.onnx", tmp_path / f"{name}-small.onnx")
    assert (tmp_path / "model-small.onnx").read_bytes() == (tmp_path / "clean-small.onnx").read_bytes()


def test_a_model_with_external_data_may_be_loaded_and_saved_whole(tmp_path: Path) -> None:
    save_external(chain(), tmp_path / "external.onnx")
    whole = onnx.load(tmp_path / "external.onnx")
    assert whole.graph.initializer[0].HasField("data_location")
    onnx.save(whole, tmp_path / "whole.onnx")
    for name in ("external", "whole"):
        compress_onnx(tmp_path / f"{name}.onnx", tmp_path / f"{name}-small.onnx")
    assert (tmp_path / "whole-small.onnx").read_bytes() == (tmp_path / "external-small.onnx").read_bytes()


def test_negative_sizes_are_open_in_every_graph_and_type(tmp_path: Path) -> None:
    proto = chain()
    kind = helper.make_tensor_type_proto(FLOAT, [-1, 0, 5, "n"])
    for each in (
        kind,
        helper.make_sequence_type_proto(kind),
        helper.make_optional_type_proto(helper.make_sequence_type_proto(kind)),
        helper.make_map_type_proto(TensorProto.INT64, kind),
        helper.make_sparse_tensor_type_proto(FLOAT, [-7, 0, 5, "n"]),
    ):
        value = helper.make_value_info("v", each)
        branch = next(node for node in proto.graph.node if node.op_type == "If").attribute[0].g
        for graph in (proto.graph, branch):
            graph.value_info.append(value)
            graph.input.append(value)
            graph.output.append(value)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    again = parse(tmp_path / "model.onnx")
    whole = str(again)
    assert "dim_value: -" not in whole
    assert whole.count("dim {\n") == str(proto).count("dim {\n")
    assert whole.count("dim_value: 0\n") == 5 * 6
    assert whole.count('dim_param: "n"') == 5 * 6


LOCATION = bytes([14 << 3])
"""Key of a tensor's field data_location."""
ZEROS, EYE = np.zeros((64, 64), np.float32), np.eye(64, dtype=np.float32)


@pytest.mark.parametrize(
    ("tail", "external"),
    [
        (b"", False),
        (LOCATION + b"\1", True),
        (LOCATION + b"\1" + LOCATION + b"\0", False),
        (LOCATION + b"\0" + LOCATION + b"\1", True),
        (LOCATION + b"\1" + LOCATION + b"\2", True),  # 2 is no location
        (LOCATION + b"\x81\x80\x80\x80\x10", True),  # 2 ** 32 + 1, of which 32 bits count
    ],
    ids=["none", "external", "default last", "external last", "unknown last", "long"],
)
@pytest.mark.parametrize("kind", ["initializer", "constant", "merged constant"])
def test_bytes_of_a_tensor_that_has_two_kinds_are_those_onnxruntime_takes(
    kind: str, tail: bytes, external: bool, tmp_path: Path
) -> None:
    (tmp_path / "other.data").write_bytes(EYE.tobytes())
    tensor = numpy_helper.from_array(ZEROS, "w")
    for key, value in {**ENTRIES, "length": str(EYE.nbytes)}.items():
        tensor.external_data.add(key=key, value=value)
    parts = [tensor.SerializeToString(), tail]
    info = [helper.make_tensor_value_info(name, FLOAT, (5, 64)) for name in "xy"]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([product], "g", info[:1], info[1:])
    if kind == "initializer":
        last = field(5, b"".join(parts))
    else:  # node 1, attribute 5, tensor 5
        values = b"".join(map(partial(field, 5), parts if kind == "merged constant" else [b"".join(parts)]))
        attribute = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR).SerializeToString()
        node = helper.make_node("Constant", [], ["w"]).SerializeToString()
        del graph.node[:]
        last = field(1, node + field(5, attribute + values)) + field(1, product.SerializeToString())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString() + field(7, last))  # graphs are merged

    (found,) = tensors_of(read_proto(path))
    taken = b"".join(range_of(found).chunks()) if is_external(found) else found.raw_data
    x = np.arange(320, dtype=np.float32).reshape(5, 64)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x if external else 0 * x)
    assert taken == (EYE if external else ZEROS).tobytes()


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf encodes it."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def read_proto(path: Path) -> onnx.ModelProto:
    proto = parse(path)
    locate(proto, path)
    check(proto, path)
    return proto


def test_what_one_file_cannot_hold_is_written_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_external(chain(), tmp_path / "model.onnx")
    inline = compress_onnx(tmp_path / "model.onnx", tmp_path / "inline.onnx", layers="w1")
    assert inline.data_path is None
    monkeypatch.setattr(writer, "INLINE_LIMIT", 2**14)
    folder = tmp_path / "out"
    folder.mkdir()
    report = compress_onnx(tmp_path / "model.onnx", folder / "small.onnx", layers="w1")
    assert report.data_path is not None
    assert sorted(folder.iterdir()) == sorted([folder / "small.onnx", Path(report.data_path)])
    assert report.nbytes == sum(file.stat().st_size for file in folder.iterdir())
    locations = {
        entry.value
        for tensor in tensors_of(onnx.load(folder / "small.onnx", load_external_data=False))
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert locations == {Path(report.data_path).name}

    x = {"h0": np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)}
    found, expected = (
        load_session(tmp_path / name).run(None, x)[0] for name in ("out/small.onnx", "inline.onnx")
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        decode_file(folder / "small.onnx")["w1"], decode_file(tmp_path / "inline.onnx")["w1"]
    )


def test_data_of_another_version_stays_while_a_file_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "INLINE_LIMIT", 2**14)
    save_external(chain(), tmp_path / "model.onnx")
    paths = []
    for layers in ("w1", "w2", "w1"):
        written = compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", layers=layers)
        paths.append(Path(str(written.data_path)))
        if layers == "w2":
            assert not paths[0].exists()
            (tmp_path / "copy").write_bytes((tmp_path / "small.onnx").read_bytes())
    assert paths[0] == paths[2] != paths[1]
    assert paths[1].exists()
    assert paths[2].exists()
    for other in ("other.0123456789abcdef.data", "small.data", "small.0123456789abcde.data"):
        (tmp_path / other).write_bytes(b"x")
    orphan = tmp_path / "small.0123456789abcdef.data"
    orphan.write_bytes(b"x")
    compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", layers="w1")
    assert not orphan.exists()
    before = sorted(tmp_path.iterdir())

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "atomic_path", fail)
    with pytest.raises(KeyboardInterrupt):
        compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", layers="w0")
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_may_be_replaced_by_its_compressed_form(tmp_path: Path) -> None:
    save_external(chain(), tmp_path / "model.onnx")
    compress_onnx(tmp_path / "model.onnx", tmp_path / "other.onnx")
    compress_onnx(tmp_path / "model.onnx", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()


def test_a_link_to_a_model_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "blob").write_bytes(chain().SerializeToString())
    (tmp_path / "model.onnx").symlink_to(tmp_path / "real" / "blob")
    assert len(compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx").weights) == 3


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 3, LARGE // 4 - 1, LARGE // 4, 40000]), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_detached_and_attached_is_what_it_was(
    sizes: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random = np.random.default_rng(seed)
    tensors = [
        numpy_helper.from_array(random.standard_normal(size).astype(np.float32), f"t{index}")
        for index, size in enumerate(sizes)
    ]
    proto = chain(size=int(random.integers(1, 70)), layers=1)
    proto.graph.initializer.extend(tensors)
    proto.graph.node.append(helper.make_node("Constant", [], ["k"], value=tensors[-1]))
    function = helper.make_function(
        "f", "F", [], ["k"], [helper.make_node("Constant", [], ["k"], value=tensors[0])], []
    )
    proto.functions.append(function)
    whole = proto.SerializeToString()
    path = tmp_path_factory.mktemp("wire") / "model.onnx"
    path.write_bytes(whole)

    skeleton = onnx.ModelProto.FromString(detach(memoryview(whole), path.name))
    kept = [tensor.ByteSize() for tensor in tensors_of(skeleton)]
    assert max(kept) < LARGE + 100
    locate(skeleton, path)
    pieces = attach(skeleton.SerializeToString())
    again = path.with_name("again.onnx")
    with again.open("wb") as file:
        write_pieces(file, pieces)
    assert again.stat().st_size == total(pieces)
    assert onnx.ModelProto.FromString(again.read_bytes()) == proto


_PEAK = """
import json, pathlib, re, sys
import onnx, torch
from muquant_onnx import compress_onnx
options = {"observer": "absmax", "check": False, "flat": True}  # else the whole model is run
compress_onnx(sys.argv[1], sys.argv[3], **options)  # so that everything is imported and warm
status = pathlib.Path("/proc/self/status")
pathlib.Path("/proc/self/clear_refs").write_text("5")
def kilobytes(field): return int(re.search(field + r":\\s+(\\d+) kB", status.read_text())[1])
before = kilobytes("VmRSS")
report = compress_onnx(sys.argv[2], sys.argv[3], **options)
print(json.dumps([1024 * (kilobytes("VmHWM") - before), report.nbytes]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system keeps no high-water mark")
@pytest.mark.parametrize("kind", ["inline", "external", "no shape"])
def test_memory_is_that_of_one_weight(kind: str, tmp_path: Path) -> None:
    tiny, model = chain(16, 1), chain(2048, 5)
    for proto in (tiny, model) if kind == "no shape" else ():  # onnxruntime has to decide
        proto.graph.output[0].type.tensor_type.ClearField("shape")
    (tmp_path / "tiny.onnx").write_bytes(tiny.SerializeToString())
    path, layer = tmp_path / "model.onnx", 4 * 2048**2
    if kind == "external":
        save_external(model, path)
    else:
        path.write_bytes(model.SerializeToString())
    command = [
        sys.executable,
        "-c",
        _PEAK,
        str(tmp_path / "tiny.onnx"),
        str(path),
        str(tmp_path / "small.onnx"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, nbytes = json.loads(done.stdout)
    allowance = 16 * 2**20  # temporaries of a fixed size, and the allocator's slack
    assert peak < 1.3 * layer + nbytes + allowance < 3 * layer
