"""One entry of a tar archive, as ``tarread`` returns it and ``tarwrite`` accepts it."""

import stat
from dataclasses import dataclass, field

# Type flags of the format (pax, POSIX.1-2001).
REGULAR = b"0"
HARDLINK = b"1"
SYMLINK = b"2"
CHAR = b"3"
BLOCK = b"4"
DIRECTORY = b"5"
FIFO = b"6"

#: Prefix of the pax records that carry extended attributes.
XATTR = "SCHILY.xattr."


@dataclass(slots=True)
class Header:
    """Names are text with undecodable bytes as surrogates (``os.fsdecode``). Mutable, as millions are created."""

    name: str
    type: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0  # bytes of the extracted file; 0 for anything but a regular file
    mtime_ns: int = 0
    linkname: str = ""
    uname: str = ""
    gname: str = ""
    devmajor: int = 0
    devminor: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    stored: int = 0  # bytes of data in the archive; differs from size for a sparse file
    sparse: tuple[tuple[int, int], ...] | None = None  # (offset, length) of the data; None: not sparse

    @property
    def is_dir(self) -> bool:
        return self.type == DIRECTORY


_TYPES = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCK,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}


def type_of(mode: int) -> bytes | None:
    """The type flag for a file of this ``st_mode``; None for a socket, which an archive can't contain."""
    return _TYPES.get(stat.S_IFMT(mode))
