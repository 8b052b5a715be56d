"""The results on one page, ``results/report.html``: one file that needs no network.

`rglib.report.page` writes it from what `rglib.report.tables`, `charts`, `pictures` and `citation`
prepare; ``assets/`` holds its template, style and scripts.
"""

from pathlib import Path

from rglib.files import file_digest

ASSETS = Path(__file__).with_name("assets")


def assets_digest() -> str:
    """Name the state of the template, style and scripts, which no hash of the code covers."""
    return " ".join(file_digest(path)[:12] for path in sorted(ASSETS.iterdir()))
