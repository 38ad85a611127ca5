import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from nst_client.files import check_writable, check_writable_folder, write_atomically


def test_a_file_is_written_and_replaced_whole(tmp_path):
    path = tmp_path / "picture.png"
    write_atomically(path, b"first")
    write_atomically(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def fail(self, other):
        raise OSError(28, f"disk full between {self} and {other}")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_keeps_pointing_to_its_file(tmp_path):
    path, link = tmp_path / "picture.png", tmp_path / "link.png"
    path.write_bytes(b"old")
    link.symlink_to(path)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, b"data")
        assert os.read(reader, 10) == b"data"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@pytest.fixture
def mounted(tmp_path):
    """Return a function that runs Python code where a file is mounted alone, as a container mounts one."""
    source = tmp_path / "mounted" / "source.png"
    source.parent.mkdir()
    source.write_bytes(b"old")
    target = tmp_path / "picture.png"
    target.touch()

    def run(code):
        script = f'mount --bind "{source}" "{target}" && exec "{sys.executable}" -c "$1" "{target}"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", f"import sys; path = sys.argv[1]\n{code}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "mount" in done.stderr or "unshare" in done.stderr:
            pytest.skip(f"this process may not mount: {done.stderr}")
        return done, source

    return run


def test_a_file_that_is_mounted_alone_is_overwritten(mounted, tmp_path):
    code = "from nst_client.files import check_writable, write_atomically\n"
    code += "check_writable(path); write_atomically(path, b'new')"
    done, source = mounted(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert source.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mounted", "picture.png"]


def test_a_video_replaces_a_file_that_is_mounted_alone(mounted):
    code = "from pathlib import Path; from nst_client.files import replace_file, temporary_name\n"
    code += "new = temporary_name(Path(path).parent); new.write_bytes(b'a video'); replace_file(new, path)\n"
    code += "assert not new.exists()"
    done, source = mounted(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert source.read_bytes() == b"a video"


@pytest.mark.parametrize("refused", ["touch", "replace"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV])
def test_a_file_that_cannot_be_replaced_is_overwritten(tmp_path, monkeypatch, refused, number):
    path = tmp_path / "picture.png"
    path.write_bytes(b"an old and longer file")

    monkeypatch.setattr(Path, refused, Mock(side_effect=OSError(number, os.strerror(number))))
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("length", [240, 251, 255])
def test_the_longest_name_of_a_file_can_be_written(tmp_path, length):
    path = tmp_path / ("x" * (length - 4) + ".png")
    check_writable(path)
    assert list(tmp_path.iterdir()) == []
    write_atomically(path, b"data")
    assert path.read_bytes() == b"data"


def test_a_name_that_is_too_long_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(OSError, match="File name too long"):
        check_writable(tmp_path / ("x" * 252 + ".png"))


def test_a_file_keeps_its_mode_its_owner_and_its_attributes(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    with contextlib.suppress(OSError):  # Not every file system has them.
        os.setxattr(path, "user.origin", b"camera")
    before, attributes = path.stat(), os.listxattr(path)
    write_atomically(path, b"new")
    after = path.stat()
    assert path.read_bytes() == b"new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.listxattr(path) == attributes
    assert after.st_mtime >= before.st_mtime
    assert after.st_ino != before.st_ino


def test_a_file_whose_owner_cannot_be_kept_is_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    inode = path.stat().st_ino
    monkeypatch.setattr("os.utime", Mock(side_effect=PermissionError(errno.EPERM, "Operation not permitted")))
    write_atomically(path, b"new")
    assert (path.read_bytes(), path.stat().st_ino) == (b"new", inode)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "{folder}/link"])
def test_stdout_is_written_to_where_it_stands(tmp_path, name, append):
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "out").write_bytes(b"before ")
    code = "import sys; from nst_client.files import check_writable, write_atomically\n"
    code += "check_writable(sys.argv[1]); write_atomically(sys.argv[1], b'data')"
    with (tmp_path / "out").open("ab" if append else "wb") as out:
        subprocess.run([sys.executable, "-c", code, name.format(folder=tmp_path)], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == (b"before data" if append else b"data")


def test_a_socket_is_written_to_through_its_descriptor():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        path = f"/dev/fd/{ours.fileno()}"
        check_writable(path)
        write_atomically(path, b"data")
        assert theirs.recv(10) == b"data"


def test_a_pipe_that_does_not_wait_gets_everything():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = os.urandom(300_000)
    received = bytearray()

    def read():
        while len(received) < len(data):
            received.extend(os.read(reader, 65536))

    thread = threading.Thread(target=read)
    thread.start()
    write_atomically(f"/dev/fd/{writer}", data)
    thread.join()
    os.close(reader)
    os.close(writer)
    assert received == data


@pytest.mark.parametrize("path", ["/dev/full", "/dev/stdin", "/dev/fd/999"])
def test_what_cannot_be_written_is_found_before_anything_is_written(path):
    code = "import sys; from nst_client.files import check_writable; check_writable(sys.argv[1])"
    command = [sys.executable, "-c", code, path]
    with Path(__file__).open() as read_only:
        done = subprocess.run(command, stdin=read_only, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OSError" in done.stderr


def test_a_check_changes_nothing(tmp_path):
    path, pipe = tmp_path / "picture.png", tmp_path / "pipe"
    path.write_bytes(b"old")
    os.mkfifo(pipe)
    before = path.stat()
    check_writable(path)
    check_writable(pipe)
    check_writable_folder(tmp_path)
    check_writable_folder(tmp_path / "new")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (b"old", before.st_mtime_ns)
    assert sorted(tmp_path.iterdir()) == [path, pipe]


def test_a_file_beside_which_nothing_can_be_made_is_checked_by_itself(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "touch", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    check_writable(path)
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "other.png")
