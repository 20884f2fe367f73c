# SPDX-License-Identifier: MIT
"""archy-prepare: what an app, and the node itself, needs on disk before it starts."""
