# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the detector on recordings and write a report with pictures.

Worked examples:
  netvlad evaluate drive/ --output report              a rosbag2 (folder, .mcap or .db3)
  netvlad evaluate sequences/desk --output report      a folder with frames.csv
  netvlad evaluate images/ --poses poses.tum -o report images and their true poses
  netvlad evaluate drive/ --ground-truth-topic /odom -o report  odometry good enough to judge by
  netvlad evaluate a/ b/ c/ -o report --sweep --baseline  one table, thresholds learnt
  netvlad evaluate --compare report_a report_b         two runs side by side
  netvlad evaluate drive/ -o report --set search.min_similarity=0.8 --gt-radius-m 5
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
import shlex
import sys
from typing import TYPE_CHECKING, Any, Optional

from netvlad_ros.config import DetectorConfig, from_dict, to_dict
from netvlad_ros.errors import ConfigError, InputError, NetvladError

if TYPE_CHECKING:
    from netvlad_ros.evaluation.evaluation import Evaluation

# A closure below a threshold leaves no trace; to learn thresholds, none may act.
_OPEN_THRESHOLDS = {
    'search.min_similarity': -1.0,
    'verification.min_inliers': 5,
    'verification.min_score': 0.0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    from netvlad_ros.evaluation.protocol import Protocol

    parser.add_argument('sources', nargs='*', metavar='SOURCE', help='recordings to run over')
    parser.add_argument(
        '-o', '--output', type=Path, metavar='DIR',
        help='new or empty folder for the report; several sources get a folder each in it',
    )  # fmt: skip
    parser.add_argument('--overwrite', action='store_true', help='write over an earlier report')
    parser.add_argument(
        '--compare', nargs=2, type=Path, metavar=('A', 'B'),
        help='print two reports side by side instead of running',
    )  # fmt: skip
    parser.add_argument(
        '--sweep', action='store_true',
        help='open all thresholds of the detector, to learn them from the curves',
    )  # fmt: skip
    parser.add_argument(
        '--baseline', action='store_true',
        help="also judge simpler systems: the peers' rule and a plain geometric check",
    )  # fmt: skip
    parser.add_argument(
        '--calibrate', metavar='SCORE',
        choices=('similarity', 'margin', 'normalised', 'verification_score'),
        help='fit calibration.json, which the node loads: what this score means as a probability',
    )  # fmt: skip
    parser.add_argument(
        '--poses', type=Path, metavar='FILE',
        help='TUM file with the true poses (stamps in seconds or nanoseconds) of any source; of '
        'the camera, or of the base if a comment in it says T_world_base',
    )  # fmt: skip
    parser.add_argument('--model', help='model bundle or its name')
    parser.add_argument('--device', help='auto, cpu, cuda or cuda:N')
    parser.add_argument(
        '--config', type=Path, help="YAML file: detector settings by group, or the node's"
    )
    parser.add_argument(
        '--set', action='append', default=[], metavar='GROUP.NAME=VALUE',
        help='one detector setting, over --config; may be repeated',
    )  # fmt: skip
    topics = parser.add_argument_group(
        'topics of a bag',
        "found by name, or as the only one of its type, if not given; 'none' leaves one out.\n"
        'Ground truth, of the base: Odometry, PoseStamped, PoseWithCovarianceStamped or '
        'TransformStamped',
    )
    for name in ('image', 'odom', 'camera-info', 'depth', 'ground-truth'):
        topics.add_argument(f'--{name}-topic', default='', metavar='TOPIC')
    topics.add_argument(
        '--image-is-rectified', action='store_true',
        help='the images are (image_rect): their camera is P of camera_info, without distortion',
    )  # fmt: skip
    protocol = parser.add_argument_group(
        'protocol', "what a revisit is; goes before the source's own sequence.yaml"
    )
    protocol.add_argument('--keyframes', choices=('motion', 'every_frame'))
    protocol.add_argument('--exclude-s', type=float, help='the search leaves out this recent past')
    for item in fields(Protocol):
        unit = item.metadata['unit']
        default = f'default {item.default:g} {unit}' if item.default else ''
        protocol.add_argument(
            f'--{item.name.replace("_", "-")}', type=float, metavar=unit.upper() or 'VALUE',
            help=f'{item.metadata["description"]} {default}'.strip(),
        )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate every source and write its report, or compare two reports."""
    if args.compare is not None:
        return _compare(*args.compare)
    if not args.sources or args.output is None:
        raise ConfigError('give at least one SOURCE and --output DIR, or --compare A B')
    from netvlad_ros.cli.progress import progress
    from netvlad_ros.descriptor import load_descriptor
    from netvlad_ros.evaluation.runner import (
        check_folders,
        evaluate_source,
        fit_of,
        prepare_output,
        write_reports,
        write_summary,
    )
    from netvlad_ros.evaluation.sources import Topics, name_apart, open_source

    config = detector_config(args)
    topics = Topics(
        image=args.image_topic, camera_info=args.camera_info_topic, odom=args.odom_topic,
        depth=args.depth_topic, ground_truth=args.ground_truth_topic,
    )  # fmt: skip
    sources = [
        open_source(path, topics, args.poses, args.image_is_rectified) for path in args.sources
    ]
    name_apart(sources)
    output = prepare_output(args.output, args.overwrite)
    folders = [output if len(sources) == 1 else output / source.name for source in sources]
    check_folders(folders)
    descriptor = load_descriptor(config.descriptor)
    overrides = {
        name: value
        for name in ('keyframes', 'exclude_s', *_protocol_names())
        if (value := getattr(args, name)) is not None
    }
    evaluations, reports, failed = [], [], []
    fit = None
    for source, folder in zip(sources, folders, strict=True):
        try:
            evaluation = evaluate_source(
                source, descriptor, config, overrides, progress, args.baseline
            )
            fit = fit_of([evaluation], args.calibrate)
            report = write_reports(evaluation, folder, _command(), fit)
        except (NetvladError, OSError) as error:
            # What other recordings took hours to say is still worth a summary.
            failed.append(str(error) if len(sources) == 1 else f'{source.name}: {error}')
            continue
        print(summary_text(report, folder))
        evaluations.append(evaluation)
        reports.append(report)
    if len(reports) > 1:
        fit = fit_of(evaluations, args.calibrate)
        print(write_summary(evaluations, reports, output, _command(), fit))
    if args.calibrate and fit is None and evaluations:
        print(f'no calibration: {_why_none(evaluations, args.calibrate)}')
    if failed:
        raise InputError('; '.join(failed))
    keys = ('name', 'keyframes', 'queries', 'queries_with_revisit', 'recall_at', 'closures',
            'recall_at_100_precision', 'recommended_threshold', 'verified_precision',
            'verified_recall')  # fmt: skip
    return {
        'output': str(output),
        'sources': [{key: report[key] for key in keys} for report in reports],
    }


def _why_none(evaluations: Sequence[Evaluation], score: str) -> str:
    """Return why a calibration could not be fitted."""
    if all(e.judgement is None for e in evaluations):
        return 'without ground truth nothing is right or wrong'
    if score == 'verification_score' and not evaluations[0].replay.config.verification.enabled:
        return 'verification.enabled is false, so nothing has a verification_score'
    return 'it needs two right and two wrong decisions at least'


def _compare(first: Path, second: Path) -> dict[str, Any]:
    from netvlad_ros.evaluation.several import compare_table, load_report, text_table

    head, rows = compare_table(load_report(first), load_report(second))
    print(text_table(head, rows))
    return {'rows': [dict(zip(head, row, strict=True)) for row in rows]}


def _protocol_names() -> tuple[str, ...]:
    from netvlad_ros.evaluation.protocol import Protocol

    return tuple(item.name for item in fields(Protocol))


def detector_config(args: argparse.Namespace) -> DetectorConfig:
    """Return the settings of --config, --set, --model and --device over the defaults.

    :raises ConfigError: a file is damaged, or a setting unknown or out of range.
    """
    import yaml

    values: dict[str, Any] = {}
    if args.config is not None:
        try:
            values = _detector_groups(yaml.safe_load(args.config.read_text(encoding='utf-8')))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f'{args.config} cannot be read: {error}') from None
    nested = to_dict(from_dict(DetectorConfig, values))
    for assignment in args.set:
        name, separator, text = assignment.partition('=')
        group, dot, key = name.partition('.')
        if not (separator and dot):
            raise ConfigError(f'--set {assignment!r} must look like group.name=value')
        if key not in nested.get(group, {}):
            known = [f'{g}.{k}' for g, keys in nested.items() for k in keys]
            raise ConfigError(f'--set {name!r} is unknown, known: {", ".join(known)}')
        try:
            nested[group][key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f'--set {name}: {text!r} is not a YAML value') from None
    for key in ('model', 'device'):
        if getattr(args, key) is not None:
            nested['descriptor'][key] = getattr(args, key)
    if nested['descriptor']['runtime'] == 'auto':
        # The fastest engine depends on the machine and on how busy it is; results must not.
        nested['descriptor']['runtime'] = 'torch'
    if args.sweep:
        for name, value in _OPEN_THRESHOLDS.items():
            group, _, key = name.partition('.')
            nested[group][key] = value
    return from_dict(DetectorConfig, nested)


def _detector_groups(content: Any) -> dict[str, Any]:
    """Return settings by group from a plain file, or from a ROS parameter file like vpr.yaml."""
    values = _mapping(content)
    if 'ros__parameters' in values:
        own = {item.name for item in fields(DetectorConfig)}
        groups: dict[str, Any] = {}
        for name, value in _mapping(values['ros__parameters']).items():
            group, _, key = name.partition('.')
            if group in own:
                groups.setdefault(group, {}).update({key: value} if key else _mapping(value))
        return groups
    inner = next(iter(values.values()), None)
    if len(values) == 1 and isinstance(inner, dict) and _is_node_name(next(iter(values))):
        return _detector_groups(inner)
    return values


def _mapping(values: Any) -> dict[str, Any]:
    """Return a mapping of a settings file, empty where nothing is written.

    :raises ConfigError: it is none.
    """
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f'settings must be groups of names and values, got {values!r}')
    return values


def _is_node_name(name: str) -> bool:
    return name not in {item.name for item in fields(DetectorConfig)}


def summary_text(report: dict[str, Any], folder: Path) -> str:
    """Return the few lines that a person reads in the terminal."""
    from netvlad_ros.evaluation.several import percent

    closures = ', '.join(f'{count} {name}' for name, count in report['closures'].items() if count)
    lines = [
        f'{report["name"]}: {report["frames"]} frames, {report["keyframes"]} keyframes, '
        f'closures: {closures or "none"}'
    ]
    if report['topics']:
        names = (f'{what} {topic or "none"}' for what, topic in report['topics'].items())
        lines.append('  topics: ' + ', '.join(names))
    if report['skipped']:
        lines.append('  left out: ' + ', '.join(f'{k} {v}' for k, v in report['skipped'].items()))
    if report['keyframes_without_true_pose']:
        lines.append(f'  {report["keyframes_without_true_pose"]} keyframes without a true pose')
    if report['queries'] is None:
        lines.append(
            '  no ground truth, nothing judged: give true poses with --poses FILE or, in a bag, '
            'with --ground-truth-topic (such as /odom)'
        )
    else:
        recalls = ' / '.join(percent(report['recall_at'][n]) for n in ('1', '5', '10'))
        lines += [
            f'  {report["queries"]} queries, {report["queries_with_revisit"]} with a revisit, '
            f'{report["queries_judged_with_revisit"]} of them judged',
            f'  recall@1/5/10 {recalls}{_within(report["recall_at_1"])}',
        ]
        for name, stage in {**report['stages'], **report['baselines']}.items():
            full = percent(
                stage['recall_at_100_precision']['value'], stage['queries_judged_with_revisit']
            )
            threshold = stage['recommended_threshold']['1.0']['value']
            at = 'none' if threshold is None else f'{threshold:.4f}'
            within = _within(stage['recall_at_100_precision'])
            lines.append(f'  {name}: recall at 100 % precision {full}{within}, threshold {at}')
        candidates = report['candidates_at_threshold']['1.0']
        if candidates is not None:
            lines.append(
                '  (threshold of retrieval: search.min_similarity, best match of each query; all '
                f'{candidates["count"]} candidates over it: '
                f'precision {percent(candidates["precision"])})'
            )
    if report['verified_precision'] is not None:
        lines.append(
            f'  verified closures: precision {percent(report["verified_precision"])}, '
            f'recall {percent(report["verified_recall"])}'
        )
    lines.append(f'  {folder / "report.html"}')
    return '\n'.join(lines)


def _within(interval: Mapping[str, Optional[float]]) -> str:
    """Return a 95 % interval as text, '' where there is none."""
    low, high = interval['low_95'], interval['high_95']
    return '' if low is None or high is None else f' [{100 * low:.1f}, {100 * high:.1f}]'


def _command() -> str:
    return shlex.join(['netvlad', *sys.argv[1:]])
