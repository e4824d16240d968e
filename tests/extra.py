# SPDX-License-Identifier: MIT
"""Packages that only tests need, from the dependency group "unit" of pyproject.toml."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def module(name: str) -> Any:
    """Import a package; where tox did not bring it, the test is left to tox."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        if "TOX_ENV_NAME" in os.environ:
            raise
        pytest.skip(f"{name} is not installed here; ./hgm selftest -e unit brings it")
