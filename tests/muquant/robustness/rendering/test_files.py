import json
from dataclasses import replace
from pathlib import Path

import pytest

import muquant
from muquant.robustness.rendering import to_html, to_markdown, write_report
from muquant.robustness.report import Picture, Report


def test_three_files_are_written(report: Report, pictures: list[Picture], tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    paths = write_report(report, pictures, folder)
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert paths[1].read_text(encoding="utf-8") == to_markdown(report)
    assert paths[2].read_text(encoding="utf-8") == to_html(report, pictures)


def test_the_document_holds_the_values_of_the_report(report: Report, tmp_path: Path) -> None:
    text = write_report(report, [], tmp_path)[0].read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    document = json.loads(text, parse_constant=refuse)
    assert document["threat"] == {"norm": report.norm, "epsilon": report.epsilon, "target_class": None}
    assert document["data"] == report.data
    assert document["command"] == report.provenance["command"]
    for found, model in zip(document["models"], report.models, strict=True):
        assert (found["name"], found["worst_case"]) == (model.name, model.worst_case)
        assert list(found["attacks"]) == list(model.attacks)
        for name, attack in model.attacks.items():
            kept = found["attacks"][name]
            assert kept["accuracy"] == attack.accuracy
            assert kept["interval"] == (None if attack.interval is None else list(attack.interval))
            assert kept["parameters"] == attack.parameters
            assert (kept["queries"], kept["seconds"]) == (attack.queries, attack.seconds)
        assert [flag["check"] for flag in found["flags"]] == [flag.check for flag in model.flags]


def test_the_same_report_gives_the_same_files(
    report: Report, pictures: list[Picture], tmp_path: Path
) -> None:
    first, second = (write_report(report, pictures, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_cannot_be_rendered_leaves_the_old_files(report: Report, tmp_path: Path) -> None:
    paths = write_report(report, [], tmp_path)
    before = [path.read_bytes() for path in paths]
    broken = replace(report, suite="other", data={"name": "mnist", "split": "test"})
    with pytest.raises(KeyError):
        write_report(broken, [], tmp_path)
    assert [path.read_bytes() for path in paths] == before
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_made_is_named(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(muquant.InputError, match=r"cannot make the folder .*file: .*; name another"):
        write_report(report, [], tmp_path / "file")
