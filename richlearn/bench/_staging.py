"""Temporary names beside their targets: who owns them, and which of a dead owner's may be removed.

A staging name is `.staging.<host>.<process>.<random>`; `<host>` stands for the machine and its process namespace (a container
has its own). Nothing here looks at a clock: a leftover goes when its owner, on this very host, is no longer alive.
"""

import os
import secrets
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

from richlearn.bench._disk import Disk
from richlearn.bench.content import text_hash

_PREFIX = ".staging"


@cache
def _host() -> str:
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return text_hash(f"{socket.gethostname()} {namespace}")[:12]


def staging_name() -> str:
    """A fresh staging name of this process."""
    return f"{_PREFIX}.{_host()}.{os.getpid()}.{secrets.token_hex(6)}"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _is_dead(name: str) -> bool:
    """Whether `name` is a staging name of this host whose process is gone; one that cannot be judged counts as alive."""
    mine = f"{_PREFIX}.{_host()}."
    process = name.removeprefix(mine).split(".")[0]
    return name.startswith(mine) and process.isdecimal() and int(process) > 0 and not _alive(int(process))


def sweep(disk: Disk, folder: Path) -> None:
    """Remove what dead processes of this host left staged in `folder`."""
    for name in filter(_is_dead, disk.listdir(folder)):
        disk.remove(folder / name)
