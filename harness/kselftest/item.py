# SPDX-License-Identifier: MIT
"""The kernel's own selftests as pytest items: one for each --kselftest and architecture, with many results."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from harness import interrupts
from harness.arch import Arch
from harness.errors import BadInput, HarnessError
from harness.kselftest.wanted import PREFIX, Wanted, read
from harness.options import expand
from harness.paths import ROOT
from harness.running import RUN, evidence, give_up, outcome, uncaptured

if TYPE_CHECKING:
    from harness.report.results import CaseResult


class Collections(pytest.File):
    """All that --kselftest asks for; no tree is looked at."""

    def collect(self) -> Iterator[KselftestItem]:
        """Yield an item for each collection or program that is asked for, and each architecture."""
        for wanted in read(self.config.getoption("kselftest")):
            for arch in expand(self.config.getoption("arch")):
                if wanted.arch not in ("", arch.name):
                    continue
                name = f"{PREFIX}{wanted.name}[{arch.name}]"
                item: KselftestItem = KselftestItem.from_parent(self, name=name, nodeid=name, wanted=wanted, arch=arch)
                yield item


class SelftestsFailed(Exception):
    """Some of the results are red."""


class KselftestItem(pytest.Item):
    """A collection of selftests, or one program of it, on one architecture."""

    def __init__(self, *, wanted: Wanted, arch: Arch, **rest: Any) -> None:
        super().__init__(**rest)
        self.wanted, self.arch = wanted, arch
        self.results: list[CaseResult] = []
        self.user_properties += [("architecture", arch.name)]

    def runtest(self) -> None:
        """Run what is wanted, and raise if any of it failed. All of it must be skipped for this to be a skip.

        A collection without a program is bad input: nobody asks for a run of nothing. What earlier items have run has
        its results there.
        """
        from harness.kselftest.run import run

        try:
            with uncaptured(self.config):
                earlier = self._earlier()
                self.results = run(self.config.stash[RUN], self.wanted, self.arch, earlier)
            if not self.results and not earlier:
                hint = "leave it out, or see with --arch whether another architecture has some"
                raise BadInput(f"--kselftest: {self.wanted.name} has no program for {self.arch.name}", hint=hint)
        except HarnessError as error:
            give_up(self.config, error)
        finally:
            interrupts.raise_lost()
        if any(result.red for result in self.results):
            raise SelftestsFailed
        if self.results and all(result.status == "skip" for result in self.results):
            reasons = dict.fromkeys(result.reason for result in self.results)
            pytest.skip("; ".join(reasons) or "no program gave a reason")

    def _earlier(self) -> list[Wanted]:
        """What is run before this, or by another worker: two values may name the same program."""
        before = itertools.takewhile(lambda item: item is not self, self.session.items)
        return [
            item.wanted
            for item in before
            if isinstance(item, KselftestItem)
            and (item.arch, item.wanted.collection) == (self.arch, self.wanted.collection)
        ]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The evidence of each result that is red."""
        if not isinstance(excinfo.value, SelftestsFailed):
            return super().repr_failure(excinfo, style)
        directory = outcome(self.config)[0]
        red = [result for result in self.results if result.red]
        return "\n\n".join(evidence(result, directory) for result in red)

    def reportinfo(self) -> tuple[os.PathLike[str], int | None, str]:
        """It stands in no file of ours."""
        return ROOT, None, self.name
