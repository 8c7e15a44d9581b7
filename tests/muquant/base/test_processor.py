"""What is read of /proc/cpuinfo."""

import platform
from pathlib import Path

import pytest

from muquant.base.processor import processor_lines, processor_name

CORE = """processor\t: {number}
model name\t: A Processor: fast
cpu MHz\t\t: {number}00
flags\t\t: fpu avx2
"""


def cpuinfo(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    def read_text(path: Path) -> str:
        assert str(path) == "/proc/cpuinfo"
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read_text)


def test_lines_of_all_cores_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo(monkeypatch, CORE.format(number=0) + "\n" + CORE.format(number=1))
    assert processor_lines() == ("model name\t: A Processor: fast", "flags\t\t: fpu avx2")
    assert processor_name() == "A Processor: fast"


@pytest.mark.parametrize(("known", "name"), [("arm", "arm"), ("", "unknown")])
def test_a_processor_without_a_name_is_called_as_the_system_calls_it(
    known: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "processor", lambda: known)
    cpuinfo(monkeypatch, "Features\t: fp asimd\nCPU part\t: 0xd0c\n")
    assert len(processor_lines()) == 2
    assert processor_name() == name
    cpuinfo(monkeypatch, None)
    assert processor_lines() == ()
    assert processor_name() == name
