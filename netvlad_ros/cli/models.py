# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""List, fetch, convert and export the networks that describe images.

  netvlad models list                               what is published and what is on this machine
  netvlad models get vgg16_sfrs                     download, verify and convert
  netvlad models import Pitts30K_struct.mat --dim 512
                                                    convert a file of published weights
  netvlad models info default                       what a bundle holds
  netvlad models export default --output net.onnx --size 480x640
                                                    ONNX, with a comparison to torch

Files of Relja/netvlad (hloc .mat), Nanne/pytorch-NetVlad, Patch-NetVLAD, OpenIBL (SFRS) and the
deep-visual-geo-localization benchmark are recognised by what they hold.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
import shutil
from typing import Any, Optional

from netvlad_ros.cli.numbers import positive_int
from netvlad_ros.cli.progress import progress
from netvlad_ros.errors import ModelError


def size_hw(text: str) -> tuple[int, int]:
    """Return (height, width) of 'HEIGHTxWIDTH'."""
    height, _, width = text.partition('x')
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f'{text!r} is no size, expected HEIGHTxWIDTH in pixels')
    return int(height), int(width)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        # The command declares these as well; here they may follow the action.
        for flags in (('--json',), ('-v', '--verbose')):
            sub.add_argument(
                *flags, action='store_true', default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )
        return sub

    action('list', 'Show the published models and those on this machine.')
    info = action('info', 'Show what a bundle holds.')
    info.add_argument('model', help="A bundle's file, a name of 'models list', or default.")
    get = action('get', 'Download a published model, verify it and make a bundle of it.')
    get.add_argument('name', help="A name of 'models list'.")
    get.add_argument('--registry', type=Path, help='Another registry file (YAML).')
    get.add_argument('--keep', action='store_true', help='Keep the downloaded original.')
    convert = action('import', 'Convert a file of published weights to a bundle.')
    convert.add_argument('file', type=Path, help='.mat, .pth, .pth.tar')
    convert.add_argument('--name', default='', help="Default: made of the file's name.")
    convert.add_argument('--output', type=Path, help="Default: the user's cache of models.")
    convert.add_argument(
        '--dim', type=positive_int, help='Keep this many components of the whitening.'
    )
    convert.add_argument(
        '--size', type=size_hw, metavar='HxW', help='Fixed input size in pixels, not the trained.'
    )
    export = action('export', 'Write a model as ONNX and compare it to torch.')
    export.add_argument('model', help="A bundle's file, a name of 'models list', or default.")
    export.add_argument('--output', type=Path, required=True, help='The .onnx file.')
    export.add_argument('--size', type=size_hw, metavar='HxW', help="Default: the model's own.")
    export.add_argument(
        '--batch', type=positive_int, default=1, help='Images in a call. Default: 1'
    )
    export.add_argument(
        '--dynamic', action='store_true', help='Let batch, height and width vary (slower).'
    )
    export.add_argument(
        '--precision', choices=('fp32', 'fp16'), default='fp32', help='Of the backbone.'
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Do one action."""
    actions = {
        'list': _list, 'info': _info, 'get': _get, 'import': _import, 'export': _export,
    }  # fmt: skip
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.descriptor.locate import SUFFIX, model_folders, share_folder
    from netvlad_ros.descriptor.registry import read_registry

    registry = read_registry(share_folder())
    installed = {
        path.stem: path
        for folder in reversed(model_folders())
        for path in sorted(folder.glob(f'*{SUFFIX}'))
    }
    rows: list[dict[str, Any]] = []
    for name in sorted({*registry.models, *installed}):
        entry = registry.models.get(name)
        rows.append({
            'name': name,
            'default': name == registry.default,
            'path': str(installed[name]) if name in installed else None,
            'licence': entry.licence if entry else None,
            'description': entry.description if entry else '',
            'url': entry.url if entry else None,
            'size_bytes': entry.size_bytes if entry else None,
            'sha256': entry.sha256 if entry else None,
        })  # fmt: skip
    for row in rows:
        place = row['path'] or f'not here: netvlad models get {row["name"]}'
        print(f'{row["name"]}{" (default)" if row["default"] else ""}\n  {place}')
        if row['description']:
            print(f'  {row["description"]}; licence: {row["licence"]}')
    if not rows:
        print('no models are registered or installed')
    return {'models': rows, 'default': registry.default or None}


def _info(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.descriptor.bundle import load_bundle
    from netvlad_ros.descriptor.locate import find_model

    path = find_model(args.model)
    return _show(load_bundle(path), path)


def _get(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.descriptor.bundle import load_bundle
    from netvlad_ros.descriptor.download import download
    from netvlad_ros.descriptor.importers import import_file
    from netvlad_ros.descriptor.locate import SUFFIX, cache_folder, share_folder
    from netvlad_ros.descriptor.registry import read_registry

    registry = read_registry(args.registry or share_folder())
    entry = registry.models.get(args.name)
    if entry is None:
        known = ', '.join(sorted(registry.models)) or 'none'
        raise ModelError(f'model {args.name!r} is not in the registry, which has: {known}')
    if not entry.url:
        raise ModelError(f'model {args.name!r} comes with the package and has no url')
    bundle_path = cache_folder() / 'models' / f'{args.name}{SUFFIX}'
    if not bundle_path.is_file():
        # Entries that differ only in the importer's options share one original.
        original = cache_folder() / 'downloads' / entry.url.rsplit('/', 1)[-1]
        if not original.is_file():
            download(entry, original, progress)
        try:
            if original.suffix == SUFFIX:
                load_bundle(original)
                _copy(original, bundle_path)
            else:
                import_file(original, bundle_path, name=args.name, dim=entry.options.get('dim'))
        except ModelError:
            # Else the next call would find the bad file and not download it again.
            original.unlink(missing_ok=True)
            raise
        if not args.keep:
            original.unlink()
    return _show(load_bundle(bundle_path), bundle_path)


def _copy(source: Path, path: Path) -> None:
    """Copy a bundle, whole or not at all.

    :raises ModelError: it cannot be written.
    """
    partial = path.with_name(f'{path.name}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ModelError(f'cannot write model {str(path)!r}: {error}') from error


def _import(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.descriptor.importers import import_file, model_name
    from netvlad_ros.descriptor.locate import SUFFIX, cache_folder

    name = args.name or model_name(args.file)
    output = args.output or cache_folder() / 'models' / f'{name}{SUFFIX}'
    bundle = import_file(args.file, output, name=name, dim=args.dim, size_hw=args.size)
    return _show(bundle, output)


def _export(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.descriptor.bundle import load_bundle
    from netvlad_ros.descriptor.locate import find_model
    from netvlad_ros.descriptor.runtimes.onnx_export import export_onnx
    from netvlad_ros.descriptor.runtimes.parity import compare_to_torch

    bundle = load_bundle(find_model(args.model))
    height, width = args.size or (bundle.policy.height, bundle.policy.width)
    export_onnx(
        bundle,
        args.output,
        height=height,
        width=width,
        batch=args.batch,
        dynamic=args.dynamic,
        precision=args.precision,
    )
    report = compare_to_torch(bundle, args.output, args.batch, height, width, args.precision)
    size_bytes = args.output.stat().st_size
    print(f'{args.output}: {size_bytes / 1e6:.1f} MB, images ({args.batch}, {height}, {width}, 3) '
          f'uint8 RGB -> descriptors ({args.batch}, {bundle.dim}) float32')  # fmt: skip
    for engine, values in report.items():
        print(
            f'  {engine}: L2 distance to torch {values["max_l2"]:.1e}, cosine '
            f'{values["min_cosine"]:.7f}, {"agrees" if values["agrees"] else "DIFFERS"}'
        )
    if not all(values['agrees'] for values in report.values()):
        raise ModelError(f'{str(args.output)!r} does not compute what torch computes')
    return {
        'output': str(args.output),
        'model_id': bundle.model_id,
        'size_bytes': size_bytes,
        'input': [args.batch, height, width, 3],
        'dim': bundle.dim,
        'precision': args.precision,
        'parity': report,
    }


def _show(bundle: Any, path: Optional[Path]) -> dict[str, object]:
    network, info = bundle.network, bundle.info
    clusters = getattr(network.pooling, 'clusters', None)
    summary: dict[str, object] = {
        'path': str(path),
        'model_id': bundle.model_id,
        'backbone': network.backbone.name,
        'pooling': network.pooling.settings,
        'clusters': clusters,
        'local_features': network.local_channels,
        'whitening': None if network.whitening is None else network.whitening.dim,
        'dim': bundle.dim,
        'input': bundle.policy.to_dict(),
        'recommended_min_similarity': info.recommended_min_similarity,
        'training': dict(info.training),
        'licence': info.licence,
        'source': info.source,
        'parameters': sum(p.numel() for p in network.parameters()),
    }
    for key, value in summary.items():
        print(f'{key:>28}: {value}')
    return summary
