# SPDX-License-Identifier: MIT
"""The result model and what is made of it."""
