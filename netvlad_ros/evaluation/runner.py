# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a source to a folder of results."""

from __future__ import annotations

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any, Optional

from netvlad_ros.config import DetectorConfig
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.evaluation import Evaluation, evaluate
from netvlad_ros.evaluation.protocol import split_protocol
from netvlad_ros.evaluation.replay import Progress, replay
from netvlad_ros.evaluation.report_json import closures_csv, to_report, trajectory_tum
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


def evaluate_source(
    source: Source,
    descriptor: Descriptor,
    config: DetectorConfig,
    overrides: Mapping[str, Any],
    progress: Optional[Progress] = None,
) -> Evaluation:
    """Run the detector over a source and judge it.

    :param overrides: protocol settings that go before those of the source.
    :raises InputError: the source is damaged.
    :raises ConfigError: a protocol setting is wrong.
    """
    protocol, config = split_protocol({**source.protocol, **overrides}, config)
    result = replay(source, descriptor, config, progress=progress)
    return evaluate(
        source.name,
        str(source.path),
        result,
        source.ground_truth,
        protocol,
        source.camera.T_base_camera,
    )


def write_reports(evaluation: Evaluation, folder: Path, command: str) -> dict[str, Any]:
    """Write report.html, report.json, plots, trajectory.tum and closures.csv.

    :returns: the content of report.json.
    """
    from netvlad_ros.evaluation.plots import figures
    from netvlad_ros.evaluation.report_html import to_html

    report = to_report(evaluation, command)
    pictures = figures(evaluation)
    (folder / 'plots').mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        (folder / 'plots' / f'{name}.png').write_bytes(data)
    (folder / 'report.html').write_text(to_html(evaluation, report, pictures), encoding='utf-8')
    text = json.dumps(report, indent=1, allow_nan=False)
    (folder / 'report.json').write_text(text + '\n', encoding='utf-8')
    (folder / 'closures.csv').write_text(closures_csv(evaluation), encoding='utf-8')
    (folder / 'trajectory.tum').write_text(trajectory_tum(evaluation), encoding='utf-8')
    return report
