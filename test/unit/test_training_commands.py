# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the training commands do with sizes, devices, full disks, processes and wrong input."""

import os
from pathlib import Path
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from netvlad_ros.cli.cluster import _read_weights
from netvlad_ros.cli.main import main
from netvlad_ros.config import DescriptorConfig
from netvlad_ros.descriptor import BundleInfo, Descriptor, load_bundle, save_bundle
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.poolings import make_pooling
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.rootsift import RootSift
from netvlad_ros.errors import ConfigError, InputError
from netvlad_ros.image_files import read_rgb
from netvlad_ros.training import array_file, clustering, features, frozen
from netvlad_ros.training.bags import read_bag
from netvlad_ros.training.clustering import ClusterConfig, sample_local_features
from netvlad_ros.training.features import describe
from netvlad_ros.training.images import CroppedFiles, ImageFiles, ImageMap, kept_decoded

sys.path.insert(0, str(Path(__file__).parent))
from test_training_bags import FRAMES
from test_training_bags import recording as recording
from test_training_ports import write_places

MAX_SIDE = InputPolicy(resize='max_side', max_side=96, height=64, width=96)


def make_network(policy: InputPolicy, pooling: str = 'netvlad') -> DescriptorNetwork:
    """Return a small network with random weights."""
    torch.manual_seed(0)
    backbone = make_backbone('mobilenet_v3_small_s16')
    layer = make_pooling({'kind': pooling}, 4, backbone.channels)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return DescriptorNetwork(policy, backbone, layer).eval()


def write_photos(folder: Path) -> list[Path]:
    """Write photos of three sizes, upright ones among wide ones."""
    paths = [folder / f'{n}.png' for n in range(7)]
    for n, path in enumerate(paths):
        height, width = [(120, 160), (160, 120), (100, 200)][n % 3]
        coarse = np.random.default_rng(n).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (width, height)))
    return paths


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize('compiled_from', [1, 200])
def test_images_of_several_sizes_are_described_as_the_deployed_model_does(
    tmp_path, monkeypatch, compiled_from
):
    monkeypatch.setattr(features, 'WORTH_COMPILING', compiled_from)
    bundle = save_bundle(tmp_path / 'm.safetensors', make_network(MAX_SIDE), BundleInfo('m'))
    paths = write_photos(tmp_path)
    deployed = Descriptor(bundle, DescriptorConfig(device='cpu', runtime='torch'))
    expected = deployed.compute([read_rgb(path) for path in paths])
    found = describe(bundle.network, ImageFiles(paths, bundle.policy))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_marked_part_keeps_its_aspect_ratio(tmp_path):
    paths = write_photos(tmp_path)[:1]
    part = CroppedFiles(paths, MAX_SIDE, np.array([[10.0, 0.0, 50.0, 120.0]])).batch([0])
    np.testing.assert_array_equal(part[0], MAX_SIDE.resize_image(read_rgb(paths[0])[:, 10:50]))
    assert part.shape == (1, 96, 32, 3)


def test_local_features_are_sampled_from_images_of_several_sizes(tmp_path):
    images = ImageFiles(write_photos(tmp_path), MAX_SIDE)
    config = ClusterConfig(clusters=2, descriptors=7 * 3, per_image=3)
    samples = sample_local_features(make_network(MAX_SIDE), images, config)
    assert samples.shape == (21, 48) and np.isfinite(samples).all()


def test_what_needs_one_size_says_so(tmp_path):
    files = ImageFiles(write_photos(tmp_path), MAX_SIDE)
    with pytest.raises(InputError, match=r"resize is 'max_side'.*leave out --image-cache"):
        ImageMap(files, tmp_path / 'cache')
    with pytest.raises(InputError, match=r'\(96, 72, 3\) give .* needs its own input size'):
        describe(make_network(MAX_SIDE, 'none'), ImageFiles(files.paths[1:2], MAX_SIDE))


@pytest.mark.parametrize(('free_images', 'kept'), [(14, True), (13, False)])
def test_images_are_kept_decoded_if_the_disk_has_room_for_two(
    tmp_path, monkeypatch, caplog, free_images, kept
):
    files = ImageFiles(write_photos(tmp_path), InputPolicy(height=64, width=96))
    usage = shutil.disk_usage(tmp_path)._replace(free=free_images * 64 * 96 * 3)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    source = kept_decoded(files, tmp_path / 'run')
    np.testing.assert_array_equal(source.batch([2, 5]), files.batch([2, 5]))
    assert (tmp_path / 'run').exists() == kept
    assert ('7 images are decoded again' in caplog.text) != kept
    usage = usage._replace(free=0)
    again = kept_decoded(files, tmp_path / 'run')
    assert isinstance(again, ImageMap) == kept, 'what is there needs no further room'


@pytest.mark.slow
@pytest.mark.parametrize('recipe', ['modern --steps 1 --places 2', 'relja --epochs 1'])
def test_training_at_one_size_is_printed(tmp_path, capsys, recipe):
    table, model = write_places(tmp_path / 'places'), tmp_path / 'm.safetensors'
    for photo in (tmp_path / 'places').glob('0*.jpg'):
        cv2.imwrite(str(photo), cv2.rotate(cv2.imread(str(photo)), cv2.ROTATE_90_CLOCKWISE))
    save_bundle(model, make_network(MAX_SIDE, 'average'), BundleInfo('m'))
    command = f"""train {table} --val-split= --model {model} --output {tmp_path / 'run'}
        --recipe {recipe} --device cpu"""
    assert main(command.split()) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if 'aspect ratio' in line]
    assert len(shown) == 1 and '96x64' in shown[0] and "'max_side'" in shown[0]
    assert load_bundle(tmp_path / 'run/model.safetensors').policy == MAX_SIDE


# ---------------------------------------------------------------- devices


class OnDevice:
    """An output that NumPy reads only after it was copied from its device."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def float(self) -> 'OnDevice':
        """Return itself: its numbers are float32."""
        return self

    def cpu(self) -> torch.Tensor:
        """Return the values."""
        return torch.from_numpy(self.values)


def test_images_go_to_the_device_of_the_network_and_outputs_come_back(tmp_path, monkeypatch):
    network = make_network(InputPolicy(height=64, width=96), 'average').to('meta')
    images = ImageFiles(write_photos(tmp_path), network.policy)
    given = []

    def fast_forward(module, example):
        def forward(pixels):
            given.append(pixels.device.type)
            return OnDevice(np.ones(module(pixels).shape, np.float32))

        given.append(example.device.type)
        return forward

    for module in (frozen, features):
        monkeypatch.setattr(module, 'fast_forward', fast_forward)
    monkeypatch.setattr(features, 'WORTH_COMPILING', 1)
    views = frozen.frozen_views(network, images, tmp_path / 'f.npy')
    assert len(views) == len(images) and (views.values == 1).all()
    assert describe(network, images).shape == (len(images), network.dim)
    assert given == 4 * ['meta']


def test_a_network_moves_to_the_named_device_and_rootsift_stays(monkeypatch):
    network = make_network(MAX_SIDE)
    with pytest.raises(ConfigError, match="device is 'gpu', allowed: auto, cpu"):
        frozen.to_device(network, 'gpu')
    frozen.to_device(network, 'auto' if not torch.cuda.is_available() else 'cpu')
    assert frozen.device_of(network).type == 'cpu'
    monkeypatch.setattr(frozen, 'resolve_device', lambda name: 'meta')
    rooted = DescriptorNetwork(MAX_SIDE, RootSift(), make_pooling({'kind': 'netvlad'}, 4, 128))
    for moved, kind in ((network, 'meta'), (rooted, 'cpu')):
        frozen.to_device(moved, 'meta')
        assert frozen.device_of(moved).type == kind
    monkeypatch.setattr(frozen, 'resolve_device', lambda name: 'cuda:0')
    assert [frozen.device_named(name) for name in ('auto', 'cuda')] == ['cuda', 'cuda']
    assert frozen.device_named('cuda:0') == 'cuda:0'


@pytest.mark.parametrize(
    'command',
    [
        'test TABLE --split train --model MODEL',
        'test FOLDER --kind holidays --model MODEL',
        'whiten TABLE --model MODEL --dim 4 --output FOLDER/out.safetensors',
        'cluster TABLE --backbone mobilenet_v3_small_s16 --output FOLDER/out.safetensors',
        'train TABLE --recipe modern --model MODEL --output FOLDER/run',
    ],
)
def test_commands_move_the_network_before_they_describe(tmp_path, monkeypatch, command):
    class MovedError(Exception):
        """The network was moved."""

    def to_device(network, name):
        assert isinstance(network, DescriptorNetwork) and name == 'cuda'
        raise MovedError

    monkeypatch.setattr(frozen, 'to_device', to_device)
    for module, function in ((frozen, 'frozen_views'), (features, 'describe')):
        monkeypatch.setattr(module, function, None)
    table, model = write_places(tmp_path / 'places'), tmp_path / 'm.safetensors'
    for n in range(3):
        (tmp_path / f'10000{n}.jpg').write_bytes((tmp_path / f'places/{n}0.jpg').read_bytes())
    save_bundle(model, make_network(InputPolicy(height=64, width=96)), BundleInfo('m'))
    for word, value in (('TABLE', table), ('FOLDER', tmp_path), ('MODEL', model)):
        command = command.replace(word, str(value))
    with pytest.raises(MovedError):
        main([*command.split(), '--device', 'cuda'])


# ---------------------------------------------------------------- full disks


def mapped_mb() -> float:
    """Return the resident memory of this process that is backed by files."""
    lines = Path('/proc/self/status').read_text(encoding='ascii').splitlines()
    return sum(int(line.split()[1]) for line in lines if line[:7] in ('RssFile', 'RssShme')) / 1024


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='no /proc')
def test_a_large_cache_is_not_held_in_memory(tmp_path):
    cache = features.feature_map(tmp_path / 'cache.npy', 1000, 32768)  # 66 MB
    cache[:] = np.arange(1000, dtype=np.float16)[:, None]
    held_mb = mapped_mb()
    array_file.let_go(cache)
    assert held_mb - mapped_mb() > 50
    assert (np.asarray(cache[:, 5]) == np.arange(1000)).all()
    array_file.let_go(np.zeros(3))


def write_images(folder: Path) -> None:
    """Fill a cache of decoded images."""
    ImageMap(ImageFiles(write_photos(folder), InputPolicy(height=64, width=96)), folder / 'out')


def write_frozen(folder: Path) -> None:
    """Fill a file of the frozen layers' outputs."""
    network = make_network(InputPolicy(height=64, width=96))
    images = ImageFiles(write_photos(folder), network.policy)
    frozen.frozen_views(network, images, folder / 'out/f.npy')


def write_features(folder: Path) -> None:
    """Fill a cache of descriptors."""
    features.feature_map(folder / 'out/f.npy', 7, 30000)[:] = 1.0


@pytest.mark.parametrize(
    ('write', 'megabytes'),
    [(write_images, 7 * 64 * 96 * 3 / 1e6), (write_frozen, None), (write_features, 0.42)],
)
def test_a_full_disk_is_known_before_anything_is_computed(
    tmp_path, monkeypatch, write, megabytes
):
    def full(file, start, size):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'posix_fallocate', full)
    needed = r'\d+\.\d' if megabytes is None else f'{megabytes:.1f}'
    with pytest.raises(InputError, match=rf'cannot write .*/out/.* needs {needed} MB: .*No space'):
        write(tmp_path)
    assert not list((tmp_path / 'out').iterdir())


def test_a_file_larger_than_allowed_is_no_crash(tmp_path):
    script = f"""if True:
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_training_commands import *
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            write_features(Path({str(tmp_path)!r}))
        except InputError as error:
            print(error)
    """
    ended = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and 'needs 0.4 MB: [Errno 27]' in ended.stdout, ended
    assert not list((tmp_path / 'out').iterdir())


def test_a_new_array_file_takes_its_whole_place_on_the_disk(tmp_path):
    array_file.new_array_file(tmp_path / 'a.npy', np.uint8, (1000, 1000))
    assert (tmp_path / 'a.npy').stat().st_blocks * 512 >= 1_000_000
    assert not np.load(tmp_path / 'a.npy').any()


def test_a_folder_that_cannot_be_made_is_no_traceback(tmp_path):
    (tmp_path / 'out').write_text('a file')
    with pytest.raises(InputError, match=r"cannot write .*f\.npy', which needs 0\.4 MB"):
        write_features(tmp_path)


# ---------------------------------------------------------------- several processes

CACHES = """if True:
    from pathlib import Path
    import sys, time
    sys.path.insert(0, sys.argv[1])
    from test_training_commands import *
    from netvlad_ros.training.distributed import Workers
    workers, folder = Workers.from_environment(), Path(sys.argv[2])
    paths, network = sorted(folder.glob('*.png')), make_network(InputPolicy(height=64, width=96))
    files, read = ImageFiles(paths, network.policy), []
    batch = files.batch
    def slow(indices):
        read.extend(indices)
        time.sleep(1.0)
        return batch(indices)
    files.batch = slow
    decoded = ImageMap(files, folder / 'out').batch([6, 0])
    assert len(read) == (7 if workers.is_first else 0), read
    read.clear()
    views = frozen.frozen_views(network, files, folder / 'out/f.npy')
    assert len(read) == (8 if workers.is_first else 0), read
    np.testing.assert_array_equal(decoded, batch([6, 0]))
    assert len(views) == 7 and np.isfinite(views.values).all()
    workers.close()
"""


@pytest.mark.slow
def test_one_of_two_processes_fills_a_cache_and_the_other_waits(tmp_path):
    write_photos(tmp_path)
    script = tmp_path / 'script.py'
    script.write_text(CACHES)
    command = [
        sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
        str(script), str(Path(__file__).parent), str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert {path.suffix for path in (tmp_path / 'out').iterdir()} == {'.npy'}


def test_recipe_modern_is_refused_under_torchrun(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('WORLD_SIZE', '4')
    assert main(['train', 'x', '--recipe', 'modern', '--output', str(tmp_path / 'run')]) == 1
    assert 'recipe modern trains in one process, torchrun started 4' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


# ---------------------------------------------------------------- wrong input


@pytest.fixture
def places_and_model(tmp_path) -> tuple[str, str]:
    """Return 12 database images of 6 places, and a model of 192 values."""
    table, model = write_places(tmp_path / 'places'), tmp_path / 'm.safetensors'
    save_bundle(model, make_network(InputPolicy(height=64, width=96)), BundleInfo('m'))
    return str(table), str(model)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ('--dim 4 --output {}/my model.safetensors', "model name is 'my model'"),
        ('--dim 4 --name a/b --output {}/w.safetensors', "model name is 'a/b'"),
        ('--dim 12 --output {}/w.safetensors', 'needs more than 12 database images, 12 of 12'),
        ('--dim 193 --output {}/w.safetensors', '--dim is 193, allowed for '),
        ('--dim 0 --output {}/w.safetensors', '--dim is 0, allowed for '),
        ('--dim 4 --strength 1.5 --output {}/w.safetensors', '--strength is 1.5, allowed: 0 to 1'),
        (
            '--dim 4 --strength 0.5 --method discriminant --output {}/w.safetensors',
            '--strength is a setting of --method pca',
        ),
        (
            '--dim 4 --method discriminant --views 2 --output {}/w.safetensors',
            '36 descriptors (images times --views) are too few for 192 dimensions',
        ),
    ],
)
def test_whitening_is_refused_before_images_are_described(
    places_and_model, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.setattr(features, 'describe', None)
    table, model = places_and_model
    words = [word.format(tmp_path) for word in options.split(' --')]
    words = [part for word in words for part in f'--{word.removeprefix("--")}'.split(' ', 1)]
    assert main(['whiten', table, '--model', model, *words]) == 1
    assert message in capsys.readouterr().err


def test_two_datasets_count_alike_from_clusters_to_whitening(tmp_path, monkeypatch, capsys):
    sampled = []

    def sample(network, images, config, progress):
        sampled.append((len(images), config.descriptors))
        return np.random.default_rng(len(sampled)).normal(size=(50, 48)).astype(np.float32)

    monkeypatch.setattr(clustering, 'sample_local_features', sample)
    first, second = write_places(tmp_path / 'one'), write_places(tmp_path / 'two', 9)
    start, out = tmp_path / 'start.safetensors', tmp_path / 'white.safetensors'
    command = f"""cluster {first} --also {second} --backbone mobilenet_v3_small_s16 --clusters 2
        --width 96 --height 64 --descriptors 100 --output {start}"""
    assert main(command.split()) == 0
    assert sampled == [(12, 50), (18, 50)]
    command = f"""whiten {first} --also {second} --model {start} --method discriminant --views 5
        --dim 8 --output {out}"""
    assert main(command.split()) == 0, capsys.readouterr().err
    training = load_bundle(out).info.training
    assert training['whitened_by'] == 'discriminant' and training['whitened_on'].count(',') == 1
    command = f"""whiten {first} --also {second} --model {start} --dim 8 --output {out}"""
    assert main(command.split()) == 0
    assert 'by pca from 24 images' in capsys.readouterr().out


def test_local_features_are_reduced_and_training_goes_on_from_there(tmp_path, capsys):
    table, start = write_places(tmp_path / 'places'), tmp_path / 'start.safetensors'
    command = f"""cluster {table} --backbone mobilenet_v3_small_s16 --clusters 2 --local-dim 6
        --width 96 --height 64 --output {start}"""
    assert main(command.split()) == 0
    network = load_bundle(start).network
    assert network.dim == 12 and network.local_projection.weight.abs().max() < 1
    white = tmp_path / 'white.safetensors'
    command = f'whiten {table} --model {start} --dim 8 --strength 0.5 --output {white}'
    assert main(command.split()) == 0, capsys.readouterr().err
    command = f"""train {table} --val-split= --model {white} --recipe modern --steps 2 --places 2
        --views 2 --train-layers --output {tmp_path / 'run'}"""
    assert main(command.split()) == 0, capsys.readouterr().err
    trained = load_bundle(tmp_path / 'run/model.safetensors').network
    moved = trained.local_projection.weight - network.local_projection.weight
    assert trained.dim == 8 and moved.abs().max() > 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ('--local-dim 6 --pooling average', '--local-dim goes with netvlad and vlad, not average'),
        ('--local-dim 49', '--local-dim is 49, allowed for mobilenet_v3_small_s16: 1 to 48'),
    ],
)
def test_a_reduction_that_cannot_be_is_refused(tmp_path, capsys, options, message):
    command = f'cluster x --backbone mobilenet_v3_small_s16 {options} --output {tmp_path / "m"}'
    assert main(command.split()) == 1
    assert message in capsys.readouterr().err


def test_a_bad_name_is_refused_before_clustering(places_and_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clustering, 'init_pooling', None)
    table, model = places_and_model
    output = str(tmp_path / 'my model.safetensors')
    assert main(['cluster', table, '--model', model, '--output', output]) == 1
    assert "model name is 'my model'" in capsys.readouterr().err


@pytest.mark.parametrize('recipe', ['relja', 'modern'])
def test_a_model_with_nothing_to_train_is_refused(tmp_path, capsys, recipe):
    table, model = write_places(tmp_path / 'places'), tmp_path / 'm.safetensors'
    network = make_network(InputPolicy(height=64, width=96), 'average')
    save_bundle(model, network, BundleInfo('m'))
    command = f"""train {table} --model {model} --recipe {recipe} --output {tmp_path / 'run'}
        --train-layers"""
    assert main(command.split()) == 1
    assert 'nothing to train: average pooling has no parameters' in capsys.readouterr().err


@pytest.mark.usefixtures('recording')
@pytest.mark.parametrize(
    ('at', 'given'), [('drive', '.'), ('drive', '../drive'), ('drive/images', '..')]
)
def test_a_recording_may_be_the_folder_one_is_in(tmp_path, monkeypatch, at, given):
    monkeypatch.chdir(tmp_path / at)
    assert read_bag(Path(given), 'all').name == 'drive'
    assert len(list((tmp_path / 'drive_images').glob('*.jpg'))) == FRAMES


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize('kind', ['whole model', 'page', 'empty', 'list', 'missing'])
def test_weights_that_are_no_state_dict_are_refused(tmp_path, capsys, suffix, kind):
    table, weights = write_places(tmp_path / 'places'), tmp_path / f'weights.{suffix}'
    if kind == 'whole model':
        torch.save(torch.nn.Linear(2, 2), weights)
    elif kind == 'list':
        torch.save([torch.zeros(2)], weights)
    elif kind != 'missing':
        weights.write_text({'page': '<!DOCTYPE html><html>Not Found</html>', 'empty': ''}[kind])
    command = f"""cluster {table} --backbone mobilenet_v3_small_s16 --weights {weights}
        --output {tmp_path / 'start.safetensors'}"""
    assert main(command.split()) == 1
    assert f'weights.{suffix}' in capsys.readouterr().err


def test_a_checkpoint_of_a_trainer_starts_a_backbone(tmp_path):
    backbone = make_backbone('mobilenet_v3_small_s16')
    torch.save({'epoch': 3, 'state_dict': backbone.state_dict()}, tmp_path / 'w.pth')
    found = _read_weights(tmp_path / 'w.pth')
    assert found.keys() == backbone.state_dict().keys()


@pytest.mark.parametrize(
    ('backbone', 'prefix', 'known'),
    [
        ('mobilenet_v3_small_s16', 'features.88', 'features.0, features.1, '),
        ('mobilenet_v3_small_s16', 'features.', 'features.8, and what is below'),
        ('resnet18_layer3', 'layer4', 'conv1, bn1, layer1, layer2, layer3, and what is below'),
    ],
)
def test_layers_that_do_not_exist_are_refused(backbone, prefix, known):
    with pytest.raises(ConfigError, match=rf'has no parameter under {prefix!r}, .*{known}'):
        make_backbone(backbone).train_only((prefix,))


def test_layers_that_train_may_be_deep_or_none():
    backbone = make_backbone('resnet18_layer3')
    backbone.train_only(('layer3.1', 'bn1'))
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert {name.split('.')[0] for name in trained} == {'layer3', 'bn1'}
    assert not any(name.startswith('layer3.0') for name in trained)
    backbone.train_only(())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(
    'command',
    [
        'bench train --count 0', 'bench descriptor --batch -1', 'models export x --batch 0',
        'cluster x --clusters 0', 'test x --model y --alpha-sweep nan', 'play x --rate 0',
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_named(capsys, command):
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert end.value.code == 2
    assert 'must be above 0' in capsys.readouterr().err
