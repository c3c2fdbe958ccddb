# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Start the place-recognition node on a robot's camera and odometry."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

REMAPPINGS = {
    'image': ('image_topic', 'Camera images (compressed: the topic without /compressed).'),
    'camera_info': ('camera_info_topic', 'Calibration of that camera.'),
    'odom': ('odom_topic', 'nav_msgs/Odometry of the robot.'),
    'depth': ('depth_topic', 'Depth registered to the image, optional.'),
}
STATIC_TF = {
    '/tf_static': ('tf_static_topic', 'Static transforms; tf_static if each robot has its own.'),
}
# An argument that is not given leaves the parameter to params_file.
PARAMETERS = {
    'image_transport': ('image_transport', 'How images come.', ['', 'raw', 'compressed']),
    'descriptor.model': ('model', 'Model bundle: a file or a name.', None),
    'descriptor.device': ('device', 'auto, cpu, cuda or cuda:N.', None),
    'map_path': ('map_path', "The map's folder, made if absent; without it, memory only.", None),
    'use_sim_time': ('use_sim_time', 'Take time from /clock.', ['', 'true', 'false']),
}
# What each bridge needs beside this package, and how to get it.
BRIDGES = {
    'lio_sam': '',
    'initialpose': '',
    'hydra': 'pose_graph_tools_msgs, from source: github.com/MIT-SPARK/pose_graph_tools',
    'kimera': 'pose_graph_tools_msgs, likewise',
    'rtabmap': 'apt install ros-$ROS_DISTRO-rtabmap-msgs',
}
LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'fatal']


def remapped(topics):
    return [(topic, LaunchConfiguration(argument)) for topic, (argument, _) in topics.items()]


def start_node(context):
    given = {
        # A folder may be called 2024, and YAML would make a number of it.
        parameter: ParameterValue(context.launch_configurations[argument], value_type=str)
        for parameter, (argument, _, _) in PARAMETERS.items()
        if context.launch_configurations[argument]
    }
    if 'use_sim_time' in given:
        given['use_sim_time'] = context.launch_configurations['use_sim_time'] == 'true'
    # A shell leaves `~` behind `:=` alone, and launch_ros goes on without a file that is missing.
    params_file = Path(context.launch_configurations['params_file']).expanduser()
    if not params_file.is_file():
        raise ValueError(f'params_file is {str(params_file)!r}, which is not a file')
    nodes = [
        Node(
            package='netvlad_ros',
            executable='vpr_node',
            name='vpr',
            namespace=LaunchConfiguration('namespace'),
            output='screen',
            parameters=[str(params_file), given],
            remappings=remapped({**REMAPPINGS, **STATIC_TF}),
            ros_arguments=['--log-level', LaunchConfiguration('log_level')],
        )
    ]
    bridges = [name for name in context.launch_configurations['bridges'].split(',') if name]
    if unknown := [name for name in bridges if name not in BRIDGES]:
        raise ValueError(f'bridges has {unknown[0]!r}, allowed: {", ".join(BRIDGES)}')
    if bridges:
        clock = {key: value for key, value in given.items() if key == 'use_sim_time'}
        nodes.append(
            Node(
                package='netvlad_ros',
                executable='closure_bridge',
                name='closure_bridge',
                namespace=LaunchConfiguration('namespace'),
                output='screen',
                parameters=[str(params_file), {**clock, 'bridges': bridges}],
                remappings=remapped(STATIC_TF),
                ros_arguments=['--log-level', LaunchConfiguration('log_level')],
            )
        )
    return nodes


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(argument, default_value=topic, description=text)
        for topic, (argument, text) in {**REMAPPINGS, **STATIC_TF}.items()
    ]
    arguments += [
        DeclareLaunchArgument(argument, default_value='', description=text, choices=choices)
        for argument, text, choices in PARAMETERS.values()
    ]
    arguments += [
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the node and its topics.'
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value=PathJoinSubstitution(
                [FindPackageShare('netvlad_ros'), 'config', 'vpr.yaml']
            ),
            description='Parameters of the node; arguments that are given win over it.',
        ),
        DeclareLaunchArgument(
            'bridges',
            default_value='',
            description='Systems that get the loop closures too, comma-separated: '
            + '; '.join(f'{name} ({need})' if need else name for name, need in BRIDGES.items()),
        ),
        DeclareLaunchArgument(
            'log_level', default_value='info', description='Least severity.', choices=LOG_LEVELS
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])
