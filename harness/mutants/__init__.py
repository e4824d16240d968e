# SPDX-License-Identifier: MIT
"""Kernels broken on purpose, one bug at a time: whether the guest tests notice, and for the stated reason."""
