"""A disk that loses power at a step of the test's choice, and then remembers only what was synced.

What was not synced is torn, undone or kept, as a seed decides: a file system promises nothing about it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from node.documents.disk import Disk


class PowerCut(Exception):
    """The machine is off."""


class QuickDisk(Disk):
    """Does not wait for the machine's disk: nobody pulls its plug, or a test says itself what is durable."""

    def sync_file(self, path: Path) -> None:
        assert path.is_file()

    def sync_directory(self, path: Path) -> None:
        assert path.is_dir()


class FailingDisk(QuickDisk):
    """Counts its steps, and fails at one of them by ``fail``."""

    def __init__(self, *, fails_at: int | None) -> None:
        self.steps = 0
        self._fails_at = fails_at

    def fail(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def _step(self) -> None:
        if self.steps == self._fails_at:
            self.steps += 1
            self.fail()
        self.steps += 1

    def make_directory(self, path: Path) -> None:
        self._step()
        super().make_directory(path)

    def write_temporary(self, path: Path, data: bytes) -> Path:
        beside = super().write_temporary(path, data[: len(data) // 2])
        self._step()
        beside.write_bytes(data)
        return beside

    def sync_file(self, path: Path) -> None:
        self._step()
        super().sync_file(path)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)

    def sync_directory(self, path: Path) -> None:
        self._step()
        super().sync_directory(path)


class FragileDisk(FailingDisk):
    """Fails by losing power; ``cut`` does the same at the end of a story."""

    def __init__(self, *, fails_at: int | None, seed: int) -> None:
        super().__init__(fails_at=fails_at)
        self._random = Random(seed)
        self._unsynced_files: dict[Path, bytes] = {}
        self._unsynced_names: list[tuple[Path, Callable[[], None]]] = []  # the directory, and how to undo

    def fail(self) -> None:
        self.cut()
        raise PowerCut

    def cut(self) -> None:
        for path, data in self._unsynced_files.items():
            if path.exists():
                path.write_bytes(data[: self._random.randrange(len(data) + 1)])
        for _, undo in reversed(self._unsynced_names):
            if self._random.random() < 0.7:
                undo()

    def make_directory(self, path: Path) -> None:
        is_new = not path.exists()
        super().make_directory(path)
        if is_new:
            self._unsynced_names.append((path.parent, lambda: shutil.rmtree(path)))

    def write_temporary(self, path: Path, data: bytes) -> Path:
        beside = super().write_temporary(path, data)
        self._unsynced_files[beside] = data
        return beside

    def sync_file(self, path: Path) -> None:
        super().sync_file(path)
        del self._unsynced_files[path]

    def rename(self, source: Path, target: Path) -> None:
        before = target.read_bytes() if target.exists() else None
        super().rename(source, target)
        if source in self._unsynced_files:
            self._unsynced_files[target] = self._unsynced_files.pop(source)
        self._unsynced_names.append((target.parent, lambda: _put_back(target, before)))

    def unlink(self, path: Path) -> None:
        before = path.read_bytes()
        super().unlink(path)
        self._unsynced_names.append((path.parent, lambda: _put_back(path, before)))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self._unsynced_names = [(directory, undo) for directory, undo in self._unsynced_names if directory != path]


class KilledDisk(FragileDisk):
    """Fails as a killed process does: the machine stays on, and what was not synced is still there, for now."""

    def fail(self) -> None:
        raise PowerCut


def _put_back(path: Path, data: bytes | None) -> None:
    if not path.parent.exists():
        return
    if data is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(data)
