# SPDX-License-Identifier: MIT
"""The guest's root file system: Debian packages unpacked, an init script, and keys of its own.

No code of the guest is run on the host, so an image for any architecture is made on any other; root is not needed.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.arch import MIB, Arch
from harness.errors import HostFault
from harness.paths import ROOT, cache_dir, digest, locked, used, written_whole
from harness.process import run, say

IMAGES = ROOT / "images"
READY_PORT = "hgm.ready"  # the virtio-serial port on which the guest says that ssh can be reached
SHAPE_PORT = "hgm.shape"  # that on which guest tests ask how their memory is mapped; guest_tests/lib knows it, too
WORKDIR = "/run/hgm"  # where pushed files go in the guest
WRITABLE = ("/tmp", "/run", "/root", "/var")
SLACK_BYTES = 16 * MIB  # for the file system's own tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One guest root file system and the keys that belong to it."""

    arch: Arch
    key: str  # content key
    disk: Path  # ext2, to be attached read-only
    client_key: Path  # OpenSSH private key, ed25519
    host_key: str  # the guest's public key, "ssh-ed25519 AAAA..."


def prepare(arch: Arch) -> Image:
    """Return the image for `arch`, made if the cache has none for today's images/.

    Raises HostFault if a tool or the network is missing or the disk is full.
    """
    spec = tomllib.loads((IMAGES / "guest.toml").read_text())
    environment = Environment(loader=FileSystemLoader(IMAGES), undefined=StrictUndefined, keep_trailing_newline=True)
    start = environment.get_template("start.sh.j2").render(writable=WRITABLE, workdir=WORKDIR, ready_port=READY_PORT)
    key = digest(spec, start, arch.debian, 1)
    target = cache_dir() / "images" / f"{arch.name}-{key}"
    with locked(f"image-{arch.name}"):
        if not (target / "image.json").exists():
            say(f"making the {arch.name} guest image from Debian {spec['suite']} packages")
            with written_whole(target) as work:
                _make(arch, spec, start, work)
    host_key = json.loads((used(target) / "image.json").read_text())["host_key"]
    return Image(arch=arch, key=key, disk=target / "root.img", client_key=target / "client_key", host_key=host_key)


def _make(arch: Arch, spec: dict[str, object], start: str, work: Path) -> None:
    root = work / "root"
    packages, drop, applets = (_strings(spec, name) for name in ("packages", "drop", "applets"))
    # Only "extract" runs no maintainer script; as an ordinary user mmdebstrap would else need user namespaces.
    mode = "root" if os.geteuid() == 0 else "chrootless"
    run(
        ["mmdebstrap", "--quiet", f"--mode={mode}", "--variant=extract", f"--architectures={arch.debian}",
         f"--include={','.join(packages)}", str(spec["suite"]), root],
        env={**os.environ, "TMPDIR": os.fspath(work)},
    )  # fmt: skip
    for path in drop:
        shutil.rmtree(root / path, ignore_errors=True)
    for applet in applets:
        name = root / "bin" / applet
        if not name.exists():
            name.symlink_to("busybox")
    (root / "sbin").mkdir(exist_ok=True)
    (root / "sbin/init").symlink_to("/bin/busybox")
    for directory in ("proc", "sys", "dev", "etc/dropbear", *(path.lstrip("/") for path in WRITABLE)):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "etc/start").write_text(start)
    (root / "etc/start").chmod(0o755)
    (root / "etc/inittab").write_text("::sysinit:/etc/start\n")
    (root / "etc/passwd").write_text("root:*:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:*:0:\n")
    host_key = _make_keys(root / "etc/dropbear", work / "client_key")
    used = sum(path.lstat().st_size for path in root.rglob("*"))
    files = sum(1 for _ in root.rglob("*"))
    disk = work / "root.img"
    # No journal and no reserved blocks: nobody ever writes to this disk.
    size_kib = (used + files * 2048 + SLACK_BYTES) // 1024
    run(["mke2fs", "-q", "-t", "ext2", "-m", "0", "-N", str(files + 256), "-d", root, disk, f"{size_kib}k"])
    shutil.rmtree(root)
    if not disk.stat().st_size:
        raise HostFault(f"mke2fs made an empty disk {disk}")
    (work / "image.json").write_text(json.dumps({"host_key": host_key, "packages": packages, "suite": spec["suite"]}))


def _strings(spec: dict[str, object], name: str) -> list[str]:
    value = spec[name]
    if not isinstance(value, list):
        raise HostFault(f"images/guest.toml: {name} is no list", hint="restore the file from git")
    return [str(item) for item in value]


def _make_keys(dropbear: Path, client_key: Path) -> str:
    """Write the guest's host key and the client's key; return the host's public key in OpenSSH's words."""
    host, client = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    raw = serialization.Encoding.Raw
    seed = host.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    point = host.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
    # dropbear's own private key format: the type, then seed and public point as one string, each with its length.
    kind = b"ssh-ed25519"
    (dropbear / "host_key").write_bytes(struct.pack(">I", len(kind)) + kind + struct.pack(">I", 64) + seed + point)
    client_key.touch(mode=0o600)
    client_key.write_bytes(
        client.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    )
    openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    (dropbear / "authorized_keys").write_bytes(client.public_key().public_bytes(*openssh) + b"\n")
    return host.public_key().public_bytes(*openssh).decode()
