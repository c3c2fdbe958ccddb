# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
import sys

from setuptools import find_packages, setup

# colcon runs a link to this file from its build folder.
SOURCE = Path(__file__).resolve().parent
NAME = 'netvlad_ros'
SHARE = f'share/{NAME}'
COMMANDS = (
    'bench', 'cluster', 'describe', 'evaluate', 'listen', 'map', 'models', 'play', 'simulate',
    'test', 'train', 'whiten',
)

# `ros2 run netvlad_ros evaluate` finds these below lib/; pip would put them on everyone's PATH,
# so they are made only when colcon drives setup.py.
is_colcon = bool({'install', 'develop'} & set(sys.argv))
scripts = [
    f'netvlad = {NAME}.cli.main:main',
    f'vpr_node = {NAME}.ros.vpr_node:main',
    f'closure_bridge = {NAME}.ros.bridges.closure_bridge:main',
]
if is_colcon:
    scripts += [f'{command} = {NAME}.cli.main:main_by_name' for command in COMMANDS]

EXTRAS = {
    # The last gtsam for Python 3.10 is older than NumPy 2.
    'backend': ['evo', 'gtsam; python_version >= "3.11"'],
    'milvus': ['milvus-lite', 'pymilvus'],
    'runtimes': ['onnx', 'onnxruntime', 'onnxscript', 'openvino'],
    'simulation': ['pyvista', 'vtk'],
    'test': ['mypy', 'pytest', 'ruff', 'types-PyYAML'],
    'training': ['h5py', 'pytorch-metric-learning', 'tensorboard'],
}


def files(folder: str, *patterns: str) -> list[str]:
    """Return the files of a folder that match."""
    return sorted(str(path) for pattern in patterns for path in Path(folder).glob(pattern))


setup(
    name=NAME,
    version='0.1.0',
    description='Visual place recognition for robots: NetVLAD, faiss and ROS 2',
    long_description=(SOURCE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='netvlad_ros authors',
    maintainer='netvlad_ros authors',
    maintainer_email='maintainers@users.noreply.example.org',
    license='Apache-2.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'{NAME}/resource/{NAME}']),
        (SHARE, ['package.xml']),
        (f'{SHARE}/launch', files('launch', '*.launch.py')),
        (f'{SHARE}/config', files('config', '*')),
        (f'{SHARE}/models', files('models', '*.yaml', '*.md', '*.safetensors')),
    ],
    python_requires='>=3.10',
    install_requires=[
        'faiss-cpu',
        'matplotlib',
        'numpy',
        'opencv-python-headless',
        'pillow',
        'poselib',
        'pyyaml',
        'rosbags',
        'rosbags-image',
        'safetensors',
        'scipy',
        'threadpoolctl',
        'torch',
        'torchvision',
        'tqdm',
    ],
    extras_require={**EXTRAS, 'all': [name for names in EXTRAS.values() for name in names]},
    zip_safe=False,
    entry_points={'console_scripts': scripts},
)
