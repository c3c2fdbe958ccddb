# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""report.html: one file without anything to load, for a person to look at."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
import json
import math
from typing import Any, Optional

from netvlad_ros.evaluation.evaluation import Evaluation
from netvlad_ros.evaluation.examples import Example, choose_examples
from netvlad_ros.evaluation.report_json import LABEL_NAMES
from netvlad_ros.types import ClosureStatus

_MAX_CLOSURE_ROWS = 60
THRESHOLD_IS = 'search.min_similarity, best match of each query'

_CSS = """
:root { --ink:#1d2733; --soft:#5c6b7a; --line:#e1e6eb; --right:#1f6fd6; --wrong:#d9481c;
  --missed:#b07a00; --card:#fff; --page:#f5f7f9; }
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width:1120px; margin:0 auto; padding:32px 20px 64px; }
h1 { font-size:27px; margin:0 0 2px; letter-spacing:-.01em; }
h2 { font-size:18px; margin:0 0 12px; }
h3 { font-size:14px; margin:18px 0 8px; color:var(--soft); font-weight:600; }
p.sub, .note { color:var(--soft); margin:0 0 6px; } .note { font-size:13px; }
section { background:var(--card); border:1px solid var(--line); border-radius:10px;
  padding:20px 22px; margin-top:18px; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px;
  margin-top:18px; }
.tile { background:var(--card); border:1px solid var(--line); border-radius:10px;
  padding:12px 16px; overflow-wrap:anywhere; }
.tile b { display:block; font-size:25px; font-weight:650; letter-spacing:-.02em;
  font-variant-numeric:tabular-nums; }
.tile span { color:var(--soft); font-size:13px; }
img.plot { display:block; max-width:100%; height:auto; margin:0 auto; }
img.narrow { max-width:min(100%, 820px); }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums;
  font-size:13px; }
th, td { text-align:right; padding:5px 7px; border-bottom:1px solid var(--line);
  white-space:nowrap; }
th { color:var(--soft); font-weight:600; } th:first-child, td:first-child { text-align:left; }
.pairs { display:grid; grid-template-columns:repeat(auto-fill,minmax(320px,1fr)); gap:14px; }
figure { margin:0; border-top:3px solid var(--line); padding-top:8px; }
figure.right { border-color:var(--right); } figure.wrong { border-color:var(--wrong); }
figure.missed { border-color:var(--missed); }
figure div { display:flex; gap:4px; } figure img { width:50%; border-radius:4px; display:block; }
figcaption { font-size:12.5px; color:var(--soft); margin-top:5px; }
.tag { font-weight:600; } .tag.right { color:var(--right); } .tag.wrong { color:var(--wrong); }
pre { background:#f0f3f6; border-radius:6px; padding:10px 12px; overflow-x:auto; margin:6px 0;
  font-size:12.5px; } details summary { cursor:pointer; color:var(--soft); }
""".strip()


def to_html(
    evaluation: Evaluation, report: Mapping[str, Any], pictures: Mapping[str, bytes]
) -> str:
    """Return the page of one evaluation.

    :param report: as ``to_report`` returns it.
    :param pictures: PNGs by name, as ``plots.figures`` returns them.
    """
    body = [
        f'<h1>{escape(evaluation.name)}</h1>',
        f'<p class="sub">Loop closure by visual place recognition, model '
        f'<code>{escape(str(report["model_id"]))}</code>, netvlad_ros {report["version"]}</p>',
        _tiles(report),
        _section('Trajectory and closures', _plot(pictures, 'trajectory', ' narrow')),
    ]
    if evaluation.judgement is not None:
        body += [
            _section(
                'Precision and recall',
                _plot(pictures, 'precision_recall') + _stages(report) + _recalls(report),
            ),
            _section('Example pairs', _examples(evaluation)),
        ]
    body.append(_section('Similarity matrix', _plot(pictures, 'similarity_matrix')))
    if evaluation.judgement is not None:
        body.append(_section('Scores of the best matches', _plot(pictures, 'scores', ' narrow')))
        body.append(_section('Measured poses', _poses(report)))
    body += [
        _section('Closures', _closures(evaluation)),
        _section('Time and memory', _timing(report)),
        _section('How this was measured', _how(report)),
    ]
    return page(evaluation.name, body)


def summary_page(
    command: str,
    model_id: str,
    results: tuple[Sequence[str], Sequence[Sequence[str]]],
    learnt: tuple[Sequence[str], Sequence[Sequence[str]]],
) -> str:
    """Return the page of several evaluations: results, and thresholds learnt on the others."""

    def linked(rows: Sequence[Sequence[str]]) -> list[list[str]]:
        return [
            [f'<a href="{escape(row[0])}/report.html">{escape(row[0])}</a>', *map(escape, row[1:])]
            for row in rows
        ]

    return page('Summary', [
        '<h1>Loop closure on several recordings</h1>',
        f'<p class="sub">Model <code>{escape(model_id)}</code></p>',
        _section('Results', table(results[0], linked(results[1]))
                 + '<p class="note">R@100P: largest recall at full precision.</p>'),
        _section('Threshold learnt on the other recordings', table(learnt[0], linked(learnt[1]))
                 + '<p class="note">The threshold of each row comes from all recordings but its '
                 'own.</p>'),
        _section('Command', f'<pre>{escape(command)}</pre>'),
    ])  # fmt: skip


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole HTML document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)} - netvlad evaluate</title><style>{_CSS}</style></head>\n'
        f'<body><main>{chr(10).join(body)}</main></body></html>\n'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table; cells are HTML already."""
    top = ''.join(f'<th>{cell}</th>' for cell in head)
    lines = ''.join(
        '<tr>' + ''.join(f'<td>{cell}</td>' for cell in row) + '</tr>' for row in rows
    )
    return f'<div class="scroll"><table><tr>{top}</tr>{lines}</table></div>'


def percent(value: Optional[float], of: Optional[int] = None) -> str:
    """Return a share as text, with the number it is a share of; a dash for no meaning."""
    if value is None:
        return '–'  # noqa: RUF001
    return f'{100 * value:.1f} %' + ('' if of is None else f' of {of}')


def decimal(value: Optional[float], digits: int = 4) -> str:
    """Return a number as text, a dash for what has no meaning."""
    return '–' if value is None else f'{value:.{digits}f}'  # noqa: RUF001


def _section(title: str, content: str) -> str:
    return f'<section><h2>{escape(title)}</h2>{content}</section>'


def _image(data: bytes, kind: str, alt: str, css: str = '') -> str:
    encoded = base64.b64encode(data).decode('ascii')
    return f'<img class="{css}" alt="{escape(alt)}" src="data:image/{kind};base64,{encoded}">'


def _plot(pictures: Mapping[str, bytes], name: str, css: str = '') -> str:
    return _image(pictures[name], 'png', name.replace('_', ' '), f'plot{css}')


def _tiles(report: Mapping[str, Any]) -> str:
    closures = report['closures']
    tiles = [
        (f'{report["keyframes"]}', f'keyframes of {report["frames"]} frames'),
        (
            f'{sum(closures.values()) - closures["rejected"]}',
            f'closures, {closures["rejected"]} more rejected',
        ),
    ]
    if report['queries'] is not None:
        tiles += [
            (f'{report["queries"]}', f'queries, {report["queries_with_revisit"]} with a revisit'),
            (percent(report['recall_at']['1']), 'recall@1'),
            (percent(report['recall_at_100_precision']), 'recall at 100 % precision, retrieval'),
            (
                decimal(report['recommended_threshold']['1.0']),
                f'threshold for full precision ({THRESHOLD_IS})',
            ),
        ]
    candidates = report['candidates_at_threshold']['1.0']
    if candidates is not None:
        what = f'precision of all {candidates["count"]} candidates over that threshold'
        tiles.append((percent(candidates['precision']), what))
    if report['verified_precision'] is not None:
        tiles += [
            (percent(report['verified_precision']), 'precision of verified closures'),
            (percent(report['verified_recall']), 'recall of verified closures'),
        ]
    total = report['latency_ms']['total']['p50']
    tiles.append(('–' if total is None else f'{total:.0f} ms', 'per keyframe, median'))  # noqa: RUF001
    cells = ''.join(
        f'<div class="tile"><b>{value}</b><span>{escape(what)}</span></div>'
        for value, what in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _stages(report: Mapping[str, Any]) -> str:
    rows = []
    for name, stage in {**report['stages'], **report['baselines']}.items():
        full = stage['recall_at_100_precision']
        of = percent(full['value'], stage['queries_judged_with_revisit'])
        cells = [escape(name), decimal(stage['auc'], 3), f'{of} {_range(full, 100, 0)}']
        for precision in ('0.99', '1.0'):
            item = stage['recommended_threshold'][precision]
            alarm = stage['false_alarm_rate'].get(precision)
            digits = 1 if name in ('geometry', 'plain check') else 3
            cells.append(f'{decimal(item["value"], digits + 1)} {_range(item, 1, digits)}')
            cells.append(percent(alarm))
        rows.append(cells)
    head = ['stage', 'AUC', 'recall at 100 % precision',
            'threshold 99 %', 'false alarms', 'threshold 100 %', 'false alarms']  # fmt: skip
    return (
        '<h3>By stage</h3>' + table(head, rows)
        + '<p class="note">Recall is of the queries with a revisit whose declared match is right '
        'or wrong: these differ between stages. Brackets: 95 % bootstrap interval over trajectory '
        f'segments. Threshold of retrieval: {THRESHOLD_IS}; it acts on all candidates. False '
        'alarms: share of queries without a revisit that declare a match at that threshold. '
        'Geometry is scored by verification_score (spread inliers), the other stages by '
        'similarity.</p>'
    )


def _range(item: Mapping[str, Optional[float]], scale: float, digits: int) -> str:
    low, high = item['low_95'], item['high_95']
    if low is None or high is None:
        return ''
    return f'<span class="note">[{scale * low:.{digits}f}, {scale * high:.{digits}f}]</span>'


def _recalls(report: Mapping[str, Any]) -> str:
    values = report['recall_at']
    row = [percent(values[n]) for n in ('1', '5', '10')]
    row[0] += ' ' + _range(report['recall_at_1'], 100, 1)
    return '<h3>Retrieval</h3>' + table(['recall@1', 'recall@5', 'recall@10'], [row])


def _examples(evaluation: Evaluation) -> str:
    examples = choose_examples(evaluation)
    kinds = (
        ('Best right', 'right', examples.best_right),
        ('Worst wrong', 'wrong', examples.worst_wrong),
        ('Best missed (query and its right match)', 'missed', examples.best_missed),
    )
    out = [f'<p class="note">Stage: {examples.stage}. Left the query, right the match.</p>']
    for title, css, pairs in kinds:
        shown = ''.join(_pair(evaluation, pair, css) for pair in pairs)
        out.append(f'<h3>{title}</h3><div class="pairs">{shown or "<p>none</p>"}</div>')
    return ''.join(out)


def _pair(evaluation: Evaluation, pair: Example, css: str) -> str:
    replay = evaluation.replay
    images = ''.join(
        _image(replay.pictures[i], 'jpeg', f'keyframe {i}') for i in (pair.query, pair.match)
    )
    frames = [replay.frame_indices[i] for i in (pair.query, pair.match)]
    return (
        f'<figure class="{css}"><div>{images}</div><figcaption>frame {frames[0]} and '
        f'{frames[1]}, {escape(pair.caption)}</figcaption></figure>'
    )


def _closures(evaluation: Evaluation) -> str:
    closures, judgement = evaluation.replay.closures, evaluation.judgement
    index_of, frames = evaluation.replay.index_of, evaluation.replay.frame_indices
    rows = []
    # Rejected ones are shown only where there is room.
    order = sorted(
        range(len(closures)), key=lambda i: closures[i].status is ClosureStatus.REJECTED
    )
    for position in order[:_MAX_CLOSURE_ROWS]:
        c = closures[position]
        label = ''
        if judgement is not None:
            name = LABEL_NAMES[int(judgement.closure_labels[position])]
            label = f'<span class="tag {name}">{name}</span>'
        pair = [
            f'{frames[index_of[k.id]]}' if k.id in index_of else '' for k in (c.query, c.match)
        ]
        rows.append([
            *pair, f'{c.rank}', f'{c.similarity:.4f}', f'{c.consistency}', c.status.name.lower(),
            c.transform_kind.name.lower(), f'{c.num_inliers}',
            '' if math.isnan(c.verification_score) else f'{c.verification_score:.1f}', label,
        ])  # fmt: skip
    if not rows:
        return '<p>No closure.</p>'
    head = ['query frame', 'match frame', 'rank', 'similarity', 'support', 'status', 'transform',
            'inliers', 'score', 'judged']  # fmt: skip
    more = len(closures) - len(rows)
    rest = f'<p class="note">{more} more in closures.csv.</p>' if more > 0 else ''
    return table(head, rows) + rest


def _poses(report: Mapping[str, Any]) -> str:
    errors = report['pose_errors']
    if not errors['count']:
        return '<p>No verified metric closure with a known true pose.</p>'
    rows = [
        ['translation', f'{100 * errors["translation_m"]["p50"]:.1f} cm',
         f'{100 * errors["translation_m"]["p95"]:.1f} cm'],
        ['rotation', f'{errors["rotation_deg"]["p50"]:.2f}°',
         f'{errors["rotation_deg"]["p95"]:.2f}°'],
    ]  # fmt: skip
    nees = decimal(errors['nees_mean'], 2)
    return table([f'error of {errors["count"]} metric closures', 'median', '95 %'], rows) + (
        f'<p class="note">Mean NEES {nees}; an honest covariance gives 6.</p>'
    )


def _timing(report: Mapping[str, Any]) -> str:
    rows = [
        [step, *(decimal(values[p], 2) for p in ('p50', 'p95', 'p99'))]
        for step, values in report['latency_ms'].items()
    ]
    peak = f'{report["peak_rss_mb"]:.0f} MB'
    return table(['ms per keyframe', 'median', '95 %', '99 %'], rows) + (
        f'<p class="note">Peak memory of the process {peak}; {report["wall_s"]:.1f} s in all.</p>'
    )


def _how(report: Mapping[str, Any]) -> str:
    protocol = ', '.join(f'{k} {v}' for k, v in report['protocol'].items())
    skipped = ', '.join(f'{k}: {v}' for k, v in report['skipped'].items()) or 'nothing'
    topics = ', '.join(f'{k} {v or "none"}' for k, v in report['topics'].items())
    topics = f'<br>Topics: {escape(topics)}' if topics else ''
    unknown = report['keyframes_without_true_pose']
    if unknown:
        skipped += f'; {unknown} keyframes without a true pose'
    config = json.dumps(report['config'], indent=1)
    return (
        f'<pre>{escape(report["command"])}</pre>'
        f'<p>Source <code>{escape(report["source"])}</code>{topics}<br>'
        f'Protocol: {escape(protocol)}<br>'
        f'Left out: {escape(skipped)}</p>'
        '<p class="note">A declared match that is neither right nor wrong is not judged: its '
        'query counts in no figure. Recall counts the judged queries with a revisit.</p>'
        f'<details><summary>All settings</summary><pre>{escape(config)}</pre></details>'
    )
