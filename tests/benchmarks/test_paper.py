"""The source's tables: what is made, how it is attacked, what pages say of it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("paper", reason="needs the benchmarks of a checkout")

import paper_tables
from paper.attacks import BLACK_BOX, CARLINI_WAGNER, CLEAN, WHITE_BOX, Bench, Counts
from paper.networks import OUR_ROWS, PUBLISHED_ROWS, ROWS, Made, map_weights, subject
from paper.pages import mark_of, panels, to_html, to_markdown
from paper.published import published
from paper.recipes import RECIPES, Recipe, Run
from paper.targets import targets

from muquant.attacks import TorchTarget
from muquant.base.processes import Processes
from muquant.compression.layers import quantizable_weights
from muquant.data import load_dataset
from muquant.models.fingerprint import fingerprint
from muquant.robustness import settings_for
from muquant.robustness.rendering.words import radius
from muquant.training import TrainingConfig, train

CONFIG = TrainingConfig(data="digits", model="cnn4-small", epochs=2)
NAMES = ("orig", "adv", "fl", "surrogate")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Four runs of the same small network, of which the seeds differ."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {name: Run(replace(CONFIG, seed=seed)) for seed, name in enumerate(NAMES)}
    for name, run in runs.items():
        train(run.config, folder / name)
    return Made(Recipe(runs, layers="last:2", mu=64.0, said="Small."), folder)


@pytest.fixture(scope="module")
def bench(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(
        settings=settings_for("digits"),
        dataset=load_dataset("digits", "test"),
        surrogate=TorchTarget(made.run("surrogate")),
        counts=Counts(iterative=8, cw=0, whole=60),
        seed=0,
        folder=tmp_path_factory.mktemp("attacks"),
        processes=Processes(),
        on_batch=lambda title, done, total: None,
    )


@pytest.fixture(scope="module")
def document(made: Made, bench: Bench) -> dict[str, Any]:
    names = "Orig.", "Orig.+mu (Q)"
    rows = {name: {**bench.measure(subject(made, name)), "commit": "0123456789abcdef"} for name in names}
    found = {
        "data": "mnist",
        "images": "mnist",
        "images_digest": bench.dataset.digest,
        "model": "cnn4",
        "said": "Small.",
        "counts": asdict(bench.counts),
        "settings": asdict(bench.settings),
        "seed": 0,
        "commit": "0123456789abcdef",
        "command": "a command",
        "date": "a date",
        "processor": "a processor",
        "device": "cpu",
        "processes": 1,
        "versions": {"torch": "1"},
        "rows": rows,
    }
    return {**found, "targets": targets(found)}


def test_the_source_has_a_figure_for_each_of_its_12_rows_and_13_columns() -> None:
    assert len(PUBLISHED_ROWS) == 12
    assert len(WHITE_BOX) + len(BLACK_BOX) == 13
    for data in ("mnist", "cifar10"):
        for row in PUBLISHED_ROWS:
            for box, columns in (("white_box", WHITE_BOX), ("black_box", BLACK_BOX)):
                for column in columns:
                    share = published(data, box, row, column)
                    assert share is not None
                    assert 0 < share < 1
        assert all(published(data, "white_box", row, "Clean") is None for row in OUR_ROWS)
    assert published("mnist", "white_box", "Adv. (Q)", "Clean") == pytest.approx(0.4269)


def test_a_mapped_weight_is_the_law_of_the_source(made: Made) -> None:
    """F(x) = sgn(x) ln(1 + mu |x|) / ln(1 + mu), of weights relative to the largest of their layer."""
    model = made.run("orig")
    before = {weight.name: weight.value.detach().numpy() for weight in quantizable_weights(model)}
    after = {
        weight.name: weight.value.detach().numpy()
        for weight in quantizable_weights(map_weights(model, "last:2", 64.0))
    }
    *first, third, fourth = before
    for name in first:
        np.testing.assert_array_equal(after[name], before[name])
    for name in (third, fourth):
        largest = np.abs(before[name]).max()
        share = before[name].astype(np.float64) / largest
        law = np.sign(share) * np.log1p(64 * np.abs(share)) / np.log1p(64)
        np.testing.assert_allclose(after[name], largest * law, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mapped", [False, True])
def test_the_source_quantizes_to_seven_levels_of_the_largest_weight(made: Made, mapped: bool) -> None:
    found = subject(made, "Orig.+mu (Q)" if mapped else "Orig. (Q)").module
    expected = map_weights(made.run("orig"), "last:2", 64.0) if mapped else made.run("orig")
    assert found is not None
    pairs = zip(quantizable_weights(found), quantizable_weights(expected), strict=True)
    for ours, theirs in pairs:
        value = theirs.value.detach().double()
        step = value.abs().max() / 3
        np.testing.assert_allclose(ours.value.detach(), step * (value / step).round(), rtol=1e-5, atol=1e-7)


def test_ours_has_three_bits_in_every_layer_and_is_kept(made: Made) -> None:
    ours = subject(made, "Orig., ours")
    assert ours.module is not None
    for weight in quantizable_weights(ours.module):
        assert weight.channels.axis is not None
        rows = weight.value.detach().movedim(weight.channels.axis, 0).flatten(1)
        assert max(len(row.unique()) for row in rows) <= 8
    kept = list(made.folder.glob("orig-3bit-*.mq"))
    assert len(kept) == 1
    written = kept[0].stat().st_mtime_ns
    again = subject(made, "Orig., ours")
    assert again.module is not None
    assert fingerprint(again.module) == fingerprint(ours.module)
    assert kept[0].stat().st_mtime_ns == written


def test_every_figure_has_its_count_and_its_attack(
    document: dict[str, Any], made: Made, bench: Bench
) -> None:
    for row in ("Orig.", "Orig.+mu (Q)"):
        found = document["rows"][row]
        module = subject(made, row).module
        assert module is not None
        assert found["digest"] == fingerprint(module)
        assert {*WHITE_BOX.values(), *BLACK_BOX.values()} - set(found["attacks"]) == {"cw", "transfer-cw"}
        for name, attack in found["attacks"].items():
            whole = name.startswith(("fgsm", "transfer-fgsm")) or name.endswith("noise")
            count = len(bench.dataset) if name == CLEAN else 60 if whole else 8
            assert attack["count"] == count
            assert name == CLEAN or attack["parameters"]["name"]


def test_a_row_that_was_measured_is_taken(
    made: Made, bench: Bench, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = document["rows"]["Orig."]
    monkeypatch.setattr(Bench, "_attack", lambda *arguments: pytest.fail("it was attacked again"))
    assert bench.measure(subject(made, "Orig."), row) == row


@pytest.mark.parametrize(
    "change",
    [
        {"counts": Counts(iterative=8, cw=0, whole=59)},
        {"counts": Counts(iterative=9, cw=0, whole=60)},
        {"settings": replace(settings_for("digits"), pgd_steps=3)},
    ],
)
def test_a_row_of_other_attacks_is_not_taken(
    bench: Bench, document: dict[str, Any], change: dict[str, Any]
) -> None:
    row = document["rows"]["Orig."]
    assert bench.holds(row)
    assert not replace(bench, **change).holds(row)


def test_a_row_of_another_surrogate_is_not_taken(made: Made, bench: Bench, document: dict[str, Any]) -> None:
    other = replace(bench, surrogate=TorchTarget(made.run("fl")))
    assert not other.holds(document["rows"]["Orig."])


def test_a_row_of_another_network_is_not_taken(made: Made, bench: Bench, document: dict[str, Any]) -> None:
    network = subject(made, "F.L.")
    assert network.module is not None
    found = bench.measure(network, document["rows"]["Orig."])
    assert (found["name"], found["digest"]) == ("F.L.", fingerprint(network.module))


def test_carlini_and_wagner_s_figures_are_added_to_a_row(
    made: Made, bench: Bench, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else stays, and the surrogate is attacked once for all rows."""
    monkeypatch.setattr(Bench, "_attack", lambda *arguments: pytest.fail("it was attacked again"))
    with_cw = replace(bench, counts=Counts(iterative=8, cw=2, whole=60))
    for name, row in document["rows"].items():
        found = with_cw.measure(subject(made, name), row)
        added = [found["attacks"].pop(attack) for attack in CARLINI_WAGNER]
        assert [attack["count"] for attack in added] == [2, 2]
        assert found == row
    assert len(list(bench.folder.glob("surrogate-cw-*"))) == 1


def test_rows_of_the_results_file_stay_while_network_and_attacks_do(
    made: Made, bench: Bench, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {
        "Orig.": {**document["rows"]["Orig."], "trained": made.digest("orig")},
        "Orig.+mu (Q)": {**document["rows"]["Orig.+mu (Q)"], "trained": "of weights before these"},
        "Adv., ours, trained": {**document["rows"]["Orig."], "trained": "of a run that is not here"},
        "Orig. (Q)": {**document["rows"]["Orig."], "trained": made.digest("orig"), "attacks": {}},
    }
    monkeypatch.setattr(paper_tables, "RESULTS", tmp_path)
    (tmp_path / "paper_cnn4.json").write_text(json.dumps({**document, "rows": rows}))
    asked = json.loads(json.dumps(document))
    digests = {run: made.digest(run) for run, _ in ROWS.values()}
    assert set(paper_tables.rows_of_file(asked, bench, digests)) == {"Orig.", "Adv., ours, trained"}
    other = {**asked, "settings": {**asked["settings"], "epsilon": 0.25}}
    assert paper_tables.rows_of_file(other, bench, digests) == {}
    assert paper_tables.rows_of_file({**asked, "images_digest": "of other pictures"}, bench, digests) == {}
    assert paper_tables.rows_of_file({**asked, "model": "wrn-16-2"}, bench, digests) == {}


@pytest.mark.parametrize("fast", [False, True])
def test_runs_are_trained_in_arithmetic_that_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    """What has begun goes on as it is."""
    monkeypatch.setattr(paper_tables, "computes_bf16", lambda device: fast)
    bf16 = replace(CONFIG, precision="bf16")
    runs = {"bf16": Run(bf16), "float32": Run(bf16, "bf16"), "new": Run(bf16, "bf16")}
    for name in ("bf16", "float32"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"config": {"precision": name}}))
    recipe = paper_tables.with_precision(Recipe(runs, layers="all", mu=1.0, said=""), tmp_path)
    assert {name: run.config.precision for name, run in recipe.runs.items()} == {
        "bf16": "bf16",
        "float32": "float32",
        "new": "bf16" if fast else "float32",
    }
    assert [run.init for run in recipe.runs.values()] == [None, "bf16", "bf16"]


def test_pages_show_ours_and_the_source_side_by_side(document: dict[str, Any]) -> None:
    white, black, _ = panels(document)
    assert [len(panel.columns) for panel in (white, black)] == [7, 6]
    name, ours, cells = white.rows[0]
    share = document["rows"]["Orig."]["attacks"][CLEAN]["accuracy"]
    assert (name, ours) == ("Orig.", False)
    assert str(cells[0]) == f"{round(100 * share, 2):g} (99.17)"
    assert str(cells[1]) == "- (39.4)"  # not run
    page, text = to_html(document), to_markdown(document)
    for written in (page, text):
        assert "15 rows are not measured yet." in written
        assert "FGSM and noise on 60 of them" in written
    assert f"| Orig. | {cells[0]} | - (39.4) |" in text


def test_a_row_in_which_a_check_fires_is_marked(document: dict[str, Any]) -> None:
    row = {"checks": [{"kind": "advisory", "fired": True}, {"kind": "disqualifying", "fired": False}]}
    assert mark_of(row) == "†"
    row["checks"][1]["fired"] = True
    assert mark_of(row) == "‡"
    assert mark_of({"checks": [{"kind": "disqualifying", "fired": False}]}) == ""
    rows = document["rows"]
    check = {"check": "scale", "kind": "disqualifying", "fired": True, "explanation": "so."}
    fired = {**document, "rows": {**rows, "Orig.": {**rows["Orig."], "checks": [check]}}}
    cells = panels(fired)[0].rows[0][2]
    assert not cells[0].text.endswith("‡")  # clean accuracy is no robustness
    assert all(cell.text.endswith("‡") for cell in cells[2:])
    assert "Orig.: scale (disqualifying): so." in to_html(fired)
    nothing = {**document, "rows": {name: {**row, "checks": []} for name, row in rows.items()}}
    assert "<li>None.</li>" in to_html(nothing)
    assert "## Checks that fired\n\n- None.\n" in to_markdown(nothing)


def test_targets_are_met_and_missed() -> None:
    def row(clean: float, pgd: float, worst: float) -> dict[str, Any]:
        names = ("fgsm-weak", "fgsm-strong", "pgd", "bim", "mim")
        return {
            "attacks": {CLEAN: {"accuracy": clean}, **{name: {"accuracy": pgd} for name in names}},
            "worst_case": worst,
        }

    rows = {
        "Adv.": row(0.99, 0.9, 0.9),
        "Adv. (Q)": row(0.60, 0.0, 0.0),
        "F.L.": row(0.99, 0.1, 0.05),
        "F.L.+mu": row(0.99, 0.6, 0.07),
        "Adv., ours, trained": row(0.99, 0.885, 0.88),
        "Orig., ours": row(0.9919, 0.0, 0.0),
    }
    found = {each["target"]: each["met"] for each in targets({"data": "mnist", "rows": rows})}
    missed = [target for target, met in found.items() if not met]
    assert missed == [
        "Orig., ours: clean at least 99.2%",
        "reproduced: Adv. (Q) loses at least 40 points of clean accuracy",
        "unmasked: of which the worst case has at most 1",
    ]
    assert len(found) == 1 + 1 + 5 + 1 + 2
    cifar = {"Orig.": row(0.901, 0, 0), "Orig., ours": row(0.8959, 0, 0)}
    lost = [each["met"] for each in targets({"data": "cifar10", "rows": cifar})]
    assert lost == [True, False]


def test_radii_are_written_as_people_do() -> None:
    assert [radius(epsilon) for epsilon in (0.3, 8 / 255, 2 / 255, 0.1, 2.0)] == [
        "0.3",
        "8/255",
        "2/255",
        "0.1",
        "2",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_begin_with_what_is_trained_before(name: str) -> None:
    recipe = RECIPES[name]
    before: list[str] = []
    for run, training in recipe.runs.items():
        assert training.init is None or training.init in before
        assert training.config.precision == "bf16"
        before.append(run)
    orig, surrogate = (recipe.runs[run].config for run in ("orig", "surrogate"))
    assert surrogate.seed != orig.seed
    assert surrogate == replace(orig, seed=surrogate.seed, epochs=surrogate.epochs)
    assert {run for run, _ in ROWS.values()} <= set(before)
    for run in ("adv-qat", "fl-qat"):
        qat = recipe.runs[run].config.qat
        assert qat is not None
        assert (qat.bits, qat.layers) == (3, "all")
