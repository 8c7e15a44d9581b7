"""Models that are links, as in the cache of Hugging Face: where their external data may lie."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import muquant_onnx.files.write as writer
from muquant import InputError
from muquant_onnx import compress_onnx, decode_file, load_session

WEIGHT = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
X = np.eye(256, dtype=np.float32)


def save(path: Path) -> None:
    info = helper.make_tensor_value_info
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [product],
        "g",
        [info("x", TensorProto.FLOAT, ["n", 256])],
        [info("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}_data", size_threshold=0)


def lay_out(layout: str, model: Path, data: Path, root: Path) -> Path:
    """Put a model and its data into `root` with links, and return the link to the model."""
    link = root / "snapshots" / "revision" / model.name
    link.parent.mkdir(parents=True)
    (root / "blobs").mkdir()
    model.rename(root / "blobs" / "aaa")
    link.symlink_to("../../blobs/aaa")
    if layout == "beside the link":
        data.rename(link.with_name(data.name))
    elif layout == "beside its target":
        data.rename(root / "blobs" / data.name)
    else:
        data.rename(root / "blobs" / "bbb")
        link.with_name(data.name).symlink_to("../../blobs/bbb")
    return link


@pytest.mark.parametrize("layout", ["Hugging Face", "beside the link", "beside its target"])
def test_a_link_finds_its_data(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "model.onnx")
    source = lay_out(layout, tmp_path / "model.onnx", tmp_path / "model.onnx_data", tmp_path / "float")
    monkeypatch.setattr(writer, "INLINE_LIMIT", 3000)
    report = compress_onnx(source, tmp_path / "small.onnx")
    assert report.source_nbytes == source.stat().st_size + WEIGHT.nbytes
    assert report.data_path is not None
    decoded = decode_file(tmp_path / "small.onnx")["w"]
    small = lay_out(layout, tmp_path / "small.onnx", Path(report.data_path), tmp_path / "compressed")
    np.testing.assert_array_equal(decode_file(small)["w"], decoded)
    for policy, cache in ((None, None), ("float", None), ("packed", None), ("float", tmp_path / "cache")):
        session = load_session(small, "unoptimized", policy=policy, cache=cache)
        np.testing.assert_allclose(session.run(None, {"x": X})[0], decoded, atol=1e-6)


@pytest.mark.parametrize("place", ["snapshots/revision", "blobs"])
def test_nothing_else_is_found(place: str, tmp_path: Path) -> None:
    save(tmp_path / "model.onnx")
    data = tmp_path / "model.onnx_data"
    source = lay_out("beside the link", tmp_path / "model.onnx", data, tmp_path / "cache")
    elsewhere = tmp_path / "cache" / "weights"
    source.with_name(data.name).rename(elsewhere)
    (tmp_path / "cache" / place / data.name).symlink_to(elsewhere)
    for call in (
        lambda: compress_onnx(source, tmp_path / "small.onnx"),
        lambda: load_session(source),
    ):
        with pytest.raises(InputError, match=r"a link out of the model's folder to .*weights|escapes model"):
            call()


def test_the_reader_in_numpy_looks_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "model.onnx")
    monkeypatch.setattr(writer, "INLINE_LIMIT", 3000)
    report = compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx")
    data = Path(str(report.data_path))
    (tmp_path / "other").mkdir()
    moved = data.rename(tmp_path / "other" / "data")
    folder = tmp_path / "model"
    folder.mkdir()
    small = (tmp_path / "small.onnx").rename(folder / "small.onnx")
    with pytest.raises(InputError, match=r"small.onnx: the external data of w.packed cannot be read"):
        decode_file(small)
    (folder / data.name).symlink_to(moved)
    with pytest.raises(InputError, match=r"w.packed is at .*, a link out of the model's folder"):
        decode_file(small)
    (folder / data.name).unlink()
    (folder / data.name).write_bytes(moved.read_bytes()[:100])
    with pytest.raises(InputError, match=r"w\.packed should be 6144 bytes"):
        decode_file(small)
