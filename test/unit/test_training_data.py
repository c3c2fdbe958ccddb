# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Readers of place datasets: the published numbers, every layout, and data that are wrong."""

from dataclasses import replace
from pathlib import Path
import tracemalloc

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from netvlad_ros import image_files
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.errors import InputError
from netvlad_ros.image_files import read_rgb
from netvlad_ros.training.images import ImageFiles, ImageMap, unreadable
from netvlad_ros.training.mining import Miner
from netvlad_ros.training.places import PlaceDataset, PlaceImages, check_files, self_check
from netvlad_ros.training.readers import open_dataset
from netvlad_ros.training.recall import recall_at, search
from netvlad_ros.training.relations import PlaceSampler, Relations, joined, relations_of
from netvlad_ros.training.settings import TripletConfig


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('pitts30k_train', (10000, 7416, 417, 309, 7320, 7128, 24.889)),
        ('pitts30k_val', (10000, 7608, 417, 317, 7248, 7224, 24.280)),
        ('pitts30k_test', (10000, 6816, 416, 284, 6432, 6312, 24.455)),
        pytest.param(
            'pitts250k_test', (83952, 8280, 3495, 345, 8184, 8040, 21.720),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_pittsburgh_has_its_published_numbers(shared_data, name, expected):
    dataset = open_dataset(shared_data / 'pitts_structs' / f'{name}.mat')
    check = self_check(dataset)
    found = (
        check.database, check.queries, check.database_positions, check.query_positions,
        check.trainable, check.trainable_far, round(check.worst_nearest_m, 3),
    )  # fmt: skip
    assert found == expected
    assert check.ceiling == 1.0
    assert dataset.true_radius_m == 25.0 and dataset.positive_radius_m == 10.0


def test_missing_images_are_found_before_anything_is_computed(tmp_path):
    write_struct(tmp_path / 'a.mat')
    with pytest.raises(InputError, match='26 of 26 images are missing'):
        check_files(open_dataset(tmp_path / 'a.mat'))


def write_struct(path: Path, compressed: bool = False, **more) -> None:
    names = np.array([f'{n:03}.jpg' for n in range(24)], dtype=object)
    struct = {
        'whichSet': 'test', 'dbImageFns': names, 'utmDb': np.arange(48.0).reshape(2, 24),
        'qImageFns': ['q000.jpg', 'q001.jpg'], 'utmQ': np.array([[0.0, 1.0], [24.0, 25.0]]),
        'numImages': np.uint16(24), 'numQueries': np.uint16(2), 'posDistThr': np.uint8(25),
        'posDistSqThr': np.uint16(625), 'nonTrivPosDistSqThr': np.uint8(100), **more,
    }  # fmt: skip
    savemat(path, {'dbStruct': struct}, do_compression=compressed)


@pytest.fixture
def time_machine(tmp_path) -> PlaceDataset:
    """Return a dataset of which query 1 has images of its own stamp within and beyond 25 m."""
    stamps = np.repeat([2009.0, 2012.0], 12)
    write_struct(tmp_path / 'tm.mat', dbTimeStamp=stamps, qTimeStamp=np.array([2009.0, 2012.0]))
    return open_dataset(tmp_path / 'tm.mat')


def test_time_machine_leaves_out_images_of_the_same_stamp(time_machine):
    stamps = time_machine.database.stamp
    for rows in (time_machine.right(), time_machine.positives()):
        for row, stamp in zip(rows, (2009.0, 2012.0), strict=True):
            assert (stamps[row] != stamp).all()
    assert len(time_machine.right()[0]) > 0
    with pytest.raises(InputError, match='time stamps are needed'):
        replace(time_machine, queries=replace(time_machine.queries, stamp=None))


def test_time_machine_draws_negatives_by_distance_only(time_machine):
    away_m = np.linalg.norm(time_machine.database.xy_m - time_machine.queries.xy_m[1], axis=1)
    assert (time_machine.database.stamp[away_m <= 25.0] == 2012.0).any()
    descriptors = np.random.default_rng(0).standard_normal((26, 4))
    config = TripletConfig(negatives=24, margin=4.0, only_violating=False)
    mined = Miner(time_machine, config).mine(
        1, descriptors[24:], descriptors[:24], np.random.default_rng(0)
    )
    assert mined is not None
    assert sorted(mined.negatives) == np.flatnonzero(away_m > 25.0).tolist()


def test_time_machine_judges_a_ranking_without_the_same_stamp(time_machine):
    stamps = time_machine.database.stamp
    # The 12 images of the query's own stamp look best, then the right ones.
    looks = np.where(stamps == 2009.0, 0.9, 0.1).astype(np.float32)
    right = time_machine.right()[0]
    looks[right[0]] = 0.5
    found = recall_at(
        looks[None], np.eye(24, dtype=np.float32), [right], (1, 2),
        stamps=(np.array([2009.0]), stamps),
    )  # fmt: skip
    assert found.values == {1: 1.0, 2: 1.0} and found.ranked[0, 0] == right[0]
    # Ten times the depth is searched, as by the authors: here nothing else is among those.
    nothing = search(
        looks[None], np.eye(24, dtype=np.float32), 1, stamps=(np.array([2009.0]), stamps)
    )
    assert nothing.tolist() == [[-1]]


@pytest.mark.parametrize(
    ('database', 'queries'),
    [('images', 'queries'), ('images', 'query'), ('images', 'images'), ('', 'queries_real'),
     ('', '')],
)  # fmt: skip
def test_images_are_found_where_the_authors_keep_them(tmp_path, database, queries):
    write_struct(tmp_path / 'a.mat')
    for folder, count, prefix in ((database, 24, ''), (queries, 2, 'q')):
        for number in range(count):
            (tmp_path / 'root' / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / 'root' / folder / f'{prefix}{number:03}.jpg').touch()
    dataset = open_dataset(tmp_path / 'a.mat', images=tmp_path / 'root')
    check_files(dataset)
    assert dataset.database.paths[3] == tmp_path / 'root' / database / '003.jpg'
    assert dataset.queries.paths[1] == tmp_path / 'root' / queries / 'q001.jpg'


def test_tokyo247_groups_twelve_cutouts_and_finds_png_files(tmp_path):
    write_struct(tmp_path / 'tokyo247.mat')
    (tmp_path / '003.png').touch()
    dataset = open_dataset(tmp_path / 'tokyo247.mat')
    assert dataset.database.panorama.tolist() == [0] * 12 + [1] * 12
    assert dataset.database.paths[3].name == '003.png'


@pytest.mark.parametrize('how', ['cut', 'overwritten', 'empty', 'an array'])
@pytest.mark.parametrize('suffix', ['mat', 'npz'])
def test_a_damaged_file_of_arrays_is_refused_in_one_line(tmp_path, suffix, how):
    path = tmp_path / f'a.{suffix}'
    if suffix == 'mat':
        write_struct(path, compressed=True)
    else:
        names = {'imageDb': ['a', 'b'], 'imageQ': ['c']}
        np.savez_compressed(path, utmDb=np.eye(2), utmQ=np.ones((1, 2)), **names)
    whole = path.read_bytes()
    half = len(whole) // 2
    np.save(tmp_path / 'array.npy', np.zeros(3))
    path.write_bytes({
        'cut': whole[:half], 'overwritten': whole[:half] + b'\0' + whole[half + 1 :],
        'empty': b'', 'an array': (tmp_path / 'array.npy').read_bytes(),
    }[how])  # fmt: skip
    with pytest.raises(InputError, match=rf'cannot read .*a\.{suffix}') as error:
        open_dataset(path)
    assert '\n' not in str(error.value)


def test_a_struct_with_empty_names_is_refused(tmp_path):
    nothing = np.empty(24, dtype=object)
    nothing[:] = 24 * [np.zeros(0)]
    write_struct(tmp_path / 'a.mat', dbImageFns=nothing)
    with pytest.raises(InputError, match=r'cannot read .*a\.mat'):
        open_dataset(tmp_path / 'a.mat')


def test_names_in_an_npz_may_be_bytes_and_its_radius_a_number(tmp_path):
    arrays = {'utmDb': np.zeros((2, 2)), 'utmQ': np.ones((1, 2)), 'imageQ': np.array([b'c'])}
    np.savez(tmp_path / 'l.npz', imageDb=np.array(['ä'.encode(), b'b']), **arrays)
    dataset = open_dataset(tmp_path / 'l.npz')
    assert [path.name for path in dataset.all_images().paths] == ['ä', 'b', 'c']
    np.savez(tmp_path / 'l.npz', imageDb=['a', 'b'], posDistThr=np.zeros(0), **arrays)
    with pytest.raises(InputError, match=r'cannot read .*l\.npz'):
        open_dataset(tmp_path / 'l.npz')


def test_walks_of_too_few_floors_have_none_held_out(tmp_path):
    (tmp_path / 'images.csv').write_text('image,split,area,floor\na_1.jpg,gallery,hall,1\n')
    with pytest.raises(InputError, match=r"lists 1 floors, none of which is 'val'"):
        open_dataset(tmp_path, 'val')


def test_a_struct_that_contradicts_itself_is_refused(tmp_path):
    write_struct(tmp_path / 'a.mat', posDistSqThr=np.uint8(113))
    with pytest.raises(InputError, match='posDistSqThr is 113'):
        open_dataset(tmp_path / 'a.mat')
    write_struct(tmp_path / 'b.mat', numImages=np.uint16(23))
    with pytest.raises(InputError, match='numImages is 23'):
        open_dataset(tmp_path / 'b.mat')


@pytest.mark.parametrize('compressed', [False, True])
def test_damaged_files_are_refused_in_one_line(tmp_path, compressed):
    mat, npz, empty = tmp_path / 'whole.mat', tmp_path / 'whole.npz', tmp_path / 'empty.npz'
    savemat(mat, {'dbStruct': {'whichSet': 'test'}}, do_compression=compressed)
    arrays = {'utmDb': np.zeros((2, 2)), 'utmQ': np.ones((1, 2)), 'imageDb': ['a', 'b']}
    (np.savez_compressed if compressed else np.savez)(npz, **arrays, imageQ=['c'])
    rng = np.random.default_rng(0)
    for whole in (mat, npz):
        content = whole.read_bytes()
        damaged = tmp_path / f'damaged{whole.suffix}'
        for n in range(60):
            changed = bytearray(content)
            # SciPy itself dies of some flips in a file that has no checksum.
            if n % 2 or not compressed:
                del changed[rng.integers(len(changed)) :]
            else:
                changed[rng.integers(len(changed))] ^= 0xFF
            damaged.write_bytes(changed)
            try:
                open_dataset(damaged)
            except InputError as error:
                assert str(damaged) in str(error)
    np.save(tmp_path / 'array.npy', np.zeros(3))
    (tmp_path / 'array.npy').rename(empty)
    with pytest.raises(InputError, match='cannot read'):
        open_dataset(empty)


def write_image(path: Path, size_wh=(40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)


def write_city(city: Path, east_m: float, north_m: float) -> None:
    """Write a city of Mapillary SLS with one image and one panorama on each side."""
    for side in ('database', 'query'):
        (city / side).mkdir(parents=True)
        (city / side / 'raw.csv').write_text(
            ',key,lon,lat,ca,captured_at,pano\n0,a,0,0,1,2019-01-02,False\n1,b,0,0,1,2019-01-02,TRUE\n'
        )
        (city / side / 'postprocessed.csv').write_text(
            ',key,easting,northing,night,view_direction\n'
            f'0,a,{east_m},{north_m},False,Forward\n1,b,1,2,False,Side\n'
        )


def test_utm_names_msls_npz_and_csv_give_the_same_kind_of_dataset(tmp_path):
    at = tmp_path / 'cam@home'
    for side, east in (('database', 10), ('database', 50), ('queries', 12)):
        write_image(at / f'train/{side}/@{east:010.2f}@4477000.00@17@T@@@p@@90@@@@20240102@@.jpg')
    utm = open_dataset(at)
    assert utm.database.xy_m[:, 0].tolist() == [10, 50] and utm.database.heading_deg[0] == 90
    write_city(tmp_path / 'msls/train_val/oslo', 10, 20)
    msls = open_dataset(tmp_path / 'msls')
    assert len(msls.database) == 1 and msls.queries.xy_m.tolist() == [[10, 20]]
    np.savez(tmp_path / 'l.npz', utmDb=np.zeros((2, 2)), utmQ=np.ones((1, 2)), posDistThr=10.0,
             imageDb=[b'a', b'b'], imageQ=['c'])  # fmt: skip
    listed = open_dataset(tmp_path / 'l.npz')
    assert listed.true_radius_m == 10.0
    assert [path.name for path in listed.all_images().paths] == ['a', 'b', 'c']
    (tmp_path / 't.csv').write_text(
        'path,east_m,north_m,split,role\na,1,2,Train ,database\nb,3,4,train,query\n'
        'c,0,0,test,query\n'
    )
    table = open_dataset(tmp_path / 't.csv')
    assert [len(table.database), len(table.queries)] == [1, 1]


@pytest.mark.parametrize('pano', ['TRUE', '1', ' true '])
def test_panoramas_of_mapillary_are_left_out_however_they_are_marked(tmp_path, pano):
    write_city(tmp_path / 'msls', 10, 20)
    for table in (tmp_path / 'msls').glob('*/raw.csv'):
        table.write_text(table.read_text().replace('True', pano))
    assert self_check(open_dataset(tmp_path / 'msls')).database == 1


def test_a_split_is_read_in_any_spelling(tmp_path):
    (tmp_path / 't.csv').write_text(
        'path,east_m,north_m,split\na,1,2,Train\nb,3,4, train \nc,0,0,VAL\n'
    )
    table = open_dataset(tmp_path / 't.csv', 'TRAIN')
    assert table.split == 'train' and len(table.all_images()) == 2


def test_cities_of_all_continents_are_one_dataset_but_of_no_test_split(tmp_path):
    # cph and sf, and of those that train the ones nearest to and farthest from the equator.
    for name, east_m, north_m in (
        ('cph', 347e3, 6174e3), ('sf', 551e3, 4180e3),
        ('kampala', 453e3, 35e3), ('nairobi', 257e3, 9858e3),
    ):  # fmt: skip
        write_city(tmp_path / 'train_val' / name, east_m, north_m)
    for split in ('train', 'val'):
        assert self_check(open_dataset(tmp_path, split)).database == 2
    with pytest.raises(InputError, match=r"no split 'test', allowed: train, val \(cph, sf\)"):
        open_dataset(tmp_path, 'test')
    assert len(open_dataset(tmp_path / 'train_val/cph', 'test').queries) == 1
    city = open_dataset(tmp_path / 'train_val/cph', 'val')
    far_mm = replace(city.queries, xy_m=1000.0 * city.queries.xy_m)
    with pytest.raises(InputError, match='must be east and north in metres'):
        self_check(replace(city, queries=far_mm))


@pytest.mark.parametrize('name', ['t.csv', 'msls/query/raw.csv', 'n_db.txt'])
def test_a_list_that_is_not_utf8_is_refused_with_what_to_do(tmp_path, name):
    (tmp_path / 't.csv').write_text('path,east_m,north_m\nstrasse,1,2\n')
    write_city(tmp_path / 'msls', 10, 20)
    np.savez(tmp_path / 'n.npz', utmDb=np.zeros((1, 2)), utmQ=np.ones((1, 2)))
    for side in ('db', 'q'):
        (tmp_path / f'n_{side}.txt').write_text('strasse\n')
    file = tmp_path / name
    file.write_bytes(file.read_text().replace('ss', 'ß').replace('key', 'keyß').encode('cp1252'))
    path = {'t.csv': file, 'n_db.txt': tmp_path / 'n.npz'}.get(name, tmp_path / 'msls')
    with pytest.raises(InputError, match=r'is not UTF-8 .*: save it as UTF-8') as error:
        open_dataset(path)
    assert repr(str(file)) in str(error.value)


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ('a,nan,2,train,database\nb,3,4,train,query\n', 'position of'),
        ('a,1,2,train,database\na,1,2,train,database\nb,3,4,train,query\n', 'listed twice'),
        ('a,10.1,59.9,train,database\nb,10.2,59.8,train,query\nc,10.3,59.7,train,query\n',
         'look like degrees'),
        ('a,1e9,2,train,database\nb,3,4,train,query\n', 'must be east and north in metres'),
        ('a,x,2,train,database\n', "line 2: east_m is 'x'"),
        ('a,1,2,train,database\n', 'list of queries is empty'),
        ('a,1,2,train,database\nb,3\n', 'line 3: no value for north_m'),
        (',1,2,train,database\n', 'line 2: no value for path'),
    ],
)  # fmt: skip
def test_wrong_lists_are_refused_in_one_line(tmp_path, rows, message):
    (tmp_path / 't.csv').write_text(f'path,east_m,north_m,split,role\n{rows}')
    with pytest.raises(InputError, match=message) as error:
        self_check(open_dataset(tmp_path / 't.csv'))
    assert '\n' not in str(error.value)


def test_an_image_that_would_find_itself_is_refused(tmp_path):
    for name in 'ab':
        write_image(tmp_path / f'{name}.jpg')
    rows = ['a.jpg,1,2,train,database', 'b.jpg,1,2,train,database', 'a.jpg,1,2,train,query']
    (tmp_path / 't.csv').write_text('\n'.join(['path,east_m,north_m,split,role', *rows]))
    with pytest.raises(InputError, match=r'1 images are queries and .*a\.jpg.* find itself'):
        check_files(open_dataset(tmp_path / 't.csv'))


def test_a_key_that_mapillary_lists_twice_is_refused(tmp_path):
    write_city(tmp_path / 'msls', 10, 20)
    table = tmp_path / 'msls/query/postprocessed.csv'
    header, *rows = table.read_text().splitlines()
    table.write_text('\n'.join([header, *rows, rows[0]]))
    with pytest.raises(InputError, match=r'postprocessed\.csv.* lists .* twice'):
        open_dataset(tmp_path / 'msls')


def test_lists_of_different_length_are_refused(tmp_path):
    write_struct(tmp_path / 'a.mat')
    dataset = open_dataset(tmp_path / 'a.mat')
    with pytest.raises(InputError, match='do not belong together'):
        replace(dataset.database, xy_m=dataset.database.xy_m[1:])


def test_bad_images_are_counted_or_refused(tmp_path):
    good = [tmp_path / f'{n}.jpg' for n in range(40)]
    for path in good:
        write_image(path)
    cut, tiny, gray = tmp_path / 'cut.jpg', tmp_path / 'tiny.png', tmp_path / 'gray.png'
    cut.write_bytes(good[0].read_bytes()[:500])
    write_image(tiny, (1, 1))
    cv2.imwrite(str(gray), np.full((30, 40), 128, np.uint8))
    assert read_rgb(gray).shape == (30, 40, 3)
    assert unreadable([*good, cut, tiny]) == [40, 41]
    with pytest.raises(InputError, match='2 of 4 images cannot be used'):
        unreadable([good[0], cut, tiny, good[1]])


def test_an_image_larger_than_opencv_allows_is_refused_in_one_line(tmp_path, monkeypatch):
    write_image(tmp_path / 'a.png')

    def refused(*_):
        raise cv2.error('pixels <= CV_IO_MAX_IMAGE_PIXELS')

    monkeypatch.setattr(cv2, 'imdecode', refused)
    with pytest.raises(InputError, match='too large'):
        read_rgb(tmp_path / 'a.png')


def test_a_jpeg_ends_where_its_own_picture_ends(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    plain = cv2.imencode('.jpg', photo)[1].tobytes()
    progressive = cv2.imencode('.jpg', photo, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    thumbnail = b'Exif\0\0' + plain[:300] + b'\xff\xd9'
    path = tmp_path / 'photo.jpg'
    for whole in (plain, progressive):
        segment = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
        phone = whole[:2] + segment + whole[2:]
        path.write_bytes(whole)
        expected = read_rgb(path)
        path.write_bytes(phone + 200 * b'\x5a')
        np.testing.assert_array_equal(read_rgb(path), expected)
        for kept in (len(phone) // 2, len(phone) - 2, 2 + len(segment)):
            path.write_bytes(phone[:kept])
            with pytest.raises(InputError, match='cut off'):
                read_rgb(path)


@pytest.mark.parametrize('flag', [None, getattr(cv2, 'IMREAD_COLOR_RGB', None)])
def test_images_are_rgb_with_old_and_new_opencv(tmp_path, monkeypatch, flag):
    monkeypatch.setattr(image_files, '_IMREAD_RGB', flag)
    path = tmp_path / 'red.png'
    cv2.imwrite(str(path), np.full((30, 40, 3), (0, 0, 255), np.uint8))
    assert (read_rgb(path) == (255, 0, 0)).all()


def test_the_image_map_equals_the_files(tmp_path):
    paths = [tmp_path / f'{n}.png' for n in range(5)]
    for path in paths:
        write_image(path)
    files = ImageFiles(paths, InputPolicy(width=20, height=16))
    for _ in range(2):
        mapped = ImageMap(files, tmp_path / 'cache')
        np.testing.assert_array_equal(mapped.batch([3, 1]), files.batch([3, 1]))


def test_walks_of_one_area_say_nothing_of_each_other(shared_data):
    dataset = open_dataset(shared_data / 'train' / 'ie_tower', 'train')
    val = open_dataset(shared_data / 'train' / 'ie_tower', 'val')
    floors = {p.parent.name for p in dataset.database.paths}
    assert floors.isdisjoint({p.parent.name for p in val.database.paths})
    relations = relations_of(dataset)
    names = [path.name for path in relations.images.paths]

    def pair(a: str, b: str) -> tuple[bool, bool]:
        same, different = relations.pairs([names.index(a)], [names.index(b)])
        return bool(same[0, 0]), bool(different[0, 0])

    first = 'f10_hallway_left_frame_0000{:02}.jpg'
    assert pair(first.format(7), first.format(8)) == (True, False)
    assert pair(first.format(7), first.format(11)) == (False, False)
    assert pair(first.format(7), first.format(16)) == (False, True)
    other_floor = next(n for n in names if n.startswith('f11_hallway'))
    stairs = next(n for n in names if 'stairs' in n)
    assert pair(first.format(7), other_floor) == (False, False)
    assert pair(first.format(7), stairs) == (False, True)


def test_walks_beside_a_dataset_of_smaller_radius_still_say_nothing_of_each_other():
    xy_m = np.array([[1000.0 * walk, step] for walk in range(3) for step in range(9)])
    images = PlaceImages(tuple(Path(f'{n}') for n in range(27)), xy_m)
    walks = Relations(replace(images, look_alike=np.zeros(27, dtype=np.int64)), 2.5, 5.5)
    other = Relations(images, 1.0, 2.2)
    rows = np.arange(27)
    _, expected = walks.pairs(rows, rows)
    for first, both in ((0, joined([walks, other])), (27, joined([other, walks]))):
        _, different = both.pairs(first + rows, first + rows)
        np.testing.assert_array_equal(different, expected)
        assert both.pairs([0], [27])[1].all(), 'datasets are different places'


def test_a_batch_holds_places_with_hard_negatives_among_them(shared_data):
    val = relations_of(open_dataset(shared_data / 'train' / 'ie_tower', 'val'))
    both = joined([val, val])
    sampler = PlaceSampler(both, places=6, per_place=4)
    batch = sampler.draw(np.random.default_rng(0)).reshape(6, 4)
    same, _ = both.pairs(batch[:, 0], batch.reshape(-1))
    assert all(same[place, 4 * place : 4 * place + 4].all() for place in range(6))
    near = np.linalg.norm(both.images.xy_m[batch[1, 0]] - both.images.xy_m[batch[0, 0]])
    assert both.negative_m < near <= 10 * both.negative_m
    alone = replace(val.images, xy_m=100.0 * val.images.xy_m)
    with pytest.raises(InputError, match='a place with one image'):
        PlaceSampler(replace(val, images=alone), 6, 4)


def test_hard_negatives_of_a_batch_are_not_kept_for_all_images():
    rng = np.random.default_rng(0)
    xy_m = np.repeat(rng.uniform(0, 150, (700, 2)), 2, axis=0)
    relations = Relations(
        PlaceImages(tuple(Path(f'{n}') for n in range(len(xy_m))), xy_m), 0.1, 25.0
    )
    tracemalloc.start()
    sampler = PlaceSampler(relations, 6, 2)
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert peak_mb < 5
    for anchor in (0, 700, 1399):
        away_m = np.linalg.norm(xy_m - xy_m[anchor], axis=1)
        expected = np.flatnonzero((away_m > 25.0) & (away_m <= 250.0))
        np.testing.assert_array_equal(sampler._hard(anchor), expected)
