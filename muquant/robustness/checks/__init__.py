"""Masking checks: named functions that find inflated figures. One line in `CHECKS` for each."""

from muquant.robustness.evidence import Check

CHECKS: dict[str, Check] = {check.name: check for check in ()}
