"""Every reader, given files that are wrong: an `InputError`, or what is true.

What `benchmarks/fuzz.py` finds in hours is kept, once it is mended: its folder goes below `kept/`, named
READER-WORDS.
"""

import random
import shutil
from pathlib import Path

import pytest
from fuzzing.readers import READERS
from fuzzing.trial import judge, judge_folder
from hypothesis import HealthCheck, given, settings, strategies as st

KEPT = sorted(path for path in (Path(__file__).parent / "kept").iterdir() if path.is_dir())
SLOW = ("resume", "attacks", "images", "decoded", "served", "cached", "compressed", "inspect")
"""Tens of milliseconds a case."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", [name for name in READERS if name != "verified"])
def test_what_is_wrong_is_refused_or_answered_truly(reader: str) -> None:
    # the same cases in every run: what is new is looked for by the benchmark, and no chance makes a test red
    @settings(
        max_examples=8 if reader in SLOW else 40,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def holds(source: random.Random) -> None:
        _, finding = judge(reader, READERS[reader].make(source))
        assert finding is None, f"{finding.kind}\n{finding.words}"

    holds()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS)
def test_good_files_are_read(reader: str, tmp_path: Path) -> None:
    for case in READERS[reader].seeds():
        refused, finding = judge(reader, case)
        assert finding is None, f"{finding.kind}\n{finding.words}"
        assert refused == (reader == "cifar10")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_what_was_found_stays_mended(folder: Path, tmp_path: Path) -> None:
    case = Path(shutil.copytree(folder, tmp_path / "case"))
    _, finding = judge_folder(folder.name.partition("-")[0], case, 0)
    assert finding is None, f"{finding.kind}\n{finding.words}"
