# SPDX-License-Identifier: MIT
"""Guest tests: found in their sources, built, pushed, run, and read."""
