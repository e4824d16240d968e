# SPDX-License-Identifier: MIT
"""QEMU's command line, and the options it comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import accel
from harness.accel import Accelerator
from harness.arch import ARM64, GIB, MIB, X86_64, Arch, find, size_name
from harness.errors import BadInput
from harness.image import Image
from harness.options import expand
from harness.pools import Pool, of, parse
from harness.vm import places, template
from harness.vm.command import Ram, VmSpec, command

TCG = Accelerator(name="tcg", argv=("-accel", "tcg,thread=multi"), cpu="max", slowness=8, reason="")


def spec(arch: Arch = X86_64, huge_pages: str = "2M=128,1G=2") -> VmSpec:
    image = Image(arch=arch, key="k", disk=Path("/c/root.img"), client_key=Path("/c/key"), host_key="ssh-ed25519 A")
    return VmSpec(arch=arch, accelerator=TCG, kernel=Path("/k/Image"), image=image, pools=parse(huge_pages))


def after(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


@pytest.mark.parametrize("arch", [X86_64, ARM64])
def test_each_architecture_has_its_own_row(arch: Arch) -> None:
    argv = command(spec(arch), Path("/r"))
    assert arch.qemu in argv
    assert after(argv, "-machine") == arch.machine
    assert f"console={arch.console}" in after(argv, "-append").split()


def test_the_root_disk_is_read_only_and_the_port_is_local() -> None:
    argv = command(spec(), Path("/r"))
    assert "readonly=on" in after(argv, "-drive")
    assert "hostfwd=tcp:127.0.0.1:0-:22" in after(argv, "-netdev")


def test_qemu_dies_with_the_harness() -> None:
    assert command(spec(), Path("/r"))[:3] == ["setpriv", "--pdeathsig", "KILL"]


def test_memory_follows_the_pools() -> None:
    # Seen to be enough on both kinds of PC machine: 4608M for one 1G page, 6144M for two.
    assert spec(huge_pages="1G=1").memory == 4608 * MIB
    assert spec(huge_pages="1G=2").memory == 6144 * MIB
    assert spec(huge_pages="2M=128").memory < GIB + GIB // 2


@pytest.mark.parametrize("huge_pages", ["2M=16", "2M=128,1G=2", "2M=127,1G=1"])
def test_two_nodes_share_memory_and_processors(huge_pages: str) -> None:
    wanted = spec(huge_pages=huge_pages)
    argv = command(wanted, Path("/r"))
    nodes = [argv[at + 1] for at, word in enumerate(argv) if word == "-numa"]
    assert nodes == ["node,nodeid=0,memdev=node0,cpus=0", "node,nodeid=1,memdev=node1,cpus=1"]
    assert sum(wanted.node_memory) == wanted.memory
    assert wanted.node_memory[0] % (128 * MIB) == 0
    assert f"memory-backend-ram,id=node1,size={wanted.node_memory[1] // MIB}M" in argv


def test_pools_are_reserved_by_the_command_line() -> None:
    words = after(command(spec(), Path("/r")), "-append")
    assert "hugepagesz=2M hugepages=128 hugepagesz=1G hugepages=2" in words


def test_pools_are_read() -> None:
    assert parse("2M=4, 1G=1") == (Pool(size=2 * MIB, count=4), Pool(size=GIB, count=1))


def test_each_architecture_has_its_usual_pools() -> None:
    for arch in (X86_64, ARM64):
        assert tuple(pool.size for pool in of(arch, "")) == arch.huge_page_sizes
        assert of(arch, "2M=3") == parse("2M=3")


@pytest.mark.parametrize("text", ["", "2M", "2M=", "=4", "2X=4", "2M=-1", "2M=4,"])
def test_bad_pools(text: str) -> None:
    with pytest.raises(BadInput, match="is no pool"):
        parse(text)


@pytest.mark.parametrize(("name", "arch"), [("x86", X86_64), ("amd64", X86_64), ("aarch64", ARM64), ("arm64", ARM64)])
def test_architectures_go_by_many_names(name: str, arch: Arch) -> None:
    assert find(name) is arch
    assert expand(name) == [arch]


def test_all_is_every_architecture() -> None:
    assert expand("all") == [X86_64, ARM64]


def test_sizes_have_short_names() -> None:
    assert [size_name(size) for size in ARM64.huge_page_sizes] == ["64K", "2M", "32M", "1G"]
    assert size_name(4096 + 1) == "4097"


def test_a_template_and_its_clones_are_the_same_guest() -> None:
    kept, clone = (command(spec(), Path("/r"), Ram(directory=Path("/t"), private=private)) for private in (False, True))
    assert "memory-backend-file,id=node0,size=3200M,mem-path=/t/node0,share=on" in kept
    assert clone[-2:] == ["-incoming", "defer"]
    assert [word.replace("share=off", "share=on") for word in clone[:-2]] == kept


def test_an_image_made_anew_has_a_template_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has other ssh keys than the guest of the old one's template."""
    monkeypatch.setattr(accel, "surroundings", lambda arch: ("boot", "qemu"))
    (tmp_path / "Image").touch()
    old = replace(spec(), kernel=tmp_path / "Image")
    new = replace(old, image=replace(old.image, host_key="ssh-ed25519 B"))
    assert template._key(old) == template._key(replace(old)) != template._key(new)


def test_the_tests_are_the_second_disk() -> None:
    argv = command(replace(spec(), tests=Path("/c/tests.img")), Path("/r"))
    drives = [argv[at + 1] for at, word in enumerate(argv) if word == "-drive"]
    assert [drive.split(",")[1] for drive in drives] == ["id=root", "id=tests"]
    assert all("readonly=on" in drive for drive in drives)


def test_places_follow_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    memory = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 24 * GIB // 4096}
    monkeypatch.setattr("os.sysconf", memory.__getitem__)
    assert places.number(spec(huge_pages="2M=128").pools) == 16
    assert places.number(spec(huge_pages="1G=2").pools) == 8
    assert places.number(spec(huge_pages="1G=30").pools) == 1
