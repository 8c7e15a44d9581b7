"""Robustness figures that can be believed: suites of attacks, masking checks, the report.

setup = BenchmarkSetup("standard", settings_for("mnist"))
report, pictures = benchmark([Subject("float", module)], load_dataset("mnist", "test"), setup)

What is asked:
settings.py     the numbers of a data set: epsilons, steps
suites.py       which attacks, with these numbers
own.py          attacks that a user lists, as a suite
aims.py         the class that attacks aim at, by rules
subject.py      a model by name, as a module, under a runtime, or both

What is done:
benchmark.py    `benchmark`: all attacks and checks on all models
assessment.py   the same on one model
runner.py       one attack on one model: batches shared by processes, finished attacks kept
store.py        where they are kept
kept.py         whether one that was kept can be believed
certified.py    what is proven beside them
corruptions.py  noise, blur, weather: accuracy apart from attacks
checks/         what finds inflated figures
evidence.py     what these checks look at, and what they answer
sweep.py        accuracy against epsilon
progress.py     how far it is
familiar.py     calls shaped like AutoAttack's and Foolbox's

What is said:
statistics.py   intervals
summary.py      from what was found to what is reported
images.py       what became of each image, as files
report.py       the report as data; REPORT.md has its fields
rendering/      the report as JSON, Markdown and a page

README.md says why they are made as they are.
"""

from muquant.robustness.aims import AIMS
from muquant.robustness.benchmark import BenchmarkSetup, benchmark
from muquant.robustness.checks import CHECKS
from muquant.robustness.corruptions import CORRUPTIONS, read_kinds
from muquant.robustness.familiar import AutoAttack, at_epsilons
from muquant.robustness.images import ImageResults, write_images
from muquant.robustness.own import read_suite
from muquant.robustness.rendering import to_html, to_markdown, write_report
from muquant.robustness.report import (
    AccuracyCurve,
    AttackReport,
    CheckReport,
    CorruptionReport,
    ModelReport,
    Picture,
    Report,
)
from muquant.robustness.settings import SETTINGS, Settings, settings_for
from muquant.robustness.subject import Subject
from muquant.robustness.suites import SUITES, SuiteAttack

__all__ = [
    "AIMS",
    "CHECKS",
    "CORRUPTIONS",
    "SETTINGS",
    "SUITES",
    "AccuracyCurve",
    "AttackReport",
    "AutoAttack",
    "BenchmarkSetup",
    "CheckReport",
    "CorruptionReport",
    "ImageResults",
    "ModelReport",
    "Picture",
    "Report",
    "Settings",
    "Subject",
    "SuiteAttack",
    "at_epsilons",
    "benchmark",
    "read_kinds",
    "read_suite",
    "settings_for",
    "to_html",
    "to_markdown",
    "write_images",
    "write_report",
]
