"""The plot: each goal's ratio as a share of its limit."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import TOLERANCE

if TYPE_CHECKING:
    from benchmarks.report import Reading

_COLOURS = {"holds": "#2a7f62", "within 10 %": "#d9a21b", "falls short": "#b3392f"}


def draw(readings: list[Reading], path: Path) -> bool:
    """Write the SVG; say False where matplotlib (the extra ``bench``) is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = [r for r in readings if r.measured is not None and r.goal.limit is not None][::-1]
    labels = [f"{r.goal.number}  {r.goal.work}" for r in shown]
    shares = [r.measured.ratio / r.goal.limit for r in shown if r.measured and r.goal.limit]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(labels, shares, color=[_COLOURS[r.verdict] for r in shown])
    texts = [f"{r.measured.ratio:.2f} of {r.goal.limit:.2f}" for r in shown if r.measured]
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # above the lines
    axes.bar_label(bars, texts, padding=4, fontsize=8, bbox=plain, zorder=3)
    axes.margins(y=0.01)
    axes.axvline(1, color="black", linewidth=1)
    axes.axvline(TOLERANCE, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, max([1.5, *(share * 1.25 for share in shares)]))
    axes.set_xlabel("measured ratio / limit: green holds, yellow is within 10 %, red falls short")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Fixed ids and no date, so that the file changes only where the figures do.
    with mpl.rc_context({"svg.hashsalt": "sigra", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return True
