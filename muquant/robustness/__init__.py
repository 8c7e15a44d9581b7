"""Robustness figures that can be believed: suites of attacks, masking checks, the report.

plan = Plan("standard", settings_for("mnist"))
report, pictures = benchmark([Subject("float", module)], load_dataset("mnist", "test"), plan)
"""

from muquant.robustness.benchmark import Plan, benchmark
from muquant.robustness.checks import CHECKS
from muquant.robustness.processes import FabricProcesses, OneProcess, Processes, join_processes
from muquant.robustness.rendering import to_html, to_markdown, write_report
from muquant.robustness.report import AttackReport, CheckReport, Curve, ModelReport, Picture, Report
from muquant.robustness.settings import SETTINGS, Settings, settings_for
from muquant.robustness.subject import Subject
from muquant.robustness.suites import SUITES, Trial

__all__ = [
    "CHECKS",
    "SETTINGS",
    "SUITES",
    "AttackReport",
    "CheckReport",
    "Curve",
    "FabricProcesses",
    "ModelReport",
    "OneProcess",
    "Picture",
    "Plan",
    "Processes",
    "Report",
    "Settings",
    "Subject",
    "Trial",
    "benchmark",
    "join_processes",
    "settings_for",
    "to_html",
    "to_markdown",
    "write_report",
]
