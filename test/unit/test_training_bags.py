# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A recording with poses as training data, and fine-tuning on it."""

import json
from pathlib import Path
import shutil

import cv2
import numpy as np
import pytest
import torch

from netvlad_ros.cli.main import main
from netvlad_ros.descriptor import BundleInfo, save_bundle
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.poolings import AveragePooling
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.whitening import whitening_from
from netvlad_ros.errors import InputError
from netvlad_ros.training.bags import BagConfig, read_bag
from netvlad_ros.training.places import check_lists
from netvlad_ros.training.readers import open_dataset
from netvlad_ros.training.relations import joined, relations_of

FRAMES, STEP_M, STEP_S = 80, 1.0, 0.5


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Write a drive past a wall of made-up posters: 80 m at 2 m/s, an image each metre."""
    folder = tmp_path / 'drive'
    (folder / 'images').mkdir(parents=True)
    rng = np.random.default_rng(0)
    posters = rng.integers(0, 256, (8, 2 * FRAMES, 3), dtype=np.uint8)
    wall = cv2.resize(posters, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    frames, poses = ['index,image,stamp_s'], []
    for n in range(FRAMES):
        stamp_s = f'{1000 + STEP_S * n:.3f}'
        cv2.imwrite(str(folder / f'images/{n:03}.jpg'), wall[:, 12 * n : 12 * n + 96])
        frames.append(f'{n},images/{n:03}.jpg,{stamp_s}')
        poses.append(f'{stamp_s} {STEP_M * n} 0 0 0 0 0 1')
    (folder / 'frames.csv').write_text('\n'.join(frames) + '\n')
    (folder / 'groundtruth.txt').write_text('\n'.join(poses) + '\n')
    return folder


def stamps(folder: Path, split: str, config: BagConfig) -> np.ndarray:
    stamp = read_bag(folder, split, config=config).all_images().stamp
    assert stamp is not None
    return np.sort(stamp)


def test_a_time_gap_separates_the_held_out_part(recording):
    config = BagConfig(train_share=0.5, gap_s=6.0)
    train, held_out = stamps(recording, 'train', config), stamps(recording, 'val', config)
    assert len(train) == FRAMES / 2 and train[-1] == 1000 + STEP_S * (FRAMES / 2 - 1)
    assert held_out[0] == train[-1] + 6.0
    # The frames of the gap are in neither part: 11 of them lie within 6 s at 2 Hz.
    assert len(train) + len(held_out) == FRAMES - 11
    together = BagConfig(train_share=0.5, gap_s=0.0)
    assert len(stamps(recording, 'val', together)) == FRAMES / 2
    with pytest.raises(InputError, match=r'0 of 80 images are left for val.* gap_s is 60'):
        read_bag(recording, 'val', config=BagConfig(gap_s=60.0))


def test_radius_and_angle_label_the_pairs(recording):
    dataset = read_bag(recording, 'all', config=BagConfig(radius_m=3.0, angle_deg=20.0))
    assert (dataset.positive_radius_m, dataset.negative_radius_m) == (3.0, 6.0)
    relations = relations_of(dataset)
    heading = np.zeros(FRAMES)
    at = np.argsort(relations.images.xy_m[:, 0])
    relations.images.heading_deg[:] = heading
    same, different = relations.pairs(at[:1], at)
    assert np.flatnonzero(same).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(different).tolist() == list(range(7, FRAMES))
    relations.images.heading_deg[at[2]] = 21.0
    same, different = relations.pairs(at[:1], at)
    assert np.flatnonzero(same).tolist() == [0, 1, 3] and not different[0, 2]


@pytest.mark.parametrize(
    ('radius_m', 'climb_m', 'places'),
    [(3.0, 1.9, 1), (3.0, 2.1, 2), (3.0, 30.0, 2), (25.0, 7.4, 1), (25.0, 7.6, 2)],
)
def test_floors_are_two_places_but_drift_and_slopes_are_not(
    recording, radius_m, climb_m, places
):
    track = recording / 'groundtruth.txt'
    lines = [line.split() for line in track.read_text().splitlines()]
    # Back along the same wall, one floor higher.
    for n, line in enumerate(lines[FRAMES // 2 :]):
        line[1], line[3] = str(FRAMES // 2 - n), str(climb_m)
    track.write_text('\n'.join(' '.join(line) for line in lines))
    dataset = read_bag(recording, 'all', config=BagConfig(radius_m=radius_m))
    relations = relations_of(dataset)
    above = relations.images.stamp >= 1000 + STEP_S * FRAMES / 2
    at_20_m = relations.images.xy_m[:, 0] == 20.0
    for each in (relations, joined([relations, relations])):
        same, different = each.pairs(
            np.flatnonzero(at_20_m & above), np.flatnonzero(at_20_m & ~above)
        )
        assert (bool(same), bool(different)) == (places == 1, places == 2)
    above = dataset.database.stamp >= 1000 + STEP_S * FRAMES / 2
    assert max(np.unique(above[row]).size for row in dataset.right()) == 3 - places


def small_model(path: Path) -> Path:
    torch.manual_seed(0)
    backbone = make_backbone('mobilenet_v3_small_s16')
    whitening = whitening_from(torch.randn(16, 48) / 7, torch.zeros(16))
    policy = InputPolicy(height=64, width=96)
    save_bundle(path, DescriptorNetwork(policy, backbone, AveragePooling(), whitening),
                BundleInfo('small'))  # fmt: skip
    return path


@pytest.mark.slow
def test_fine_tuning_shows_recall_before_and_after_on_the_held_out_part(recording, capsys):
    model, run = small_model(recording.parent / 'small.safetensors'), recording.parent / 'run'
    command = f"""train {recording} --from-bag --model {model} --output {run} --bag-radius-m 2
        --bag-train-share 0.6 --bag-gap-s 5 --train-layers --steps 40 --check-every 20 --places 8
        --views 3 --whitening-lr 0.1 --json"""
    assert main(command.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert 'held out: the last 23 images, 5.0 s after the last of 48 that train' in lines
    for name in ('before', 'after'):
        shown = next(line for line in lines if line.startswith(f'{name}: recall@1'))
        assert f'recall@1 {100 * result[name]["recall_at_1"]:.1f} %' in shown
        assert 'of 23 held-out images' in shown
    assert result['after']['average_precision'] > result['before']['average_precision']
    assert (run / 'model.safetensors').is_file()


def test_the_held_out_part_of_a_recording_does_not_train(recording, tmp_path, capsys):
    model = small_model(tmp_path / 'small.safetensors')
    command = f"""train {recording} --from-bag --split all --model {model} --steps 1 --bag-gap-s 5
        --bag-train-share 0.6 --output {tmp_path / 'run'}"""
    assert main(command.split()) == 1
    assert 'holds 23 images that also train (of 23)' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_recordings_in_a_folder_are_one_dataset(recording, tmp_path):
    folder = tmp_path / 'drives'
    for name in ('a', 'b'):
        shutil.copytree(recording, folder / name)
    config = BagConfig(radius_m=1.5, train_share=0.5)
    both = open_dataset(folder, 'train', bag=config)
    single = read_bag(folder / 'a', 'train', config=config)
    assert both.name == 'drives' and len(both.all_images()) == 2 * len(single.all_images())
    check_lists(both)
    relations = relations_of(both)
    first = np.array(['/a_images/' in str(path) for path in relations.images.paths])
    same, different = relations.pairs(np.arange(len(first)), np.arange(len(first)))
    # The two copies show the same wall, which nothing in the poses tells.
    assert not (same | different)[first][:, ~first].any()
    alone_same, alone_different = relations_of(single).pairs(*2 * [np.arange(first.sum())])
    assert same[first][:, first].sum() == alone_same.sum()
    assert different[first][:, first].sum() == alone_different.sum()
    with pytest.raises(InputError, match='is no recording and has none in it'):
        open_dataset(folder / 'a_images', kind='bag')


def test_another_recording_of_the_same_name_and_stamps_has_images_of_its_own(recording, tmp_path):
    old = read_bag(recording, 'all', tmp_path / 'cache')
    for path in (recording / 'images').iterdir():
        cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    new = read_bag(recording, 'all', tmp_path / 'cache')
    assert old.fingerprint() != new.fingerprint(), 'outputs of frozen layers are kept by it'
    for part, frame in ((old, 255 - cv2.imread(str(recording / 'images/000.jpg'))),
                        (new, cv2.imread(str(recording / 'images/000.jpg')))):  # fmt: skip
        kept = cv2.imread(str(part.database.paths[0])).astype(int)
        assert np.abs(kept - frame).mean() < 20
    again = read_bag(recording, 'all', tmp_path / 'cache')
    assert again.database.paths == new.database.paths


def test_names_that_differ_after_a_dot_are_two_recordings(recording, tmp_path):
    folders = set()
    for name in ('drive.1', 'drive.2'):
        dataset = read_bag(Path(shutil.copytree(recording, tmp_path / name)), 'all')
        folders.add(dataset.database.paths[0].parent)
        assert dataset.name == name
    assert len(folders) == 2


def test_a_recording_beside_which_nothing_can_be_written_says_what_to_do(recording, tmp_path):
    (tmp_path / 'drive_images').write_text('a file, as on a medium that is read-only')
    with pytest.raises(InputError, match=r'cannot write .*drive_images/.*--images DIR puts'):
        open_dataset(recording, 'all')
    (tmp_path / 'drives').mkdir()
    recording.rename(tmp_path / 'drives/drive')
    for path in (tmp_path / 'drives', tmp_path / 'drives/drive'):
        dataset = open_dataset(path, 'all', tmp_path / 'elsewhere')
        assert dataset.database.paths[0].parent == tmp_path / 'elsewhere/drive_images'
