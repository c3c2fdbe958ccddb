# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recall@N of several runs in one figure, as figure 5 of the paper.

A pooling has one colour, or each run where all have one pooling (an alpha sweep); solid is
trained, dashed is off the shelf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netvlad_ros.errors import InputError

# The poolings that the paper compares, then GeM; further curves of one pooling get lighter.
_COLOURS = {
    'netvlad': 'tab:red', 'vlad': 'tab:blue', 'max': 'tab:green', 'average': 'tab:purple',
    'none': 'black', 'gem': 'tab:orange',
}  # fmt: skip
_MARKERS = 'osD^v<>P*X'


@dataclass(frozen=True)
class Curve:
    """Recall of one run.

    :param recall: in [0, 1] by N.
    :param pooling: its kind, which gives the colour.
    """

    label: str
    recall: Mapping[str, float]
    pooling: str
    is_trained: bool


def recall_figure(curves: Sequence[Curve], title: str, path: Path) -> None:
    """Write the curves of recall over N to an image file.

    :raises InputError: the file cannot be written or has an unknown ending.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    import numpy as np

    figure = Figure(figsize=(6.4, 4.8 + 0.11 * len(curves)), layout='constrained')
    axes = figure.add_subplot()
    before: dict[tuple[str, bool], int] = {}
    is_sweep = len(curves) > 2 and len({curve.pooling for curve in curves}) == 1
    shades = colormaps['viridis'](np.linspace(0, 0.9, len(curves)))
    for shade, curve in zip(shades, curves, strict=True):
        group = (curve.pooling, curve.is_trained)
        number = before[group] = before.get(group, -1) + 1
        numbers = sorted(int(n) for n in curve.recall)
        axes.plot(
            numbers,
            [100 * curve.recall[str(n)] for n in numbers],
            marker=_MARKERS[number % len(_MARKERS)],
            color=shade if is_sweep else _COLOURS.get(curve.pooling, 'gray'),
            alpha=1.0 if is_sweep else max(0.3, 1.0 - 0.15 * number),
            linestyle='-' if curve.is_trained else '--',
            label=f'{curve.label} ({"trained" if curve.is_trained else "off the shelf"})',
        )
    axes.margins(y=0.05)
    axes.set_xlabel('N, best database images')
    axes.set_ylabel('recall@N in percent')
    axes.set_title(title)
    axes.grid(alpha=0.3)
    # Below the axes no curve is hidden, however many there are.
    figure.legend(loc='outside lower center', ncols=2, fontsize='small', handlelength=3)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f'cannot write {str(path)!r}: {error}') from error
