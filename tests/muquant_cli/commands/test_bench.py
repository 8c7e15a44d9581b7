"""`muquant bench`: what it writes, its exit status, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from muquant.data import load_dataset
from muquant_onnx import load_session, logits_of

from ..conftest import fails, invoke, invoke_json

pytestmark = pytest.mark.slow
FEW = ("--data", "digits", "--limit", 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def document(run: Path, artifact: Path, exported: Path, folder: Path) -> Any:
    """A float run, its 3-bit version and the latter's ONNX file, in one benchmark."""
    return invoke_json("bench", f"float={run}", artifact, exported, *FEW, "--out", folder)


def test_a_benchmark_writes_what_it_prints(document: Any, folder: Path, exported: Path) -> None:
    assert json.loads((folder / "report.json").read_text()) == document
    assert [(model["name"], model["runtime"], model["bits"]) for model in document["models"]] == [
        ("float", "torch", 32),
        ("float", "onnx", 32),
        ("model", "torch", 3),
        ("model", "onnx", 3),
    ]
    assert document["models"][3]["nbytes"] == exported.stat().st_size
    assert [path.name for path in (folder / "models").iterdir()] == ["float.onnx"]
    assert "worst" in (folder / "report.html").read_text()
    assert "| `float` |" in (folder / "report.md").read_text()
    for model in document["models"]:
        assert set(model["attacks"]) == {
            "apgd-ce",
            "apgd-t",
            "ddn",
            "square",
            "normal-noise",
            "uniform-noise",
        }
        assert model["worst_case"] <= model["clean"]


def test_the_figures_of_a_session_are_those_of_its_file(document: Any, exported: Path) -> None:
    test = load_dataset("digits", "test")
    rows = document["data"]["indices"]
    assert len(set(rows)) == 20
    logits = logits_of(load_session(exported))(test.inputs()[rows].numpy())
    assert document["models"][3]["clean"] == np.mean(logits.argmax(1) == test.labels[rows].numpy())


def test_a_second_run_takes_the_finished_attacks(
    document: Any, run: Path, artifact: Path, exported: Path, folder: Path
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "attacks").iterdir()}
    again = invoke_json("bench", f"float={run}", artifact, exported, *FEW, "--out", folder)
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "attacks").iterdir()} == before
    for one, other in zip(document["models"], again["models"], strict=True):
        assert {**one, "seconds": 0, "attacks": 0} == {**other, "seconds": 0, "attacks": 0}


def test_people_see_headline_attacks_and_files(run: Path, folder: Path, document: Any) -> None:
    result = invoke("bench", f"float={run}", *FEW, "--runtime", "torch", "--out", folder)
    assert result.exit_code == 0
    assert "Worst case over all attacks, linf 0.2, 20 images of digits" in result.stdout
    assert "apgd-t" in result.stdout
    assert "report.html" in result.stdout


def test_a_file_alone_is_attacked_by_queries(exported: Path, folder: Path, run: Path) -> None:
    (row,) = invoke_json("bench", exported, *FEW, "--out", folder, "--surrogate", run, "--suite", "standard")[
        "models"
    ]
    assert row["verdict"] == "not assessed"
    sources = {name: attack["source"] for name, attack in row["attacks"].items()}
    assert [sources[name] for name in ("apgd-ce", "apgd-t", "ddn")] == ["not available"] * 3
    assert [sources[name] for name in ("square", "transfer")] == ["attack"] * 2


def test_flags_can_make_it_fail(run: Path, folder: Path, document: Any) -> None:
    flags = [flag["kind"] for model in document["models"] for flag in model["flags"]]
    arguments = ("bench", f"float={run}", *FEW, "--out", folder, "--runtime", "torch", "--json", "--fail-on")
    assert invoke(*arguments, "never").exit_code == 0
    expected = [flag["kind"] for flag in document["models"][0]["flags"]]
    assert invoke(*arguments, "any").exit_code == (1 if expected else 0), flags


def test_autoattack_in_l1_with_every_image(run: Path, tmp_path: Path) -> None:
    options = ("--suite", "autoattack", "--norm", "l1", "--eot", 2, "--examples", "--runtime", "torch")
    arguments = ("bench", f"float={run}", "--data", "digits", "--limit", 10, "--out", tmp_path, *options)
    shown = invoke(*arguments).output
    document = json.loads((tmp_path / "report.json").read_text())
    (row,) = document["models"]
    assert (document["threat"]["norm"], document["eot"]) == ("l1", 2)
    assert row["worst_case"] <= row["aa_standard"] == row["attacks"]["square"]["accuracy"]
    assert "AA standard" in shown
    assert "images.csv" in shown
    assert len((tmp_path / "images.csv").read_text().splitlines()) == 11
    with np.load(tmp_path / "examples-0-float-torch.npz") as arrays:
        assert int(arrays["withstands"].sum()) == round(10 * row["worst_case"])


def test_images_that_were_written_are_read(run: Path, tmp_path: Path) -> None:
    arguments = (
        "bench",
        f"float={run}",
        "--attacks",
        "pgd",
        "--epsilon",
        0.2,
        "--runtime",
        "torch",
        "--examples",
    )
    first = invoke_json(*arguments, *FEW, "--out", tmp_path / "a")
    file = tmp_path / "a" / "examples-0-float-torch.npz"
    second = invoke_json(*arguments, "--data", f"npz:{file}", "--out", tmp_path / "b")
    assert second["data"]["indices"] == first["data"]["indices"]
    assert second["data"]["digest"] == first["data"]["digest"]
    figures = [
        [row[key] for key in ("clean", "worst_case")] for (row,) in (first["models"], second["models"])
    ]
    assert figures[0] == figures[1]
    with np.load(file) as arrays:
        wrong = {**arrays, "label": arrays["label"] + 5}
        np.savez(tmp_path / "wrong.npz", **wrong)
        np.savez(tmp_path / "beyond.npz", **{**arrays, "clean": arrays["clean"] * 16})
    for name, match in (("wrong", "expected labels in 0..9, found"), ("beyond", "expected floats in [0, 1]")):
        assert match in fails(*arguments, "--data", f"npz:{tmp_path / name}.npz", "--out", tmp_path / "c")


def test_attacks_of_ones_own(run: Path, tmp_path: Path) -> None:
    text = "pgd:steps=5,restarts=2,square:queries=30,after=pgd"
    (tmp_path / "own.toml").write_text(
        '[[attacks]]\nattack = "pgd"\nsteps = 5\nrestarts = 2\n'
        '[[attacks]]\nattack = "square"\nqueries = 30\nafter = ["pgd"]\n'
    )
    arguments = ("bench", f"float={run}", *FEW, "--out", tmp_path / "report", "--runtime", "torch")
    (row,) = invoke_json(*arguments, "--attacks", text)["models"]
    assert list(row["attacks"]) == ["pgd", "square"]
    assert [row["attacks"]["pgd"]["parameters"][key] for key in ("steps", "restarts")] == [5, 2]
    assert row["attacks"]["square"]["after"] == ["pgd"]
    document = invoke_json(*arguments, "--attacks", tmp_path / "own.toml")
    (same,) = document["models"]
    assert document["suite"] == str(tmp_path / "own.toml")
    assert {**row, "seconds": 0} == {**same, "seconds": 0}, "attacks that were kept are taken"


def test_attacks_aim_at_a_class(run: Path, tmp_path: Path) -> None:
    arguments = ("bench", f"float={run}", "--data", "digits", "--out", tmp_path, "--runtime", "torch")
    shown = invoke(*arguments, "--target-class", 3, "--epsilon", 0.02, "--examples").output
    document = json.loads((tmp_path / "report.json").read_text())
    labels = load_dataset("digits", "test").labels
    assert document["data"]["indices"] == (labels != 3).nonzero()[:, 0].tolist()
    assert document["threat"]["target_class"] == "3"
    assert "aimed at class 3" in shown
    with np.load(tmp_path / "examples-0-float-torch.npz") as arrays:
        assert set(arrays["target_class"].tolist()) == {3}


def nearest_means(path: Path, low: float, high: float, mean: float, std: float) -> Path:
    """An ONNX file, of a batch of 8, that takes digits as ((low + (high - low) image) - mean) / std."""
    train = load_dataset("digits", "train")
    images, labels = train.inputs().flatten(1).numpy(), train.labels.numpy()
    means = np.stack([images[labels == digit].mean(0) for digit in range(10)])
    width, bias = high - low, -(means**2).sum(1) / 2
    values = {
        "std": np.float32(std / width),
        "mean": np.float32((mean - low) / width),
        "means": means.T.astype(np.float32),
        "bias": bias.astype(np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["x", "std"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["image"]),
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "means", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_files_that_take_other_values_or_one_batch_are_attacked(tmp_path: Path, run: Path) -> None:
    plain = nearest_means(tmp_path / "a.onnx", 0, 1, 0, 1)
    other = nearest_means(tmp_path / "b.onnx", -5, 250, 40, 60)
    options = ("--bounds=-5,250", "--mean", 40, "--std", 60)
    (expected,) = invoke_json("bench", plain, *FEW, "--out", tmp_path / "one")["models"]
    (found,) = invoke_json("bench", other, *FEW, *options, "--out", tmp_path / "one")["models"]
    assert expected["clean"] > 0.7
    for key in ("clean", "worst_case"):
        assert found[key] == expected[key]
    (wrong,) = invoke_json("bench", other, *FEW, "--out", tmp_path / "one")["models"]
    assert wrong["clean"] < expected["clean"]  # and is not taken from the folder
    assert "state themselves what they take" in fails("bench", run, *FEW, *options, "--out", tmp_path / "two")


def write_net(path: Path, shape: list[int | str], classes: int) -> Path:
    """An ONNX file that sums its input into each of its logits."""
    inputs = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    outputs = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])
    axes = numpy_helper.from_array(np.arange(1, len(shape)), "axes")
    tiles = numpy_helper.from_array(np.array([1, classes]), "tiles")
    flat = numpy_helper.from_array(np.array([-1, 1]), "flat")
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"]),
        helper.make_node("Reshape", ["sum", "flat"], ["column"]),
        helper.make_node("Tile", ["column", "tiles"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "net", [inputs], [outputs], [axes, tiles, flat])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("shape", "classes", "match"),
    [
        (["n", 3, 8, 8], 10, "does not take images of shape [1, 8, 8]"),
        (["n", 1, 9, 8], 10, "does not take images of shape [1, 8, 8]"),
        (["n", 1, 8, 8], 9, "expected logits [2, 10]"),
    ],
    ids=["channels", "size", "classes"],
)
def test_an_onnx_file_of_other_data_is_refused(
    tmp_path: Path, shape: list[int | str], classes: int, match: str
) -> None:
    file = write_net(tmp_path / "other.onnx", shape, classes)
    assert match in fails("bench", file, *FEW, "--out", tmp_path / "report")
    assert not (tmp_path / "report" / "report.json").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--epsilon", "-0.1"), "epsilon"),
        (("--epsilon", "2"), "at most 1"),
        (("--norm", "l2", "--epsilon", "9"), "at most 8"),
        (("--norm", "l1", "--epsilon", "65"), "at most 64, the L1 diameter of inputs of 64 values"),
        (("--norm", "l2", "--suite", "seed"), "linf"),
        (("--limit", 100000), "limit: expected 1 to"),
        (("--runtime", "tensorrt"), "--runtime"),
        (("--surrogate", "nowhere"), "--surrogate"),
        (("--bounds", "0"), "--bounds is '0'; expected two numbers"),
        (("--bounds", "1,0"), "expected low below high"),
        (("--mean", "a"), "--mean is 'a'; expected numbers"),
        (("--std", "0"), "expected deviations above 0"),
        (("--device", "tpu"), "device"),
        (("--corruptions", "haze"), "corruption 'haze' is unknown; expected all, or some of gaussian_noise"),
        (("--corruptions", "all"), "orruptions"),
        (("--attacks", "apgd"), "attack 'apgd' is unknown; expected one of fgsm, bim"),
        (("--attacks", "pgd:step=3"), "attack pgd: setting 'step' is unknown; expected one of epsilon, norm"),
        (("--attacks", "pgd", "--suite", "standard"), "--suite and --attacks both say"),
        (("--attacks", "nowhere.toml"), "cannot read nowhere.toml"),
        (
            ("--target-class", "10"),
            "target class: expected a class from 0 to 9, or random, least-likely, next",
        ),
        (("--target-class", "cat"), "found 'cat'"),
        (("--reject",), "expected a model with 11 outputs, the last of which abstains, found [10]"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_bad_options_are_refused(run: Path, tmp_path: Path, options: tuple[object, ...], match: str) -> None:
    message = fails("bench", run, "--data", "digits", "--limit", 40, "--out", tmp_path / "report", *options)
    assert match in message
    assert not (tmp_path / "report" / "report.json").exists()


def test_models_that_cannot_be_told_apart_are_refused(run: Path, artifact: Path, tmp_path: Path) -> None:
    assert "different names" in fails("bench", run, run, *FEW, "--out", tmp_path)
    assert "NAME=" in fails("bench", f"../a={run}", *FEW, "--out", tmp_path)
    assert "cannot tell what" in fails("bench", tmp_path / "a.txt", *FEW, "--out", tmp_path)
    assert "does not run in torch" in fails(
        "bench",
        write_net(tmp_path / "a.onnx", ["n", 1, 8, 8], 10),
        *FEW,
        "--runtime",
        "torch",
        "--out",
        tmp_path,
    )
