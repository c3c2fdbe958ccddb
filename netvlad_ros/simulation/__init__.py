# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rendered drives and places, as bags and as Pitts-layout datasets."""
