# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recall@N of several runs in one figure, as figure 5 of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from netvlad_ros.errors import InputError


def recall_figure(curves: Mapping[str, Mapping[str, float]], title: str, path: Path) -> None:
    """Write the curves of recall over N to an image file.

    :param curves: for each run, recall in [0, 1] by N.
    :raises InputError: the file cannot be written or has an unknown ending.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout='constrained')
    axes = figure.add_subplot()
    for name, values in curves.items():
        numbers = sorted(int(n) for n in values)
        axes.plot(numbers, [100 * values[str(n)] for n in numbers], marker='o', label=name)
    axes.set_xlabel('N, best database images')
    axes.set_ylabel('recall@N in percent')
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc='lower right')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f'cannot write {str(path)!r}: {error}') from error
