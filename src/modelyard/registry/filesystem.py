"""What Linux offers for many and for large files and Python's `os` lacks."""

import ctypes
import errno
import fcntl
import os

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_NO_REFLINK = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS}
_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)


def sync_file_system(fd: int) -> None:
    """Flush everything of the file system that `fd` lies on: one wait for thousands of files.

    Raises OSError, also for writes that failed since `fd` was opened.
    """
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def begin_writing(fd: int, offset: int, count: int) -> None:
    """Let the disk begin with these bytes now, so that the flush at the end has little to do."""
    _libc.sync_file_range(
        fd, ctypes.c_int64(offset), ctypes.c_int64(count), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE)
    )


def set_direct(fd: int, direct: bool) -> bool:
    """Let writes to `fd` go past the page cache, or through it again; return `direct`.

    Raises OSError, EINVAL where the file system can't.
    """
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    wanted = flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT
    if wanted != flags:
        fcntl.fcntl(fd, fcntl.F_SETFL, wanted)
    return direct


def reflink(source: int, target: int) -> bool:
    """Let `target` share the blocks of `source`; False where the file system can't.

    Both are file descriptors. Raises OSError.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_REFLINK:
            return False
        raise
    return True
