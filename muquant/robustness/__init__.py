"""Robustness figures that can be believed: suites of attacks, masking checks, the report."""
