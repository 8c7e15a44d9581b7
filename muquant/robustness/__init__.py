"""Robustness figures that can be believed: suites of attacks, masking checks, the report.

setup = BenchmarkSetup("standard", settings_for("mnist"))
report, pictures = benchmark([Subject("float", module)], load_dataset("mnist", "test"), setup)
"""

from muquant.robustness.benchmark import BenchmarkSetup, benchmark
from muquant.robustness.checks import CHECKS
from muquant.robustness.rendering import to_html, to_markdown, write_report
from muquant.robustness.report import AccuracyCurve, AttackReport, CheckReport, ModelReport, Picture, Report
from muquant.robustness.settings import SETTINGS, Settings, settings_for
from muquant.robustness.subject import Subject
from muquant.robustness.suites import SUITES, SuiteAttack

__all__ = [
    "CHECKS",
    "SETTINGS",
    "SUITES",
    "AccuracyCurve",
    "AttackReport",
    "BenchmarkSetup",
    "CheckReport",
    "ModelReport",
    "Picture",
    "Report",
    "Settings",
    "Subject",
    "SuiteAttack",
    "benchmark",
    "settings_for",
    "to_html",
    "to_markdown",
    "write_report",
]
