"""A report for people: a page that needs nothing else, and Markdown for a pull request."""

from muquant.robustness.rendering.files import write_report
from muquant.robustness.rendering.markdown import to_markdown
from muquant.robustness.rendering.page import to_html

__all__ = ["to_html", "to_markdown", "write_report"]
