# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Node, player and listener as processes of their own, as the demo runs them."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

import cv2
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from ros_bench import scene
from sensor_msgs.msg import Image

from netvlad_ros.ros import player

MODEL = os.environ.get('NETVLAD_TEST_MODEL', 'default')
TIMEOUT_S = 60.0
NODE = [sys.executable, '-m', 'netvlad_ros.ros.vpr_node']
NETVLAD = [sys.executable, '-m', 'netvlad_ros.cli.main']
PARAMETERS = {
    'descriptor.model': MODEL,
    'descriptor.runtime': 'torch',
    'keyframes.policy': 'every_frame',
    'search.exclude_s': '2',
    'search.min_similarity': '0.95',
    # Best effort may lose an image of a megabyte on a busy machine.
    'qos_overrides./image.subscription.reliability': 'reliable',
}


def node_command(*remappings, **parameters):
    command = [*NODE, '--ros-args']
    for name, value in {**PARAMETERS, **parameters}.items():
        command += ['-p', f'{name}:={value}']
    for remapping in remappings:
        command += ['-r', remapping]
    return command


class Process:
    """A process whose output is kept, to be waited for and ended by a signal."""

    def __init__(self, command, folder):
        self.log = (folder / f'{len(list(folder.iterdir()))}.log').open('w+')
        # The ROS wheels start Python anew and mark that in the environment.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'
        }
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, env=environment
        )

    @property
    def output(self):
        """Everything it printed so far."""
        return Path(self.log.name).read_text()

    def wait_for(self, text):
        """Wait until it prints a text."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline_s, f'{text!r} did not appear in: {self.output}'
            time.sleep(0.05)

    def end(self, *signals):
        """Send signals one after another and return the exit code."""
        for number in signals:
            self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@pytest.fixture
def sequence(tmp_path):
    """Return a sequence folder: five places, then the first two once more."""
    folder = tmp_path / 'sequence'
    (folder / 'images').mkdir(parents=True)
    rows = ['index,image,stamp_s']
    for index, seed in enumerate((1, 2, 3, 4, 5, 1, 2)):
        cv2.imwrite(str(folder / f'images/{index}.png'), scene(seed)[..., ::-1])
        rows.append(f'{index},images/{index}.png,{index}.0')
    (folder / 'frames.csv').write_text('\n'.join(rows) + '\n')
    (folder / 'revisits.csv').write_text(
        'query_index,match_indices,ignore_indices\n5,0,\n6,1,\n'
    )
    return folder


def test_closures_cross_processes_and_all_end_cleanly(start, sequence):
    node = start(node_command('image:=/image'))
    listener = start([*NETVLAD, 'listen', '--json', '--verbose'])
    listener.wait_for('connected')
    player = start([*NETVLAD, 'play', str(sequence), '--wait-for', '/image', '--wait-s', '90'])
    listener.wait_for('keyframe 6 = 1')
    assert player.process.wait(TIMEOUT_S) == 0
    assert node.end(signal.SIGINT, signal.SIGINT) == 0, node.output
    assert listener.end(signal.SIGTERM) == 0, listener.output
    assert 'Traceback' not in node.output + listener.output + player.output
    assert json.loads(listener.output.splitlines()[-1])['keyframes'] == 7


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_player_ends_cleanly_in_the_middle(start, sequence, number):
    player = start([*NETVLAD, 'play', str(sequence), '--rate', '0.01', '--verbose'])
    player.wait_for('playing')
    assert player.end(number) == 0, player.output
    assert 'Traceback' not in player.output


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('image_transport', 'pigeon'),
        ('descriptor.model', 'no_such_model'),
        ('search.exclude_s', '-3.0'),
        ('search.exclude_s', 'soon'),
    ],
)
def test_a_parameter_that_cannot_work_ends_the_node_with_its_name(start, name, value):
    node = start(node_command(**{name: value}))
    assert node.process.wait(TIMEOUT_S) == 1
    assert value in node.output
    assert 'Traceback' not in node.output


def test_the_player_reads_ahead_in_the_thread_that_lets_go_of_the_recording():
    read, closed_by = [], []

    def messages(count):
        try:
            for number in range(count):
                read.append(number)
                yield '/topic', number, b''
        finally:
            closed_by.append(threading.get_ident())

    assert [number for _, number, _ in player.read_ahead(messages(500))] == list(range(500))
    read.clear()
    ahead = player.read_ahead(messages(1_000_000))
    assert next(ahead)[1] == 0
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(read) < player.MESSAGES_AHEAD and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert player.MESSAGES_AHEAD <= len(read) <= player.MESSAGES_AHEAD + 1
    ahead.close()
    assert len(closed_by) == 2 and threading.get_ident() not in closed_by


PUBLISH_IMAGES = """
import os, sys, time, rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
publisher = rclpy.create_node('camera').create_publisher(Image, 'depth', qos_profile_sensor_data)
while not os.path.exists(sys.argv[2]):
    publisher.publish(Image())
    time.sleep(0.1)
for _ in range(int(sys.argv[1])):
    publisher.publish(Image(data=bytes(640 * 480 * 4)))
time.sleep(60)
"""


def test_images_fit_into_the_shared_memory_of_the_profile(start, monkeypatch, tmp_path):
    profile = Path(__file__).resolve().parents[2] / 'config' / 'fastdds.xml'
    for library in ('FASTRTPS', 'FASTDDS'):  # the name on Jazzy, on Kilted
        monkeypatch.setenv(f'{library}_DEFAULT_PROFILES_FILE', str(profile))
    count, go = 5, tmp_path / 'go'
    camera = start([sys.executable, '-c', PUBLISH_IMAGES, str(count), str(go)])
    monkeypatch.undo()
    empty, full = [], []
    context = rclpy.context.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('viewer', context=context)
    node.create_subscription(
        Image, 'depth', lambda m: (full if m.data else empty).append(m), qos_profile_sensor_data
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(full) < count and time.monotonic() < deadline_s:
        executor.spin_once(timeout_sec=0.1)
        if empty:  # The two know each other, so that what is lost from now on found no room.
            go.touch()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
    assert len(full) == count, camera.output


def test_a_topic_that_is_not_played_is_an_error_of_one_line(sequence):
    command = [*NETVLAD, 'play', str(sequence), '--wait-for', '/camera/image']
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert '/camera/image' in result.stderr and '/image' in result.stderr
