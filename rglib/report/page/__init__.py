"""The results on one page, ``results/report.html``: one file that needs no network.

`rglib.report.page.page` writes it from what `rglib.report.page.tables`, `charts`, `pictures` and
`citation` prepare; ``assets/`` holds its template, style and scripts.
"""

from pathlib import Path

ASSETS = Path(__file__).with_name("assets")
