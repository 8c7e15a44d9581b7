"""The page is read back by the standard library's parser, and its figures are those of the report."""

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from muquant.robustness.rendering import to_html
from muquant.robustness.rendering.charts import HEIGHT, WIDTH
from muquant.robustness.report import ModelReport, Picture, Report
from muquant.robustness.statistics import wilson

VOID = {"meta", "img", "br"}
HOSTILE = "\"'><script>alert(1)</script><img src=http://x.example onerror=alert(2)>{{ 7 * 7 }} & é"


@dataclass
class Node:
    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside, with single spaces, but for tooltips."""
        parts = (each if isinstance(each, str) else each.text for each in self.children)
        return " ".join(" ".join(parts).split()) if self.tag not in ("title", "style") else ""

    def all(self, tag: str = "", name: str = "", **attributes: str) -> list["Node"]:
        """Nodes inside, by tag, class and attributes."""
        return [
            node
            for node in self
            if node.tag == (tag or node.tag)
            and (not name or name in node.attributes.get("class", "").split())
            and attributes.items() <= node.attributes.items()
        ]

    def one(self, tag: str = "", name: str = "", **attributes: str) -> "Node":
        """The only such node."""
        (found,) = self.all(tag, name, **attributes)
        return found

    def __iter__(self) -> Iterator["Node"]:
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child


class Reader(HTMLParser):
    """Builds the tree, and refuses a tag that is not closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("document")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} has an attribute twice"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert any(node.tag == "svg" for node in self.open), f"<{tag}/> outside of an SVG does not close it"
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(page: str) -> Node:
    reader = Reader()
    reader.feed(page)
    reader.close()
    (document,) = reader.open
    return document


@pytest.fixture
def page(report: Report, pictures: list[Picture]) -> Node:
    return read(to_html(report, pictures))


def percentages(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"([\d.]+)%", text)]


def test_the_page_needs_nothing_and_runs_nothing(report: Report, pictures: list[Picture]) -> None:
    source = to_html(report, pictures)
    page = read(source)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base", "a", "use"} & {
        node.tag for node in page
    }
    for node in page:
        assert not [name for name in node.attributes if name.startswith("on") or name in ("href", "srcset")]
        assert node.attributes.get("src", "data:").startswith("data:image/png;base64,"[:5])
    assert "http:" not in source
    assert "https:" not in source
    assert set(re.findall(r"url\(([^)]*)\)", source)) == {"#hatch"}
    assert "@import" not in source
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_ids_are_unique(page: Node) -> None:
    ids = [node.attributes["id"] for node in page if "id" in node.attributes]
    assert len(ids) == len(set(ids))


def test_the_sections_come_in_order(page: Node) -> None:
    assert [node.attributes["id"] for node in page.all("section")] == [
        *("worst-case", "attacks", "corruptions", "curves", "pictures", "costs", "flags", "provenance")
    ]


def test_the_headline_is_that_of_the_report(report: Report, page: Node) -> None:
    rows = page.one(id="worst-case").all("li")[1:-1]
    for row, model in zip(rows, report.models, strict=True):
        assert model.worst_case is not None
        assert model.worst_case_interval is not None
        low, high = model.worst_case_interval
        assert model.name in row.one(name="who").text
        assert row.one("strong").text == f"{model.worst_case:.1%}"
        more = [f"certified {model.certified:.1%}"] if model.certified is not None else []
        more += [f"AA standard {model.aa_standard:.1%}"] if model.aa_standard is not None else []
        small = " ".join([f"{low:.1%} to {high:.1%}", *more])
        assert row.one(name="worst").one("small").text == small
        assert row.one(name="verdict").one("b").text == model.verdict
        assert row.attributes["class"] == model.verdict.replace(" ", "-")
        assert percentages(row.one("rect").attributes["width"]) == [round(100 * model.worst_case, 2)]
        whisker = row.one("g").all("line")[0].attributes
        assert percentages(whisker["x1"] + whisker["x2"]) == [round(100 * low, 2), round(100 * high, 2)]
        assert percentages(row.one("line", "clean").attributes["x1"]) == [round(100 * model.clean, 2)]


def test_corruptions_stand_apart(report: Report, page: Node) -> None:
    section = page.one(id="corruptions")
    rows = {row.one("th").text: row.all("td") for row in section.all("tr")[2:]}
    assert list(rows) == ["fog", "jpeg compression", "mean"]
    expected = {
        "fog": "75.0% (90 85 80 70 50)",
        "jpeg compression": "80.0% (90 85 80 75 70)",
        "mean": "77.5% (90 85 80 72 60)",
    }
    for name, cells in rows.items():
        assert [cell.text.replace(" ", "") for cell in cells] == [
            expected[name].replace(" ", ""),
            *["-"] * (len(report.models) - 1),
        ]
    assert "95% interval 76.1% to 78.9%" in section.text
    bare = [replace(model, corruptions=None) for model in report.models]
    assert 'id="corruptions"' not in to_html(replace(report, models=tuple(bare)))


def attack_rows(page: Node) -> dict[str, list[Node]]:
    """Name of the row -> its cells, from the table of accuracies."""
    table = page.one(id="attacks").all("table")[0]
    rows = [row for body in table.all("tbody") for row in body.all("tr")]
    return {str(row.one("th").children[0]): row.all("td") for row in rows}


def test_every_accuracy_is_that_of_the_report(report: Report, page: Node) -> None:
    rows = attack_rows(page)
    for place, model in enumerate(report.models):
        assert percentages(rows["clean"][place].text) == [round(100 * model.clean, 1)]
        assert percentages(rows["worst case"][place].text) == [round(100 * (model.worst_case or 0), 1)]
        for name, attack in model.attacks.items():
            cell = rows[name][place]
            if attack.accuracy is None:
                assert cell.text == "not available"
                continue
            figures = [attack.accuracy] + ([] if attack.agreement is None else [attack.agreement])
            assert percentages(cell.text) == [round(100 * figure, 1) for figure in figures]
            assert ("of 200" in cell.text) == (attack.count != 1000)
            assert ("↻" in cell.text) == (attack.source == "replay")
            assert percentages(cell.one("span", "meter").one("span").attributes["style"]) == [
                round(100 * attack.accuracy, 1)
            ]
            assert attack.interval is not None
            assert cell.attributes["title"].endswith("{:.1%} to {:.1%}".format(*attack.interval))
        for name in set(rows) - set(model.attacks) - {"clean", "worst case"}:
            assert name.startswith("Noise") or rows[name][place].text == "-"


def test_best_and_worst_of_a_row_are_marked(page: Node) -> None:
    for name, cells in attack_rows(page).items():
        shares = [percentages(cell.text)[0] if "%" in cell.text else None for cell in cells]
        known = [share for share in shares if share is not None]
        for share, cell in zip(shares, cells, strict=True):
            spread = len(set(known)) > 1
            assert bool(cell.all(name="best")) == (spread and share == max(known)), name
            assert bool(cell.all(name="worst")) == (spread and share == min(known)), name


def test_noises_are_apart(page: Node) -> None:
    searches, noises = page.one(id="attacks").all("table")[0].all("tbody")
    assert "noise" not in searches.text
    assert [str(head.children[0]) for head in noises.all("th")[1:]] == ["normal-noise", "uniform-noise"]


def test_median_distances_and_parameters_are_folded(report: Report, page: Node) -> None:
    table = page.one(id="attacks").one("details").one("table")
    rows = {row.one("th").text: row.all("td") for row in table.one("tbody").all("tr")}
    assert rows["cw"][0].text == "steps 1000, lr 0.01"
    assert rows["transfer"][0].text == "method mim (steps 10)"
    for place, model in enumerate(report.models):
        for name, attack in model.attacks.items():
            expected = f"{attack.median_l2:.3g} L∞ {attack.median_linf:.3g}" if attack.median_l2 else "none"
            shown = rows[name][1 + place].text
            assert shown == ("-" if attack.source == "not available" else expected)


def test_agreement_on_clean_images_is_stated(page: Node) -> None:
    notes = page.one(id="attacks").one("ul", "notes").text
    assert "On clean images: adversarial float 99.8%, robust 3 bits 99.8%." in notes


def points(node: Node) -> list[tuple[float, float]]:
    return [
        (float(x), float(y)) for x, y in (pair.split(",") for pair in node.attributes["points"].split(" "))
    ]


@pytest.mark.parametrize("place", [0, 1])
def test_curves_run_where_the_report_says(report: Report, page: Node, place: int) -> None:
    panel = page.one(id="curves").all("figure")[place]
    curves = [model.curves[place] for model in report.models if model.curves]
    end = curves[0].epsilon[-1]
    for line, band, curve in zip(panel.all("polyline"), panel.all("polygon"), curves, strict=True):
        for (x, y), epsilon, accuracy in zip(points(line), curve.epsilon, curve.accuracy, strict=True):
            assert x / WIDTH * end == pytest.approx(epsilon, abs=1e-3 * end)
            assert 1 - y / HEIGHT == pytest.approx(accuracy, abs=1e-3)
        corners = points(band)
        for low, high, accuracy in zip(corners, reversed(corners), curve.accuracy, strict=False):
            expected = wilson(round(1000 * accuracy), 1000)
            assert (1 - low[1] / HEIGHT, 1 - high[1] / HEIGHT) == pytest.approx(expected, abs=1e-3)
            assert low[0] == high[0]
    assert [node.text for node in panel.all("text") if "headline" in node.text] == ["headline 0.3"] * (
        not place
    )
    if not place:
        marked = panel.one("line", "headline-epsilon").attributes
        assert float(marked["x1"]) / WIDTH * end == pytest.approx(0.3, abs=1e-3)


def test_radii_far_beyond_the_headline_are_named_and_not_drawn(report: Report) -> None:
    page = read(to_html(replace(report, epsilon=0.03)))
    panel = page.one(id="curves").all("figure")[0]
    assert panel.one("figcaption").text.endswith("not drawn: epsilon 0.15, 0.2, 0.25, 0.3, 0.35, 0.4")
    assert {len(points(line)) for line in panel.all("polyline")} == {3}
    assert points(panel.all("polyline")[0])[-1][0] == WIDTH


def test_models_can_be_told_apart_without_colour(report: Report, page: Node) -> None:
    marks = [
        (node.all("path")[0].attributes["d"], "hollow" in node.all("path")[0].attributes["class"])
        for node in page.one(id="worst-case").all("svg", "key")
    ]
    assert len(set(marks)) == len(marks) == 6
    assert [hollow for _, hollow in marks] == [model.runtime == "onnx" for model in report.models]


def test_many_models_have_marks_of_their_own(report: Report) -> None:
    models = tuple(replace(report.models[0], name=f"model {place}") for place in range(12))
    page = read(to_html(replace(report, models=models)))
    marks = [node.all("path")[0].attributes for node in page.one(id="worst-case").all("svg", "key")]
    assert len({(mark["class"], mark["d"]) for mark in marks}) == len(marks) == 12


def pixels(node: Node) -> np.ndarray:
    data = node.attributes["src"].removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_pictures_show_the_images_and_what_lies_between(pictures: list[Picture], page: Node) -> None:
    cards = page.one(id="pictures").all("li")
    shown = sorted(pictures, key=lambda picture: picture.model != "robust 3 bits")
    for card, picture in zip(cards, shown, strict=True):
        clean, perturbed, difference = (pixels(node) for node in card.all("img"))
        for seen, image in ((clean, picture.clean), (perturbed, picture.perturbed)):
            expected = np.round(image.numpy() * 255).transpose(1, 2, 0)
            np.testing.assert_array_equal(seen.reshape(expected.shape), expected)
        factor = float(card.one("figcaption", "factor").text.split()[-1])
        moved = (picture.perturbed - picture.clean).numpy().transpose(1, 2, 0)
        recovered = (difference.reshape(moved.shape) / 255 - 0.5) / factor
        np.testing.assert_allclose(recovered, moved, atol=0.51 / 255 / factor)
        assert [node.text for node in card.all("figcaption")[:2]] == [picture.seen_clean, picture.seen]
        assert f"L2 {picture.l2:.3g}, L∞ {picture.linf:.3g}" in card.text
        assert f"image {picture.index}, class {picture.label}" in card.text


@pytest.mark.parametrize(
    ("step", "factor"), [(0.9, 0.5), (0.5, 1), (0.3, 1), (0.25, 2), (8 / 255, 10), (1e-3, 500), (0.0, 1)]
)
def test_differences_are_amplified_as_far_as_they_fit(
    report: Report, pictures: list[Picture], step: float, factor: float
) -> None:
    clean = pictures[0].clean * 0
    perturbed = clean.clone()
    perturbed[0, 3, 4] = step
    page = read(to_html(report, [replace(pictures[0], clean=clean, perturbed=perturbed)]))
    assert page.one("figcaption", "factor").text.split()[-1] == f"{factor:g}"


def test_forty_large_pictures_keep_the_page_small(report: Report, pictures: list[Picture]) -> None:
    big = pictures[-1].clean.repeat(1, 7, 7)
    many = [replace(pictures[-1], clean=big, perturbed=1 - big)] * 40
    source = to_html(report, many)
    assert len(source) < 2_000_000
    assert "shown at 1/5 of their size" in source
    assert pixels(read(source).all("img")[0]).shape == (45, 45, 3)


def test_an_image_of_other_channels_is_shown_by_their_mean(report: Report, pictures: list[Picture]) -> None:
    clean = pictures[-1].clean[:2]
    page = read(to_html(report, [replace(pictures[-1], clean=clean, perturbed=clean)]))
    np.testing.assert_allclose(pixels(page.all("img")[0]), clean.mean(0).numpy() * 255, atol=0.51)


def test_costs_are_those_of_the_report(report: Report, page: Node) -> None:
    queries, seconds = page.one(id="costs").all("table")
    for table, name, total in (
        (queries, "queries", "all attacks"),
        (seconds, "seconds", "all attacks and checks"),
    ):
        rows = {row.one("th").text: row.all("td") for row in table.one("tbody").all("tr")}
        most = max(getattr(each, name) for model in report.models for each in model.attacks.values())
        for place, model in enumerate(report.models):
            for attack, each in model.attacks.items():
                cell, value = rows[attack][place], getattr(each, name)
                if each.source == "not available":
                    assert cell.text == "-"
                    continue
                assert float(cell.text.replace(",", "")) == round(value, 1)
                bar = percentages(cell.one("span", "meter").one("span").attributes["style"])
                assert bar == [pytest.approx(100 * value / most, abs=0.051)]
            whole = (
                sum(each.queries for each in model.attacks.values()) if name == "queries" else model.seconds
            )
            assert float(rows[total][place].text.replace(",", "")) == round(whole, 1)


def test_disqualifying_flags_come_first_and_quiet_checks_are_folded(report: Report, page: Node) -> None:
    section = page.one(id="flags")
    assert [node.one(name="what").one("b").text for node in section.all(name="flag")] == [
        "scale",
        "black-box",
    ]
    first = section.all(name="flag")[0]
    assert "disqualifying" in first.text
    assert "0.431 threshold 0.02" in first.text
    assert "the same attack on the logit margin 31.2%" in first.text
    flagless = [model for model in report.models if model.checks]
    assert len(section.all("details")) == len(flagless)
    for details in section.all("details"):
        rows = details.one("tbody").all("tr")
        assert [row.one("th").text for row in rows] == [
            *("step order", "unbounded", "zero gradients", "random logits")
        ]
        assert "4 checks ran and did not fire" in details.one("summary").text
        assert "open" not in details.attributes
    assert "vendor.onnx onnxruntime no check was run" in section.text


def test_provenance_is_complete(report: Report, page: Node) -> None:
    section = page.one(id="provenance")
    assert section.one("code").text == report.provenance["command"]
    facts = {term.text: each.text for term, each in zip(section.all("dt"), section.all("dd"), strict=True)}
    assert facts["data, digest"] == report.data["digest"]
    assert facts["torch"] == report.provenance["versions"]["torch"]
    assert facts["date"] == report.provenance["date"]
    assert (facts["seed"], facts["processes"], facts["threads"]) == ("0", "2", "1")
    ids = section.one("details").one("p").text.split(", ")
    assert [int(each) for each in ids] == report.data["indices"]


def renamed(report: Report, pictures: list[Picture], text: str) -> tuple[Report, list[Picture]]:
    """The report with `text` wherever a stranger's may stand."""

    def rename(model: ModelReport) -> ModelReport:
        attacks = {
            f"{text}{place}": replace(each, parameters={"name": text, text: text, "method": {"name": text}})
            for place, each in enumerate(model.attacks.values())
        }
        checks = tuple(replace(check, check=text, explanation=text) for check in model.checks)
        curves = tuple(replace(curve, attack=text) for curve in model.curves)
        return replace(model, name=text, attacks=attacks, checks=checks, curves=curves)

    data = {**report.data, "name": text, "split": text, "digest": text}
    provenance = {"command": text, text: text, "versions": {text: text}}
    models = tuple(rename(model) for model in report.models)
    shown = [
        replace(each, model=text, attack=text, label=text, seen=text, seen_clean=text) for each in pictures
    ]
    return replace(report, suite=text, data=data, provenance=provenance, models=models), shown


def test_names_of_strangers_stay_names(report: Report, pictures: list[Picture]) -> None:
    """Other names change texts and the values of a few attributes, never the elements."""
    innocent, hostile = (read(to_html(*renamed(report, pictures, text))) for text in ("é" * 99, HOSTILE))
    assert [(node.tag, [*node.attributes]) for node in hostile] == [
        (node.tag, [*node.attributes]) for node in innocent
    ]
    plain = " ".join(HOSTILE.split())
    assert plain in hostile.one(id="worst-case").text
    for section in ("attacks", "curves", "pictures", "flags", "provenance"):
        assert plain in hostile.one(id=section).text, section


def test_a_report_with_nothing_in_it_can_be_shown(report: Report) -> None:
    model = replace(
        report.models[-1], attacks={}, worst_case=None, worst_case_interval=None, bits=None, nbytes=None
    )
    page = read(to_html(replace(report, models=(model,), provenance={}, epsilon=0.0)))
    assert page.one("strong").text == "-"
    assert "no attack was available" in page.one(id="worst-case").text
    assert not [
        node for node in page.all("section") if node.attributes["id"] in ("curves", "pictures", "costs")
    ]


def test_the_same_report_gives_the_same_bytes(report: Report, pictures: list[Picture]) -> None:
    assert to_html(report, pictures) == to_html(replace(report), [replace(each) for each in pictures])


def test_the_templates_are_part_of_the_package() -> None:
    folder = files("muquant.robustness.rendering") / "templates"
    page = (folder / "page.html").read_text(encoding="utf-8")
    parts = re.findall(r'{% include "([^"]+)" %}', page)
    assert "style.css" in parts
    assert all((folder / part).is_file() for part in parts)
