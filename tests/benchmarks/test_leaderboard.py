"""The leaderboard: entries that are what they say, figures that can be found again, altered files refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("robust", reason="needs the benchmarks of a checkout")

import leaderboard
from robust import entry as entries, ladder, source
from robust.cost import cost, mean_cost
from robust.entry import Entry, digest
from robust.page import boards, plot, proven, summary, table

import muquant
from muquant.data import load_dataset
from muquant.models import build_model
from muquant.models.evaluation import evaluate
from muquant.training import TrainingConfig, read_run

REAL_ENTRIES, REAL_MODELS = entries.ENTRIES, entries.MODELS


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "ENTRIES", tmp_path / "entries")
    monkeypatch.setattr(entries, "MODELS", tmp_path / "models")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    muquant.compress(build_model("cnn4-small", (1, 8, 8), 10)).save(tmp_path / "mine.mq")
    return tmp_path / "mine.mq"


def _add(model: Path, name: str = "mine", *more: str) -> int:
    said = ("--data", "digits", "--weights", "rounded", "--made-by", "drawn", "--author", "me")
    return leaderboard.main(["add", name, str(model), *said, *more])


def test_added_network_is_kept_with_its_digest(model: Path) -> None:
    assert _add(model) == 0
    entry = Entry.read("mine")
    assert (entry.epsilon, entry.norm, entry.figures) == (0.2, "linf", None)
    assert entry.file.read_bytes() == model.read_bytes()
    assert leaderboard.main(["check"]) == 0


def test_what_was_measured_stays_where_a_network_is_added_again(model: Path) -> None:
    _add(model)
    replace(Entry.read("mine"), figures={"count": 1}).write()
    assert _add(model) == 0
    assert Entry.read("mine").figures == {"count": 1}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--epsilon", "0.1"], "epsilon is 0.2, not 0.1"),
        (["--norm", "l2", "--epsilon", "0.2"], "norm is linf, not l2"),
        (["--data", "mnist", "--epsilon", "0.2"], "data is digits, not mnist"),
    ],
)
def test_what_was_measured_under_one_attack_is_not_shown_under_another(
    model: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _add(model)
    replace(Entry.read("mine"), figures={"count": 1}).write()
    assert _add(model, "mine", *more) == 2
    assert said in capsys.readouterr().err
    assert (Entry.read("mine").epsilon, Entry.read("mine").figures) == (0.2, {"count": 1})


def test_altered_file_is_refused_before_it_is_attacked(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _add(model)
    file = Entry.read("mine").file
    altered = bytearray(file.read_bytes())
    altered[-1] ^= 1
    file.write_bytes(altered)
    for words in (["check"], ["attack", "mine"]):
        assert leaderboard.main(words) == 2
        said = capsys.readouterr().err
        assert "is not the network of the entry mine" in said
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--control", "nobody"], "control 'nobody' is unknown"),
        (["--epsilon", "lots"], "epsilon"),
    ],
)
def test_wrong_entries(model: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _add(model, "mine", *more) == 2
    assert said in capsys.readouterr().err
    assert not entries.names()


@pytest.mark.parametrize("name", ["../mine", "Mine", "", "a" * 65])
def test_names_stay_in_their_folder(model: Path, name: str) -> None:
    assert _add(model, name) == 2


def test_name_of_another_network_is_taken(model: Path, tmp_path: Path) -> None:
    _add(model)
    muquant.compress(build_model("cnn4-small", (1, 8, 8), 10)).save(tmp_path / "other.mq")
    assert _add(tmp_path / "other.mq") == 2
    assert Entry.read("mine").sha256 == digest(model)


def test_entry_of_another_schema_is_refused(model: Path) -> None:
    _add(model)
    path = entries.ENTRIES / "mine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights": "magic"}))
    with pytest.raises(muquant.InputError, match="weights 'magic' is unknown"):
        Entry.read("mine")


@pytest.mark.slow
def test_attacked_and_attacked_again(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _add(model)
    reports = ("--reports", str(tmp_path / "reports"))
    assert leaderboard.main(["attack", "mine", "--count", "16", "--suite", "autoattack", *reports]) == 0
    figures = Entry.read("mine").figures
    assert figures is not None
    assert figures["count"] == len(figures["images"]) == 16
    test = load_dataset("digits", "test")
    assert figures["split"] == {"count": len(test), "clean": evaluate(muquant.load(model).module, test)}
    for found in figures["runtimes"].values():
        assert len(found["fell"]) == 16 - round(16 * found["aa_standard"])
        assert set(found["fell"]) <= set(figures["images"])
        assert found["milliseconds"] > 0
    capsys.readouterr()
    assert leaderboard.main(["attack", "mine", "--again", *reports]) == 0
    stated = Entry.read("mine")
    stated.figures["runtimes"]["torch"]["aa_standard"] = 0.99  # type: ignore[index]
    stated.write()
    assert leaderboard.main(["attack", "mine", "--again", *reports]) == 1
    assert "torch aa_standard: stated 0.99" in capsys.readouterr().out


@pytest.mark.slow
def test_ladder_trains_alike_and_keeps_three_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig(data="digits", model="cnn4-small", epochs=2, augment="none")
    monkeypatch.setattr(ladder, "RECIPES", {"tiny": ladder.Recipe(config, "linf", 0.2)})
    made = ladder.climb("tiny", 1, tmp_path / "runs", float("inf"))
    assert len(made) == 1 + 2 * 4 + 2
    for entry, path in made:
        assert entry.sha256 == digest(path)
        assert entry.file.exists() == ("-3-" in entry.name)
        assert entry.control == (None if entry.weights == "float" else "tiny-32-float-seed1")
    assert ladder.climb("tiny", 1, tmp_path / "runs", float("inf")) == made
    few = ladder.climb("tiny", 1, tmp_path / "runs", float("inf"), widths=(3,), ways=("trained",))
    assert [entry.name for entry, _ in few] == ["tiny-32-float-seed1", "tiny-3-trained-seed1"]


@pytest.mark.slow
def test_ladder_enters_its_networks_for_another_ball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig(data="digits", model="cnn4-small", epochs=1, augment="none")
    monkeypatch.setattr(ladder, "RECIPES", {"tiny": ladder.Recipe(config, "linf", 0.2)})
    monkeypatch.setattr(leaderboard, "RECIPES", ladder.RECIPES)
    words = ["ladder", "tiny", "--runs", str(tmp_path / "runs"), "--bits", "3", "--weights", "rounded"]
    assert leaderboard.main(words) == 0
    assert leaderboard.main([*words, "--threat", "l2", "2"]) == 0
    one, other = (Entry.read(name) for name in ("tiny-3-rounded", "tiny-3-rounded-l2"))
    assert (one.norm, one.epsilon, one.control) == ("linf", 0.2, "tiny-32-float")
    assert (other.norm, other.epsilon, other.control) == ("l2", 2.0, "tiny-32-float-l2")
    assert one.sha256 == other.sha256
    assert other.made_by == f"{one.made_by} --threat l2 2"
    assert leaderboard.main([*words, "--threat", "round", "2"]) == 2


@pytest.mark.slow
def test_networks_of_the_source_are_entered_in_its_own_forms(tmp_path: Path) -> None:
    made = {entry.weights: (entry, path) for entry, path in source.enter(tmp_path / "files", ("orig",))}
    assert list(made) == ["float", "rounded", "mapped"]
    rounded, mapped = (muquant.load(made[weights][1]).tensors for weights in ("rounded", "mapped"))
    assert {tensor.spec.domain for tensor in rounded.values()} == {"decoded"}
    assert [tensor.spec.domain for tensor in mapped.values()][-3:] == ["mapped"] * 3
    assert {tensor.spec.domain for tensor in [*mapped.values()][:-3]} == {"decoded"}
    assert {entry.control for entry, _ in made.values()} == {None, "cifar10-source-orig-32-float"}
    assert made["mapped"][0].file.exists()


@pytest.mark.slow
def test_what_goes_on_from_float_goes_on_in_float_and_at_few_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(data="digits", model="cnn4-small", epochs=2, augment="none")
    recipe = ladder.Recipe(config, "linf", 0.2, start=0.0, further=replace(config, epochs=1, lr=1e-4))
    monkeypatch.setattr(ladder, "RECIPES", {"tiny": recipe})
    ladder.climb("tiny", 0, tmp_path, float("inf"), widths=(3,), ways=("trained",))
    begun, control, trained = (read_run(tmp_path / "tiny" / name) for name in ("begun", "float", "trained-3"))
    assert (begun.config.epochs, control.config.epochs, trained.config.epochs) == (2, 1, 1)
    assert control.init == trained.init == digest(tmp_path / "tiny" / "begun")
    assert control.config == replace(trained.config, qat=None)


def _figures(fell: list[int], count: int = 100) -> dict[str, Any]:
    left = 1 - len(fell) / count
    model = {
        **dict.fromkeys(("clean", "aa_standard", "worst_case", "certified"), left),
        "aa_standard_interval": (left - 0.01, left + 0.01),
        "bits": 3.0,
        "nbytes": 1000,
        "milliseconds": 1.0,
        "verdict": "established",
        "fell": fell,
    }
    runtimes = {"torch": model, "onnx": model}
    split = {"count": 10000, "clean": 0.9742}
    return {"count": count, "images": list(range(count)), "split": split, "runtimes": runtimes}


def _line(name: str, fell: list[int]) -> dict[str, Any]:
    told = {"name": name, "data": "digits", "norm": "linf", "epsilon": 0.2, "weights": "trained"}
    return {**told, "control": "float", "cost": None, "kept": True, "figures": _figures(fell)}


def test_cost_is_that_of_pairs() -> None:
    control, mine = _line("float", [1, 2, 3]), _line("mine", [2, 3, 4, 5, 6])
    found = cost(mine, control)
    assert found is not None
    assert found[0] == pytest.approx(0.02)  # 3 lost, 1 won of 100
    # Agresti and Min's interval with the four cells told apart
    lost, won, count = 3.5, 1.5, 102
    middle = (lost - won) / count
    reach = 1.959964 * (((lost + won) / count - middle**2) / count) ** 0.5
    assert found[1:] == pytest.approx((middle - reach, middle + reach))
    other = {**control, "figures": {**control["figures"], "images": [100, 101]}}
    assert cost(mine, other) is None


def test_cost_is_that_of_the_images_that_both_were_attacked_on() -> None:
    control, mine = _line("float", [1, 2, 3, 30, 40]), _line("mine", [2, 3, 4, 5])
    few = {**mine, "figures": {**mine["figures"], "images": list(range(20))}}
    alike = _line("float", [1, 2, 3]), _line("mine", [2, 3, 4, 5])
    for each in alike:
        each["figures"] = {**each["figures"], "images": list(range(20))}
    assert cost(few, control) == cost(alike[1], alike[0])


def test_mean_of_costs_is_over_images() -> None:
    controls = [_line("float", [1, 2]), _line("float", [2])]
    mine = [_line("mine", [2, 3, 4]), _line("mine", [2, 3, 5])]
    per_image = [-0.5, 0.0, 1.0, 0.5, 0.5] + 95 * [0.0]  # of images 1 to 5, and of the others
    mean = sum(per_image) / 100
    reach = 1.959964 * (sum((each - mean) ** 2 for each in per_image) / 99 / 100) ** 0.5
    assert mean_cost(mine, controls) == pytest.approx((mean, mean - reach, mean + reach))
    controls[0]["figures"]["images"] = list(range(1, 101))
    with pytest.raises(ValueError, match="different images"):
        mean_cost(mine, controls)


def test_page_is_sorted_and_drawn(tmp_path: Path) -> None:
    worse, better = _line("worse", [1, 2, 3, 4]), _line("better", [1])
    document = {"entries": [worse, better]}
    assert [each["name"] for each in boards(document)["digits, L∞ ≤ 0.2"]] == ["better", "worse"]
    lines = table(document).splitlines()
    assert lines[0] == "**digits, L∞ ≤ 0.2**"
    row = next(line for line in lines if "better" in line)
    assert "**99.0%**" in row
    assert "97.4%" in row
    plot(document, tmp_path / "board.png")
    assert (tmp_path / "board.png").stat().st_size > 1000


def test_what_each_width_costs_stands_below_the_table() -> None:
    control, three, two = _line("float", []), _line("three", []), _line("two", [])
    control |= {"weights": "float", "control": None}
    three["cost"], two["cost"] = (0.02, 0.01, 0.03), (0.04, 0.03, 0.05)
    two["figures"]["runtimes"]["torch"]["bits"] = 2.0
    _, below = table({"entries": [control, two, three]}).split("cost of bits in points**\n\n")
    head, _, row = ([cell.strip() for cell in line.split("|")[1:-1]] for line in below.splitlines())
    assert head == ["control", "weights", "3 bits", "2 bits"]
    assert row == ["float", "trained", "2.0 (1.0 to 3.0)", "4.0 (3.0 to 5.0)"]
    assert "in points" not in table({"entries": [control, three]})


def test_summary_has_what_bits_cost_in_place_of_the_images(model: Path) -> None:
    _add(model, "float")
    _add(model, "mine", "--control", "float")
    fell = {"float": [1], "mine": [1, 2, 3]}
    made = [replace(Entry.read(name), figures=_figures(fell[name])) for name in fell]
    document = summary(made)
    assert [line["name"] for line in document["entries"]] == list(fell)
    costs = [line["cost"] for line in document["entries"]]
    assert costs[0] is None
    assert costs[1][0] == pytest.approx(0.02)
    assert all("fell" not in line["figures"]["runtimes"]["torch"] for line in document["entries"])
    assert made[1].figures is not None
    assert made[1].figures["runtimes"]["torch"]["fell"] == [1, 2, 3]
    assert summary(made[1:])["entries"][0]["cost"] is None  # its control was not attacked


def test_what_is_proven_is_sorted_and_the_rest_left_out() -> None:
    some, more, none = _line("some", [1, 2, 3]), _line("more", [1]), _line("none", [1])
    none["figures"]["runtimes"]["torch"]["certified"] = 0.0
    _, _, *rows = proven({"entries": [none, some, more]}).splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["more", "some"]
    assert "**99.0%**" in rows[0]


def test_kept_entries_are_what_they_say() -> None:
    for path in REAL_ENTRIES.glob("*.json"):
        document = json.loads(path.read_text())
        entry = Entry(**document)
        assert entry.name == path.stem
        kept = REAL_MODELS / f"{entry.name}.mq"
        if kept.exists():
            replace(entry).check(kept)
