"""Draws a result's curves as small SVG files."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]  # only in the bench group

from bench.result import Plot

mpl.use("svg")
# Only after the backend is chosen.
from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]  # as above

STYLES = ("o-", "s-", "^--", "d:")


def draw(plot: Plot, file: Path) -> None:
    """Writes one drawing; the same curves give the same bytes."""
    mpl.rcParams["svg.hashsalt"] = plot.name
    mpl.rcParams["svg.fonttype"] = "none"
    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for (name, points), style in zip(plot.curves.items(), STYLES, strict=False):
        axes.plot(*zip(*points, strict=True), style, label=name, markersize=4, linewidth=1.2)
    if plot.logarithmic:
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_title(plot.title, fontsize=10)
    axes.set_xlabel(plot.x, fontsize=9)
    axes.set_ylabel(plot.y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
