# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One picture in every encoding gives one descriptor; a damaged message gives one clear error."""

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore
import torch

from netvlad_ros.descriptor import BundleInfo, make_bundle
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.runtimes.prepared import random_images
from netvlad_ros.descriptor.unit_length import unit
from netvlad_ros.errors import InputError
from netvlad_ros.image_messages import depth_from_message, image_from_message

TYPES = get_typestore(Stores.ROS2_HUMBLE).types
HEIGHT, WIDTH = 240, 320
PADDING_BYTES = 6


def header():
    time = TYPES['builtin_interfaces/msg/Time'](sec=1, nanosec=2)
    return TYPES['std_msgs/msg/Header'](stamp=time, frame_id='camera')


def image_message(array, encoding, big_endian=False):
    """Return a sensor_msgs/Image with padded rows, as some drivers send them."""
    if big_endian:
        array = array.astype(array.dtype.newbyteorder('>'))
    rows = np.ascontiguousarray(array).view(np.uint8).reshape(array.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, PADDING_BYTES)), constant_values=77)
    return TYPES['sensor_msgs/msg/Image'](
        header=header(), height=array.shape[0], width=array.shape[1], encoding=encoding,
        is_bigendian=int(big_endian), step=rows.shape[1], data=rows.reshape(-1),
    )  # fmt: skip


def compressed_message(data, kind='jpeg'):
    data = np.frombuffer(data, np.uint8)
    return TYPES['sensor_msgs/msg/CompressedImage'](header=header(), format=kind, data=data)


def picture(colour=True):
    image = cv2.GaussianBlur(random_images(1, HEIGHT, WIDTH, seed=5)[0], (0, 0), 4)
    if colour:
        return image
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def bayer(rgb, pattern):
    """Keep of each pixel the channel that the 2 x 2 pattern has there."""
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for position, colour in enumerate(pattern):
        rows, columns = slice(position // 2, None, 2), slice(position % 2, None, 2)
        mosaic[rows, columns] = rgb[rows, columns, 'rgb'.index(colour)]
    return mosaic


def yuv422(rgb, order):
    """Return (H, W, 2) with chroma shared by pixel pairs; order 'uyvy' or 'yuyv' (BT.601)."""
    r, g, b = (rgb[..., i].astype(np.float64) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    chroma = np.stack([u, v], axis=-1).reshape(HEIGHT, WIDTH // 2, 2, 2).mean(axis=2)
    chroma = chroma.reshape(HEIGHT, WIDTH)
    pair = (chroma, y) if order == 'uyvy' else (y, chroma)
    return np.stack(pair, axis=-1).round().astype(np.uint8)


def encoded(name):
    """Return a message of the picture, and the picture that it should give."""
    rgb = picture()
    gray = picture(colour=False)
    bgr = rgb[..., ::-1]
    opaque = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    gray16 = gray[..., 0].astype(np.uint16) * 257
    arrays = {
        'rgb8': rgb, 'bgr8': bgr, '8UC3': bgr,
        'rgba8': np.concatenate([rgb, opaque], axis=2),
        'bgra8': np.concatenate([bgr, opaque], axis=2),
        'yuv422': yuv422(rgb, 'uyvy'), 'uyvy': yuv422(rgb, 'uyvy'),
        'yuv422_yuy2': yuv422(rgb, 'yuyv'), 'yuyv': yuv422(rgb, 'yuyv'),
        **{f'bayer_{p}8': bayer(rgb, p) for p in ('rggb', 'bggr', 'gbrg', 'grbg')},
    }  # fmt: skip
    if name in arrays:
        return image_message(arrays[name], name), rgb
    if name in ('jpeg', 'png'):
        _, data = cv2.imencode(f'.{name}', bgr)
        return compressed_message(data, name), rgb
    if name == 'gray jpeg':
        _, data = cv2.imencode('.jpg', gray[..., 0])
        return compressed_message(data, 'mono8; jpeg compressed '), gray
    if name == 'mono8':
        return image_message(gray[..., 0], 'mono8'), gray
    return image_message(gray16, 'mono16', big_endian=name.startswith('big')), gray


@pytest.fixture(scope='module')
def describe():
    """Return a function from an image to its descriptor by a random network.

    Its clusters are features of the picture, so that residuals, which tell pictures apart, matter.
    """
    torch.manual_seed(0)
    backbone = make_backbone('alexnet')
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    pooling = NetVLAD(8, backbone.channels)
    network = DescriptorNetwork(InputPolicy(height=HEIGHT, width=WIDTH), backbone, pooling)
    make_bundle(network, BundleInfo('random'))

    def images(rgb):
        return network.normalise(torch.from_numpy(rgb)[None])

    features = unit(backbone(images(picture())).flatten(2)[0].T, dim=1)
    pooling.init_from_clusters(features[:: len(features) // 8][:8], features)
    return lambda rgb: network.pool(backbone(images(rgb)))[0].numpy()


@pytest.mark.parametrize(
    'name',
    ['rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8', 'mono8', 'mono16', 'big-endian mono16',
     'bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8', 'yuv422', 'uyvy', 'yuv422_yuy2',
     'yuyv', 'jpeg', 'png', 'gray jpeg'],
)  # fmt: skip
def test_every_encoding_gives_the_descriptor_of_the_picture(name, describe):
    message, expected = encoded(name)
    image = image_from_message(message)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    # A swap of two colours, an offset of one pixel or a wrong pattern is far outside this.
    assert np.abs(image.astype(int) - expected).mean() < 4
    assert describe(image) @ describe(expected) >= 0.999


def test_the_golden_test_can_fail(describe):
    rgb = picture()
    for wrong in (rgb[..., ::-1], rgb.transpose(1, 0, 2), np.roll(rgb, 8, axis=1)):
        assert describe(np.ascontiguousarray(wrong)) @ describe(rgb) < 0.999


def test_a_bridge_is_used_where_there_is_one():
    seen = []

    class Bridge:
        def imgmsg_to_cv2(self, message, encoding):
            seen.append((message.encoding, message.step, encoding))
            return np.asarray(message.data).reshape(message.height, message.width, 3)

    message, expected = encoded('rgb8')
    assert np.array_equal(image_from_message(message, Bridge()), expected)
    assert seen == [('rgb8', WIDTH * 3, 'rgb8')]


def changed(message, **values):
    return SimpleNamespace(**{**vars(message), **values})


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'encoding': 'cmyk'}, "'cmyk'.*rgb8"),
        ({'height': 0}, '320x0'),
        ({'width': 0}, '0x240'),
        ({'step': 100}, '100.*960'),
        ({'data': b'\0' * 999}, 'truncated: 999'),
    ],
)
def test_a_damaged_image_is_refused(values, words):
    message, _ = encoded('rgb8')
    with pytest.raises(InputError, match=words):
        image_from_message(changed(message, **values))


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
def test_a_damaged_file_is_refused(kind):
    message, _ = encoded(kind)
    whole = message.data.tobytes()
    for data in (whole[: len(whole) // 2], whole[:-20]):
        with pytest.raises(InputError, match=f"'{kind}' is cut short"):
            image_from_message(compressed_message(data, kind))
    for data in (b'', b'\0' * 400):
        with pytest.raises(InputError, match=f"'{kind}' cannot be decoded"):
            image_from_message(compressed_message(data, kind))


def test_depth_is_metres():
    metres = np.array([[0.0, 1.5], [2.25, np.nan]], np.float32)
    assert np.array_equal(depth_from_message(image_message(metres, '32FC1')), metres, True)
    millimetres = np.array([[0, 1500], [2250, 65535]], np.uint16)
    expected = millimetres.astype(np.float32) / 1000
    for message in (
        image_message(millimetres, '16UC1'),
        image_message(millimetres, '16UC1', big_endian=True),
        compressed_message(cv2.imencode('.png', millimetres)[1], '16UC1; png'),
        compressed_message(
            b'\0' * 12 + cv2.imencode('.png', millimetres)[1].tobytes(),
            '16UC1; compressedDepth png',
        ),
    ):
        assert np.allclose(depth_from_message(message), expected)
        assert depth_from_message(message).dtype == np.float32


def compressed_float_depth(metres, largest_m=10.0, quantisation=100.0):
    """Encode as compressed_depth_image_transport does: a 16-bit PNG of the inverse depth."""
    A = quantisation * (quantisation + 1.0)
    B = 1.0 - A / largest_m
    value = np.where(metres > 0, A / np.maximum(metres, 1e-3) + B, 0)
    png = cv2.imencode('.png', value.astype(np.uint16))[1].tobytes()
    data = struct.pack('<iff', 0, A, B) + png
    return compressed_message(data, '32FC1; compressedDepth png')


def test_compressed_float_depth_is_quantised_inverse_depth():
    metres = np.zeros((6, 8))
    metres[:, :4], metres[:3, 4:] = 2.0, 5.0
    depth = depth_from_message(compressed_float_depth(metres))
    assert depth.dtype == np.float32
    # A step of the quantisation is depth^2 / A: 2.5 mm at 5 m.
    assert np.abs(depth - metres).max() < 0.003
    assert (depth[3:, 4:] == 0).all()
    whole = compressed_float_depth(metres).data.tobytes()
    for data, words in (
        (whole[:7], '7 bytes'),
        (struct.pack('<iff', 0, np.nan, 0.0) + whole[12:], 'A nan'),
        (struct.pack('<iff', 0, 100.0, 2.0) + whole[12:], 'B 2'),
    ):
        with pytest.raises(InputError, match=words):
            depth_from_message(compressed_message(data, '32FC1; compressedDepth png'))


def test_depth_and_pictures_are_told_apart():
    with pytest.raises(InputError, match=r"'rgb8'.*32FC1, 16UC1"):
        depth_from_message(encoded('rgb8')[0])
    with pytest.raises(InputError, match='not a picture'):
        image_from_message(compressed_message(b'\0' * 50, '16UC1; compressedDepth png'))
    with pytest.raises(InputError, match='uint8'):
        depth_from_message(encoded('png')[0])
