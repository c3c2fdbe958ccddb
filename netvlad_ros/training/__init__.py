# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Place datasets, clustering, mining, losses, trainers, whitening and testing."""
