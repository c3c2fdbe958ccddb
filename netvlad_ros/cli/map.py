# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Look at, check, export, merge, thin or re-describe a keyframe map.

What changes a map writes a new one; the old one is only read.

  netvlad map info office_map                          what is in it
  netvlad map verify office_map                        every damaged record; exit 1 if there is one
  netvlad map verify office_map --salvage saved_map    copy what is sound
  netvlad map export office_map --format html --output office.html
  netvlad map export office_map --format tum --output trajectory.tum
  netvlad map merge monday_map tuesday_map --output week_map
  netvlad map prune week_map --keep 5000 --output small_map
  netvlad map redescribe old_map --model default --output new_map
  netvlad map redescribe old_map --model default --source drive.mcap --output new_map
  netvlad map redescribe week_map --source monday/ --source tuesday/ --output new_map
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
import itertools
from pathlib import Path

from netvlad_ros.cli.progress import progress
from netvlad_ros.errors import MapError
from netvlad_ros.types import Frame

_FORMATS = ('csv', 'tum', 'npz', 'faiss', 'html')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')

    def action(name: str, text: str, new_map: bool = False) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.add_argument('map', type=Path, help='Folder of the map.')
        if new_map:
            sub.add_argument(
                '--output', type=Path, required=True, help='Folder of the new map; must not exist.'
            )
        # The top level declares it too; after the action it must be known as well.
        sub.add_argument('--json', action='store_true', default=argparse.SUPPRESS,
                         help='print one JSON object as the last line')
        return sub

    action('info', 'Show what a map has.')
    verify = action('verify', 'Check every record and name the damaged ones.')
    verify.add_argument(
        '--salvage', type=Path, metavar='NEW', help='Copy what is sound to a new map.'
    )
    export = action('export', 'Write a map in another format.')
    export.add_argument('--format', choices=_FORMATS, required=True)
    export.add_argument('--output', type=Path, required=True, help='File to write.')
    merge = action('merge', 'Unite maps of one model.', new_map=True)
    merge.add_argument('others', type=Path, nargs='+', help='Folders of the other maps.')
    prune = action('prune', 'Thin look-alikes to a budget.', new_map=True)
    prune.add_argument('--keep', type=int, required=True, help='Keyframes that stay at most.')
    redescribe = action('redescribe', 'Make a map anew with another model.', new_map=True)
    redescribe.add_argument('--model', default='default', help='Bundle or its name.')
    redescribe.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N.')
    redescribe.add_argument(
        '--source', type=Path, action='append', metavar='SOURCE',
        help='Bag, or folder with frames.csv, that the map was made of; may be repeated. '
        'A keyframe that none has is described by its thumbnail.',
    )
    redescribe.add_argument('--image-topic', default='', help='Where a bag has several.')


def run(args: argparse.Namespace) -> dict[str, object]:
    """Do one action and say what came of it.

    :raises MapError: the map is missing or damaged.
    """
    actions: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
        'info': _info, 'verify': _verify, 'export': _export, 'merge': _merge, 'prune': _prune,
        'redescribe': _redescribe,
    }
    return actions[args.action](args)


def _info(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.keyframes.info import describe_map

    info = describe_map(args.map)
    for name, value in info.items():
        if isinstance(value, list):
            print(f'{name}: {len(value)}')
            for item in value:
                print('  ' + ', '.join(f'{key} {part}' for key, part in item.items()))
        else:
            print(f'{name}: {value}')
    return info


def _verify(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.keyframes.tools import salvage
    from netvlad_ros.keyframes.verify import verify

    report = verify(args.map)
    for fault in report.faults:
        print(fault)
    checked = ', '.join(f'{count} {table}' for table, count in report.records.items() if count)
    print(f'checked {checked}: {len(report.faults)} damaged')
    summary: dict[str, object] = {
        'records': report.records, 'faults': [asdict(fault) for fault in report.faults],
        'keyframes_lost': len(report.lost_keyframes),
    }
    if args.salvage is not None:
        saved = salvage(args.map, args.salvage, report)
        print(f'{args.salvage}: {saved.keyframes_after} keyframes saved, {saved.lost} lost')
        return {**summary, 'saved': saved.keyframes_after}
    if report.faults:
        raise MapError(
            f'{args.map} has {len(report.faults)} damaged records, {len(report.lost_keyframes)} '
            f'keyframes are lost: --salvage NEW saves the others'
        )
    return summary


def _export(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.keyframes.export import export

    try:
        count = export(args.map, args.format, args.output)
    except OSError as error:
        raise MapError(f'cannot write {args.output}: {error.strerror}') from error
    print(f'{args.output}: {count} keyframes')
    return {'output': str(args.output), 'format': args.format, 'keyframes': count}


def _merge(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.keyframes.tools import merge

    report = merge([args.map, *args.others], args.output)
    print(f'{args.output}: {report.keyframes_after} keyframes of {1 + len(args.others)} maps')
    return {'output': str(args.output), **asdict(report)}


def _prune(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.keyframes.prune import prune

    report = prune(args.map, args.output, args.keep)
    print(f'{args.output}: {report.keyframes_after} of {report.keyframes_before} keyframes')
    print(
        f'recall@1 on {report.queries} revisits of the map itself: {report.recall_before:.4f} '
        f'before, {report.recall_after:.4f} after'
    )
    return {'output': str(args.output), **asdict(report)}


def _redescribe(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.config import DescriptorConfig
    from netvlad_ros.descriptor import load_descriptor
    from netvlad_ros.keyframes.reader import MapReader
    from netvlad_ros.keyframes.tools import redescribe

    descriptor = load_descriptor(DescriptorConfig(model=args.model, device=args.device))
    frames = None if args.source is None else _frames_of(args.source, args.image_topic)
    with MapReader(args.map) as reader:
        total = reader.count('keyframes')
    bar = progress(range(total), total, 'keyframes', 'describe')
    report = redescribe(args.map, args.output, descriptor, frames, lambda: next(bar, None))
    print(
        f'{args.output}: {report.keyframes_after} keyframes with {descriptor.model_id}, '
        f'{report.from_source} by images of the source, {report.from_thumbnails} by thumbnails; '
        f'{report.lost} had no image'
    )
    return {'output': str(args.output), 'model_id': descriptor.model_id, **asdict(report)}


def _frames_of(sources: Sequence[Path], image_topic: str) -> Iterator[Frame]:
    """Return the frames of all sources, one after the other.

    :raises InputError: a source cannot be read.
    """
    from netvlad_ros.evaluation.sources import Topics, open_source

    # Only images are asked for: what else a bag has need not be found or sound.
    topics = Topics(
        image_topic, camera_info='none', odom='none', depth='none', ground_truth='none'
    )
    opened = [open_source(path, topics) for path in sources]
    return itertools.chain.from_iterable(source.frames() for source in opened)
