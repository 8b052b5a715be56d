"""What a rule of the workflow hands to the function of rglib that makes its results.

A rule for files under ``results/`` names such a function, as in
``rglib.report.theorem1:write_figure``, and ``workflow/scripts/report.py`` calls it with a `Job`.
The function reads what it is handed and writes all outputs, each with its record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from rglib.records.provenance import Provenance, provenance_of


@dataclass(frozen=True)
class Job:
    """A rule's files and parameters, by their names in the rule, and the configuration.

    Attributes:
        inputs: files, with those that `rglib.records.provenance.provenance_of` reads among them.
        outputs: files.
        params: parameters.
        config: the whole configuration.
    """

    inputs: Any
    outputs: Any
    params: Any
    config: Mapping[str, Any]

    @cached_property
    def provenance(self) -> Provenance:
        """What made the results."""
        return provenance_of(self.inputs, self.params, self.config)

    @property
    def problems(self) -> list[str]:
        """The configured problems."""
        return list(self.config["problems"])

    def labels(self, methods: Iterable[str] | None = None) -> dict[str, str]:
        """Readable names of configured methods, by default of all."""
        entries = self.config["methods"]
        return {method: entries[method]["label"] for method in methods or entries}

    def table(self, name: str) -> pd.DataFrame:
        """An input that is a CSV file, or several of them one after another."""
        paths = self.inputs[name]
        paths = [paths] if isinstance(paths, str) else paths
        return pd.concat(map(pd.read_csv, paths), ignore_index=True)
