# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a source to a folder of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
import json
from pathlib import Path
from typing import Any, Optional

from threadpoolctl import threadpool_limits

from netvlad_ros.config import DetectorConfig
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.baseline import PlainCheck, baselines
from netvlad_ros.evaluation.calibrate import CalibrationFit, fit_calibration, scored_decisions
from netvlad_ros.evaluation.evaluation import Evaluation, evaluate
from netvlad_ros.evaluation.protocol import describe, split_protocol
from netvlad_ros.evaluation.replay import Progress, replay
from netvlad_ros.evaluation.report_json import closures_csv, to_report, trajectory_tum
from netvlad_ros.evaluation.several import (
    leave_one_out,
    leave_one_out_table,
    results_table,
    text_table,
)
from netvlad_ros.evaluation.sources import Source


def prepare_output(folder: Path, overwrite: bool) -> Path:
    """Return a folder that can be written, made if absent.

    :raises InputError: it is a file, holds something already, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not overwrite and any(folder.iterdir()):
            raise InputError(f'{folder} is not empty: choose another, or add --overwrite')
        probe = folder / '.netvlad_write_test'
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f'output folder {folder} cannot be written: {error.strerror}') from None
    return folder


def check_folders(folders: Sequence[Path]) -> None:
    """Find out before hours of work that a report cannot be written in one of some folders.

    :raises InputError: a file is where a folder must be.
    """
    for folder in folders:
        for path in (folder / 'plots', folder, *folder.parents):
            if path.exists() and not path.is_dir():
                raise InputError(f'{path} is a file, where a folder of the report must be')


def evaluate_source(
    source: Source,
    descriptor: Descriptor,
    config: DetectorConfig,
    overrides: Mapping[str, Any],
    progress: Optional[Progress] = None,
    with_baselines: bool = False,
) -> Evaluation:
    """Run the detector over a source and judge it.

    :param overrides: protocol settings that go before those of the source.
    :param with_baselines: also judge the peers' rule and the plain check.
    :raises InputError: the source is damaged.
    :raises ConfigError: a protocol setting is wrong.
    """
    values = {**source.protocol, **overrides}
    protocol, config = split_protocol(values, config)
    if source.ground_truth.listed is not None and 'gt_gap_s' not in values:
        # The list says what a revisit is, however short the time: only the search limits it.
        gap_s = min(protocol.gt_gap_s, config.search.exclude_s)
        protocol = replace(protocol, gt_gap_s=gap_s)
    check = PlainCheck() if with_baselines else None
    watch = check.watch if check is not None else None
    with threadpool_limits(1, 'blas'):  # as the node does
        result = replay(source, descriptor, config, progress=progress, watch=watch)
    evaluation = evaluate(
        source.name,
        str(source.path),
        result,
        source.ground_truth,
        protocol,
        source.camera.T_base_camera,
    )
    topics = {} if source.topics is None else asdict(source.topics)
    found = {} if check is None else baselines(evaluation, check)
    return replace(evaluation, topics=topics, baselines=found)


def write_reports(
    evaluation: Evaluation, folder: Path, command: str, fit: Optional[CalibrationFit] = None
) -> dict[str, Any]:
    """Write report.html, report.json, plots, trajectory.tum and closures.csv.

    :param fit: calibration of this run alone; written to calibration.json.
    :returns: the content of report.json.
    """
    from netvlad_ros.evaluation.plots import figures
    from netvlad_ros.evaluation.report_html import to_html

    report = to_report(evaluation, command)
    report['calibration'] = None if fit is None else fit.summary()
    (folder / 'plots').mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, allow_nan=False)
    (folder / 'report.json').write_text(text + '\n', encoding='utf-8')
    (folder / 'closures.csv').write_text(closures_csv(evaluation), encoding='utf-8')
    (folder / 'trajectory.tum').write_text(trajectory_tum(evaluation), encoding='utf-8')
    if fit is not None:
        fit.calibration.save(folder / 'calibration.json')
    else:
        # One of an earlier run would be taken for this one's.
        (folder / 'calibration.json').unlink(missing_ok=True)
    # Pictures of a long recording take memory: what took hours to compute is on disk before.
    pictures = figures(evaluation)
    for name, data in pictures.items():
        (folder / 'plots' / f'{name}.png').write_bytes(data)
    (folder / 'report.html').write_text(to_html(evaluation, report, pictures), encoding='utf-8')
    return report


def fit_of(evaluations: Sequence[Evaluation], score: Optional[str]) -> Optional[CalibrationFit]:
    """Return the calibration of a score over evaluations, None if not asked or not possible."""
    if score is None:
        return None
    scored = [(e, scored_decisions(e, score)) for e in evaluations]
    runs = [run for _, run in scored if run is not None]
    if not runs:
        return None
    protocol = {
        e.name: describe(e.protocol, e.replay.config, e.ground_truth.listed is not None)
        for e, run in scored
        if run is not None
    }
    return fit_calibration(runs, evaluations[0].replay.model_id, score, protocol)


def write_summary(
    evaluations: Sequence[Evaluation],
    reports: Sequence[Mapping[str, Any]],
    folder: Path,
    command: str,
    fit: Optional[CalibrationFit],
) -> str:
    """Write summary.json, summary.html and the common calibration of several recordings.

    :returns: the tables as text.
    """
    from netvlad_ros.evaluation.report_html import summary_page

    entries = leave_one_out(evaluations)
    tables = [results_table(reports), leave_one_out_table(entries)]
    summary = {
        'command': command,
        'model_id': evaluations[0].replay.model_id,
        'sources': [str(report['name']) for report in reports],
        'leave_one_out': entries,
        'calibration': None if fit is None else fit.summary(),
    }
    text = json.dumps(summary, indent=1, allow_nan=False)
    (folder / 'summary.json').write_text(text + '\n', encoding='utf-8')
    page = summary_page(command, evaluations[0].replay.model_id, *tables)
    (folder / 'summary.html').write_text(page, encoding='utf-8')
    if fit is not None:
        fit.calibration.save(folder / 'calibration.json')
    return '\n\n'.join(text_table(head, rows) for head, rows in tables)
