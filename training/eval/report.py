"""Our figures as a row under the rows of the paper's tables, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...comovi_model.errors import ComoviError

TABLES = Path(__file__).with_name("paper_tables.json")


def paper_tables() -> dict[str, Any]:
    return json.loads(TABLES.read_text(encoding="utf-8"))


def table(kind: str, results: Mapping[str, Any], name: str = "this run") -> str:
    """kind: motion, video or ablations; results: what `comovi-train eval` wrote."""
    tables = paper_tables()
    if kind not in ("motion", "video", "ablations"):
        raise ComoviError(f"no table {kind!r}; choose motion, video or ablations.")
    columns, rows = tables[kind]["columns"], tables[kind]["rows"]
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {who} | " + " | ".join(f"{value:.3f}" for value in values) + " |" for who, values in rows.items()]
    for who, key in ((name, "generated"), ("real motions", "real")):
        figures = results.get(key) or {}
        if figures:
            lines.append(f"| {who} | " + " | ".join(_cell(figures.get(column)) for column in columns) + " |")
    notes = [f"Paper: {tables['source']}."]
    if not results.get("comparable"):
        notes.append(
            f"The last rows are NOT comparable with the others (embedder {results.get('embedder')}, pool "
            f"{results.get('pool', '-')}); they tell runs of ours apart."
        )
    return "\n".join([*lines, "", " ".join(notes)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    interval = value.get("interval", 0.0)
    return f"{value['mean']:.3f}" + (f" ± {interval:.3f}" if interval else "")
