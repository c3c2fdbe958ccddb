# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a report, drawn with matplotlib without a display."""

from __future__ import annotations

import io
import math
from typing import Any, Optional

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
import numpy as np

from netvlad_ros.evaluation.evaluation import (
    GEOMETRY,
    RETRIEVAL,
    Evaluation,
    acting_threshold,
)
from netvlad_ros.evaluation.metrics import NO_MATCH, PrCurve
from netvlad_ros.evaluation.truth import NEITHER, RIGHT, WRONG, BoolArray, Int64Array
from netvlad_ros.types import FloatArray

# Blue against vermilion: also told apart by eyes that mix up red and green.
COLOURS = {int(RIGHT): '#1f6fd6', int(WRONG): '#d9481c', int(NEITHER): '#9aa3ad'}
NAMES = {int(RIGHT): 'right', int(WRONG): 'wrong', int(NEITHER): 'neither'}
_STAGE_COLOURS = ('#1f6fd6', '#0f9d76', '#7a3fb8', '#9aa3ad', '#c28a00', '#b04a5a')
_INK, _GRID, _PATH = '#26323f', '#e4e8ec', '#b9c1ca'
_DPI = 160
# More keyframes than this are finer than the pixels of the matrix.
MATRIX_SIDE = 1000


def figures(evaluation: Evaluation) -> dict[str, bytes]:
    """Return the PNG pictures of a report by file stem."""
    out = {
        'trajectory': _png(trajectory_figure(evaluation)),
        'similarity_matrix': _png(matrix_figure(evaluation)),
    }
    if evaluation.judgement is not None:
        out['precision_recall'] = _png(precision_recall_figure(evaluation))
        out['scores'] = _png(scores_figure(evaluation))
    return out


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format='png', dpi=_DPI, bbox_inches='tight', metadata={'Software': None})
    return out.getvalue()


def _style(axes: Any) -> None:
    axes.tick_params(colors=_INK, labelsize=9, length=3)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    for side in ('left', 'bottom'):
        axes.spines[side].set_color(_PATH)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.title.set_color(_INK)


def declared_pairs(evaluation: Evaluation) -> tuple[Int64Array, Int64Array, str]:
    """Return the declared pairs to draw (P, 2), the label of each (P,), and what they are.

    Closures of the detector where it made any; else the best match of each query over the
    threshold that the data recommends for full precision.
    """
    replay, judgement = evaluation.replay, evaluation.judgement
    index_of = replay.index_of
    if judgement is not None and GEOMETRY in judgement.declared:
        declared = judgement.declared[GEOMETRY]
        threshold = acting_threshold(evaluation, GEOMETRY)
        kept = (declared != NO_MATCH) & (judgement.decisions[GEOMETRY].scores >= threshold)
        pairs = np.stack([judgement.queries[kept], declared[kept]], axis=1)
        labels = judgement.decisions[GEOMETRY].labels[kept]
        at = f', score >= {threshold:.1f}' if np.isfinite(threshold) else ''
        return pairs, labels.astype(np.int64), f'verified closures{at}'
    best = [(i, c) for i, c in enumerate(replay.closures) if c.rank == 0]
    pairs = np.asarray(
        [(index_of[c.query.id], index_of[c.match.id]) for _, c in best], dtype=np.int64
    ).reshape(-1, 2)
    if judgement is None:
        labels = np.full(len(pairs), NEITHER)
    else:
        labels = judgement.closure_labels[[i for i, _ in best]]
    threshold = replay.config.search.min_similarity
    what = f'best closure of each query, similarity >= {threshold:g}'
    return pairs, labels.astype(np.int64), what


def _positions(evaluation: Evaluation) -> tuple[Optional[FloatArray], BoolArray, str]:
    """Return positions (N, 3) to draw on, (N,) which are known, and their kind; None without."""
    keyframes, judgement = evaluation.replay.keyframes, evaluation.judgement
    truth = None if judgement is None else judgement.truth
    if truth is not None and truth.positions_m is not None and truth.known.any():
        return truth.positions_m, truth.known, 'true positions'
    known = np.asarray([k.T_odom_base is not None for k in keyframes], dtype=np.bool_)
    if known.sum() < 2:
        return None, known, ''
    positions = np.zeros((len(keyframes), 3))
    for index, keyframe in enumerate(keyframes):
        if keyframe.T_odom_base is not None:
            positions[index] = keyframe.T_odom_base[:3, 3]
    return positions, known, 'odometry'


def trajectory_figure(evaluation: Evaluation) -> Figure:
    """Return the path with each declared closure drawn on it; arcs over time without a path."""
    pairs, labels, what = declared_pairs(evaluation)
    positions, known, kind = _positions(evaluation)
    figure = Figure(figsize=(7.6, 5.4))
    axes = figure.subplots()
    if positions is None:
        _draw_arcs(axes, len(evaluation.replay.keyframes), pairs, labels)
        axes.set_title(f'{what}, over the keyframes in order', fontsize=10)
    else:
        # The two widest axes: a hand-held camera need not move in x and y.
        first, second = sorted(np.argsort(-np.ptp(positions[known], axis=0))[:2])
        path = np.where(known[:, None], positions, np.nan)[:, [first, second]]
        axes.plot(path[:, 0], path[:, 1], '-', color=_PATH, linewidth=1.4, zorder=1)
        axes.plot(path[:, 0], path[:, 1], '.', color=_PATH, markersize=3, zorder=2)
        _draw_links(axes, path, pairs, labels)
        start = path[np.flatnonzero(known)[0]]
        axes.plot(*start, marker='^', color=_INK, markersize=7, zorder=6)
        axes.annotate(' start', start, color=_INK, fontsize=9, zorder=6)
        axes.set_aspect('equal', adjustable='datalim')
        axes.set_xlabel(f'{"xyz"[first]} [m]')
        axes.set_ylabel(f'{"xyz"[second]} [m]')
        axes.set_title(f'{what}, drawn on {kind}', fontsize=10)
        axes.grid(color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    counts = {label: int((labels == label).sum()) for label in COLOURS}
    handles = [
        Line2D([], [], color=COLOURS[label], linewidth=2, label=f'{NAMES[label]} ({count})')
        for label, count in counts.items()
        if count or label != int(NEITHER)
    ]
    axes.legend(handles=handles, frameon=False, fontsize=9, loc='best')
    _style(axes)
    return figure


def _draw_links(axes: Any, path: FloatArray, pairs: Int64Array, labels: Int64Array) -> None:
    for zorder, label in enumerate((int(NEITHER), int(RIGHT), int(WRONG)), start=3):
        chosen = pairs[labels == label]
        lines = LineCollection(
            [path[pair] for pair in chosen], colors=COLOURS[label], linewidths=1.3,
            alpha=0.75 if label != int(WRONG) else 1.0, zorder=zorder,
        )  # fmt: skip
        axes.add_collection(lines)
        ends = path[chosen[:, 0]]
        axes.plot(ends[:, 0], ends[:, 1], 'o', color=COLOURS[label], markersize=3.2, zorder=zorder)


def _draw_arcs(axes: Any, count: int, pairs: Int64Array, labels: Int64Array) -> None:
    axes.plot([0, count - 1], [0, 0], color=_PATH, linewidth=2, zorder=1)
    angle = np.linspace(0.0, math.pi, 48)
    for zorder, label in enumerate((int(NEITHER), int(RIGHT), int(WRONG)), start=3):
        arcs = []
        for query, match in pairs[labels == label]:
            centre, radius = (query + match) / 2.0, (query - match) / 2.0
            arcs.append(np.stack([centre + radius * np.cos(angle), radius * np.sin(angle)], 1))
        axes.add_collection(
            LineCollection(arcs, colors=COLOURS[label], linewidths=1.1, alpha=0.8, zorder=zorder)
        )
    axes.set_xlim(-1, count)
    axes.set_ylim(-0.02 * count, 0.5 * count)
    axes.set_yticks([])
    axes.set_xlabel('keyframe')
    axes.spines['left'].set_visible(False)


def matrix_figure(evaluation: Evaluation) -> Figure:
    """Return the similarity of all pairs beside ground truth and the best matches.

    Of a long recording every k-th keyframe is drawn, so that at most ``MATRIX_SIDE`` are.
    """
    judgement = evaluation.judgement
    count = len(evaluation.replay.keyframes)
    step = max(1, math.ceil(count / MATRIX_SIDE))
    drawn = np.arange(0, count, step)
    descriptors = evaluation.replay.descriptors[drawn]
    similarity = descriptors @ descriptors.T
    extent = (-0.5, count - 0.5, count - 0.5, -0.5)
    figure = Figure(figsize=(10.6 if judgement else 5.6, 4.9), layout='constrained')
    panels = figure.subplots(1, 2 if judgement else 1, squeeze=False)[0]
    lower = np.tril(np.ones(similarity.shape, dtype=np.bool_), -1)
    shown = np.ma.masked_array(similarity, ~lower)
    low = float(np.percentile(similarity[lower], 2)) if count > 1 else 0.0
    image = panels[0].imshow(
        shown, cmap='magma', vmin=low, vmax=1.0, interpolation='nearest', extent=extent
    )
    figure.colorbar(image, ax=panels[0], shrink=0.8, label='similarity')
    panels[0].set_title('similarity of keyframes', fontsize=10)
    if judgement is not None:
        pairs = drawn[:, None], drawn[None]
        allowed, labels = judgement.truth.allowed(*pairs), judgement.truth.labels(*pairs)
        picture = np.ones((*allowed.shape, 3))
        picture[~allowed] = 0.93
        picture[allowed & (labels == NEITHER)] = (0.84, 0.88, 0.93)
        picture[allowed & (labels == RIGHT)] = (0.62, 0.77, 0.95)
        panels[1].imshow(picture, interpolation='nearest', extent=extent)
        declared = judgement.declared[RETRIEVAL]
        for label, colour in COLOURS.items():
            kept = (judgement.decisions[RETRIEVAL].labels == label) & (declared != NO_MATCH)
            panels[1].plot(
                declared[kept], judgement.queries[kept], '.', color=colour, markersize=3.5,
                label=f'best match {NAMES[label]}',
            )  # fmt: skip
        panels[1].set_title('shaded: right (blue), neither (pale), masked (gray)', fontsize=10)
        panels[1].legend(frameon=False, fontsize=8, loc='upper right', markerscale=2)
    for axes in panels:
        axes.set_xlabel('match keyframe')
        axes.set_ylabel('query keyframe')
        _style(axes)
    return figure


def precision_recall_figure(evaluation: Evaluation) -> Figure:
    """Return precision over recall: of each stage and baseline, and of the top k."""
    judgement = evaluation.judgement
    assert judgement is not None
    figure = Figure(figsize=(10.6, 4.3), layout='constrained')
    left, right = figure.subplots(1, 2)
    results = {**judgement.stages, **evaluation.baselines}
    for colour, (name, result) in zip(_STAGE_COLOURS, results.items(), strict=False):
        style = '--' if name in evaluation.baselines else '-'
        label = f'{name} ({100 * result.recall_at_100_precision.value:.1f} % at full precision)'
        _draw_curve(left, result.curve, colour, label, style)
    left.set_title('one declared match for each query', fontsize=10)
    for colour, (k, curve) in zip(_STAGE_COLOURS, judgement.top_k.items(), strict=False):
        _draw_curve(right, curve, colour, f'top {k}', '-')
    right.set_title('all of the k best over the threshold (what a verifier sees)', fontsize=10)
    for axes in (left, right):
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.03)
        axes.set_xlabel('recall of queries with a revisit')
        axes.set_ylabel('precision')
        axes.grid(color=_GRID, linewidth=0.6)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8.5, loc='lower left')
        _style(axes)
    return figure


def _draw_curve(axes: Any, curve: PrCurve, colour: str, label: str, style: str) -> None:
    if not len(curve.recall) or not curve.with_revisit:
        return
    recall = np.concatenate([[0.0], curve.recall])
    precision = np.concatenate([curve.precision[:1], curve.precision])
    axes.plot(
        recall, precision, style, color=colour, linewidth=1.8, label=label,
        marker='o' if len(curve.recall) == 1 else None, markersize=4,
    )  # fmt: skip


def scores_figure(evaluation: Evaluation) -> Figure:
    """Return how similar the best matches of queries are, right against wrong."""
    judgement = evaluation.judgement
    assert judgement is not None
    made = judgement.decisions[RETRIEVAL]
    figure = Figure(figsize=(7.6, 2.9), layout='constrained')
    axes = figure.subplots()
    finite = np.isfinite(made.scores)
    if finite.any():
        low, high = float(made.scores[finite].min()), float(made.scores[finite].max())
        bins = np.linspace(low, max(high, low + 1e-3), 33)
        for label in (int(RIGHT), int(WRONG), int(NEITHER)):
            values = made.scores[finite & (made.labels == label)].tolist()
            name = f'{NAMES[label]} ({len(values)})'
            axes.hist(values, bins.tolist(), color=COLOURS[label], alpha=0.62, label=name)
    for precision, style in (('0.99', ':'), ('1.0', '--')):
        value = judgement.stages[RETRIEVAL].recommended[precision].value
        if math.isfinite(value):
            text = f'precision {precision}: {value:.4f}'
            axes.axvline(value, color=_INK, linestyle=style, linewidth=1.2, label=text)
    axes.set_xlabel('similarity of the best match')
    axes.set_ylabel('queries')
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8.5)
    _style(axes)
    return figure
