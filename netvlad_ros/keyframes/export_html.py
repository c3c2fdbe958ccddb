# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One HTML file to browse a map: the trajectory, its closures and each keyframe's picture."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

from netvlad_ros.keyframes.reader import MapReader

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>__TITLE__</title>
<style>
body { margin: 0; font: 15px/1.45 system-ui, sans-serif; color: #1c2430; background: #f5f6f8; }
main { display: grid; grid-template-columns: 1fr 380px; gap: 16px; padding: 16px; height: 100vh;
  box-sizing: border-box; }
canvas { width: 100%; height: 100%; background: #fff; border: 1px solid #d5dae1; }
aside { overflow: auto; } h1 { font-size: 18px; margin: 0 0 8px; }
img { display: block; width: 100%; background: #dde1e7; min-height: 120px; }
input { width: 100%; margin: 8px 0; box-sizing: border-box; }
table { border-collapse: collapse; } td { padding: 2px 10px 2px 0; vertical-align: top; }
a { color: #0b5cad; cursor: pointer; }
@media (max-width: 800px) { main { grid-template-columns: 1fr; grid-template-rows: 50vh auto; } }
</style></head><body><main>
<canvas id="plan"></canvas>
<aside><h1>__TITLE__</h1><p>__SUMMARY__</p>
<input id="slider" type="range" min="0" value="0" aria-label="keyframe">
<img id="picture" alt="keyframe"><table id="facts"></table>
<p>Click the trajectory, move the slider or press the arrow keys. Lines are closures:
green verified, orange consistent, grey candidate, red rejected.</p></aside></main>
<script>
const keyframes = __KEYFRAMES__, closures = __CLOSURES__;
const colours = ['#9aa3af', '#e08a00', '#1d9a4b', '#d33f3f'];
const palette = ['#0b5cad', '#8a3ffc', '#007d79', '#b5179e', '#6f6f00', '#d2521c'];
const row = new Map(keyframes.map((k, i) => [k.id, i]));
const canvas = document.getElementById('plan'), draw2d = canvas.getContext('2d');
const slider = document.getElementById('slider');
slider.max = Math.max(0, keyframes.length - 1);
let current = 0;
const xs = keyframes.map(k => k.x), ys = keyframes.map(k => k.y);
const least = values => values.reduce((a, b) => Math.min(a, b), Infinity);
const low = [least(xs), least(ys)];
const span = xs.reduce((a, x, i) => Math.max(a, x - low[0], ys[i] - low[1]), 1e-6);
function at(k) {
  const size = Math.min(canvas.width, canvas.height) * 0.92, edge = canvas.width * 0.04;
  const x = (k.x - low[0]) / span * size, y = (k.y - low[1]) / span * size;
  return [edge + x, canvas.height - edge - y];
}
function draw() {
  canvas.width = canvas.clientWidth; canvas.height = canvas.clientHeight;
  for (const c of closures) {
    const a = keyframes[row.get(c.query)], b = keyframes[row.get(c.match)];
    draw2d.strokeStyle = colours[c.status]; draw2d.lineWidth = 1.2; draw2d.beginPath();
    draw2d.moveTo(...at(a)); draw2d.lineTo(...at(b)); draw2d.stroke();
  }
  for (const k of keyframes) {
    draw2d.fillStyle = palette[k.session % palette.length];
    draw2d.beginPath(); draw2d.arc(...at(k), 2.6, 0, 7); draw2d.fill();
  }
  if (!keyframes.length) return;
  draw2d.strokeStyle = '#000'; draw2d.lineWidth = 2.5;
  draw2d.beginPath(); draw2d.arc(...at(keyframes[current]), 8, 0, 7); draw2d.stroke();
}
function show(index) {
  if (!keyframes.length) return;
  current = Math.max(0, Math.min(keyframes.length - 1, index)); slider.value = current;
  const k = keyframes[current], picture = document.getElementById('picture');
  picture.src = k.jpeg ? 'data:image/jpeg;base64,' + k.jpeg : '';
  const facts = document.getElementById('facts'); facts.textContent = '';
  const add = (name, value) => {
    const line = facts.insertRow(); line.insertCell().textContent = name;
    const cell = line.insertCell();
    if (value instanceof Node) cell.append(value); else cell.textContent = value;
  };
  add('keyframe', k.id); add('stamp', (k.stamp_s).toFixed(3) + ' s'); add('place', k.place);
  add('session', k.session_name); add('position', k.has_pose
    ? k.x.toFixed(2) + ', ' + k.y.toFixed(2) + ', ' + k.z.toFixed(2) + ' m' : 'none');
  for (const c of closures) {
    if (c.query !== k.id && c.match !== k.id) continue;
    const other = c.query === k.id ? c.match : c.query, link = document.createElement('a');
    link.textContent = other + ' (' + c.similarity.toFixed(3) + ')';
    link.onclick = () => show(row.get(other)); add('closes with', link);
  }
  draw();
}
slider.oninput = () => show(+slider.value);
document.onkeydown = e => {
  if (e.target === slider) return;
  if (e.key === 'ArrowRight') show(current + 1);
  if (e.key === 'ArrowLeft') show(current - 1);
};
canvas.onclick = e => {
  let best = 0, nearest = Infinity;
  keyframes.forEach((k, i) => {
    const [x, y] = at(k), d = (x - e.offsetX) ** 2 + (y - e.offsetY) ** 2;
    if (d < nearest) { nearest = d; best = i; }
  });
  show(best);
};
onresize = draw; show(0);
</script></body></html>
"""


def write_html(reader: MapReader, output: Path) -> int:
    """Write the page; it needs no other file and no network."""
    keyframes = reader.store.keyframes()
    sessions = {session.uuid: session for session in reader.store.sessions().values()}
    numbers = {uuid: number for number, uuid in enumerate(sessions)}
    items: list[dict[str, Any]] = []
    position = [0.0, 0.0, 0.0]
    for keyframe in keyframes:
        # Without odometry a keyframe is drawn where the last one with odometry was.
        if keyframe.T_odom_base is not None:
            position = keyframe.T_odom_base[:3, 3].tolist()
        jpeg = reader.thumbnail(keyframe.id)
        session = sessions[keyframe.session]
        items.append({
            'id': keyframe.id, 'stamp_s': keyframe.stamp_ns / 1e9, 'place': keyframe.place_id,
            'session': numbers[keyframe.session], 'session_name': session.name or session.uuid,
            'x': position[0], 'y': position[1], 'z': position[2],
            'has_pose': keyframe.T_odom_base is not None,
            'jpeg': base64.b64encode(jpeg).decode() if jpeg else '',
        })
    closures = [
        {
            'query': closure.query.id, 'match': closure.match.id, 'status': int(closure.status),
            'similarity': closure.similarity,
        }
        for closure in reader.store.closures()
    ]
    places = len({keyframe.place_id for keyframe in keyframes})
    summary = (
        f'{len(keyframes)} keyframes of {len(sessions)} sessions, {places} places, '
        f'{len(closures)} closures, model {reader.model_id}'
    )
    page = _PAGE.replace('__TITLE__', html.escape(reader.folder.name))
    page = page.replace('__SUMMARY__', html.escape(summary))
    page = page.replace('__KEYFRAMES__', _json(items)).replace('__CLOSURES__', _json(closures))
    output.write_text(page, encoding='utf-8')
    return len(keyframes)


def _json(value: object) -> str:
    # A name with </script> in it must not end the script.
    return json.dumps(value).replace('</', '<\\/')
