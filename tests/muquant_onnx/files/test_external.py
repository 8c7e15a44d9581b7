"""Tensors whose place or size is not what a model says."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from muquant import InputError
from muquant_onnx import compress_onnx
from muquant_onnx.files.external import locate
from muquant_onnx.files.parse import parse

FLOAT = TensorProto.FLOAT
WEIGHT = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)


def model(*tensors: onnx.TensorProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, (5, 64))],
        [helper.make_tensor_value_info("y", FLOAT, (5, 64))],
        tensors or [numpy_helper.from_array(WEIGHT, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def compressed(folder: Path, destination: str = "small.onnx") -> Path:
    compress_onnx(folder / "model.onnx", folder / destination, check=False, flat=True)
    return folder / destination


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A model with all its tensors, large and small, in one file beside it."""
    bias = numpy_helper.from_array(np.zeros(3, np.float32), "unused")
    onnx.save(
        model(numpy_helper.from_array(WEIGHT, "w"), bias),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="data",
        size_threshold=0,
    )
    return tmp_path


def rewrite(folder: Path, key: str, value: str) -> None:
    proto = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("value", ["-1", "9" * 30, "9" * 6000, "x", "1.5", "0x10", " 0", "", "\u0663"])
@pytest.mark.parametrize("key", ["offset", "length"])
def test_places_are_plain_numbers_within_the_file(key: str, value: str, beside: Path) -> None:
    rewrite(beside, key, value)
    with pytest.raises(InputError, match=r"model\.onnx: the external data of w (should be|has no usable)"):
        compressed(beside)


@pytest.mark.parametrize("value", ["a\0b", "\0", "", ".", "n" * 5000])
def test_a_place_is_the_name_of_a_file(value: str, beside: Path) -> None:
    rewrite(beside, "location", value)
    with pytest.raises(InputError, match=r"model\.onnx: the external data of w "):
        compressed(beside)


def test_a_hard_link_is_refused(beside: Path) -> None:
    """What else is called so may be anyone's: it would become a part of a file that is passed on."""
    os.link(beside / "data", beside / "other")
    with pytest.raises(InputError, match=r"'data', a file of 2 names.*cp data copy && mv copy data"):
        compressed(beside)
    (beside / "other").unlink()
    compressed(beside)


@pytest.mark.parametrize("destination", ["data", "link", "folder/../data"])
def test_an_output_in_place_of_the_data_of_the_input_is_refused(destination: str, beside: Path) -> None:
    (beside / "folder").mkdir()
    (beside / "link").symlink_to("data")
    before = (beside / "data").read_bytes()
    with pytest.raises(InputError, match="it holds data of the model that is read; name another file"):
        compressed(beside, destination)
    assert (beside / "data").read_bytes() == before


def test_data_of_small_tensors_alone_are_a_part_of_the_input_too(tmp_path: Path) -> None:
    small = numpy_helper.from_array(np.zeros(3, np.float32), "small")
    small.raw_data, small.data_location = b"", TensorProto.EXTERNAL
    small.external_data.add(key="location", value="data")
    (tmp_path / "data").write_bytes(bytes(12))
    proto = model(numpy_helper.from_array(WEIGHT, "w"), small)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"cannot write .*data"):
        compressed(tmp_path, "data")


def test_a_model_may_be_written_over_itself(beside: Path) -> None:
    compressed(beside, "model.onnx")
    assert (beside / "data").exists()


def test_leftover_entries_of_external_data_mean_nothing(tmp_path: Path) -> None:
    """As for onnxruntime: where a tensor has bytes of its own and is not external, these count."""
    (tmp_path / "data").write_bytes(np.full((64, 64), 0.5, np.float32).tobytes())
    for count in (64 * 64, 16):  # bytes that stay in the file, and those that are part of the model
        shape = (count // 4, 4)
        tensor = numpy_helper.from_array(WEIGHT.reshape(-1)[:count].reshape(shape), "w")
        for key, value in (("location", "data"), ("offset", "0"), ("length", str(4 * count))):
            tensor.external_data.add(key=key, value=value)
        path = tmp_path / "model.onnx"
        path.write_bytes(model(tensor).SerializeToString())
        proto = parse(path)
        locate(proto, path)
        found = onnx.load_from_string(proto.SerializeToString()).graph.initializer[0]
        if found.data_location == TensorProto.EXTERNAL:
            entry = {item.key: item.value for item in found.external_data}
            assert Path(entry["location"]) == path.resolve()
        else:
            np.testing.assert_array_equal(
                numpy_helper.to_array(found).reshape(-1), WEIGHT.reshape(-1)[:count]
            )


def typed() -> list[onnx.TensorProto]:
    """A tensor of three values of each type, in the field of that type and as bytes."""
    tensors = [helper.make_tensor("texts", TensorProto.STRING, [3], [b"a", b"", b"c"])]  # type: ignore[list-item]
    for dtype in TensorProto.DataType.values():
        if dtype not in (TensorProto.UNDEFINED, TensorProto.STRING):
            tensor = helper.make_tensor("typed", dtype, [3], [1, 0, 1])
            tensors += [tensor, numpy_helper.from_array(numpy_helper.to_array(tensor), "raw")]
    return tensors


@pytest.mark.parametrize("tensor", typed(), ids=lambda tensor: f"{tensor.name}-{tensor.data_type}")
def test_a_tensor_is_as_large_as_its_shape(tensor: onnx.TensorProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model(tensor).SerializeToString())
    locate(parse(path), path)
    for dims in ([7], [1, 1, 9], [2**62, 2**62], [-3]):
        del tensor.dims[:]
        tensor.dims.extend(dims)
        path.write_bytes(model(tensor).SerializeToString())
        with pytest.raises(InputError, match=r"should hold .* found .*; export the model again"):
            locate(parse(path), path)


def test_a_value_of_two_names_is_refused(tmp_path: Path) -> None:
    """onnxruntime takes one or the other of two initializers, and other readers the last."""
    proto = model(numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(-WEIGHT, "w"))
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"model\.onnx has two values of the name 'w'"):
        compressed(tmp_path)


@pytest.mark.parametrize("number", [2**31 - 1, -1, 99])
def test_a_type_that_there_is_not_is_refused(number: int, tmp_path: Path) -> None:
    path, tensor = tmp_path / "model.onnx", numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.data_type = number
    path.write_bytes(model(tensor).SerializeToString())
    with pytest.raises(InputError, match=f"w is of the type {number}, which ONNX has not"):
        locate(parse(path), path)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path, tensor = tmp_path / "model.onnx", numpy_helper.from_array(WEIGHT, "weight")
    data = model(tensor).SerializeToString()
    assert b"weight" in data
    path.write_bytes(data.replace(b"weight", b"wei\xffht"))
    with pytest.raises(InputError, match=r"model\.onnx (has names that are not UTF-8|is not a whole)"):
        parse(path)


@pytest.mark.parametrize("what", ["product", "MatMul", "words", "graph", "batch", "transA", "producer"])
def test_words_that_are_not_utf_8_are_refused_in_one_line(what: str, tmp_path: Path) -> None:
    """Wherever a graph has words: protobuf reads them as bytes, and cannot write them."""
    weight = numpy_helper.from_array(np.ones((32, 32), np.float32), "weight")
    axes: list[str | int | None] = ["batch", 32]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["h"], name="product", doc_string="words"),
            helper.make_node("Gemm", ["h", "weight"], ["y"], transA=0),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, axes)],
        [weight],
    )
    made = helper.make_model(
        graph, producer_name="producer", opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    path, good = tmp_path / "model.onnx", made.SerializeToString()
    path.write_bytes(good.replace(what.encode(), what[:-1].encode() + b"\xff"))
    with pytest.raises(InputError) as refused:
        compress_onnx(path, tmp_path / "small.onnx", check=False, synthetic=False)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "small.onnx").exists()
