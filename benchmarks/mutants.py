"""Whether the tests notice that a line of the heart is wrong: mutants, each in a copy of the tree.

    python benchmarks/mutants.py [--tree DIR] [--only NAME] [--name mutants]

A mutant is one line made wrong on purpose. For each the tests that go red are counted, and named without
their parameters: those of `make quick` or, where none of them notices, all. Writes `results/mutants.json`;
the exit status is 1 where a mutant lives. `--tree` takes another checkout, of an earlier commit for example,
whose files are found by their lines.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provenance import write_results
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
SEED = 0
SOURCES = ("muquant", "export/muquant_onnx")
LEFT_OUT = ("attacks", "robustness", "training", "data", "models", "feedback", "sources")
"""Folders of tests that look at other things; as do the command line's and the benchmarks'."""


@dataclass(frozen=True)
class Mutant:
    """A line, and what it becomes.

    Attributes:
        file: name of the file that it is in.
        line: part of the line, there once.
        wrong: what stands there instead.
    """

    file: str
    line: str
    wrong: str


MUTANTS = {
    "levels are cut, not rounded": Mutant(
        "law.py", "return exact.round().to(torch.int16)", "return exact.floor().to(torch.int16)"
    ),
    "codes are packed backwards": Mutant(
        "packing.py", "<< np.uint64(bits * j)", "<< np.uint64(bits * (RUN - 1 - j))"
    ),
    "groups are cut across channels": Mutant(
        "rows.py", "return matrix.reshape(-1, size)", "return matrix.reshape(size, -1).T"
    ),
    "a step is too small": Mutant("tensor.py", "(scale.double() / spec.grid_max)", "(scale.double() / 128)"),
    "ties go down": Mutant("nearest.py", "passed += (ratio >= boundary)", "passed += (ratio > boundary)"),
    "rows count alike in the search": Mutant(
        "observers.py", "return float((best * self.top.square()).sum())", "return float(best.sum())"
    ),
    "the scale's gradient has a wrong sign": Mutant(
        "straight_through.py", "addcmul_(passing, values, value=-1)", "addcmul_(passing, values, value=1)"
    ),
    "compensation goes the wrong way": Mutant("compensated.py", "moved += (factor", "moved -= (factor"),
    "reconstruction forgets what it changed": Mutant(
        "reconstructed.py", "* moved[:, None]", "* 0 * moved[:, None]"
    ),
    "moments about a mean are wrong": Mutant("moments.py", "self.third - 2 * turned", "self.third - turned"),
    "the worst outcome is taken": Mutant(
        "quantize.py", "losses.index(min(losses))", "losses.index(max(losses))"
    ),
    "the decoder cuts words short": Mutant(
        "decode_function.py",
        "words_size = Constant <value = int32 {{{1 << self.width}}}> ()",
        "words_size = Constant <value = int32 {{{1 << self.width - 1}}}> ()",
    ),
}


def main() -> int:
    """Try every mutant, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout to mutate")
    parser.add_argument("--only", choices=MUTANTS, help="one mutant")
    parser.add_argument("--name", default="mutants", help="of the results")
    options = parser.parse_args()
    chosen = [options.only] if options.only else list(MUTANTS)
    table = Table("mutant", "tests red", "of them")
    red: dict[str, Any] = {}
    for name in ("none", *chosen):
        red[name] = try_mutant(options.tree, MUTANTS.get(name))
        print(f"{name}: {len(red[name])}", flush=True)
    for name in chosen:
        table.add_row(name, str(len(red[name])), ", ".join(red[name][:3]))
    Console().print(table)
    alive = [name for name in chosen if not red[name]]
    print(f"alive: {', '.join(alive) or 'none'}; red without any mutant: {len(red['none'])}")
    document = {"red": red, "counts": {name: len(tests) for name, tests in red.items()}, "alive": alive}
    print(f"wrote {write_results(options.name, SEED, document)}")
    return int(bool(alive or red["none"]))


def try_mutant(tree: Path, mutant: Mutant | None) -> list[str]:
    """The tests that go red, FILE::TEST without parameters, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "tree")
        listed = subprocess.run(["git", "ls-files"], cwd=tree, capture_output=True, text=True, check=True)
        for path in listed.stdout.splitlines():
            if path.startswith(("muquant/", "export/", "cli/", "tests/", "pyproject.toml")):
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(tree / path, copy / path)
        if mutant is None:
            return run_tests(copy)
        mutate(copy, mutant)
        return run_tests(copy, "-m", "not slow") or run_tests(copy)


def mutate(copy: Path, mutant: Mutant) -> None:
    """Make the line wrong in the one file that has it."""
    files = [path for source in SOURCES for path in (copy / source).rglob("*.py")]
    found = [path for path in files if path.read_text().count(mutant.line) == 1]
    if len(found) != 1:
        raise SystemExit(f"{mutant.line!r}: expected one file with this line, found {found}; mend the mutant")
    found[0].write_text(found[0].read_text().replace(mutant.line, mutant.wrong))


def run_tests(copy: Path, *options: str) -> list[str]:
    """Run the tests of a copy with options of pytest's, and name those that fail."""
    tests = [
        path
        for path in sorted((copy / "tests").rglob("test_*.py"))
        if path.relative_to(copy / "tests").parts[0] in ("muquant", "muquant_onnx")
        and not set(path.parts) & set(LEFT_OUT)
    ]
    places = [copy, *(copy / part for part in ("export", "cli"))]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-rfE",
            "--no-header",
            "--tb=no",
            "-n",
            "auto",
            *options,
            *tests,
        ],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
    )
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+?)(?:\[| - |$)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or (done.returncode == 1) != bool(failed):
        raise SystemExit(f"pytest did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return sorted(set(failed))


if __name__ == "__main__":
    sys.exit(main())
