"""Downloads from a server on this machine that does what servers do: drop, refuse, send something else."""

import fcntl
import hashlib
import http.server
import io
import os
import re
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import test_coco_source
import test_voc_source

from tfrecords.__main__ import main
from tfrecords.download import PAUSES_S, Archive, download, fetch, is_unpacked, unpack
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.sources import coco, voc

devkit = test_voc_source.devkit
coco_root = test_coco_source.root

CONTENT = bytes(range(256)) * 40  # 10,240 bytes


class Owners:
    """A server in the place of the owners'; tests set how it behaves and read what was asked of it."""

    def __init__(self):
        self.files = {}  # name -> bytes
        self.honours_ranges = True
        self.tells_length = True
        self.statuses = []  # of the next answers, before the files are served
        self.drops_after = []  # of the next answers, the number of bytes after which the connection ends
        self.resets = False  # drop by RST in the place of an orderly end
        self.hangs_after = None  # a number of bytes after which no more come
        self.asked = []  # (path, first byte) of every request
        self.num_bytes = 0  # of all bodies
        self.released = threading.Event()
        owners = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                owners.answer(self)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        self.asked.append((request.path, start))
        content = self.files.get(request.path.rpartition("/")[2])
        if self.statuses or content is None:
            request.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        if match and self.honours_ranges:
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            start = 0
            request.send_response(200)
        body = content[start:]
        if self.tells_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        self.send(request, body)

    def send(self, request, body):
        dropped = self.drops_after.pop(0) if self.drops_after else None
        sent = body[: self.hangs_after if dropped is None else dropped]
        self.num_bytes += len(sent)
        request.wfile.write(sent)
        if self.hangs_after is not None:
            self.released.wait(1)
        if dropped is not None and self.resets:
            linger = (1).to_bytes(4, sys.byteorder) + bytes(4)
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.connection.close()


@pytest.fixture
def owners(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Owners()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses that were made, in the place of making them."""
    made = []
    monkeypatch.setattr("tfrecords.download.sleep", made.append)
    return made


def serve(owners, name, content=CONTENT, **fields):
    """Puts a file on the server; returns the archive that it is."""
    owners.files[name] = content
    digest = hashlib.sha256(content).hexdigest()
    return Archive(**{"url": f"{owners.url}/of/{name}", "size": len(content), "sha256": digest, **fields})


def list_files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def pack_tar(members):
    """name -> bytes, or a TarInfo's type and its link's target."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                item.size = len(content)
                archive.addfile(item, io.BytesIO(content))
            else:
                item.type, item.linkname = content
                archive.addfile(item)
    return file.getvalue()


def pack_zip(members):
    """name -> bytes, or a file's mode and its content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            item = zipfile.ZipInfo(name)
            if not isinstance(content, bytes):
                mode, content = content
                item.external_attr = mode << 16
            archive.writestr(item, content)
    return file.getvalue()


def pack_folder(folder, pack, prefix=""):
    return pack({prefix + name: (folder / name).read_bytes() for name in sorted(list_files(folder))})


# ---- the archives that are known


@pytest.mark.parametrize(
    ("archives", "sizes"),
    [
        (voc.ARCHIVES, {"VOCtrainval_06-Nov-2007.tar": 460032000, "VOCtest_06-Nov-2007.tar": 451020800}),
        (coco.ANNOTATION_ARCHIVES, {"annotations_trainval2014.zip": 252872794}),
        (coco.IMAGE_ARCHIVES, {"train2014.zip": 13510573713, "val2014.zip": 6645013297}),
    ],
)
def test_each_known_archive_has_its_name_size_and_sha256(archives, sizes):
    assert {archive.name: archive.size for archive in archives} == sizes
    for archive in archives:
        assert archive.url.startswith("http://") and re.fullmatch("[0-9a-f]{64}", archive.sha256)
    assert len({archive.sha256 for archive in archives}) == len(archives)


# ---- what is fetched


def test_a_file_is_fetched_and_takes_its_name_at_the_end(owners, tmp_path, capsys):
    path = fetch(serve(owners, "a.tar"), tmp_path)
    assert path == tmp_path / "a.tar" and path.read_bytes() == CONTENT
    assert list_files(tmp_path) == {"a.tar"}
    assert owners.asked == [("/of/a.tar", 0)]
    err = capsys.readouterr().err
    assert re.search(r"a\.tar: 100%.*10\.2k/10\.2k.*B/s", err), err


def test_without_progress_nothing_is_said(owners, tmp_path, capsys):
    owners.drops_after = [100]
    download([serve(owners, "a.tar", pack_tar({"x": b"1"}))], tmp_path, progress=False)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_part_that_is_there_is_gone_on_with_and_the_rest_alone_is_asked_for(owners, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:7000])
    assert fetch(serve(owners, "a.tar"), tmp_path).read_bytes() == CONTENT
    assert owners.asked == [("/of/a.tar", 7000)] and owners.num_bytes == 3240


def test_a_part_that_is_all_there_is_checked_and_nothing_is_asked_for(owners, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(CONTENT)
    assert fetch(serve(owners, "a.tar"), tmp_path).read_bytes() == CONTENT
    assert owners.asked == []


def test_a_part_that_is_too_long_is_no_part_of_the_file(owners, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(CONTENT + b"x")
    assert fetch(serve(owners, "a.tar"), tmp_path).read_bytes() == CONTENT
    assert owners.asked == [("/of/a.tar", 0)]


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(owners, tmp_path):
    owners.honours_ranges = False
    (tmp_path / "a.tar.part").write_bytes(b"?" * 7000)
    assert fetch(serve(owners, "a.tar"), tmp_path).read_bytes() == CONTENT
    assert owners.asked == [("/of/a.tar", 7000)] and owners.num_bytes == 10240


def test_a_server_that_refuses_the_range_is_asked_for_all_of_it(owners, tmp_path):
    owners.statuses = [416]
    (tmp_path / "a.tar.part").write_bytes(b"?" * 7000)
    assert fetch(serve(owners, "a.tar"), tmp_path).read_bytes() == CONTENT
    assert [start for _, start in owners.asked] == [7000, 0]


@pytest.mark.parametrize("tells_length", [True, False])
@pytest.mark.parametrize("resets", [False, True])
def test_a_dropped_connection_is_taken_up_again_where_it_was(
    owners, tmp_path, pauses, capsys, tells_length, resets
):
    owners.drops_after, owners.resets, owners.tells_length = [4000, 1000], resets, tells_length
    assert fetch(serve(owners, "a.tar"), tmp_path).read_bytes() == CONTENT
    if not resets:  # what a reset overtakes never arrives, and is asked for again
        assert owners.asked == [("/of/a.tar", start) for start in (0, 4000, 5000)]
        assert owners.num_bytes == 10240
        assert (
            capsys.readouterr().err.count("a.tar: the connection ended too early; trying again in 2 s") == 2
        )
    assert len(pauses) == 2


def test_as_many_drops_as_there_are_cost_nothing_while_bytes_arrive(owners, tmp_path, pauses):
    owners.drops_after = [1000] * 10
    assert fetch(serve(owners, "a.tar"), tmp_path).read_bytes() == CONTENT
    assert pauses == [PAUSES_S[0]] * 10


def test_a_connection_that_brings_nothing_is_given_up_and_the_next_run_goes_on(owners, tmp_path, pauses):
    owners.drops_after = [4000] + [0] * 4
    archive = serve(owners, "a.tar")
    with pytest.raises(
        UserError,
        match=r"/of/a\.tar: the connection ended too early; 4,000 of 10,240 bytes are there: run the same "
        rf"command again to go on, or fetch the file by hand and put it into {re.escape(str(tmp_path))}$",
    ):
        fetch(archive, tmp_path)
    assert pauses == [2, 2, 10, 30]
    assert list_files(tmp_path) == {"a.tar.part"}
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert owners.asked[-1] == ("/of/a.tar", 4000)


def test_a_server_that_knows_no_ranges_and_drops_at_the_same_place_is_given_up(owners, tmp_path, pauses):
    owners.honours_ranges, owners.drops_after = False, [4000] * 9
    with pytest.raises(UserError, match="4,000 of 10,240 bytes are there"):
        fetch(serve(owners, "a.tar"), tmp_path)
    assert pauses == [2, 2, 10, 30]


def test_a_silent_server_is_left_after_a_while(owners, tmp_path):
    owners.hangs_after = 0
    with pytest.raises(
        UserError, match=r"the connection was lost \(timed out\); 0 of 10,240 bytes are there"
    ):
        fetch(serve(owners, "a.tar"), tmp_path, timeout_s=0.05)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_fault_that_may_pass_is_tried_again(owners, tmp_path, pauses, status):
    owners.statuses = [status, status]
    assert fetch(serve(owners, "a.tar"), tmp_path).read_bytes() == CONTENT
    assert pauses == [2, 10]


@pytest.mark.parametrize(
    ("status", "found"),
    [(404, "HTTP 404 Not Found"), (403, "HTTP 403 Forbidden"), (416, "HTTP 416 Requested")],
)
def test_a_file_that_is_not_to_be_had_is_told_at_once(owners, tmp_path, pauses, status, found):
    owners.statuses = [status]
    archive = serve(owners, "a.tar")
    with pytest.raises(UserError, match=rf"/of/a\.tar: {found}.*: get a\.tar from elsewhere, put it into"):
        fetch(archive, tmp_path)
    assert pauses == [] and list_files(tmp_path) == set()


def test_no_server_is_told_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.tar"
        with pytest.raises(UserError, match=rf"^{url}: no connection \(Connection refused\); 0 of 9 bytes"):
            fetch(Archive(url, 9, "0" * 64), tmp_path)


def test_no_network_is_told_with_what_to_do(tmp_path, monkeypatch):
    def look_up(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("socket.getaddrinfo", look_up)
    with pytest.raises(
        UserError, match=r"no connection \(Name or service not known\); 0 of 9 bytes"
    ) as error:
        fetch(Archive("http://owners.example/a.tar", 9, "0" * 64), tmp_path)
    assert "\n" not in str(error.value)


def test_a_proxy_of_the_environment_is_used(owners, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", owners.url)
    monkeypatch.setattr("urllib.request._opener", None)  # it reads the environment once in a process
    archive = serve(owners, "a.tar", url="http://owners.example/a.tar")
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert owners.asked == [("http://owners.example/a.tar", 0)]


# ---- what is refused


def test_other_bytes_are_told_and_removed_and_the_next_run_starts_anew(owners, tmp_path):
    archive = serve(owners, "a.tar")
    other = owners.files["a.tar"] = CONTENT[::-1]
    found = hashlib.sha256(other).hexdigest()
    with pytest.raises(
        UserError,
        match=rf"expected the SHA-256 {archive.sha256}, found {found}; what arrived was removed: run",
    ):
        fetch(archive, tmp_path)
    assert list_files(tmp_path) == set()
    owners.files["a.tar"] = CONTENT
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert owners.asked == [("/of/a.tar", 0)] * 2


@pytest.mark.parametrize("there", [0, 10])
@pytest.mark.parametrize("size", [9, 10239, 10241, 99999])
def test_a_file_of_another_size_is_told_before_it_is_fetched(owners, tmp_path, there, size):
    archive = serve(owners, "a.tar", CONTENT[:1] * size, size=10240)
    if there:
        (tmp_path / "a.tar.part").write_bytes(CONTENT[:there])
    with pytest.raises(
        UserError, match=rf"the server has a file of {size:,} bytes, expected 10,240: get a\.tar"
    ):
        fetch(archive, tmp_path)
    assert not (tmp_path / "a.tar").exists()


def test_a_server_that_sends_another_part_than_was_asked_for_is_given_up(owners, tmp_path, monkeypatch):
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:7000])
    archive = serve(owners, "a.tar")
    monkeypatch.setattr(
        http.server.BaseHTTPRequestHandler,
        "send_header",
        lambda self, key, value, send=http.server.BaseHTTPRequestHandler.send_header: send(
            self, key, value.replace("7000", "6999")
        ),
    )
    with pytest.raises(
        UserError, match="bytes from 6,999 on arrived where those from 7,000 on were asked for"
    ):
        fetch(archive, tmp_path)
    assert (tmp_path / "a.tar.part").read_bytes() == CONTENT[:7000]


def test_an_archive_that_was_put_there_by_hand_is_checked_and_used(owners, tmp_path):
    content = pack_tar({"x": b"1"})
    archive = serve(owners, "a.tar", content)
    (tmp_path / "a.tar").write_bytes(content)
    download([archive], tmp_path)
    assert (tmp_path / "x").read_bytes() == b"1" and owners.asked == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (CONTENT[:9], "expected 10,240 bytes, found 9"),
        (CONTENT[::-1], "expected the SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}"),
    ],
)
def test_an_archive_put_there_by_hand_that_is_another_is_told_and_left_to_its_owner(
    owners, tmp_path, content, fault
):
    archive = serve(owners, "a.tar")
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(
        UserError, match=rf"a\.tar: {fault}: remove it, and the next run fetches it from http"
    ):
        fetch(archive, tmp_path)
    assert (tmp_path / "a.tar").read_bytes() == content and owners.asked == []


# ---- room


@pytest.mark.parametrize(
    ("there", "needed"),
    [
        # GB there after each step: the first is fetched 1, unpacked 2, its archive removed 1; so 4, 7, 4.
        ({}, 7),
        ({"a.tar": 1}, 6),
        ({"a.tar": 1, "b.zip.part": 2}, 4),
        ({"b.zip": 3}, 4),
        ({".a.tar.unpacked": None}, 6),
    ],
)
@pytest.mark.parametrize("lacking", [0, 1])
def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    tmp_path, monkeypatch, there, needed, lacking
):
    archives = [
        Archive(f"http://127.0.0.1:1/{name}", size * 10**9, "0" * 64)
        for name, size in (("a.tar", 1), ("b.zip", 3))
    ]
    for name, size in there.items():
        with open(tmp_path / name, "w") as file:
            file.write("0" * 64) if size is None else file.truncate(size * 10**9)  # no block is written
    free = needed * 10**9 - lacking
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr("tfrecords.download.fetch", refuse_to_fetch)
    if lacking:
        message = (
            rf"the disk has {free / 1e9:.2f} GB free, expected {needed:.2f} GB for the archives and what"
        )
        with pytest.raises(UserError, match=message):
            download(archives, tmp_path)
        assert list_files(tmp_path) == set(there)
    else:
        with pytest.raises(RuntimeError, match="there is room"):
            download(archives, tmp_path)


def refuse_to_fetch(*args, **kwargs):
    raise RuntimeError("there is room")


def test_files_that_need_more_room_than_their_archive_are_told_before_they_are_unpacked(
    tmp_path, monkeypatch
):
    (tmp_path / "a.zip").write_bytes(pack_zip({"x": bytes(10**6)}))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10**6 - 1))
    with pytest.raises(UserError, match=r"expected 0\.00 GB for what is in a\.zip: make room"):
        unpack(tmp_path / "a.zip", tmp_path)
    assert list_files(tmp_path) == {"a.zip"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full is a thing of Linux")
def test_a_disk_that_is_full_is_told_in_one_line(owners, tmp_path):
    (tmp_path / "a.tar.part").symlink_to("/dev/full")
    with pytest.raises(
        UserError, match=r"cannot write .*: .*No space left on device.*: mend it and run the same command"
    ):
        download([serve(owners, "a.tar")], tmp_path)


# ---- what is unpacked

PACKERS = {"a.tar": pack_tar, "a.zip": pack_zip}


@pytest.fixture(params=PACKERS)
def pack(request, tmp_path):
    """Writes an archive of one of the two kinds; returns its path."""

    def write(members):
        path = tmp_path / request.param
        path.write_bytes(PACKERS[request.param](members))
        return path

    return write


def test_files_are_unpacked_below_the_top_over_what_lies_there(pack, tmp_path):
    folder = tmp_path / "any name"
    (folder / "V" / "old").mkdir(parents=True)
    (folder / "V" / "old" / "kept").write_bytes(b"kept")
    (folder / "V" / "old" / "x").write_bytes(b"older")
    path = pack({"Top/V/old/x": b"1", "./Top/V/new/x": b"2", "Top/y": b"3"})
    unpack(path, folder, top="Top")
    found = {name: (folder / name).read_bytes() for name in list_files(folder)}
    assert found == {"V/old/kept": b"kept", "V/old/x": b"1", "V/new/x": b"2", "y": b"3"}
    assert path.exists()


def test_without_a_top_all_is_unpacked_and_folders_that_the_user_linked_are_followed(pack, tmp_path):
    folder = tmp_path / "folder"
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    unpack(pack({"images/x": b"1", "y": b"2"}), folder)
    assert {path.name for path in folder.iterdir()} == {"images", "y"} and (folder / "images").is_symlink()
    assert (tmp_path / "elsewhere" / "x").read_bytes() == b"1"


@pytest.mark.parametrize(
    "name", ["../x", "/elsewhere/x", "Top/../../x", "Top/V/../../x", "other/x", "x", "Top", "Top/V/.."]
)
def test_a_member_that_climbs_out_is_refused_and_nothing_is_unpacked(pack, tmp_path, name):
    folder = tmp_path / "folder"
    with pytest.raises(
        UserError, match=rf"its member '{re.escape(name)}' is not inside Top: nothing was unp"
    ):
        unpack(pack({"Top/good": b"1", name: b"2"}), folder, top="Top")
    assert list_files(folder) == set()


@pytest.mark.parametrize("name", ["../x", "/elsewhere/x", "V/../../x"])
def test_without_a_top_too_a_member_that_climbs_out_is_refused(pack, tmp_path, name):
    with pytest.raises(
        UserError, match=rf"'{re.escape(name)}' is not inside the folder that it is unpacked to"
    ):
        unpack(pack({"good": b"1", name: b"2"}), tmp_path / "folder")
    assert list_files(tmp_path / "folder") == set()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.tar", pack_tar({"good": b"1", "bad": (tarfile.SYMTYPE, "/etc")})),
        ("a.tar", pack_tar({"good": b"1", "bad": (tarfile.LNKTYPE, "good")})),
        ("a.tar", pack_tar({"good": b"1", "bad": (tarfile.FIFOTYPE, "")})),
        ("a.tar", pack_tar({"good": b"1", "bad": (tarfile.CHRTYPE, "")})),
        ("a.zip", pack_zip({"good": b"1", "bad": (stat.S_IFLNK | 0o777, b"/etc")})),
    ],
    ids=["symbolic link", "hard link", "pipe", "device", "symbolic link in a zip"],
)
def test_a_link_or_device_is_refused_and_nothing_is_unpacked(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match="its member 'bad' is a link or device: nothing was unpacked"):
        unpack(tmp_path / file, tmp_path / "folder")
    assert list_files(tmp_path / "folder") == set()


def test_a_damaged_archive_is_told_and_nothing_of_it_is_seen(pack, tmp_path):
    path = pack({"x": os.urandom(5000), "y": os.urandom(5000)})
    content = path.read_bytes()
    # A tar has no checksum of its files, but an end; a zip has both.
    path.write_bytes(content[:7000] + (bytes(9) + content[7009:] if path.suffix == ".zip" else b""))
    with pytest.raises(
        UserError, match=rf"{path.name}: cannot be unpacked \(.+\): remove it and fetch it again"
    ):
        unpack(path, tmp_path / "folder")
    assert list_files(tmp_path / "folder") == set()


KILLED = """
import os, shutil, sys
from tfrecords.download import Archive, download
copy, names = shutil.copyfileobj, []
def copy_two(*args):
    copy(*args)
    names.append(1)
    if len(names) == 2:
        os._exit(9)
shutil.copyfileobj = copy_two
download([Archive(*sys.argv[1:2], int(sys.argv[2]), sys.argv[3])], sys.argv[4], progress=False)
"""


def test_a_run_that_was_killed_while_it_unpacked_unpacks_again(owners, tmp_path):
    content = pack_tar({"x": b"1", "V/y": b"2", "V/z": b"3"})
    archive = serve(owners, "a.tar", content)
    (tmp_path / "a.tar").write_bytes(content)
    words = [archive.url, str(archive.size), archive.sha256, str(tmp_path)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words])
    assert killed.returncode == 9
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar", ".a.tar.unpacked", ".a.tar.unpacking"}
    assert not is_unpacked(archive, tmp_path)
    download([archive], tmp_path)
    assert list_files(tmp_path) == {"x", "V/y", "V/z", ".a.tar.unpacked"}
    assert not (tmp_path / ".a.tar.unpacking").exists()
    assert is_unpacked(archive, tmp_path) and owners.asked == []


def test_another_edition_of_an_archive_is_fetched_again(owners, tmp_path):
    for content in (b"1", b"2"):
        archive = serve(owners, "a.tar", pack_tar({"x": content}))
        download([archive], tmp_path)
        assert (tmp_path / "x").read_bytes() == content and is_unpacked(archive, tmp_path)


def test_a_second_run_at_the_same_time_is_refused(owners, tmp_path):
    archive = serve(owners, "a.tar", pack_tar({"x": b"1"}))
    with open(tmp_path / ".a.tar.unpacked", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"another run is downloading a\.tar there; wait for its end"):
            download([archive], tmp_path)
    assert owners.asked == []
    download([archive], tmp_path)
    assert is_unpacked(archive, tmp_path)


def test_ctrl_c_says_how_to_go_on(owners, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfrecords.download.sleep", interrupt)
    owners.drops_after = [4000]
    with pytest.raises(KeyboardInterrupt, match="run the same command again to go on"):
        download([serve(owners, "a.tar")], tmp_path)
    assert (tmp_path / "a.tar.part").read_bytes() == CONTENT[:4000]


# ---- the command line


@pytest.fixture
def voc_owners(owners, devkit, monkeypatch):
    """The devkit's files in two archives, as their owners have them: each image and class file in its own."""
    members = {"trainval": {}, "test": {}}
    for name in sorted(list_files(devkit)):
        word = "test" if Path(name).stem.split("_")[-1] in ("000001", "000002", "test") else "trainval"
        members[word][f"VOCdevkit/{name}"] = (devkit / name).read_bytes()
    archives = tuple(
        serve(owners, f"VOC{word}_06-Nov-2007.tar", pack_tar(files), top="VOCdevkit")
        for word, files in members.items()
    )
    monkeypatch.setattr("tfrecords.sources.voc.ARCHIVES", archives)
    return owners


@pytest.mark.parametrize("inner", ["", "VOC2007"])
def test_voc_is_fetched_unpacked_and_built_and_a_second_run_fetches_nothing(
    voc_owners, devkit, tmp_path, capsys, inner
):
    folder = tmp_path / "mine"
    command = ["build", "voc2007", "--from", str(folder / inner), "--data-dir", str(tmp_path / "data")]
    assert main([*command, "--download"]) == 0
    err = capsys.readouterr().err
    assert f"fetching {voc_owners.url}/of/VOCtest_06-Nov-2007.tar (0.00 GB) to {folder}\n" in err
    assert {name: (folder / name).read_bytes() for name in list_files(devkit)} == {
        name: (devkit / name).read_bytes() for name in list_files(devkit)
    }
    markers = {".VOCtrainval_06-Nov-2007.tar.unpacked", ".VOCtest_06-Nov-2007.tar.unpacked"}
    assert list_files(folder) == list_files(devkit) | markers
    manifest = Manifest.load(tmp_path / "data" / "voc2007")
    assert {name: split.num_images for name, split in manifest.splits.items()} == {"train": 3, "test": 2}
    assert len(voc_owners.asked) == 2
    assert main([*command, "--download", "--overwrite"]) == 0
    assert len(voc_owners.asked) == 2
    assert "VOCtest_06-Nov-2007.tar is unpacked in" in capsys.readouterr().err


@pytest.mark.parametrize("apart", [False, True])
def test_coco_is_fetched_and_its_images_go_to_their_own_folder(
    owners, coco_root, tmp_path, monkeypatch, apart
):
    annotations = serve(
        owners,
        "annotations_trainval2014.zip",
        pack_folder(coco_root / "annotations", pack_zip, "annotations/"),
    )
    images = tuple(
        serve(owners, f"{word}.zip", pack_folder(coco_root / word, pack_zip, f"{word}/"))
        for word in ("train2014", "val2014")
    )
    monkeypatch.setattr("tfrecords.sources.coco.ANNOTATION_ARCHIVES", (annotations,))
    monkeypatch.setattr("tfrecords.sources.coco.IMAGE_ARCHIVES", images)
    folder = tmp_path / "mine"
    images_folder = tmp_path / "photos" if apart else folder
    command = ["build", "coco2014", "--from", str(folder), "--data-dir", str(tmp_path / "data"), "--download"]
    command += ["--images", str(images_folder)] if apart else []
    assert main(command) == 0
    assert (folder / "annotations" / "instances_val2014.json").is_file()
    assert len(list((images_folder / "train2014").glob("*.jpg"))) == 3
    assert (folder / "train2014").exists() != apart
    assert Manifest.load(tmp_path / "data" / "coco2014").splits["train"].num_images == 3


def test_what_cannot_be_had_is_one_line_and_status_2(voc_owners, tmp_path, capsys):
    voc_owners.files.clear()
    command = ["build", "voc2007", "--from", str(tmp_path / "mine"), "--data-dir", str(tmp_path / "data")]
    assert main([*command, "--download"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    name = "VOCtrainval_06-Nov-2007.tar"
    assert line == (
        f"error: {voc_owners.url}/of/{name}: HTTP 404 Not Found: get {name} from elsewhere, put it into "
        f"{tmp_path / 'mine'} and run the same command again"
    )
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("source", ["voc2007", "coco2014"])
def test_without_the_flag_nothing_is_fetched_and_the_error_names_it(voc_owners, tmp_path, capsys, source):
    assert main(["build", source, "--from", str(tmp_path / "mine")]) == 2
    assert "--download" in capsys.readouterr().err
    assert voc_owners.asked == [] and not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--quality", "500"], "--quality 500: expected 1 to 100"),
        (["--staging", "x"], "--staging is for a build by Apache Beam"),
        (["--name", "two words"], "cannot name a data set"),
    ],
)
def test_a_mistake_in_other_flags_is_told_before_anything_is_fetched(
    tmp_path, monkeypatch, capsys, flags, message
):
    def refuse(*args, **options):
        raise AssertionError("nothing is fetched")

    monkeypatch.setattr(voc.Voc2007, "download", refuse)
    assert main(["build", "voc2007", "--from", str(tmp_path), "--download", *flags]) == 2
    assert message in capsys.readouterr().err
