# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags, whole and damaged, and their topics; the counts of the real sequences."""

from __future__ import annotations

import math
from pathlib import Path
import sys
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from netvlad_ros.cli.evaluate import summary_text
from netvlad_ros.config import DetectorConfig, from_dict
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.errors import ConfigError, InputError
from netvlad_ros.evaluation.protocol import split_protocol
from netvlad_ros.evaluation.report_json import to_report
from netvlad_ros.evaluation.runner import evaluate_source
from netvlad_ros.evaluation.sources import Source, Topics, open_source
from netvlad_ros.evaluation.truth import RIGHT, truth_of_keyframes

sys.path.append(str(Path(__file__).parent))
from small_sequences import S, run_over

STORE = get_typestore(Stores.ROS2_JAZZY)


def make(kind: str, **fields: Any) -> Any:
    return STORE.types[kind](**fields)


def header(stamp_ns: int, frame_id: str) -> Any:
    stamp = make('builtin_interfaces/msg/Time', sec=stamp_ns // S, nanosec=stamp_ns % S)
    return make('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)


def picture(seed: int, size_wh: tuple[int, int] = (96, 64)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC)


def jpeg(seed: int) -> np.ndarray:
    return cv2.imencode('.jpg', picture(seed))[1].reshape(-1)


class BagMaker:
    """Writes the messages of a small drive along x at 1 m/s."""

    def __init__(self, path: Path) -> None:
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Any] = {}
        self.recorded_ns = 0  # at which messages are recorded at least

    def write(self, topic: str, kind: str, stamp_ns: int, message: Any) -> None:
        """Write any message."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=STORE)
        data = STORE.serialize_cdr(message, kind)
        recorded_ns = max(stamp_ns, self.recorded_ns)
        self._writer.write(self._connections[topic], recorded_ns, data)

    def image(self, stamp_ns: int, data: np.ndarray) -> None:
        """Write a compressed image."""
        kind = 'sensor_msgs/msg/CompressedImage'
        message = make(kind, header=header(stamp_ns, 'eye'), format='jpeg', data=data)
        self.write('/image/compressed', kind, stamp_ns, message)

    def depth(self, stamp_ns: int, millimetres: int) -> None:
        """Write a depth image of one value."""
        kind = 'sensor_msgs/msg/Image'
        data = np.full(96 * 64, millimetres, dtype=np.uint16).view(np.uint8)
        message = make(kind, header=header(stamp_ns, 'eye'), height=64, width=96,
                       encoding='16UC1', is_bigendian=0, step=192, data=data)  # fmt: skip
        self.write('/depth', kind, stamp_ns, message)

    def true_pose(self, kind: str, stamp_ns: int, x: float) -> None:
        """Write a pose on the x axis to /truth, in one of the messages that can hold it."""
        if kind == 'Odometry':
            self.odometry('/truth', stamp_ns, x)
            return
        rotation = make('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0)
        values: dict[str, Any] = {'header': header(stamp_ns, 'world')}
        if kind == 'TransformStamped':
            shift = make('geometry_msgs/msg/Vector3', x=x, y=0.0, z=0.0)
            values['child_frame_id'] = 'base_link'
            values['transform'] = make(
                'geometry_msgs/msg/Transform', translation=shift, rotation=rotation
            )
        else:
            point = make('geometry_msgs/msg/Point', x=x, y=0.0, z=0.0)
            pose = make('geometry_msgs/msg/Pose', position=point, orientation=rotation)
            values['pose'] = pose if kind == 'PoseStamped' else make(
                'geometry_msgs/msg/PoseWithCovariance', pose=pose, covariance=np.zeros(36)
            )  # fmt: skip
        kind = f'geometry_msgs/msg/{kind}'
        self.write('/truth', kind, stamp_ns, make(kind, **values))

    def odometry(self, topic: str, stamp_ns: int, x: float, qw: float = 1.0) -> None:
        """Write a pose on the x axis."""
        kind = 'nav_msgs/msg/Odometry'
        vector = make('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=0.0)
        pose = make(
            'geometry_msgs/msg/Pose',
            position=make('geometry_msgs/msg/Point', x=x, y=0.0, z=0.0),
            orientation=make('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=qw),
        )
        twist = make('geometry_msgs/msg/Twist', linear=vector, angular=vector)
        zeros = np.zeros(36)
        message = make(
            kind, header=header(stamp_ns, 'odom'), child_frame_id='base_link',
            pose=make('geometry_msgs/msg/PoseWithCovariance', pose=pose, covariance=zeros),
            twist=make('geometry_msgs/msg/TwistWithCovariance', twist=twist, covariance=zeros),
        )  # fmt: skip
        self.write(topic, kind, stamp_ns, message)

    def camera_info(self, distortion_model: str) -> None:
        """Write the calibration of a sensor of 192x128 whose images are reduced to 96x64."""
        kind = 'sensor_msgs/msg/CameraInfo'
        roi = make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0,
                   do_rectify=False)  # fmt: skip
        p = np.array([[90.0, 0, 96, 0], [0, 90, 64, 0], [0, 0, 1, 0]])
        k = np.array([[100.0, 0, 96], [0, 100, 64], [0, 0, 1]])
        message = make(
            kind, header=header(0, 'eye'), height=128, width=192, roi=roi, binning_x=2,
            binning_y=2, distortion_model=distortion_model, d=np.full(4, 0.1), k=k.ravel(),
            r=np.eye(3).ravel(), p=p.ravel(),
        )
        self.write('/camera_info', kind, 0, message)

    def static_transform(self, parent: str, child: str, z: float) -> None:
        """Write a translation along z."""
        kind = 'tf2_msgs/msg/TFMessage'
        transform = make(
            'geometry_msgs/msg/Transform',
            translation=make('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=z),
            rotation=make('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0),
        )
        stamped = make('geometry_msgs/msg/TransformStamped', header=header(0, parent),
                       child_frame_id=child, transform=transform)  # fmt: skip
        self.write('/tf_static', kind, 0, make(kind, transforms=[stamped]))

    def close(self) -> None:
        """Finish the bag."""
        self._writer.close()


@pytest.fixture()
def bag(tmp_path: Path) -> Path:
    """One image each second for 5 s; odometry at 5 Hz lies between the images."""
    path = tmp_path / 'drive'
    maker = BagMaker(path)
    maker.static_transform('base_link', 'mast', 0.5)
    maker.static_transform('mast', 'eye', 0.25)
    for tick in range(52):
        stamp_ns = tick * S // 10
        if tick % 10 == 5:
            maker.image(stamp_ns, jpeg(tick))
            maker.depth(stamp_ns, 1500)
        if tick % 2 == 0:
            qw = math.nan if tick == 30 else 1.0
            maker.odometry('/odom', stamp_ns, stamp_ns / S, qw)
            maker.odometry('/ground_truth/odom', stamp_ns, 2.0 * stamp_ns / S)
    maker.close()
    return path


def test_a_bag_gives_frames_with_pose_depth_camera_and_truth(bag: Path) -> None:
    source = open_source(bag)
    frames = list(source.frames())
    assert [f.stamp_ns for f in frames] == [S // 2 + i * S for i in range(5)]
    assert source.frame_count == 5 and frames[0].image_rgb.shape == (64, 96, 3)
    for frame in frames:
        assert frame.T_odom_base is not None and frame.depth_m is not None
        np.testing.assert_allclose(frame.T_odom_base[0, 3], frame.stamp_ns / S, atol=1e-9)
        np.testing.assert_allclose(frame.depth_m, 1.5, rtol=1e-6)
    assert source.skipped.counts == {'damaged odometry pose': 1}
    assert source.camera.T_base_camera is not None
    assert source.camera.T_base_camera[2, 3] == 0.75
    assert source.ground_truth.poses is not None
    poses, known = source.ground_truth.poses.at([S, 50 * S])
    np.testing.assert_allclose(poses[0][0, 3], 2.0)
    assert known.tolist() == [True, False]


def test_the_camera_of_a_bag_is_that_of_its_pixels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for model in ('equidistant', 'double_sphere'):
        maker = BagMaker(tmp_path / model)
        maker.camera_info(model)
        maker.image(S, jpeg(1))
        maker.close()
    camera = open_source(tmp_path / 'equidistant').camera
    assert camera.K is not None and camera.frame_id == 'eye'
    assert (camera.size_wh, camera.K[0, 0], camera.distortion[0]) == ((96, 64), 50.0, 0.1)
    camera = open_source(tmp_path / 'equidistant', image_is_rectified=True).camera
    assert camera.K is not None
    assert (camera.K[0, 0], camera.distortion_model, len(camera.distortion)) == (45.0, '', 0)
    # As with the node, the drive goes on without calibration.
    assert open_source(tmp_path / 'double_sphere').camera.K is None
    assert "distortion model 'double_sphere'" in caplog.text


def test_stamps_of_a_clock_that_was_set_back_are_told(tmp_path: Path) -> None:
    maker = BagMaker(tmp_path / 'drive')
    for second in (0, 10, 20, 8, 18):
        maker.image(second * S, jpeg(second))
        maker.odometry('/ground_truth/odom', second * S, float(second))
        maker.recorded_ns += 30 * S
    maker.close()
    evaluation = run_over(open_source(tmp_path / 'drive'))
    assert len(evaluation.replay.keyframes) == 5
    assert evaluation.replay.skipped == {
        'image stamps jumped backwards (image kept)': 1,
        'true pose stamp jumped back (pose kept)': 1,
    }


def test_a_topic_can_be_left_out(bag: Path) -> None:
    source = open_source(bag, Topics(depth='none', odom='none'))
    assert all(f.depth_m is None and f.T_odom_base is None for f in source.frames())
    assert source.frame_count == 5


def test_a_damaged_image_in_a_bag_is_counted_and_left_out(tmp_path: Path) -> None:
    maker = BagMaker(tmp_path / 'bag')
    maker.image(S, jpeg(1))
    maker.image(2 * S, jpeg(2)[:200])
    maker.image(3 * S, np.zeros(0, dtype=np.uint8))
    maker.image(4 * S, jpeg(4))
    maker.close()
    source = open_source(tmp_path / 'bag')
    assert [f.stamp_ns for f in source.frames()] == [S, 4 * S]
    assert source.skipped.counts == {'damaged image': 2}


def test_odometry_that_stops_leaves_frames_without_a_pose(tmp_path: Path) -> None:
    maker = BagMaker(tmp_path / 'bag')
    for tick in range(30):
        if tick < 12:
            maker.odometry('/odom', tick * S // 10, 0.0)
        if tick % 10 == 5:
            maker.image(tick * S // 10, jpeg(tick))
    maker.close()
    source = open_source(tmp_path / 'bag')
    assert [f.T_odom_base is not None for f in source.frames()] == [True, False, False]
    assert source.skipped.counts == {'no odometry at the stamp (image kept)': 2}


def test_a_missing_topic_names_those_the_bag_has(bag: Path) -> None:
    with pytest.raises(InputError, match=r"no topic 'camera'.*/depth.*/image/compressed.*/odom"):
        open_source(bag, Topics(image='camera'))
    with pytest.raises(InputError, match=r"no topic 'none'"):
        open_source(bag, Topics(image='none'))


@pytest.mark.parametrize('what', ['image', 'camera_info', 'odom', 'depth', 'ground_truth'])
def test_a_topic_of_another_type_names_those_allowed(bag: Path, what: str) -> None:
    option = f'--{what.replace("_", "-")}-topic'
    with pytest.raises(InputError, match=rf"{option} '/tf_static' is tf2_msgs.*allowed.*It has"):
        open_source(bag, Topics(**{what: 'tf_static'}))


@pytest.mark.parametrize(
    'kind', ['PoseStamped', 'PoseWithCovarianceStamped', 'TransformStamped', 'Odometry']
)
def test_ground_truth_may_be_any_stamped_pose(tmp_path: Path, kind: str) -> None:
    maker = BagMaker(tmp_path / 'bag')
    maker.static_transform('base_link', 'eye', 0.5)
    for i in range(3):
        maker.image(i * S, jpeg(i))
        maker.true_pose(kind, i * S, 2.0 * i)
    maker.close()
    source = open_source(tmp_path / 'bag', Topics(ground_truth='/truth', odom='none'))
    list(source.frames())
    assert source.ground_truth.poses is not None
    assert source.ground_truth.poses.T_world_frame[:, 0, 3].tolist() == [0.0, 2.0, 4.0]
    assert source.camera.T_base_camera is not None


def test_several_topics_of_a_type_are_named_and_none_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker = BagMaker(tmp_path / 'bag')
    maker.image(0, jpeg(0))
    for topic in ('/wheels', '/visual'):
        maker.odometry(topic, 0, 0.0)
    maker.close()
    source = open_source(tmp_path / 'bag')
    assert source.topics == Topics(image='/image/compressed')
    assert '/visual, /wheels: none is used, choose with --odom-topic' in caplog.text
    chosen = open_source(tmp_path / 'bag', Topics(ground_truth='visual')).topics
    assert chosen == Topics('/image/compressed', odom='/wheels', ground_truth='/visual')


def test_the_chosen_topics_are_printed_and_stored(bag: Path, tmp_path: Path) -> None:
    descriptor = SimpleNamespace(
        model_id='same@0', dim=4, recommended_min_similarity=None,
        compute=lambda images: np.full((len(images), 4), 0.5, dtype=np.float32),
    )  # fmt: skip
    config = from_dict(DetectorConfig, {'verification': {'enabled': False}})
    source = open_source(bag, Topics(depth='none'))
    report = to_report(evaluate_source(source, cast(Descriptor, descriptor), config, {}), '')
    assert report['topics'] == {
        'image': '/image/compressed', 'camera_info': None, 'odom': '/odom', 'depth': None,
        'ground_truth': '/ground_truth/odom',
    }  # fmt: skip
    text = summary_text(report, tmp_path)
    assert 'topics: image /image/compressed, camera_info none, odom /odom, depth none' in text


@pytest.mark.parametrize('share', [0.0, 0.3, 0.9])
def test_a_bag_cut_short_is_one_error(bag: Path, share: float) -> None:
    file = next(bag.glob('*.mcap'))
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    for path in (bag, file):
        with pytest.raises(InputError, match='damaged or cut short'):
            list(open_source(path).frames())


def test_what_is_no_recording_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='does not exist'):
        open_source(tmp_path / 'absent')
    with pytest.raises(InputError, match=r'expected a rosbag2 .* frames\.csv'):
        open_source(tmp_path)


def test_given_poses_go_before_those_of_a_bag_and_of_a_sequence(
    bag: Path, tmp_path: Path
) -> None:
    poses = tmp_path / 'given.txt'
    poses.write_text('0 7 0 0 0 0 0 1\n5 7 0 0 0 0 0 1\n')
    folder = tmp_path / 'sequence'
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), picture(1))
    (folder / 'frames.csv').write_text('image,stamp_s\na.png,0\n')
    (folder / 'groundtruth.txt').write_text('0 3 0 0 0 0 0 1\n')
    for path in (bag, folder):
        source = open_source(path, poses=poses)
        list(source.frames())
        track = source.ground_truth.poses
        assert track is not None and (track.frame, len(track.stamps_ns)) == ('camera', 2)
        assert track.T_world_frame[:, 0, 3].tolist() == [7.0, 7.0]


def test_an_unknown_protocol_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown protocol setting 'radius'"):
        split_protocol({'radius': 3}, DetectorConfig())


# Queries and queries with a revisit. The second of each pair in the data's own table is smaller
# where the best match of a query was neither right nor wrong: that depends on the model.
@pytest.mark.parametrize(
    ('name', 'queries', 'with_revisit'),
    [('rtabmap_two_laps', 64, 41), ('corridor_two_traverses', 111, 111),
     ('tum_fr1_desk', 257, 83), ('campus_72', 52, 1)],
)
def test_counts_of_the_real_sequences(
    shared_data: Path, name: str, queries: int, with_revisit: int
) -> None:
    source: Source = open_source(shared_data / 'sequences' / name)
    protocol, config = split_protocol(source.protocol, DetectorConfig())
    stamps_ns = [row[0] for row in source._rows]  # type: ignore[attr-defined]
    truth = truth_of_keyframes(source.ground_truth, stamps_ns, protocol, config.search.exclude_s)
    assert truth is not None
    pairs = np.ix_(range(len(stamps_ns)), range(len(stamps_ns)))
    allowed = truth.allowed(*pairs)
    assert int(allowed.any(axis=1).sum()) == queries
    revisits = ((truth.labels(*pairs) == RIGHT) & allowed).any(axis=1)
    assert int(revisits.sum()) == with_revisit
