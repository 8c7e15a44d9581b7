"""Files that are wrong on purpose, for every reader, by the million.

    python benchmarks/fuzz.py [--cases 1000000] [--max-seconds S] [--only READER] [--workers N]
        [--folder fuzz]
    python benchmarks/fuzz.py --again fuzz/findings

A case is a good file with something changed, drawn from a seed; what is tried and how is in `fuzzing/`. A
finding is an error that is no `InputError`, more than 5 s of work, more than 1 GB beside the input, a crash,
or a file that a plain session of onnxruntime answers and one by a policy answers otherwise. The first three
of a kind are kept below FOLDER/findings; `--again` tries them once more. The next call goes on where one was
interrupted or ran out of time. Writes `results/fuzz.json`; the exit status is 1 while a finding is open.

Changes are drawn blindly. atheris, choosing the same changes by the lines that they reach, reached fewer
lines in the same time.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from fuzzing.case import write_case
from fuzzing.pool import Chunk, Worker, again
from fuzzing.readers import READERS
from fuzzing.trial import Finding, make
from provenance import commit, write_results

from muquant.base.files import write_json

SEED = 0
KEPT = 3
"""Cases of a kind that are kept."""


class Campaign:
    """All sittings together, kept in a folder.

    Args:
        folder: of the state and the findings.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.file = self.folder / "state.json"
        empty: dict[str, Any] = {"readers": {}, "findings": {}, "elsewhere": 0, "sittings": []}
        self.state = json.loads(self.file.read_bytes()) if self.file.exists() else empty

    def reader(self, name: str) -> dict[str, Any]:
        """Return what is counted of a reader."""
        counts: dict[str, Any] = self.state["readers"].setdefault(
            name, {"cases": 0, "refused": 0, "seconds": 0.0}
        )
        return counts

    def sit(self, wanted: dict[str, int], seconds: float, workers: int) -> None:
        """Try cases until all that are wanted have been, or the time is over."""
        end, began, before = time.monotonic() + seconds, time.monotonic(), self.cases
        running: dict[str, Worker] = {}
        number = 0
        try:
            while True:
                left = {
                    name: (self.reader(name)["cases"] / count, name)
                    for name, count in wanted.items()
                    if name not in running and self.reader(name)["cases"] < count
                }
                while left and len(running) < workers and time.monotonic() < end:
                    _, name = left.pop(min(left, key=left.__getitem__))
                    number += 1
                    done = self.reader(name)["cases"]
                    scratch = self.folder / f"scratch-{os.getpid()}-{number}"
                    running[name] = Worker(name, done, wanted[name] - done, end - time.monotonic(), scratch)
                if not running:
                    return
                time.sleep(0.1)
                for name, worker in list(running.items()):
                    chunk = worker.poll()
                    if chunk is not None:
                        del running[name]
                        self.add(chunk)
        finally:
            for worker in running.values():
                worker.process.kill()
            sitting = {"commit": commit(), "cases": self.cases - before, "seconds": time.monotonic() - began}
            self.state["sittings"].append(sitting)
            self.save()

    @property
    def cases(self) -> int:
        """How many were tried."""
        return sum(each["cases"] for each in self.state["readers"].values())

    def add(self, chunk: Chunk) -> None:
        """Count what was tried, and keep what was found."""
        counts = self.reader(chunk.reader)
        if chunk.ended:  # the case that ended it is judged alone
            seed = chunk.first + chunk.done
            chunk.findings[seed] = Finding(chunk.ended, "")
            chunk.done += 1
        for seed, finding in chunk.findings.items():
            self.keep(chunk.reader, seed, finding)
        counts["cases"] += chunk.done
        counts["refused"] += chunk.refused
        counts["seconds"] += chunk.seconds
        print(f"{self.cases:,} cases; {chunk.reader}: {counts['cases']:,}", flush=True)
        self.save()

    def keep(self, reader: str, seed: int, finding: Finding) -> None:
        """Keep a finding as a folder, unless there are enough like it."""
        place = self.folder / "findings" / f"{reader}-{seed}"
        shutil.rmtree(place, ignore_errors=True)  # of a sitting that was killed here
        files = write_case(make(reader, seed), place / "files")
        if finding.kind in ("hang", "crash", "memory"):
            confirmed = again(reader, files, self.folder / "scratch-again")
            if confirmed is None:  # onnxruntime's own, or other work on the machine
                self.state["elsewhere"] += 1
                shutil.rmtree(place)
                return
            finding = confirmed
        kind = f"{reader}: {finding.kind}"
        found = self.state["findings"].setdefault(kind, {"cases": 0, "commit": commit(), "open": True})
        found["cases"] += 1
        found["open"] = True
        if found["cases"] > KEPT:
            shutil.rmtree(place)
        else:
            document = {"reader": reader, "seed": seed, "kind": kind, "words": finding.words}
            write_json(place / "finding.json", document)
            print(f"found {kind}: {place}", flush=True)

    def save(self) -> None:
        """Write the state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.file, self.state)


def try_again(folder: Path, words: bool) -> dict[str, bool]:
    """Judge all findings below a folder anew, print, and return which kinds are still open."""
    still: dict[str, bool] = {}
    for place in sorted(folder.rglob("finding.json")):
        document = json.loads(place.read_bytes())
        finding = again(document["reader"], place.parent / "files", folder.absolute() / "scratch-again")
        kind = document["kind"]
        still[kind] = still.get(kind, False) or finding is not None
        print(f"{place.parent.name}: {'nothing wrong' if finding is None else finding.kind}")
        if words and finding is not None:
            print("    " + finding.words.strip().replace("\n", "\n    "))
    return still


def main() -> int:
    """Try cases, or findings once more; print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=10**6, help="over all readers")
    parser.add_argument("--max-seconds", type=float, default=float("inf"), help="of this sitting")
    parser.add_argument("--only", choices=READERS, action="append", help="a reader; may be given again")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--folder", type=Path, default=Path("fuzz"), help="of the state and the findings")
    parser.add_argument("--again", type=Path, metavar="FOLDER", help="try the findings below it once more")
    options = parser.parse_args()
    if options.again is not None:
        return int(any(try_again(options.again, words=True).values()))
    campaign = Campaign(options.folder)
    whole = sum(reader.share for reader in READERS.values())
    wanted = {
        name: -(-options.cases * reader.share // whole)
        for name, reader in READERS.items()
        if options.only is None or name in options.only
    }
    campaign.sit(wanted, options.max_seconds, options.workers)
    for kind, is_open in try_again(campaign.folder / "findings", words=False).items():
        campaign.state["findings"][kind]["open"] = is_open
    campaign.save()
    readers = {
        name: {**counts, "a_second": counts["cases"] / counts["seconds"] if counts["seconds"] else None}
        for name, counts in sorted(campaign.state["readers"].items())
    }
    document = {"cases": campaign.cases, "wanted": options.cases, **campaign.state, "readers": readers}
    print(f"wrote {write_results('fuzz', SEED, document)}")
    return int(any(found["open"] for found in campaign.state["findings"].values()))


if __name__ == "__main__":
    sys.exit(main())
