# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several recordings together: one table, thresholds learnt on the others, runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import math
from pathlib import Path
from typing import Any, Optional

import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.evaluation import CONSISTENCY, GEOMETRY, RETRIEVAL, Evaluation
from netvlad_ros.evaluation.metrics import (
    Decisions,
    at_threshold,
    precision_recall,
    threshold_for_precision,
)
from netvlad_ros.evaluation.report_json import number

STAGES = (RETRIEVAL, CONSISTENCY, GEOMETRY)
Row = tuple[str, ...]


def pooled(runs: Sequence[Decisions]) -> Decisions:
    """Return the decisions of several runs as one set."""
    return Decisions(
        np.concatenate([run.scores for run in runs]),
        np.concatenate([run.labels for run in runs]),
        np.concatenate([run.has_revisit for run in runs]),
    )


def leave_one_out(
    evaluations: Sequence[Evaluation], precision: float = 1.0
) -> list[dict[str, Any]]:
    """Return, for each recording and stage, what the threshold learnt on the others gives on it.

    The threshold is that of the largest recall at ``precision`` on all others together. Entries:
    name, stage, threshold, precision, recall; null without a threshold or a revisit, precision
    also where nothing reaches the threshold.
    """
    out = []
    for stage in STAGES:
        runs = [
            (e.name, e.judgement.decisions[stage])
            for e in evaluations
            if e.judgement is not None and stage in e.judgement.decisions
        ]
        for index, (name, own) in enumerate(runs):
            others = [run for i, (_, run) in enumerate(runs) if i != index]
            if not others:
                continue
            threshold = threshold_for_precision(precision_recall(pooled(others)), precision)
            reached = (
                (math.nan, math.nan) if math.isnan(threshold) else at_threshold(own, threshold)
            )
            declares = (own.judged & (own.scores >= threshold)).any()
            out.append({
                'name': name,
                'stage': stage,
                'threshold': number(threshold),
                'precision': number(reached[0]) if declares else None,
                'recall': number(reached[1]),
            })  # fmt: skip
    return out


def results_table(reports: Sequence[Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    """Return head and rows of the table of several reports; a dash is 0/0 or not measured."""
    methods: list[str] = []
    for report in reports:
        for name in (*(report['stages'] or {}), *report['baselines']):
            if name not in methods:
                methods.append(name)
    order = [m for m in methods if m not in STAGES] + [m for m in STAGES if m in methods]
    head = ('recording', 'queries / with revisit / judged', 'recall@1',
            *(f'R@100P {m}' for m in order), 'verified precision', 'verified recall')  # fmt: skip
    rows = []
    for report in reports:
        results = {**(report['stages'] or {}), **report['baselines']}
        counts = [report['queries'], report['queries_with_revisit'],
                  report['queries_judged_with_revisit']]  # fmt: skip
        rows.append((
            str(report['name']),
            ' / '.join('-' if c is None else str(c) for c in counts),
            percent(report['recall_at']['1']),
            *(_full_precision_recall(results[m]) if m in results else '-' for m in order),
            percent(report['verified_precision']),
            percent(report['verified_recall']),
        ))  # fmt: skip
    return head, rows


def _full_precision_recall(result: Mapping[str, Any]) -> str:
    """Return a cell; methods differ in the queries that count, since their matches do."""
    return percent(
        result['recall_at_100_precision']['value'], result['queries_judged_with_revisit']
    )


def leave_one_out_table(entries: Sequence[Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    """Return head and rows of ``leave_one_out``."""
    rows: list[Row] = [
        (
            str(entry['name']),
            str(entry['stage']),
            '-' if entry['threshold'] is None else f'{entry["threshold"]:.4f}',
            percent(entry['precision']),
            percent(entry['recall']),
        )
        for entry in entries
    ]
    return ('recording', 'stage', 'threshold of the others', 'precision', 'recall'), rows


def compare_table(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[Row, list[Row]]:
    """Return two reports side by side, one figure in each row, with the difference."""
    a, b = _figures(first), _figures(second)
    rows: list[Row] = [
        ('name', str(first['name']), str(second['name']), ''),
        ('model', str(first['model_id']), str(second['model_id']), ''),
    ]
    for name in dict.fromkeys((*a, *b)):
        left, right = a.get(name), b.get(name)
        change = '' if left is None or right is None else f'{right - left:+.4g}'
        rows.append((name, _plain(left), _plain(right), change))
    for name in sorted(set(first['protocol']) | set(second['protocol'])):
        left_text, right_text = (str(r['protocol'].get(name, '-')) for r in (first, second))
        if left_text != right_text:
            rows.append((f'protocol differs: {name}', left_text, right_text, ''))
    return ('figure', 'first', 'second', 'change'), rows


def _figures(report: Mapping[str, Any]) -> dict[str, Optional[float]]:
    out: dict[str, Optional[float]] = {
        name: report[name]
        for name in ('frames', 'keyframes', 'queries', 'queries_with_revisit',
                     'queries_judged_with_revisit')
    }  # fmt: skip
    out |= {f'recall@{n}': value for n, value in report['recall_at'].items()}
    for name, stage in {**(report['stages'] or {}), **report['baselines']}.items():
        out[f'{name}: AUC'] = stage['auc']
        out[f'{name}: recall at 100 % precision'] = stage['recall_at_100_precision']['value']
        out[f'{name}: threshold 1.0'] = stage['recommended_threshold']['1.0']['value']
    out |= {f'closures {name}': value for name, value in report['closures'].items()}
    out |= {name: report[name] for name in ('verified_precision', 'verified_recall')}
    errors = report['pose_errors'] or {}
    for name in ('translation_m', 'rotation_deg'):
        out[f'metric {name} median'] = errors.get(name, {}).get('p50')
    out['mean NEES (6 is honest)'] = errors.get('nees_mean')
    out |= {f'{step} ms median': v['p50'] for step, v in report['latency_ms'].items()}
    out['peak memory MB'] = report['peak_rss_mb']
    return out


def load_report(path: Path) -> dict[str, Any]:
    """Return a report.json, given it or its folder.

    :raises InputError: it is missing or not a report.
    """
    path = path / 'report.json' if path.is_dir() else path
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        compare_table(report, report)
    except KeyError as error:
        raise InputError(f'{path} is not a report of this netvlad evaluate: no {error}') from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f'{path} is not a report of netvlad evaluate: {error}') from None
    return dict(report)


def text_table(head: Row, rows: Sequence[Row]) -> str:
    """Return a table for a terminal."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        '  '.join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, tuple('-' * width for width in widths), *rows)
    ]
    return '\n'.join(lines)


def percent(value: Optional[float], of: Optional[int] = None) -> str:
    """Return a share as text, with the number it is a share of; a dash for 0/0."""
    if value is None:
        return '-'
    return f'{100 * value:.1f} %' + ('' if of is None else f' of {of}')


def _plain(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.6g}'
