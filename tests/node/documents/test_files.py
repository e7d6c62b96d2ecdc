"""Files handed in and got back: nothing that waits or never ends is read, and what is written is whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from node.documents.files import FileFailed, check_new, make_file, open_file


@pytest.fixture(params=["nameless", "beside", "refused"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a file is written before it has its name; "refused" is a file system that has no nameless ones."""
    if request.param == "beside":
        monkeypatch.setattr("node.documents.files._NAMELESS", None)
    if request.param == "refused":
        monkeypatch.setattr("node.documents.files._NAMELESS", os.O_RDONLY)  # a directory is not opened for writing
    return str(request.param)


def test_a_file_is_read_through_a_link_too_and_its_size_is_known(tmp_path: Path) -> None:
    (tmp_path / "paper").write_bytes(b"content")
    (tmp_path / "link").symlink_to("paper")
    for name in ("paper", "link"):
        with open_file(tmp_path / name) as file:
            assert (file.size, file.read(100), file.read(100)) == (7, b"content", b"")


def test_a_pipe_a_device_and_a_directory_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(FileFailed, match=f"file_not_regular: {path}"), open_file(path):
            pass


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFailed, match=r"file_missing: .*/absent$"), open_file(tmp_path / "absent"):
        pass
    with (
        pytest.raises(FileFailed, match=r"disk_failed: .*/x{300}: File name too long"),
        open_file(tmp_path / ("x" * 300)),
    ):
        pass


def test_a_file_has_its_name_when_it_is_whole_and_only_its_owner_reads_it(tmp_path: Path, way: str) -> None:
    path = tmp_path / ("ä" * 120)  # as long as a name may be: the one on the way is no longer
    with make_file(path) as file:
        file.write(b"content")
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == (0 if way == "nameless" else 1)  # what a SIGKILL would leave
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("way")
def test_nothing_is_replaced_and_nothing_made_where_no_directory_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "broken link").symlink_to("nowhere")
    for name in ("mine", "broken link"):
        with pytest.raises(FileFailed, match=f"file_exists: .*/{name}: it is not replaced"):
            check_new(tmp_path / name)
    with pytest.raises(FileFailed, match=r"directory_missing: .*/nowhere$"), make_file(tmp_path / "nowhere" / "paper"):
        pass
    path = tmp_path / "paper"
    with pytest.raises(FileFailed, match=r"file_exists: .*/paper"), make_file(path):
        path.write_bytes(b"made meanwhile")
    assert path.read_bytes() == b"made meanwhile"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "disk_full"), (errno.EIO, "disk_failed")])
def test_a_disk_that_fails_is_named_with_the_file_and_leaves_nothing(tmp_path: Path, number: int, reason: str) -> None:
    path = tmp_path / "paper"
    with pytest.raises(FileFailed, match=f"^{reason}: {path}: {os.strerror(number)}$"), make_file(path):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []
