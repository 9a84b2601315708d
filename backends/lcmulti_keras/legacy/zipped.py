"""Read the members of a ``.keras`` archive: each one once, completely, and of a known size."""

from __future__ import annotations

import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from lcmulti.errors import FileError
from lcmulti.files import file_size

__all__ = ["Zipped", "ends_as_zip"]

MEBIBYTE = 2**20
MOST_MEMBERS = 1_000
MOST_DIRECTORY = MEBIBYTE
MOST_GROWTH = 64 * MEBIBYTE
"""By how many bytes, beyond a quarter of its size, a member may grow by decompression."""
STEP = MEBIBYTE

END = struct.Struct("<4s4H2LH")
LOCATOR = struct.Struct("<4sLQL")
END_64 = struct.Struct("<4sQ2H2L4Q")
HDF5 = b"\x89HDF\r\n\x1a\n"


class Zipped:
    """A zip archive that no other reader would take for something else.

    Parameters
    ----------
    path : Path
        For messages.
    stream : binary file

    Raises
    ------
    FileError
        If the archive is damaged, has content before its first member or after its end, or has a
        directory that takes long to read.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path, self.stream = path, stream
        self._check_directory()
        try:
            self.members = zipfile.ZipFile(stream).infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise FileError(path, f"is damaged ({error})") from error
        if min((info.header_offset for info in self.members), default=1) != 0:
            raise FileError(path, "has other content before the archive in it")

    def text(self, name: str, most: int) -> bytes:
        """Read a member of at most this many bytes."""
        info = self._member(name, most)
        return b"".join(self._content(info))

    @contextmanager
    def part(self, name: str) -> Iterator[tuple[BinaryIO, int, int]]:
        """A file, and the offset and length of a member in it, without compression."""
        info = self._member(name, None)
        start = self._start(info)
        self._check_no_hdf5(start)
        if info.compress_type == zipfile.ZIP_STORED:
            for _ in self._content(info):
                pass  # checks the checksum
            yield self.stream, start, info.file_size
            return
        with tempfile.TemporaryFile() as whole:  # it has no name, and disappears with this process
            for step in self._content(info):
                whole.write(step)
            whole.flush()
            yield cast(BinaryIO, whole), 0, info.file_size

    def _check_directory(self) -> None:
        """Check that `zipfile` reads a small directory, which ends at the end of the file."""
        size = file_size(self.stream)
        at = size - END.size
        magic, *_, count, length, begin, comment = END.unpack(self._at(at, END.size))
        if magic != b"PK\5\6" or comment:
            raise FileError(self.path, "is damaged, or has other content behind the archive in it")
        if count == 0xFFFF or 0xFFFFFFFF in (length, begin):
            known, _, end_64, _ = LOCATOR.unpack(self._at(at - LOCATOR.size, LOCATOR.size))
            if known == b"PK\6\7":
                at = end_64
                _, *_, count, length, begin = END_64.unpack(self._at(at, END_64.size))
        if begin + length != at:
            raise FileError(self.path, "is damaged, or has other content before its directory")
        if count > MOST_MEMBERS or length > MOST_DIRECTORY:
            raise FileError(self.path, f"has {count:,} members in {length:,} bytes")

    def _at(self, start: int, length: int) -> bytes:
        self.stream.seek(max(0, start))
        content = self.stream.read(length)
        if start < 0 or len(content) != length:
            raise FileError(self.path, "is damaged (it ends too early)")
        return content

    def _member(self, name: str, most: int | None) -> zipfile.ZipInfo:
        matching = [info for info in self.members if info.filename == name]
        if len(matching) != 1:
            raise FileError(self.path, f"has {len(matching)} members {name!r}, not one")
        (info,) = matching
        allowed = info.compress_size + info.compress_size // 4 + MOST_GROWTH
        allowed = allowed if most is None else min(allowed, most)
        if info.flag_bits & 1:
            raise FileError(self.path, f"encrypts {name!r}")
        if info.file_size > allowed:
            advice = "; if it is sound, zip it without compression" if most is None else ""
            raise FileError(self.path, f"claims {info.file_size:,} bytes for {name!r}{advice}")
        # Python decompresses bzip2 and LZMA without a limit on the size of the output.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileError(self.path, f"has {name!r} compressed in an unknown way")
        return info

    def _start(self, info: zipfile.ZipInfo) -> int:
        """The offset of a member, after its own header."""
        header = self._at(info.header_offset, 30)
        name, extra = struct.unpack_from("<2H", header, 26)
        return int(info.header_offset + 30 + name + extra)

    def _content(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """The content piece by piece; check its claimed size and checksum."""
        self.stream.seek(self._start(info))
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        inflate = zlib.decompressobj(-15) if deflated else None
        packed, left, checksum = info.compress_size, info.file_size, 0
        waiting = b""
        while left:
            if not waiting:
                waiting = self.stream.read(min(STEP, packed))
                packed -= len(waiting)
            try:
                step = inflate.decompress(waiting, min(STEP, left)) if inflate else waiting[:left]
            except zlib.error as error:
                raise FileError(self.path, f"is damaged ({error})") from error
            ended = not waiting or (inflate is not None and inflate.eof)
            waiting = inflate.unconsumed_tail if inflate else b""
            left -= len(step)
            checksum = zlib.crc32(step, checksum)
            yield step
            if left and ended and not step:
                break
        if left or checksum != info.CRC:
            raise FileError(self.path, f"is damaged ({info.filename!r} is not what it says)")

    def _check_no_hdf5(self, expected: int) -> None:
        """Raise if HDF5 would find an HDF5 file in the archive, other than the weights."""
        at, size = 512, file_size(self.stream)
        while at + len(HDF5) <= size:
            if at != expected and self._at(at, len(HDF5)) == HDF5:
                raise FileError(self.path, "is a zip archive and an HDF5 file at once")
            at *= 2


def ends_as_zip(stream: BinaryIO) -> bool:
    """Whether a file that begins like another format could be read as a zip archive."""
    return zipfile.is_zipfile(stream)
