"""Which kind of file system a path is on, and what may be trusted there."""

import os
from pathlib import Path

_LOCAL = "ext2 ext3 ext4 xfs btrfs zfs f2fs bcachefs jfs reiserfs nilfs2 tmpfs ramfs overlay aufs ubifs apfs hfs ufs"
LOCAL = frozenset(_LOCAL.split())
"""File systems of one machine, on which a reader sees what was just written and SQLite's write-ahead log holds.

Our choice: only these, so that a kind that nobody thought of is treated with care rather than with trust.
"""
MOUNTS = Path("/proc/self/mountinfo")


def filesystem_of(path: Path) -> str:
    """The name of the file system that a path is or would be on, such as ``ext4``, ``nfs4`` or ``fuse.sshfs``.

    ``unknown`` where the system does not tell.
    """
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return "unknown"
    target = os.path.realpath(path)
    found, longest = "unknown", -1
    for line in lines:
        # 36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/sda1 rw: proc_pid_mountinfo(5)
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # a later mount at the same point hides the earlier
            found, longest = after.split()[0], len(point)
    return found


def is_local(path: Path) -> bool:
    """Whether it is on a file system of this machine alone."""
    return filesystem_of(path) in LOCAL
