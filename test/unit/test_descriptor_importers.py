# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Published weights: files of exactly each layout, judged by float64 NumPy that reads them raw.

Nothing of ``netvlad_ros`` computes the expected descriptors: each family's own layout, flatten
order and preprocessing are written out once more here.
"""

import argparse
import pickle

import cv2
import numpy as np
import pytest
from scipy.io import savemat
import torch
import torchvision.models

from netvlad_ros.cli import models
from netvlad_ros.config import DescriptorConfig
from netvlad_ros.descriptor import load_descriptor
from netvlad_ros.descriptor.importers import import_file
from netvlad_ros.descriptor.runtimes.prepared import random_images
from netvlad_ros.errors import ModelError

VGG = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG_POOLS_BEFORE = (5, 10, 17, 24)
IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
CAFFE = np.array([123.68, 116.779, 103.939])
K = 5


# ---------------------------------------------------------------- float64 NumPy


def convolve(x, weight, bias=None, stride=1, padding=1):
    """(C, H, W) with (O, C, h, w)."""
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], (1, 2))
    windows = windows[:, ::stride, ::stride]
    out = np.tensordot(weight.astype(np.float64), windows, ((1, 2, 3), (0, 3, 4)))
    return out if bias is None else out + bias.astype(np.float64)[:, None, None]


def max_pool(x, size=2, stride=2, padding=0):
    pad = (padding, padding)
    padded = np.pad(x, ((0, 0), pad, pad), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    return windows[:, ::stride, ::stride].max(axis=(3, 4))


def vgg16(x, tensors):
    """``tensors[index]`` is (weight, bias) at torchvision's positions; no ReLU after the last."""
    for index in VGG:
        if index:
            x = np.maximum(x, 0)
        if index in VGG_POOLS_BEFORE:
            x = max_pool(x)
        x = convolve(x, *tensors[index])
    return x


def soft_assignment(x, weight, bias):
    """(K, D), (K,) and unit columns (D, L) to (K, L)."""
    scores = weight.astype(np.float64) @ x + bias[:, None]
    scores = np.exp(scores - scores.max(axis=0))
    return scores / scores.sum(axis=0)


def vlad(features, weight, centres, bias=None, flatten='kd'):
    x = features.reshape(features.shape[0], -1)
    x = x / np.linalg.norm(x, axis=0)
    a = soft_assignment(x, weight, np.zeros(len(weight)) if bias is None else bias)
    v = np.stack([(a[k] * (x - centres[k][:, None])).sum(axis=1) for k in range(len(a))])
    v = v / np.linalg.norm(v, axis=1, keepdims=True)
    v = v.reshape(-1) if flatten == 'kd' else v.T.reshape(-1)
    return v / np.linalg.norm(v)


def whiten(v, weight, bias):
    y = weight.astype(np.float64) @ v + bias
    return y / np.linalg.norm(y)


# ---------------------------------------------------------------- the files


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture(scope='module')
def vgg_tensors():
    """He-initialised VGG16 convolutions with biases, by torchvision's position."""
    rng = np.random.default_rng(0)
    sizes = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    sizes += [(256, 512)] + [(512, 512)] * 5
    tensors = {}
    for index, (inputs, outputs) in zip(VGG, sizes, strict=True):
        weight = rng.normal(0, np.sqrt(2 / (9 * inputs)), (outputs, inputs, 3, 3))
        tensors[index] = (weight.astype('f4'), rng.normal(0, 0.1, outputs).astype('f4'))
    return tensors


def pooling(channels, clusters, seed=1):
    rng = np.random.default_rng(seed)
    weight = 10 * rng.normal(size=(clusters, channels)) / np.sqrt(channels)
    centres = rng.normal(size=(clusters, channels)) / np.sqrt(channels)
    return weight.astype('f4'), centres.astype('f4')


def whitening(inputs, outputs=6, seed=2):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(outputs, inputs)).astype('f4'), rng.normal(size=outputs).astype('f4')


def torch_state(prefix, tensors):
    state = {}
    for index, (weight, bias) in tensors.items():
        state[f'{prefix}.{index}.weight'] = torch.from_numpy(weight)
        state[f'{prefix}.{index}.bias'] = torch.from_numpy(bias)
    return state


def add_pooling(state, prefix, weight, centres, bias=None):
    state[f'{prefix}.centroids'] = torch.from_numpy(centres)
    state[f'{prefix}.conv.weight'] = torch.from_numpy(weight)[:, :, None, None]
    if bias is not None:
        state[f'{prefix}.conv.bias'] = torch.from_numpy(bias)


def chw(image):
    return image.astype(np.float64).transpose(2, 0, 1)


def imagenet(image):
    mean, std = IMAGENET
    return ((image / 255.0 - mean) / std).transpose(2, 0, 1)


def computed(path, image):
    """Return the descriptor that the imported file gives."""
    config = DescriptorConfig(model=str(path), device='cpu', runtime='torch')
    return load_descriptor(config).compute([image])[0]


def assert_equal(actual, expected):
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= 1e-5


# ---------------------------------------------------------------- Relja / hloc


def write_mat(path, tensors, weight, centres, whitening_io=None, bias=None, names=True):
    """Write ``net.layers`` as hloc's files have it: H x W x in x out, D x K, 1 x 1 x in x out."""
    layers = []
    for index in range(29):
        kind = 'conv' if index in VGG else 'relu'
        layer = {'type': kind, 'name': f'{kind}{index}' if names else ''}
        if index in VGG:
            w, b = tensors[index]
            layer['weights'] = cells(w.transpose(2, 3, 1, 0), b)
        layers.append(layer)
    layers.append({'type': 'custom', 'name': 'preL2' if names else ''})
    middle = [] if bias is None else [bias[None]]
    core = cells(weight.T, *middle, -centres.T)
    layers.append({'type': 'custom', 'name': 'vlad:core' if names else '', 'weights': core})
    layers += [{'type': 'custom', 'name': ''}, {'type': 'custom', 'name': ''}]
    if whitening_io is not None:
        matrix, offset = whitening_io
        stored = cells(matrix.T[None, None], offset[:, None])
        layers.append({'type': 'conv', 'name': 'WPCA' if names else '', 'weights': stored})
        layers.append({'type': 'custom', 'name': 'finalL2' if names else ''})
    array = np.empty((1, len(layers)), dtype=object)
    array[0] = layers
    average = np.broadcast_to(CAFFE.astype('f4'), (224, 224, 3))
    meta = {'normalization': {'averageImage': average}}
    savemat(path, {'net': {'layers': array, 'meta': meta}})


def cells(*arrays):
    out = np.empty((1, len(arrays)), dtype=object)
    for index, array in enumerate(arrays):
        out[0, index] = array
    return out


@pytest.mark.parametrize('names', [True, False])
def test_relja_mat(tmp_path, vgg_tensors, names):
    weight, centres = pooling(512, K)
    matrix, offset = whitening(K * 512)
    source, bundle = tmp_path / 'Pitts30K_struct.mat', tmp_path / 'p.safetensors'
    write_mat(source, vgg_tensors, weight, centres, (matrix, offset), names=names)
    import_file(source, bundle)
    image = random_images(1, 48, 80)[0]
    features = vgg16(chw(image) - CAFFE[:, None, None], vgg_tensors)
    raw = vlad(features, weight, centres, flatten='dk')
    assert_equal(computed(bundle, image), whiten(raw, matrix, offset))
    import_file(source, bundle, dim=3)
    assert_equal(computed(bundle, image), whiten(raw, matrix[:3], offset[:3]))
    with pytest.raises(ModelError, match=r'7.*1 to 6'):
        import_file(source, bundle, dim=7)


def test_relja_mat_v2_without_whitening(tmp_path, vgg_tensors):
    weight, centres = pooling(512, K)
    bias = np.linspace(-1, 1, K).astype('f4')
    source, bundle = tmp_path / 'v2.mat', tmp_path / 'v2.safetensors'
    write_mat(source, vgg_tensors, weight, centres, bias=bias)
    import_file(source, bundle)
    image = random_images(1, 32, 48)[0]
    features = vgg16(chw(image) - CAFFE[:, None, None], vgg_tensors)
    assert_equal(computed(bundle, image), vlad(features, weight, centres, bias))
    with pytest.raises(ModelError, match='no whitening'):
        import_file(source, bundle, dim=3)


def test_relja_images_are_shrunk_to_1024_and_never_enlarged(tmp_path, vgg_tensors):
    source, path = tmp_path / 'a.mat', tmp_path / 'a.safetensors'
    write_mat(source, vgg_tensors, *pooling(512, K))
    policy = import_file(source, path).policy
    assert policy.size_for(1536, 2048) == (768, 1024)
    assert policy.size_for(480, 640) == (480, 640)


# ---------------------------------------------------------------- torch families


@pytest.mark.parametrize(('version', 'parallel'), [('v1', False), ('v2', True)])
def test_nanne(tmp_path, vgg_tensors, version, parallel):
    """The checkpoint holds NumPy scalars, as the trainer saves them."""
    weight, centres = pooling(512, K)
    bias = np.linspace(-1, 1, K).astype('f4') if version == 'v2' else None
    module = '.module' if parallel else ''
    state = torch_state(f'encoder{module}', vgg_tensors)
    add_pooling(state, f'pool{module}', weight, centres, bias)
    recalls = {1: np.float64(0.85), 5: np.float32(0.95)}
    content = {
        'epoch': 7, 'state_dict': state, 'recalls': recalls, 'best_score': np.float64(0.95),
        'optimizer': {'state': {}, 'param_groups': []}, 'parallel': parallel,
        'history': np.arange(4.0),
    }  # fmt: skip
    source, bundle = tmp_path / 'checkpoint.pth.tar', tmp_path / 'n.safetensors'
    torch.save(content, source)
    import_file(source, bundle)
    image = random_images(1, 32, 48)[0]
    expected = vlad(vgg16(imagenet(image), vgg_tensors), weight, centres, bias)
    assert_equal(computed(bundle, image), expected)


def fixed_size(image):
    return cv2.resize(image, (640, 480), interpolation=cv2.INTER_LINEAR)


def test_patch_netvlad(tmp_path, vgg_tensors):
    """The images are 480x640 whatever the camera gives; K and the whitening come from shapes."""
    weight, centres = pooling(512, 3)
    matrix, offset = whitening(3 * 512, 4)
    state = torch_state('encoder', vgg_tensors)
    add_pooling(state, 'pool', weight, centres)
    state['WPCA.0.weight'] = torch.from_numpy(matrix)[:, :, None, None]
    state['WPCA.0.bias'] = torch.from_numpy(offset)
    source, bundle = tmp_path / 'mapillary_WPCA4.pth.tar', tmp_path / 'p.safetensors'
    torch.save({'num_pcs': 4, 'state_dict': state}, source)
    assert import_file(source, bundle).policy.size_for(100, 100) == (480, 640)
    import_file(source, bundle, size_hw=(32, 48))
    image = random_images(1, 32, 48)[0]
    raw = vlad(vgg16(imagenet(image), vgg_tensors), weight, centres)
    assert_equal(computed(bundle, image), whiten(raw, matrix, offset))


def test_openibl(tmp_path, vgg_tensors):
    weight, centres = pooling(512, K)
    matrix, offset = whitening(K * 512)
    state = torch_state('module.base_model.base', vgg_tensors)
    add_pooling(state, 'module.net_vlad', weight, centres)
    state['module.pca_layer.weight'] = torch.from_numpy(matrix)[:, :, None, None]
    state['module.pca_layer.bias'] = torch.from_numpy(offset)
    source, bundle = tmp_path / 'vgg16_netvlad.pth', tmp_path / 'o.safetensors'
    torch.save(state, source)
    assert import_file(source, bundle).policy.size_for(100, 100) == (480, 640)
    import_file(source, bundle, size_hw=(32, 48))
    image = random_images(1, 32, 48)[0]
    features = vgg16(chw(image) - CAFFE[:, None, None], vgg_tensors)
    expected = whiten(vlad(features, weight, centres), matrix, offset)
    assert_equal(computed(bundle, image), expected)


def resnet18_to_layer3(x, t):
    """``t`` holds the tensors by the trainer's names: a plain list of torchvision's children."""

    def norm(x, name):
        scale = t[f'{name}.weight'] / np.sqrt(t[f'{name}.running_var'] + 1e-5)
        shift = t[f'{name}.bias'] - scale * t[f'{name}.running_mean']
        return x * scale[:, None, None] + shift[:, None, None]

    x = np.maximum(norm(convolve(x, t['0.weight'], stride=2, padding=3), '1'), 0)
    x = max_pool(x, 3, 2, 1)
    for layer in (4, 5, 6):
        for block in (0, 1):
            name = f'{layer}.{block}'
            stride = 2 if layer > 4 and block == 0 else 1
            y = norm(convolve(x, t[f'{name}.conv1.weight'], stride=stride), f'{name}.bn1')
            y = norm(convolve(np.maximum(y, 0), t[f'{name}.conv2.weight']), f'{name}.bn2')
            if stride == 2:
                x = convolve(x, t[f'{name}.downsample.0.weight'], stride=2, padding=0)
                x = norm(x, f'{name}.downsample.1')
            x = np.maximum(x + y, 0)
    return x


@pytest.mark.parametrize('wrapped', [False, True])
def test_benchmark_resnet18(tmp_path, wrapped):
    torch.manual_seed(0)
    children = list(torchvision.models.resnet18(weights=None).children())[:-3]
    network = torch.nn.Sequential(*children)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    tensors = network.state_dict()
    weight, centres = pooling(256, K)
    state = {f'backbone.{key}': value for key, value in tensors.items()}
    add_pooling(state, 'aggregation', weight, centres)
    content = state
    if wrapped:
        state = {f'module.{key}': value for key, value in state.items()}
        content = {'epoch_num': 3, 'model_state_dict': state, 'best_r5': np.float64(90.1)}
    source, bundle = tmp_path / 'best_model.pth', tmp_path / 'r.safetensors'
    torch.save(content, source)
    import_file(source, bundle, size_hw=(48, 64))
    image = random_images(1, 48, 64)[0]
    plain = {key: value.double().numpy() for key, value in tensors.items()}
    expected = vlad(resnet18_to_layer3(imagenet(image), plain), weight, centres)
    assert_equal(computed(bundle, image), expected)


# ---------------------------------------------------------------- what is refused


class Malicious:
    """Ends the process when it is unpickled."""

    def __reduce__(self):
        return exec, ('raise SystemExit("unpickled")',)


def refused(tmp_path, content, words, name='file.pth'):
    source = tmp_path / name
    if isinstance(content, bytes):
        source.write_bytes(content)
    else:
        torch.save(content, source)
    with pytest.raises(ModelError, match=words):
        import_file(source, tmp_path / 'out.safetensors')
    assert not (tmp_path / 'out.safetensors').exists()


def test_unknown_and_damaged_files_say_what_was_found(tmp_path, vgg_tensors):
    refused(tmp_path, b'not a model at all', 'no torch checkpoint|no readable torch')
    refused(tmp_path, {'epoch': 3, 'note': 'x'}, 'epoch, note')
    refused(tmp_path, {'fc.weight': torch.zeros(2, 3)}, r'fc.weight \(2, 3\).*Patch-NetVLAD')
    refused(tmp_path, b'MATLAB 5.0 MAT-file, cut' + b' ' * 200, 'MATLAB', 'a.mat')
    state = torch_state('encoder', dict(list(vgg_tensors.items())[:4]))
    add_pooling(state, 'pool', *pooling(512, K))
    refused(tmp_path, state, r'8 tensors.*none of VGG16')
    state = torch_state('encoder', vgg_tensors)
    add_pooling(state, 'pool', *pooling(256, K))
    refused(tmp_path, state, r'\(5, 256\).*512 channels')
    whole = tmp_path / 'whole.pth'
    torch.save(state, whole)
    refused(tmp_path, whole.read_bytes()[:-5000], 'no torch checkpoint|no readable torch')
    with pytest.raises(ModelError, match=r'missing\.pth'):
        import_file(tmp_path / 'missing.pth', tmp_path / 'out.safetensors')


def test_a_mat_file_of_something_else_is_named(tmp_path):
    savemat(tmp_path / 'dbStruct.mat', {'dbStruct': {'numImages': 3}})
    with pytest.raises(ModelError, match=r'holds dbStruct, expected net\.layers'):
        import_file(tmp_path / 'dbStruct.mat', tmp_path / 'out.safetensors')


def test_nothing_is_unpickled(tmp_path):
    refused(tmp_path, {'state_dict': Malicious()}, r'plain values: Unsupported.*exec$')
    refused(tmp_path, pickle.dumps(Malicious()), 'no torch checkpoint|no readable torch')


def test_import_command(tmp_path, vgg_tensors, capsys):
    source = tmp_path / 'Pitts30K_struct.mat'
    write_mat(source, vgg_tensors, *pooling(512, K), whitening(K * 512))
    parser = argparse.ArgumentParser()
    models.add_arguments(parser)
    command = ['import', str(source), '--dim', '4', '--name', 'pitts_4']
    assert models.run(parser.parse_args(command))['dim'] == 4
    written = tmp_path / 'cache' / 'netvlad_ros' / 'models' / 'pitts_4.safetensors'
    assert written.is_file()
    assert 'pitts_4@' in capsys.readouterr().out
    assert load_descriptor(DescriptorConfig(model='pitts_4', runtime='torch')).dim == 4
