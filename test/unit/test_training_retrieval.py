# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Retrieval sets in their published layouts, and mean average precision against slow formulas."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat
import torch

from netvlad_ros.cli.main import main
from netvlad_ros.descriptor import BundleInfo, save_bundle
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.poolings import AveragePooling
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.errors import InputError
from netvlad_ros.image_files import read_rgb
from netvlad_ros.training.images import CroppedFiles, ImageFiles
from netvlad_ros.training.retrieval import judge, open_retrieval, retrieval_kind

WIDTH, HEIGHT = 96, 64

# Name of the query, its image and box, then good, ok and junk images: two queries of one
# building, as in Oxford's all_souls_1 and all_souls_2.
OXFORD = {
    'all_souls_1': ('all_souls_000013', (8.5, 4.1, 80.5, 60.7),
                    ['all_souls_000013', 'all_souls_000026'], ['oxford_002985'],
                    ['all_souls_000051']),
    'all_souls_2': ('all_souls_000026', (0.0, 0.0, 96.0, 64.0),
                    ['all_souls_000026', 'all_souls_000013'], ['oxford_002985'], []),
    'radcliffe_1': ('radcliffe_camera_000519', (10.0, 10.0, 60.0, 50.0),
                    ['radcliffe_camera_000519'], [], ['oxford_000317', 'oxford_001752']),
}  # fmt: skip


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def oxford_names() -> list[str]:
    listed = {n for _, _, *parts in OXFORD.values() for part in parts for n in part}
    return sorted(listed | {'oxford_003333', 'magdalen_000560'})


@pytest.fixture
def oxford(tmp_path: Path) -> Path:
    """Write what oxbuild_images.tgz and gt_files_170407.tgz hold: jpg/ and gt/."""
    for seed, name in enumerate(oxford_names()):
        write_image(tmp_path / 'oxford/jpg' / f'{name}.jpg', seed)
    gt = tmp_path / 'oxford/gt'
    gt.mkdir()
    for query, (image, box, *parts) in OXFORD.items():
        text = ' '.join(['oxc1_' + image, *(str(v) for v in box)])
        (gt / f'{query}_query.txt').write_text(text + '\n')
        for part, names in zip(('good', 'ok', 'junk'), parts, strict=True):
            (gt / f'{query}_{part}.txt').write_text(''.join(f'{n}\n' for n in names))
    return tmp_path / 'oxford'


def slow_average_precision(ranking: list[str], right: set[str], junk: set[str]) -> float:
    """Return the area under precision over recall as Oxford's compute_ap sums it up."""
    area, found, seen = 0.0, 0, 0
    recall_before, precision_before = 0.0, 1.0
    for name in ranking:
        if name in junk:
            continue
        found, seen = found + (name in right), seen + 1
        recall, precision = found / len(right), found / seen
        area += (recall - recall_before) * (precision_before + precision) / 2
        recall_before, precision_before = recall, precision
    return area


def test_oxford_layout_and_its_average_precision(oxford):
    assert retrieval_kind(oxford) == retrieval_kind(oxford / 'gt') == 'oxford'
    data = open_retrieval(oxford / 'gt', oxford / 'jpg')
    names = [path.stem for path in data.images]
    assert names == oxford_names() and data.lists_queries
    assert [names[q] for q in data.queries] == [image for image, *_ in OXFORD.values()]
    np.testing.assert_array_equal(data.boxes_xyxy, [box for _, box, *_ in OXFORD.values()])
    rng = np.random.default_rng(0)
    database = rng.standard_normal((len(names), 8)).astype(np.float32)
    queries = database[data.queries] + rng.standard_normal((3, 8)).astype(np.float32)
    published, without = [], []
    for vector, (image, _, good, ok, junk) in zip(queries, OXFORD.values(), strict=True):
        ranking = [names[i] for i in np.argsort([-(vector @ row) for row in database])]
        right = {*good, *ok}
        published.append(slow_average_precision(ranking, right, set(junk)))
        rest = right - {image}
        without.append(slow_average_precision(ranking, rest, {*junk, image}) if rest else 0.0)
    scores = judge(data, queries, database)
    assert scores.published == pytest.approx(np.mean(published), abs=1e-9)
    assert scores.without_query == pytest.approx(np.mean(without), abs=1e-9)
    assert scores.published != pytest.approx(scores.without_query, abs=1e-3)


def test_a_gnd_file_says_the_same_as_the_text_files(oxford):
    names = oxford_names()

    def rows(listed: list[str]) -> np.ndarray:
        return np.array([names.index(name) + 1.0 for name in listed])

    entries = [
        {'bbx': np.array(box), 'ok': rows([*good, *ok]), 'junk': rows(junk)}
        for _, box, good, ok, junk in OXFORD.values()
    ]
    fields = [(name, object) for name in ('bbx', 'ok', 'junk')]
    gnd = np.array([tuple(e[name] for name, _ in fields) for e in entries], dtype=fields)
    savemat(oxford / 'gnd_oxford5k.mat', {
        'imlist': np.array(names, dtype=object), 'gnd': gnd[None],
        'qidx': rows([image for image, *_ in OXFORD.values()]),
    })  # fmt: skip
    ours = open_retrieval(oxford / 'gnd_oxford5k.mat', oxford / 'jpg')
    theirs = open_retrieval(oxford / 'gt', oxford / 'jpg')
    assert ours.name == 'oxford5k' and ours.images == theirs.images
    np.testing.assert_array_equal(ours.queries, theirs.queries)
    np.testing.assert_array_equal(ours.boxes_xyxy, theirs.boxes_xyxy)
    for a, b in zip(ours.right + ours.junk, theirs.right + theirs.junk, strict=True):
        np.testing.assert_array_equal(a, b)


def test_paris_lies_in_subfolders_without_a_prefix(tmp_path):
    for seed, name in enumerate(('paris_defense_000605', 'paris_defense_000110')):
        write_image(tmp_path / 'paris/defense' / f'{name}.jpg', seed)
    gt = tmp_path / 'gt'
    gt.mkdir()
    (gt / 'defense_1_query.txt').write_text('paris_defense_000605 0 1 90 60\n')
    (gt / 'defense_1_good.txt').write_text('paris_defense_000605\nparis_defense_000110\n')
    (gt / 'defense_1_ok.txt').write_text('')
    (gt / 'defense_1_junk.txt').write_text('')
    data = open_retrieval(tmp_path)
    assert [p.name for p in data.images] == [f'paris_defense_000{n}.jpg' for n in ('110', '605')]
    assert data.queries.tolist() == [1] and data.right[0].tolist() == [0, 1]


def test_holidays_by_file_names_and_a_hand_worked_ranking(tmp_path):
    names = ('100000', '100001', '100002', '100100', '100101')
    for seed, name in enumerate(names):
        write_image(tmp_path / 'jpg' / f'{name}.jpg', seed)
    assert retrieval_kind(tmp_path) == 'holidays'
    data = open_retrieval(tmp_path)
    assert data.queries.tolist() == [0, 3] and not data.lists_queries
    assert [row.tolist() for row in data.right] == [[1, 2], [4]]
    # Similarities are written down: the queries' own images come first and do not count.
    similarity = np.array([[9, 8, 1, 5, 2], [0, 7, 1, 9, 5]], dtype=np.float32)
    scores = judge(data, similarity, np.eye(5, dtype=np.float32))
    # 100001, 100100, 100101, 100002: right at ranks 0 and 3.
    first = (1.0 + (1 / 3 + 2 / 4) / 2) / 2
    # 100001, 100101: right at rank 1.
    second = (0 / 1 + 1 / 2) / 2
    assert scores.published == scores.without_query == pytest.approx((first + second) / 2)
    (tmp_path / 'jpg/100201.jpg').write_bytes((tmp_path / 'jpg/100001.jpg').read_bytes())
    write_image(tmp_path / 'jpg/100300.jpg', 9)
    with pytest.raises(InputError, match="query '100300' has no other image"):
        open_retrieval(tmp_path)
    # Images of six digits with a list of their positions are places.
    (tmp_path / 'images.csv').write_text('path,east_m,north_m\n')
    assert retrieval_kind(tmp_path) == ''


@pytest.mark.parametrize('folder', ['.', 'jpg'])
def test_a_table_or_recording_of_six_digit_names_is_no_retrieval_set(tmp_path, folder):
    write_image(tmp_path / folder / '000000.jpg', 0)
    assert retrieval_kind(tmp_path) == 'holidays'
    for table in ('images.csv', 'frames.csv'):
        (tmp_path / table).touch()
        assert retrieval_kind(tmp_path) == ''
        (tmp_path / table).unlink()


def test_wrong_sets_are_refused_in_one_line(oxford):
    with pytest.raises(InputError, match=r'is a pickle, which can run code'):
        open_retrieval(oxford / 'gnd_oxford5k.pkl', oxford / 'jpg', 'oxford')
    (oxford / 'gt/all_souls_1_good.txt').write_text('all_souls_000099\n')
    with pytest.raises(InputError, match=r'all_souls_1_good.txt: 1 images are missing.*000099'):
        open_retrieval(oxford / 'gt', oxford / 'jpg')
    (oxford / 'gt/all_souls_1_query.txt').write_bytes(b'\xff 1 2 3 4')
    with pytest.raises(InputError, match='is not UTF-8'):
        open_retrieval(oxford)
    (oxford / 'gt/all_souls_1_query.txt').write_text('oxc1_all_souls_000013 1 2 3\n')
    with pytest.raises(InputError, match='expected: image x1 y1 x2 y2'):
        open_retrieval(oxford)


def test_damaged_sets_are_refused_in_one_line(oxford):
    for name in ('good', 'query'):
        (oxford / f'gt/all_souls_1_{name}.txt').write_text('straße', encoding='cp1252')
        with pytest.raises(InputError, match=rf'_{name}\.txt.* is not UTF-8'):
            open_retrieval(oxford)
    for content in (b'', b'MATLAB 5.0 MAT-file'.ljust(124) + b'\x00\x01IM' + b'\xff' * 40):
        (oxford / 'gnd_x.mat').write_bytes(content)
        with pytest.raises(InputError, match=r'cannot read .*gnd_x\.mat. as gnd file with'):
            open_retrieval(oxford / 'gnd_x.mat')


def test_damaged_images_and_their_queries_leave_the_set(oxford):
    data = open_retrieval(oxford)
    names = [path.stem for path in data.images]
    kept = data.without([names.index('all_souls_000013'), names.index('oxford_000317')])
    left = [path.stem for path in kept.images]
    assert len(left) == len(names) - 2 and len(kept.queries) == 2
    assert [left[q] for q in kept.queries] == ['all_souls_000026', 'radcliffe_camera_000519']
    assert [left[i] for i in kept.right[0]] == ['all_souls_000026', 'oxford_002985']
    assert [left[i] for i in kept.junk[1]] == ['oxford_001752']


def test_queries_are_cropped_to_their_box(oxford):
    path = oxford / 'jpg/all_souls_000013.jpg'
    policy = InputPolicy(width=WIDTH, height=HEIGHT)
    whole = CroppedFiles([path], policy, np.array([[-5.0, 0.0, 200.0, 64.0]])).batch([0])
    np.testing.assert_array_equal(whole, ImageFiles([path], policy).batch([0]))
    small = InputPolicy(width=48, height=32)
    part = CroppedFiles([path], small, np.array([[30.2, 10.0, 78.1, 42.4]])).batch([0])
    np.testing.assert_array_equal(part[0], read_rgb(path)[10:42, 30:78])
    with pytest.raises(InputError, match='lies outside image'):
        CroppedFiles([path], small, np.array([[100.0, 0.0, 120.0, 30.0]])).batch([0])


def test_the_command_prints_the_protocol_beside_the_figure(oxford, capsys):
    torch.manual_seed(0)
    policy = InputPolicy(width=WIDTH, height=HEIGHT)
    network = DescriptorNetwork(policy, make_backbone('mobilenet_v3_small_s16'), AveragePooling())
    model = oxford / 'small.safetensors'
    save_bundle(model, network, BundleInfo('small'))
    found = {}
    for more in ((), ('--full-queries',)):
        assert main(['test', str(oxford), '--model', str(model), '--json', *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        result = json.loads(lines[-1])
        found[more] = result['results']['small']['published']
        assert lines[0] == result['protocol'] and lines[0].startswith('protocol: 3 queries (')
        assert 'junk answers are taken out' in lines[0]
        assert 'right for it, as published' in lines[0]
        assert lines[1].startswith(f'small: mAP {100 * found[more]:.2f} %, with the query out')
    assert found[()] < found['--full-queries',] <= 1
    assert main(['test', str(oxford), '--model', str(model), '--plot', 'a.png']) == 1
    assert '--plot is for recall' in capsys.readouterr().err
