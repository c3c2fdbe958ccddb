# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: versions, declared dependencies, layering, headers."""

import ast
from pathlib import Path
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

import netvlad_ros
from netvlad_ros.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / 'netvlad_ros').rglob('*.py'))
LAYERS = ('descriptor', 'keyframes', 'loop_closure', ('evaluation', 'simulation', 'training'))

# Import name -> key in package.xml. What rosdep has no key for comes from PyPI (setup.py).
ROSDEP_KEYS = {
    'cv2': 'python3-opencv',
    'matplotlib': 'python3-matplotlib',
    'numpy': 'python3-numpy',
    'scipy': 'python3-scipy',
    'tqdm': 'python3-tqdm',
    'yaml': 'python3-yaml',
}
PYPI_NAMES = {'faiss': 'faiss-cpu', 'PIL': 'pillow', 'vtkmodules': 'vtk'}


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split('.')[0])
    return names - set(sys.stdlib_module_names) - {'netvlad_ros'}


def package_xml() -> ET.Element:
    return ET.parse(ROOT / 'package.xml').getroot()


def test_versions_agree():
    changelog = (ROOT / 'CHANGELOG.rst').read_text(encoding='utf-8')
    released = re.search(r'^(\d+\.\d+\.\d+) \(', changelog, re.MULTILINE).group(1)
    in_setup = re.search(r"version='([^']+)'", (ROOT / 'setup.py').read_text()).group(1)
    messages = ET.parse(ROOT / 'netvlad_msgs' / 'package.xml').getroot().findtext('version')
    versions = {netvlad_ros.__version__, package_xml().findtext('version'), in_setup, released}
    assert versions | {messages} == {netvlad_ros.__version__}


def test_colcon_lists_both_packages():
    pytest.importorskip('colcon_core')
    command = [sys.executable, '-m', 'colcon', 'list', '--names-only']
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ['netvlad_msgs', 'netvlad_ros']


def test_every_import_is_declared():
    declared = {element.text for element in package_xml() if element.tag.endswith('depend')}
    setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
    undeclared = {
        name
        for path in [*SOURCES, *(ROOT / 'launch').glob('*.py')]
        for name in imported_packages(path)
        if ROSDEP_KEYS.get(name, name) not in declared
        and f"'{PYPI_NAMES.get(name, name.replace('_', '-'))}" not in setup
    }
    assert not undeclared


def test_only_the_ros_folder_imports_ros():
    ros = {element.text for element in package_xml().findall('depend')} | {'cv_bridge'}
    for path in SOURCES:
        relative = path.relative_to(ROOT / 'netvlad_ros')
        if relative.parts[0] != 'ros':
            assert not imported_packages(path) & ros, relative


def test_core_imports_with_rclpy_blocked():
    modules = [
        '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
        for path in SOURCES
        if path.relative_to(ROOT / 'netvlad_ros').parts[0] != 'ros'
    ]
    blocked = ('rclpy', 'sensor_msgs', 'nav_msgs', 'netvlad_msgs', 'cv_bridge')
    script = (
        'import importlib, sys\n'
        f'sys.modules.update(dict.fromkeys({blocked!r}))\n'
        f'for name in {modules!r}: importlib.import_module(name)\n'
    )
    subprocess.run([sys.executable, '-c', script], cwd=ROOT, check=True)


def test_dependencies_point_one_way():
    rank = {}
    for height, layer in enumerate(LAYERS):
        for name in (layer,) if isinstance(layer, str) else layer:
            rank[name] = height
    for path in SOURCES:
        folder = path.relative_to(ROOT / 'netvlad_ros').parts[0]
        text = path.read_text(encoding='utf-8')
        for other in re.findall(r'^\s*(?:from|import) netvlad_ros\.(\w+)', text, re.MULTILINE):
            if folder in rank and other in ('cli', 'ros'):
                raise AssertionError(f'{path}: {folder} imports {other}')
            if folder in rank and other in rank:
                assert rank[other] <= rank[folder], f'{path}: {folder} imports {other}'


def test_every_file_names_its_licence():
    for path in [*SOURCES, *(ROOT / 'test').rglob('*.py'), *(ROOT / 'launch').glob('*.py')]:
        assert 'SPDX-License-Identifier: Apache-2.0' in path.read_text().split('\n')[1], path


def test_ros2_run_finds_every_command():
    setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
    declared = ast.literal_eval(re.search(r'COMMANDS = (\(.*?\))', setup, re.DOTALL).group(1))
    assert set(declared) == set(COMMANDS)
