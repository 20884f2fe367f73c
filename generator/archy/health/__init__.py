# SPDX-License-Identifier: MIT
"""How the node is, and whether that is well; changes nothing."""
