"""Optimised models that are kept, and everything that may be wrong with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import muquant as mq
from muquant import InputError
from muquant_onnx import export_onnx, load_session
from muquant_onnx.serving import serve, sessions

Array = NDArray[Any]
X = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)

pytestmark = pytest.mark.slow


def export(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 5))
    export_onnx(mq.compress(model), path, torch.from_numpy(X), "int8")
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("file") / "model.onnx")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir(mode=0o700)
    return tmp_path / "cache"


class Counting:
    """How often files were decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, whole = 0, serve.served_file

        def served_file(*arguments: Any) -> Any:
            self.count += 1
            return whole(*arguments)

        monkeypatch.setattr(sessions, "served_file", served_file)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def run(session: ort.InferenceSession) -> Array:
    result: Array = session.run(None, {session.get_inputs()[0].name: X})[0]
    return result


@pytest.mark.parametrize("policy", ["float", "int8", "auto", None])
def test_a_kept_model_computes_the_same(
    file: Path, cache: Path, decoded: Counting, policy: str | None
) -> None:
    first, second = (run(load_session(file, policy=policy, cache=cache)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, run(load_session(file, policy=policy)))
    assert decoded.count == (0 if policy is None else 2)  # without a cache, and the first time with one
    assert len(list(cache.iterdir())) == 1


def test_each_setting_and_policy_has_an_entry(file: Path, cache: Path, decoded: Counting) -> None:
    for _ in range(2):
        for setting in ("default", "accuracy-1"):
            for policy in ("float", "int8"):
                load_session(file, setting, policy=policy, cache=cache)
    assert decoded.count == len(list(cache.iterdir())) == 4


def test_another_file_under_the_same_name_has_another(
    file: Path, tmp_path: Path, cache: Path, decoded: Counting
) -> None:
    other, path, outputs = export(tmp_path / "other.onnx", seed=1), tmp_path / "m.onnx", []
    decoded.count = 0  # the export has tried its file
    for content in (file, other, file):
        shutil.copy(content, path)
        outputs.append(run(load_session(path, policy="float", cache=cache)))
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert not np.array_equal(outputs[0], outputs[1])
    assert decoded.count == 2


def test_another_version_of_onnxruntime_has_another(
    file: Path, cache: Path, decoded: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_session(file, policy="int8", cache=cache)
    monkeypatch.setattr(ort, "__version__", "99.0")
    load_session(file, policy="int8", cache=cache)
    assert decoded.count == 2


Damage = Callable[[Path], object]


def truncate(name: str) -> Damage:
    return lambda entry: (entry / name).write_bytes((entry / name).read_bytes()[:-100])


def flip(name: str) -> Damage:
    def damage(entry: Path) -> None:
        content = bytearray((entry / name).read_bytes())
        content[len(content) // 2] ^= 1
        (entry / name).write_bytes(content)

    return damage


def remove(name: str) -> Damage:
    return lambda entry: (entry / name).unlink()


def edit(**fields: object) -> Damage:
    def change(entry: Path) -> None:
        manifest = json.loads((entry / "manifest.json").read_text())
        (entry / "manifest.json").write_text(json.dumps(manifest | fields))

    return change


def of_nothing(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.mkdir()


DAMAGE: dict[str, Damage] = {
    "truncated weights": truncate("model.onnx.data"),
    "truncated model": truncate("model.onnx"),
    "truncated manifest": truncate("manifest.json"),
    "flipped weights": flip("model.onnx.data"),
    "flipped model": flip("model.onnx"),
    "no weights": remove("model.onnx.data"),
    "no manifest": remove("manifest.json"),
    "another key": edit(key={}),
    "files elsewhere": edit(files={"model.onnx": {}, "../../file": {"nbytes": 1, "crc32": 1}}),
    "no list of files": edit(files=3),
    "a model that is not listed": edit(files={}),
    "empty": of_nothing,
    "a manifest that is no object": lambda entry: (entry / "manifest.json").write_text("[]"),
    "a manifest that is no text": lambda entry: (entry / "manifest.json").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_made_again(file: Path, cache: Path, decoded: Counting, damage: Damage) -> None:
    expected = run(load_session(file, policy="int8", cache=cache))
    (entry,) = cache.iterdir()
    damage(entry)
    np.testing.assert_array_equal(run(load_session(file, policy="int8", cache=cache)), expected)
    assert decoded.count == 2
    np.testing.assert_array_equal(run(load_session(file, policy="int8", cache=cache)), expected)
    assert decoded.count == 2
    assert [entry] == list(cache.iterdir())


def test_a_listed_model_that_onnxruntime_cannot_load_is_made_again(
    file: Path, cache: Path, decoded: Counting
) -> None:
    import muquant_onnx.serving.cache as module

    load_session(file, policy="int8", cache=cache)
    (entry,) = cache.iterdir()
    (entry / "model.onnx").write_bytes(b"no model")
    edit(files={"model.onnx": module._sum(entry / "model.onnx")})(entry)
    load_session(file, policy="int8", cache=cache)
    assert decoded.count == 2


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(file: Path, cache: Path, mode: int) -> None:
    cache.chmod(mode)
    with pytest.raises(InputError, match=r"cache.*others.*chmod go-w"):
        load_session(file, policy="int8", cache=cache)
    assert not list(cache.iterdir())


@pytest.mark.parametrize(("mode", "taken"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_a_folder_in_one_that_others_can_write_to_is_refused(
    file: Path, tmp_path: Path, mode: int, taken: bool
) -> None:
    above, link = tmp_path / "above", tmp_path / "link"
    cache = above / "mine" / "cache"
    cache.mkdir(parents=True, mode=0o700)
    above.chmod(mode)
    link.symlink_to(cache)
    if taken:
        load_session(file, policy="int8", cache=link)
        assert list(cache.iterdir())
        return
    with pytest.raises(InputError, match=rf"cache folder {link} lies in {above}.*chmod go-w {above}"):
        load_session(file, policy="int8", cache=link)
    assert not list(cache.iterdir())


def test_a_folder_is_made(file: Path, tmp_path: Path) -> None:
    load_session(file, policy="int8", cache=tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_place_of_the_folder_is_an_error(file: Path) -> None:
    with pytest.raises(InputError, match="cannot make the folder"):
        load_session(file, policy="int8", cache=file)


def test_nothing_is_kept_of_what_is_not_folded(file: Path, cache: Path) -> None:
    with pytest.raises(InputError, match=r"packed.*leave the cache out"):
        load_session(file, policy="packed", cache=cache)


def test_nothing_is_left_of_what_fails(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x0a")
    with pytest.raises(InputError):
        load_session(tmp_path / "bad.onnx", cache=cache)
    assert not list(cache.iterdir())
