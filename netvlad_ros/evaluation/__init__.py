# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the detector on recordings: sources, ground truth, metrics, thresholds, reports."""
