# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Clustering, augmentation, place-labelled training and recall."""

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.poolings import AveragePooling
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.whitening import fit_discriminant, fit_whitening, whitening_from
from netvlad_ros.errors import InputError, ModelError
from netvlad_ros.training.augment import Augment, AugmentConfig, through_fisheye
from netvlad_ros.training.clustering import ClusterConfig, kmeans, sample_local_features
from netvlad_ros.training.features import describe
from netvlad_ros.training.frozen import FrozenViews, frozen_hash, frozen_views
from netvlad_ros.training.modern import ModernData, ModernTrainer
from netvlad_ros.training.places import PlaceImages
from netvlad_ros.training.recall import bootstrap, mean_average_precision, recall_at, search
from netvlad_ros.training.relations import PlaceSampler, Relations, joined
from netvlad_ros.training.settings import ModernConfig

PLACES, PER_PLACE = 30, 3


class KilledError(Exception):
    """The run was ended."""


def killed_at(last):
    """Return a progress function that ends a run at a step, as a kill does."""

    def progress(steps, **_):
        for step in steps:
            if step == last:
                raise KilledError
            yield step

    return progress


class Pixels:
    """Random images."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (count, 64, 96, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices) -> np.ndarray:
        """Return some of them."""
        return self.images[np.asarray(indices)]


def make_network(seed: int = 0) -> DescriptorNetwork:
    torch.manual_seed(seed)
    backbone = make_backbone('mobilenet_v3_small_s16')
    projection = whitening_from(torch.randn(16, 48) / 7, torch.zeros(16))
    network = DescriptorNetwork(
        InputPolicy(height=64, width=96), backbone, AveragePooling(), projection
    )
    backbone.train_only(())
    return network.eval()


def make_data() -> ModernData:
    """Return places whose images share a faint look of half of the channels."""
    rng = np.random.default_rng(1)
    place = np.repeat(np.arange(PLACES), PER_PLACE)
    look = rng.standard_normal((PLACES, 48, 1, 1))
    values = rng.standard_normal((2, len(place), 48, 3, 4))
    values[:, :, :24] += 0.7 * look[place][:, :24]
    values[:, :, 24:] += 1.5 * rng.standard_normal((2, len(place), 24, 1, 1))
    xy_m = np.stack([100.0 * place, np.tile(np.arange(PER_PLACE), PLACES)], axis=1)
    paths = tuple(Path(f'{i}.jpg') for i in range(len(place)))
    return ModernData(
        FrozenViews(values.astype(np.float16)), Relations(PlaceImages(paths, xy_m), 5.0, 25.0)
    )


CONFIG = ModernConfig(steps=30, places=8, per_place=3, views=2, check_every=10, whitening_lr=0.2)


def test_training_helps_and_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    data = make_data()
    whole = ModernTrainer(make_network(), data, data, CONFIG, tmp_path / 'whole')
    before = whole.judge(data)
    losses = whole.run()
    assert whole.judge(data).average_precision > before.average_precision + 0.1
    first = ModernTrainer(make_network(), data, data, CONFIG, tmp_path / 'parts')

    with pytest.raises(KilledError):
        first.run(progress=killed_at(17))
    second = ModernTrainer(make_network(), data, data, CONFIG, tmp_path / 'parts')
    resumed = second.run(resume=True)
    np.testing.assert_allclose(resumed, losses, atol=1e-6, rtol=0)
    for ours, theirs in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    data = make_data()
    ModernTrainer(make_network(), data, data, CONFIG, tmp_path)._check()
    before = (tmp_path / 'last.safetensors').read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('netvlad_ros.tensor_file.save_file', full)
    with pytest.raises(ModelError, match='the last one is kept'):
        ModernTrainer(make_network(), data, data, CONFIG, tmp_path)._check()
    assert (tmp_path / 'last.safetensors').read_bytes() == before


def test_a_held_out_part_without_pairs_is_refused(tmp_path):
    data = make_data()
    alone = np.arange(0, PLACES * PER_PLACE, PER_PLACE)
    images = data.relations.images.take(alone)
    held_out = ModernData(
        FrozenViews(data.views.values[:, alone]), replace(data.relations, images=images)
    )
    trainer = ModernTrainer(make_network(), data, held_out, CONFIG, tmp_path)
    with pytest.raises(InputError, match=r'none of the \d+ held-out images has another'):
        trainer.run()
    assert not (tmp_path / 'best.safetensors').exists()


def test_files_are_as_readable_as_others(tmp_path):
    data = make_data()
    ModernTrainer(make_network(), data, data, CONFIG, tmp_path)._check()
    (tmp_path / 'plain').touch()
    files = list(tmp_path.glob('*.safetensors'))
    assert len(files) == 2
    assert {f.stat().st_mode for f in files} == {(tmp_path / 'plain').stat().st_mode}


def test_the_log_tells_of_checkpoints_that_are_written(tmp_path, monkeypatch):
    data = make_data()
    trainer = ModernTrainer(make_network(), data, data, CONFIG, tmp_path)
    (tmp_path / 'log.jsonl').mkdir()
    with pytest.raises(ModelError, match=r'cannot write .*log\.jsonl'):
        trainer._check()
    assert (tmp_path / 'last.safetensors').exists()


def test_the_frozen_layers_outputs_lead_to_the_same_descriptors(tmp_path):
    network, images = make_network(), Pixels(5)
    network.backbone.train_only(('features.8',))
    views = frozen_views(
        network, images, tmp_path / 'f.npy', Augment(AugmentConfig()), views=2, seed=1
    )
    trainer = ModernTrainer(network, ModernData(views, Relations(PlaceImages(
        tuple(Path(f'{i}') for i in range(5)), np.zeros((5, 2))), 5.0, 25.0,
    )), None, CONFIG, tmp_path)  # fmt: skip
    np.testing.assert_allclose(trainer.describe(views, 0), describe(network, images), atol=1e-2)
    assert np.abs(trainer.describe(views, 1) - describe(network, images)).max() > 2e-2


def test_all_sampled_local_features_are_clustered():
    config = ClusterConfig(clusters=4, descriptors=30, per_image=5, seed=2)
    samples = sample_local_features(make_network(), Pixels(8), config)
    assert samples.shape == (30, 48)
    np.testing.assert_allclose(np.linalg.norm(samples, axis=1), 1, atol=1e-2)
    # Two far groups, one beyond the first 256 * K rows: faiss by default would draw a part.
    points = np.zeros((3000, 2), np.float32)
    points[2999] = 1000.0
    centres = kmeans(points + np.float32(1e-3) * np.random.default_rng(0).random((3000, 2)).astype(
        np.float32), ClusterConfig(clusters=2, iterations=50))  # fmt: skip
    np.testing.assert_allclose(centres.max(axis=0), 1000.0, rtol=1e-3)
    with pytest.raises(InputError, match='need as many local features'):
        kmeans(points[:1], config)


def test_augmentation_is_repeatable_and_can_be_switched_off():
    image = Pixels(1).images[0]
    augment = Augment(AugmentConfig())
    first, again = (augment(image, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == image.shape and (first != image).mean() > 0.5
    off = AugmentConfig(
        turn_deg=0, roll_deg=0, zoom=1, crop=0, light=0, gamma=0, blur_px=0, noise=0,
        low_detail=0, gray=0,
    )  # fmt: skip
    np.testing.assert_allclose(Augment(off)(image, np.random.default_rng(0)), image, atol=1)


def test_recall_counts_every_query_and_suppression_keeps_one_image_a_panorama():
    database = np.eye(6, dtype=np.float32)
    queries = np.array([[1, 0.9, 0.8, 0.7, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]],
                       dtype=np.float32)  # fmt: skip
    right = [np.array([3]), np.array([4]), np.array([], dtype=np.int64)]
    recall = recall_at(queries, database, right, (1, 2, 4))
    assert recall.values == {1: 1 / 3, 2: 1 / 3, 4: 2 / 3}
    panorama = np.array([0, 0, 0, 1, 2, 3])
    assert search(queries[:1], database, 2, panorama, 3).tolist() == [[0, 3]]
    suppressed = recall_at(queries, database, right, (1, 2), panorama)
    assert suppressed.values[2] == 2 / 3


def test_search_needs_no_copy_of_the_database_in_an_index(monkeypatch):
    rng = np.random.default_rng(0)
    # Whole numbers, so that many similarities are equal.
    database = rng.integers(-1, 2, (5000, 4)).astype(np.float32)
    queries = rng.integers(-1, 2, (30, 4)).astype(np.float32)
    index = faiss.IndexFlatIP(4)
    index.add(database)
    _, expected = index.search(queries, 25)
    monkeypatch.setattr(faiss, 'IndexFlatIP', None)
    np.testing.assert_array_equal(search(queries, database, 25), expected)


def test_intervals_are_over_positions_not_queries():
    first_right = np.repeat([0, 99] * 5, 24)
    positions = np.repeat(np.arange(10.0), 24)[:, None] * [1, 0]
    low, high = bootstrap(first_right, positions, (1,))[1]
    assert low < 0.3 and high > 0.7
    low, high = bootstrap(first_right, np.arange(240.0)[:, None] * [1, 0], (1,))[1]
    assert 0.4 < low < 0.5 < high < 0.6


def test_mean_average_precision_of_a_hand_worked_ranking():
    ranked = np.array([[9, 1, 5, 2]])
    # Junk 9 is taken out: hits at ranks 0 and 2 of (1, 5, 2).
    expected = (1.0 + (1 / 2 + 2 / 3) / 2) / 2
    found = mean_average_precision(ranked, [np.array([1, 2])], [np.array([9])])
    assert found == pytest.approx(expected)


def test_datasets_take_turns_in_a_batch():
    large, small = (
        PlaceImages(
            tuple(Path(f'{name}{n}.jpg') for n in range(count)),
            np.stack([np.arange(count) // 2 * 100.0, np.zeros(count)], axis=1),
        )
        for name, count in (('large', 200), ('small', 20))
    )
    relations = joined([Relations(images, 10.0, 9950.0) for images in (large, small)])
    rng = np.random.default_rng(0)
    # Nothing lies beyond the negative radius but the other dataset: no hard places, only turns.
    batch = PlaceSampler(relations, 12, 2).draw(rng)
    assert (batch >= 200).sum() == 12
    pairs = PlaceSampler(relations, 1, 2).pairs(50, rng)
    assert relations.pairs(pairs[:, 0], pairs[:, 1])[0].diagonal().all()
    assert (pairs >= 200).all(axis=1).sum() == 25


def test_a_fisheye_view_shows_the_image_inside_its_rim():
    image = np.full((120, 160, 3), 200, np.uint8)
    image[55:65, 75:85] = 0
    view = through_fisheye(image, np.random.default_rng(0))
    assert view.shape == image.shape
    assert (view[0, 0] <= 41).all()
    assert (view[30, 80] == 200).all()
    # What lies at the axis is enlarged.
    assert (view[:, :, 0] < 100)[40:80, 60:100].sum() > 100


def discriminant_problem():
    """Return (V, N, D) descriptors: three axes tell places apart, a strong one changes within."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(200, 8)) * [1, 1, 1, 0.01, 0.01, 0.01, 0.01, 0]
    views = places + rng.normal(size=(4, 200, 8)) * [0.03, 0.03, 0.03, 0.03, 0.03, 0.03, 0.03, 2]
    return views / np.linalg.norm(views, axis=2, keepdims=True)


def test_the_discriminant_keeps_what_does_not_change_within_a_place():
    views = discriminant_problem()
    differences = (views[:2] - views[2:]).reshape(-1, 8)
    samples = views.reshape(-1, 8)
    learnt = {
        'pca': fit_whitening(samples, 3), 'discriminant': fit_discriminant(samples, differences, 3)
    }
    found = {}
    for name, whitening in learnt.items():
        with torch.no_grad():
            a, b = (whitening(torch.from_numpy(v).float()).numpy() for v in views[:2])
        found[name] = ((a @ b.T).argmax(axis=1) == np.arange(200)).mean()
    assert found['discriminant'] > 0.6 > found['pca'] + 0.3


def test_too_few_differences_are_refused():
    views = discriminant_problem()
    with pytest.raises(InputError, match='8 differences of one place are too few for 8'):
        fit_discriminant(views[0], views[0, :8], 3)
    with pytest.raises(InputError, match='allowed are 1 to 8'):
        fit_discriminant(views[0], views[1], 9)


def test_frozen_outputs_are_shared_by_models_that_differ_only_behind_them():
    network = make_network()
    network.backbone.train_only(('features.7',))
    first = frozen_hash(network)
    with torch.no_grad():
        network.backbone.features[7].block[0][0].weight += 1.0
        network.pooling = AveragePooling()
    assert frozen_hash(network) == first
    with torch.no_grad():
        network.backbone.features[0][0].weight[0, 0, 0, 0] += 1e-6
    assert frozen_hash(network) != first
    network.backbone.train_only(('features.8',))
    assert frozen_hash(network) != first
