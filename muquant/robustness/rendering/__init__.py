"""A report for people: a page that needs nothing else, and Markdown for a pull request.

files.py      `write_report`: both, and the JSON document
markdown.py   the Markdown
page.py       the page, by templates/
charts.py     where its curves run
pictures.py   images under attack in it
rows.py       the table of attacks, for both
words.py      figures in words, for both
"""

from muquant.robustness.rendering.files import write_report
from muquant.robustness.rendering.markdown import to_markdown
from muquant.robustness.rendering.page import to_html

__all__ = ["to_html", "to_markdown", "write_report"]
