import copy
import json
import os
import random
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

import muquant as mq
from muquant import InputError, MuLawSpec
from muquant.base.files import atomic_path, write_json
from muquant.base.reading import read_json
from muquant.base.tensor_files import read_tensors, write_tensors
from muquant.compression.artifact import SCHEMA, read_artifact
from muquant.models import Architecture, build, build_model


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.b.weight = self.a.weight
        self.b.bias = self.a.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c(self.b(self.a(x)))
        return out


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "tiny.mq"
    mq.compress(Tied()).save(path)
    return path


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group:7"])
def test_a_model_of_ours_comes_back_bit_for_bit(tmp_path: Path, granularity: str) -> None:
    compressed = mq.compress(build_model("cnn4-small", (1, 8, 8), 3), MuLawSpec(granularity=granularity))
    compressed.save(tmp_path / "a.mq")
    loaded = mq.load(tmp_path / "a.mq")
    for name, value in compressed.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], value), name
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded.module(x), compressed.module(x))
    assert loaded.report == compressed.report
    for name, tensor in compressed.tensors.items():
        assert loaded.tensors[name].spec == tensor.spec
        assert torch.equal(loaded.tensors[name].codes, tensor.codes)


def test_a_foreign_model_comes_back_in_the_module_passed(file: Path) -> None:
    torch.manual_seed(0)
    expected = mq.compress(Tied())
    with pytest.raises(InputError, match="module="):
        mq.load(file)
    module = Tied()
    loaded = mq.load(file, module)
    assert loaded.module is module
    assert module.a.weight is module.b.weight
    x = torch.rand(4, 5)
    assert torch.equal(module(x), expected.module(x))
    assert loaded.aliases == {"b.weight": "a.weight"}
    names = set(read_tensors(file, SCHEMA).tensors)
    assert names == {
        "codes.a.weight",
        "step.a.weight",
        "codes.c.weight",
        "step.c.weight",
        "state.a.bias",
        "state.c.bias",
    }


def test_what_a_foreign_model_is_made_from_is_kept(tmp_path: Path) -> None:
    """Of a model of ours the file holds the architecture, which is better."""
    foreign, ours = mq.compress(Tied()), mq.compress(build_model("cnn4-small", (1, 8, 8), 3))
    for model, kept in ((foreign, "a.b:c"), (ours, None)):
        replace(model, source="a.b:c").save(tmp_path / "a.mq")
        assert read_artifact(tmp_path / "a.mq").source == kept
    foreign.save(tmp_path / "a.mq")
    assert read_artifact(tmp_path / "a.mq").source is None
    replace(foreign, source="a.b:c").save(tmp_path / "a.mq")
    assert mq.load(tmp_path / "a.mq", Tied()).source == "a.b:c"


@pytest.mark.parametrize("wrong", [nn.Linear(5, 3), nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))], ids=str)
def test_a_wrong_module_is_refused_and_left_alone(file: Path, wrong: nn.Module) -> None:
    before = copy.deepcopy(wrong.state_dict())
    with pytest.raises(InputError, match="does not fit"):
        mq.load(file, wrong)
    for name, value in wrong.state_dict().items():
        assert torch.equal(value, before[name])


def test_every_altered_byte_is_found(file: Path) -> None:
    data = file.read_bytes()
    chance = random.Random(0)
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 1 << chance.randrange(8)
        file.write_bytes(altered)
        with pytest.raises(InputError) as caught:
            read_artifact(file)
        assert "\n" not in str(caught.value)
    file.write_bytes(data)
    read_artifact(file)


def test_every_truncation_is_found(file: Path) -> None:
    data = file.read_bytes()
    for length in [*range(0, len(data), 13), len(data) - 1]:
        file.write_bytes(data[:length])
        with pytest.raises(InputError):
            read_artifact(file)
    file.write_bytes(data + b"\0")
    with pytest.raises(InputError):
        read_artifact(file)


def test_other_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(2)}, foreign)
    with pytest.raises(InputError, match="did not write"):
        mq.load(foreign)
    write_tensors(tmp_path / "run.mq", "muquant.other/1", {"x": torch.zeros(2)}, {})
    with pytest.raises(InputError, match=r"kind muquant\.compressed/1, found 'muquant.other/1'"):
        mq.load(tmp_path / "run.mq")
    with pytest.raises(InputError, match="cannot read"):
        mq.load(tmp_path / "missing.mq")
    with pytest.raises(InputError):
        mq.load(tmp_path)
    (tmp_path / "empty.mq").touch()
    with pytest.raises(InputError, match="not a whole"):
        mq.load(tmp_path / "empty.mq")


Edit = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]
EDITS: dict[str, Edit] = {
    "shape of another size": lambda m, t: m["weights"]["a.weight"].update(shape=[5, 6]),
    "negative sizes": lambda m, t: m["weights"]["a.weight"].update(shape=[-5, -5]),
    "huge sizes": lambda m, t: m["weights"]["a.weight"].update(shape=[2**39, 2**39]),
    "size beyond any": lambda m, t: m["weights"]["a.weight"].update(shape=[2**200]),
    "size that is no number": lambda m, t: m["weights"]["a.weight"].update(shape=["5", 5]),
    "shape that is no list": lambda m, t: m["weights"]["a.weight"].update(shape=25),
    "no shape": lambda m, t: m["weights"]["a.weight"].pop("shape"),
    "axis outside": lambda m, t: m["weights"]["a.weight"].update(channel_axis=2),
    "axes twice": lambda m, t: m["weights"]["a.weight"].update(channel_axis=[0, 0]),
    "axes of numbers with a point": lambda m, t: m["weights"]["a.weight"].update(channel_axis=[0.0]),
    "groups that do not divide": lambda m, t: m["weights"]["a.weight"].update(channel_groups=3),
    "groups below 1": lambda m, t: m["weights"]["a.weight"].update(channel_groups=0),
    "axis infinite": lambda m, t: m["weights"]["a.weight"].update(channel_axis="one"),
    "bits outside": lambda m, t: m["weights"]["a.weight"]["format"].update(bits=2**30),
    "mu open": lambda m, t: m["weights"]["a.weight"]["format"].update(mu="auto"),
    "mu negative": lambda m, t: m["weights"]["a.weight"]["format"].update(mu=-1),
    "granularity unknown": lambda m, t: m["weights"]["a.weight"]["format"].update(granularity=[1]),
    "format that is no object": lambda m, t: m["weights"]["a.weight"].update(format=3),
    "field unknown": lambda m, t: m["weights"]["a.weight"]["format"].update(more=3),
    "alias to nothing": lambda m, t: m["aliases"].update({"b.weight": "nowhere"}),
    "alias of an alias": lambda m, t: m["aliases"].update({"x": "b.weight"}),
    "alias that hides": lambda m, t: m["aliases"].update({"a.weight": "c.weight"}),
    "aliases that are a text": lambda m, t: m.update(aliases="abc"),
    "weights that are a list": lambda m, t: m.update(weights=[1]),
    "no weights": lambda m, t: m.pop("weights"),
    "report malformed": lambda m, t: m.update(report=[{"name": "x"}]),
    "report of another type": lambda m, t: m["report"][0].update(mu="1"),
    "report of a nested value": lambda m, t: m["report"][0].update(sqnr=[1]),
    "report without norms": lambda m, t: m["report"][0].update(matrix_norms=None),
    "norms that are a number": lambda m, t: m["report"][0].update(operator_norms=1.0),
    "norms of another type": lambda m, t: m["report"][0]["operator_norms"].update(two="1"),
    "source that is no text": lambda m, t: m.update(source=["a:b"]),
    "source of two lines": lambda m, t: m.update(source="a:b\n--out c"),
    "source too long": lambda m, t: m.update(source="a" * 1001),
    "architecture malformed": lambda m, t: m.update(architecture={"name": "cnn4"}),
    "weight without tensors": lambda m, t: m["weights"].update(z=m["weights"]["a.weight"]),
    "tensor without a weight": lambda m, t: t.update({"codes.z": torch.zeros(3)}),
    "codes of another type": lambda m, t: t.update({"codes.a.weight": t["codes.a.weight"].float()}),
    "codes too short": lambda m, t: t.update({"codes.a.weight": t["codes.a.weight"][:-1]}),
    "step of another type": lambda m, t: t.update({"step.a.weight": t["step.a.weight"].double()}),
    "step of another shape": lambda m, t: t.update({"step.a.weight": t["step.a.weight"][:-1]}),
    "step not finite": lambda m, t: t.update({"step.a.weight": t["step.a.weight"] * float("nan")}),
    "architecture huge": lambda m, t: m.update(
        architecture={
            "name": "cnn4",
            "input_shape": [64, 1024, 1024],
            "classes": 100,
            "mean": [0.0] * 64,
            "std": [1.0] * 64,
        }
    ),
    "architecture of another model": lambda m, t: m.update(
        architecture={"name": "cnn4", "input_shape": [1, 28, 28], "classes": 10, "mean": [0.0], "std": [1.0]}
    ),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_a_forged_file_is_refused_before_memory_is_taken(file: Path, edit: Edit) -> None:
    true = read_tensors(file, SCHEMA)
    manifest, tensors = json.loads(json.dumps(true.manifest)), dict(true.tensors)
    edit(manifest, tensors)
    kind = manifest.pop("schema")
    write_tensors(file, kind, tensors, manifest)  # its checksum is right
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            mq.load(file, None if manifest.get("architecture") else Tied())
        assert tracemalloc.get_traced_memory()[1] < 2**24  # numpy's arrays are among what is traced
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


STEPS: dict[str, Edit] = {
    "codes of another type": lambda _, t: t.update({"step_codes.weight": t["step_codes.weight"].int()}),
    "codes too few": lambda _, t: t.update({"step_codes.weight": t["step_codes.weight"][:-1]}),
    "no codes": lambda _, t: t.pop("step_codes.weight"),
    "no unit": lambda _, t: t.pop("step_unit.weight"),
    "unit of another type": lambda _, t: t.update({"step_unit.weight": t["step_unit.weight"].double()}),
    "two units": lambda _, t: t.update({"step_unit.weight": torch.ones(2)}),
    "unit not finite": lambda _, t: t.update({"step_unit.weight": torch.tensor(float("inf"))}),
    "unit negative": lambda _, t: t.update({"step_unit.weight": -t["step_unit.weight"]}),
    "float steps beside them": lambda _, t: t.update({"step.weight": torch.ones(100, 1)}),
}


@pytest.mark.parametrize("edit", STEPS.values(), ids=STEPS.keys())
def test_forged_steps_of_8_bits_are_refused(edit: Edit, tmp_path: Path) -> None:
    path = tmp_path / "a.mq"
    torch.manual_seed(0)
    compressed = mq.compress(nn.Linear(4, 100))
    compressed.save(path)
    loaded = mq.load(path, nn.Linear(4, 100))
    assert torch.equal(loaded.tensors["weight"].dequantize(), compressed.tensors["weight"].dequantize())
    true = read_tensors(path, SCHEMA)
    manifest, tensors = dict(true.manifest), dict(true.tensors)
    edit(manifest, tensors)
    write_tensors(path, manifest.pop("schema"), tensors, manifest)
    with pytest.raises(InputError, match=str(path)) as caught:
        mq.load(path, nn.Linear(4, 100))
    assert "\n" not in str(caught.value)


def test_an_architecture_that_does_not_fit_is_built_as_shapes_only(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = read_tensors(file, SCHEMA)
    manifest, tensors = dict(true.manifest), dict(true.tensors)
    EDITS["architecture of another model"](manifest, tensors)
    write_tensors(file, manifest.pop("schema"), tensors, manifest)
    devices = []

    def watched(architecture: Architecture) -> nn.Module:
        devices.append(torch.get_default_device().type)
        return build(architecture)

    monkeypatch.setattr("muquant.compression.artifact.build", watched)
    with pytest.raises(InputError, match="does not fit"):
        mq.load(file)
    assert devices == ["meta"]


@pytest.mark.parametrize(
    "manifest", ["{", "[]", "[" * 100_000, "3", '{"schema": []}'], ids=lambda text: text[:9]
)
def test_a_manifest_that_is_no_object_is_refused(tmp_path: Path, manifest: str) -> None:
    import hashlib

    blank = safetensors.torch.save({"x": torch.zeros(1)}, metadata={"muquant": manifest, "sha256": "0" * 64})
    digest = hashlib.sha256(blank).hexdigest()
    (tmp_path / "a.mq").write_bytes(blank.replace(b"0" * 64, digest.encode(), 1))
    with pytest.raises(InputError, match=r"malformed|expected a file"):
        mq.load(tmp_path / "a.mq")


def test_copying_into_other_tensors_is_refused_whole(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", "k/1", {"x": torch.ones(2), "y": torch.ones(3)}, {"f": 0.1})
    read = read_tensors(tmp_path / "a", "k/1")
    assert read.manifest["f"] == 0.1
    targets = {"x": torch.zeros(2), "y": torch.zeros(4)}
    with pytest.raises(InputError, match="y"):
        read.copy_into(targets)
    assert not targets["x"].any()
    targets["y"] = torch.zeros(3)
    read.copy_into(targets)
    assert targets["x"].all()
    assert targets["y"].all()


def test_a_crash_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.mq"
    path.write_bytes(b"old")

    def crash() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            assert path.read_bytes() == b"old"
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        crash()
    assert [each.name for each in tmp_path.iterdir()] == ["a.mq"]
    assert path.read_bytes() == b"old"


def test_places_that_cannot_be_written(file: Path, tmp_path: Path) -> None:
    compressed = mq.load(file, Tied())
    with pytest.raises(InputError, match="it is a folder"):
        compressed.save(tmp_path)
    with pytest.raises(InputError, match="writable folder"):
        compressed.save(tmp_path / "missing" / "a.mq")
    with pytest.raises(InputError, match="writable folder"):
        compressed.save(file / "a.mq")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if not os.access(locked, os.W_OK):  # root writes everywhere
        with pytest.raises(InputError, match="writable folder"):
            compressed.save(locked / "a.mq")


def test_json_is_written_whole_and_read_with_care(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, 0.1]})
    assert read_json(tmp_path / "a.json") == {"x": [1, 0.1]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == {"x": [1, 0.1]}
    (tmp_path / "b.json").write_bytes(b"\xff{")
    for name in ("b.json", "missing.json"):
        with pytest.raises(InputError, match=name):
            read_json(tmp_path / name)


def test_nothing_in_the_source_pickles() -> None:
    root = Path(mq.__file__).parent
    for path in root.rglob("*.py"):
        found = re.search(
            r"torch\.(save|load)\(|^\s*(import|from) (pickle|joblib|dill)", path.read_text(), re.MULTILINE
        )
        assert found is None, f"{path}: {found}"


def test_why_a_weight_had_no_samples_is_kept(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 4))
    ids = torch.randint(9, (8, 3), generator=torch.Generator().manual_seed(0))
    compressed = mq.compress(model, calibration=ids)
    compressed.save(tmp_path / "model.mq")
    report = mq.load(tmp_path / "model.mq", model).report
    assert report == compressed.report
    assert [bool(layer.not_calibrated) for layer in report] == [True, False]


@pytest.mark.parametrize("layer", [nn.LSTM(4, 5), nn.GRUCell(4, 5)], ids=["LSTM", "GRUCell"])
def test_recurrent_weights_have_8_bits_unless_overridden(layer: nn.Module, tmp_path: Path) -> None:
    model = nn.ModuleDict({"recurrent": layer, "out": nn.Linear(5, 3)})
    compressed = mq.compress(model)
    compressed.save(tmp_path / "model.mq")
    report = mq.load(tmp_path / "model.mq", model).report
    assert report == compressed.report
    assert [(weight.bits, weight.note[:6]) for weight in report] == [(8, "8 bits"), (8, "8 bits"), (3, "")]
    report = mq.compress(model, mq.MuLawSpec(4), overrides={"recurrent": 3}).report
    assert [(weight.bits, weight.note) for weight in report] == [(3, ""), (3, ""), (4, "")]
    prepared = mq.compress(mq.prepare_qat(copy.deepcopy(model))).report
    assert [(weight.bits, weight.note) for weight in prepared] == [(3, "")] * 3
