# SPDX-License-Identifier: MIT
"""Which apps there are on this node, and which version of each is in force."""
