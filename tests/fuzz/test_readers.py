"""Every reader, given files that are wrong: an `InputError`, or what is true.

What `benchmarks/fuzz.py` finds in hours is kept, once it is mended: its folder goes below `kept/`, named
READER-WORDS.
"""

import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fuzzing.case import read_case
from fuzzing.readers import READERS
from fuzzing.trial import judge
from hypothesis import HealthCheck, given, settings, strategies as st

pytestmark = pytest.mark.filterwarnings("ignore")
KEPT = sorted(path for path in (Path(__file__).parent / "kept").iterdir() if path.is_dir())
FEW = {"artifact": 25, "decoded": 20, "attacks": 15, "verified": 2}
FEW |= dict.fromkeys(("served", "cached", "compressed", "inspect"), 10)
"""Cases of readers that take long; of others there are 40."""
ADDRESSES, SECONDS = 4 << 30, 60
"""Bytes that a test may ask for, and how long it may take."""
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name == "verified")) for name in READERS]


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A reader that waits for a pipe, or takes all memory, fails its test and nothing else."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + ADDRESSES, before[1]))
    previous = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"more than {SECONDS} s"))
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("reader", NAMES)
def test_what_is_wrong_is_refused_or_answered_truly(reader: str) -> None:
    # the same cases in every run: what is new is looked for by the benchmark, and no chance makes a test red
    @settings(
        max_examples=FEW.get(reader, 40),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def holds(source: random.Random) -> None:
        _, finding = judge(reader, READERS[reader].make(source))
        assert finding is None, f"{finding.kind}\n{finding.words}"

    holds()


@pytest.mark.parametrize("reader", NAMES)
def test_good_files_are_read(reader: str) -> None:
    for case in READERS[reader].seeds():
        refused, finding = judge(reader, case)
        assert finding is None, f"{finding.kind}\n{finding.words}"
        assert refused == (reader == "cifar10")  # which are not the published files


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_what_was_found_stays_mended(folder: Path) -> None:
    _, finding = judge(folder.name.partition("-")[0], read_case(folder))
    assert finding is None, f"{finding.kind}\n{finding.words}"
