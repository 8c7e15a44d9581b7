import subprocess
import sys

LATE = ("matplotlib", "lightning_fabric")
"""What takes long to load, and only some runs need."""


def test_what_only_some_runs_need_is_not_loaded_with_the_package() -> None:
    code = f"import sys, muquant.training; print([name for name in {LATE} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
