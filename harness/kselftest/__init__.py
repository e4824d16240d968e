# SPDX-License-Identifier: MIT
"""The kernel tree's own selftests: built from the tree under test, run as its own scripts run them, and read."""
