"""Commands that are killed anywhere: nothing half-written, the next one works, the same bits, nothing left.

    python benchmarks/kills.py [--points 200] [--only JOB]

A job of `killing/jobs.py` runs undisturbed, twice, so that what its results say is known to be reproducible.
Then it is killed (SIGKILL) at points spread over its way: before a file is touched, and at times. After each
kill every output is absent, or can be read and is what was there before or what is to come, and nothing is
gone. The next command ends with 0, the
results say, bit for bit, what the undisturbed ones say, and no file is there that was not there after the
undisturbed run. Files in the folder for what is temporary are counted apart. Writes `results/kills.json`; the
exit status is 1 where any of that fails.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from killing.jobs import JOBS, Facts, Job, prepare
from killing.process import Ended, Point, run
from provenance import write_results
from rich.console import Console
from rich.table import Table

SEED = 0


@dataclass(frozen=True)
class Whole:
    """A job that was not disturbed.

    Attributes:
        before: what its outputs say before, by path; those that are there.
        after: what they say after it.
        files: that are in its folder then.
        ended: how it ended.
    """

    before: Facts
    after: Facts
    files: frozenset[str]
    ended: Ended


def main() -> int:
    """Kill, compare, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=200, help="over all jobs")
    parser.add_argument("--only", choices=JOBS, action="append", help="a job; may be given again")
    options = parser.parse_args()
    names = options.only or list(JOBS)
    table = Table("job", "kills", "half-written", "next fails", "differs", "left", "in tmp")
    jobs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch, "given")
        given.mkdir()
        _succeed(run(partial(prepare, given), given), "preparing")
        for name in names:
            found = kill_job(JOBS[name], given, Path(scratch), -(-options.points // len(names)))
            faults = Counter(fault for each in found for fault in each["faults"])
            jobs[name] = {"kills": len(found), "faults": dict(faults), "points": found}
            kinds = ("half-written", "next fails", "differs", "left")
            row = [sum(1 for each in found if kind in each["faults"]) for kind in kinds]
            temporary = sum(each["temporary"] for each in found)
            table.add_row(name, *map(str, (len(found), *row, temporary)))
            print(f"{name}: {len(found)} kills, {dict(faults) or 'nothing wrong'}", flush=True)
    Console().print(table)
    kills = sum(job["kills"] for job in jobs.values())
    wrong = sum(1 for job in jobs.values() for each in job["points"] if each["faults"])
    print(f"{kills} kills, {wrong} with a fault")
    print(f"wrote {write_results('kills', SEED, {'kills': kills, 'wrong': wrong, 'jobs': jobs})}")
    return int(wrong > 0)


def kill_job(job: Job, given: Path, scratch: Path, points: int) -> list[dict[str, Any]]:
    """Kill a job at so many points, and return what is wrong after each."""
    whole, again = (undisturbed(job, given, scratch / "whole") for _ in range(2))
    if whole.after != again.after:
        raise SystemExit(f"two undisturbed runs differ: {_differing(whole.after, again.after)}")
    draw = random.Random(SEED)
    by_file = min(whole.ended.events, points * 3 // 5)
    events = [1 + place * (whole.ended.events - 1) // max(by_file - 1, 1) for place in range(by_file)]
    times = [draw.uniform(0, whole.ended.seconds) for _ in range(points - by_file)]
    chosen = [*(Point(event=event) for event in events), *(Point(seconds=each) for each in sorted(times))]
    found = []
    for point in chosen:
        folder = fresh(given, scratch / "killed")
        if job.before is not None:
            _succeed(run(partial(job.run, job.before), folder), "before")
        killed = run(partial(job.run, job.command), folder, point)
        faults, words = after_kill(job, whole, folder)
        following = run(partial(job.run, job.following or job.command), folder)
        if following.status:
            faults.append("next fails")
            words.append(following.words[-2000:])
        else:
            more, why = after_next(job, whole, folder)
            faults, words = faults + more, words + why
        found.append(
            {
                **asdict(point),
                "was_killed": killed.status < 0,
                "faults": sorted(set(faults)),
                "words": words,
                "temporary": len(list((folder / "tmp").iterdir())),
            }
        )
    return found


def undisturbed(job: Job, given: Path, folder: Path) -> Whole:
    """Run a job to its end, and the one before it."""
    fresh(given, folder)
    if job.before is not None:
        _succeed(run(partial(job.run, job.before), folder), "before")
    before, _ = facts(job, folder)
    ended = run(partial(job.run, job.command), folder)
    _succeed(ended, "the job")
    after, faults = facts(job, folder)
    if faults or len(after) != len(job.outputs):
        raise SystemExit(f"no good outputs: {sorted(after)}, {faults}")
    return Whole(before, after, files_of(folder), ended)


def fresh(given: Path, folder: Path) -> Path:
    """Return a folder with what jobs are given, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(given / "in", folder / "in")
    (folder / "out").mkdir()
    return folder


def facts(job: Job, folder: Path) -> tuple[Facts, list[str]]:
    """What the outputs say that are there, by path, and which of them cannot be read."""
    found, faults = Facts(), []
    for name, say in job.outputs.items():
        if (folder / name).exists():
            try:
                found[name] = say(folder / name)
            except Exception as error:  # whatever a reader does of a file that is not whole
                faults.append(f"{name}: {error!r:.300}")
    return found, faults


def after_kill(job: Job, whole: Whole, folder: Path) -> tuple[list[str], list[str]]:
    """What is wrong with the outputs after a kill."""
    found, faults = facts(job, folder)
    faults += [f"{name} is gone" for name in whole.before if not (folder / name).exists()]
    if not job.grows:
        allowed = whole.before, whole.after
        faults += [
            f"{name} is neither old nor new"
            for name, says in found.items()
            if says not in [each.get(name) for each in allowed]
        ]
    return ["half-written"] * bool(faults), faults


def after_next(job: Job, whole: Whole, folder: Path) -> tuple[list[str], list[str]]:
    """What is wrong with the outputs after the next command, and what is left over."""
    faults, words = [], []
    found, unreadable = facts(job, folder)
    if unreadable:
        faults.append("half-written")
        words += unreadable
    if found != whole.after:
        faults.append("differs")
        words += _differing(whole.after, found)
    if left := sorted(files_of(folder) - whole.files):
        faults.append("left")
        words.append(f"left: {left}")
    if gone := sorted(whole.files - files_of(folder)):
        faults.append("differs")
        words.append(f"gone: {gone}")
    return faults, words


def files_of(folder: Path) -> frozenset[str]:
    """All files and folders but those for what is temporary."""
    paths = (path.relative_to(folder) for path in folder.rglob("*"))
    return frozenset(str(path) for path in paths if path.parts[0] != "tmp")


def _differing(wanted: Any, found: Any, place: str = "") -> list[str]:
    """Where two documents differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        keys = sorted({*wanted, *found}, key=str)
        return [
            each for key in keys for each in _differing(wanted.get(key), found.get(key), f"{place}/{key}")
        ][:5]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        return [each for at, (one, two) in pairs for each in _differing(one, two, f"{place}/{at}")][:5]
    return [] if wanted == found else [f"{place}: {wanted!r:.80} is {found!r:.80}"]


def _succeed(ended: Ended, what: str) -> None:
    if ended.status:
        with suppress(OSError):
            print(ended.words[-3000:])
        raise SystemExit(f"{what} ends with {ended.status}")


if __name__ == "__main__":
    sys.exit(main())
