"""Images in a .zip or .tar: read one by one, to the same records as from a folder."""

import os
import shutil
import tarfile
import zipfile

import pytest
from drawn_source import read_bytes
from PIL import Image

import tfrecords.sources.archives as archives
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.sources.table import TableSource

NAMES = ["a.jpg", "b/c.jpg", "b/d.jpg", "é.jpg"]


@pytest.fixture
def folder(tmp_path):
    """A folder of photographs and the table that lists them."""
    folder = tmp_path / "photos"
    for i, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + i, 6), (60 * i, 0, 0)).save(folder / name)
    rows = "".join(f"{name},{'sky;sea' if i % 2 else 'sky'}\n" for i, name in enumerate(NAMES))
    (tmp_path / "labels.csv").write_text("image,labels\n" + rows)
    return folder


def pack(folder, suffix):
    return shutil.make_archive(str(folder), {".zip": "zip", ".tar": "tar"}[suffix], folder)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_an_archive_gives_the_records_of_the_folder_that_was_packed(tmp_path, folder, suffix):
    table = tmp_path / "labels.csv"
    build(TableSource(table, folder), "mine", tmp_path / "x", progress=False)
    build(TableSource(table, pack(folder, suffix)), "mine", tmp_path / "y", progress=False)
    assert read_bytes(tmp_path / "x" / "mine") == read_bytes(tmp_path / "y" / "mine")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_workers_read_an_archive_too(tmp_path, suffix):
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = ["image,labels"]
    for i in range(600):
        (folder / f"{i}.gif").write_bytes(b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0%c\xff\xff," % (i % 256))
        Image.new("L", (1, 1), i % 256).save(folder / f"{i}.gif")
        rows.append(f"{i}.gif,{'sky' if i % 3 else 'sea'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for workers, images in (("1", folder), ("2", pack(folder, suffix))):
        source = TableSource(tmp_path / "labels.csv", images)
        build(source, "mine", tmp_path / workers, workers=int(workers), progress=False)
    assert read_bytes(tmp_path / "1" / "mine") == read_bytes(tmp_path / "2" / "mine")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_the_table_may_start_from_a_folder_in_the_archive(tmp_path, folder, suffix):
    path = pack(folder, suffix)
    (tmp_path / "labels.csv").write_text("image,labels\nc.jpg,sky\nd.jpg,sea\n../a.jpg,sea\n")
    manifest = build(TableSource(tmp_path / "labels.csv", f"{path}/b"), "mine", tmp_path, progress=False)
    assert manifest.splits["train"].num_images == 2
    assert manifest.splits["train"].skipped == {"path_outside_images": 1}


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_members_are_found_however_the_packer_wrote_them(tmp_path, folder, suffix):
    path = str(tmp_path / f"odd{suffix}")
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / "a.jpg", "./a.jpg")
            archive.write(folder / "b" / "c.jpg", "b//c.jpg")
    else:
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            archive.add(folder / "a.jpg", "./a.jpg")
            archive.add(folder / "b" / "c.jpg", "b//c.jpg")
    found = archives.open_archive(path)
    assert found.read("a.jpg") == (folder / "a.jpg").read_bytes()
    assert found.read("b/c.jpg") == (folder / "b" / "c.jpg").read_bytes()


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_what_an_archive_lacks_or_cannot_give_is_skipped(tmp_path, folder, suffix, monkeypatch):
    (folder / "large.jpg").write_bytes(bytes(5000))
    path = pack(folder, suffix)
    (tmp_path / "labels.csv").write_text(
        "image,labels\na.jpg,sky\nb/c.jpg,sea\nnone.jpg,sea\nb,sea\nlarge.jpg,sky\n"
    )
    monkeypatch.setattr(archives, "_MAX_BYTES", 4999)
    manifest = build(TableSource(tmp_path / "labels.csv", path), "mine", tmp_path, progress=False)
    assert manifest.splits["train"].num_images == 2
    assert manifest.splits["train"].skipped == {"missing_image": 1, "unreadable_image": 2}
    skipped = (tmp_path / "mine" / "skipped.csv").read_text()
    assert f"none.jpg,missing_image,{path}/none.jpg" in skipped
    assert f"{path}/large.jpg: File too large" in skipped


def test_a_member_of_a_zip_that_is_damaged_or_locked_is_skipped(tmp_path, folder):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.jpg", "b/c.jpg", "b/d.jpg"):
            archive.write(folder / name, name)
    data = bytearray(path.read_bytes())
    data[data.index((folder / "b" / "c.jpg").read_bytes()) + 30] ^= 1  # its checksum is wrong now
    with zipfile.ZipFile(path) as archive:
        [start] = [info.header_offset for info in archive.infolist() if info.filename == "b/d.jpg"]
    data[start + 6] |= 1  # says that it is encrypted
    entry = data.rindex(b"b/d.jpg") - 46  # in the directory at the end
    data[entry + 8] |= 1
    path.write_bytes(data)
    (tmp_path / "labels.csv").write_text("image,labels\na.jpg,sky;sea\nb/c.jpg,sea\nb/d.jpg,sea\n")
    manifest = build(TableSource(tmp_path / "labels.csv", path), "mine", tmp_path, progress=False)
    assert (manifest.splits["train"].num_images, manifest.splits["train"].skipped) == (
        1,
        {"unreadable_image": 2},
    )
    skipped = (tmp_path / "mine" / "skipped.csv").read_text()
    assert "b/c.jpg: damaged in the archive (Bad CRC-32" in skipped
    assert "b/d.jpg: cannot be unpacked (" in skipped and "encrypted" in skipped


def test_a_link_in_a_tar_is_no_image(tmp_path, folder):
    (folder / "link.jpg").symlink_to("/etc/passwd")
    found = archives.open_archive(pack(folder, ".tar"))
    with pytest.raises(OSError, match="no plain file in the archive"):
        found.read("link.jpg")


def test_a_second_name_of_a_file_in_a_tar_is_that_file(tmp_path, folder):
    os.link(folder / "a.jpg", folder / "z.jpg")
    assert archives.open_archive(pack(folder, ".tar")).read("z.jpg") == (folder / "a.jpg").read_bytes()


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_an_archive_that_was_packed_anew_is_opened_anew(tmp_path, folder, suffix):
    path = pack(folder, suffix)
    before = archives.open_archive(path)
    assert archives.open_archive(path) is before
    Image.new("RGB", (40, 40)).save(folder / "a.jpg")
    pack(folder, suffix)
    assert archives.open_archive(path).read("a.jpg") == (folder / "a.jpg").read_bytes()


def test_a_tar_that_was_cut_off_after_it_was_opened_is_told(tmp_path, folder):
    path = pack(folder, ".tar")
    found = archives.TarArchive(path)
    with open(path, "r+b") as file:
        file.truncate(600)
    with pytest.raises(OSError, match="cut off in the archive"):
        found.read("é.jpg")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tar.gz", b"", r"x\.tar\.gz: a compressed tar cannot be read image by image: unpack it, or pack"),
        ("x.zip", b"no archive" * 100, r"x\.zip: neither a folder of images, nor a \.zip or \.tar of them"),
        ("x.tar", b"", r"x\.tar: neither a folder of images, nor a \.zip or \.tar of them \(empty file\)"),
        ("labels.csv", b"image,labels\n", r"labels\.csv: neither a folder of images, nor"),
    ],
)
def test_what_is_no_archive_of_images_is_refused(tmp_path, name, content, message):
    (tmp_path / "labels.csv").write_text("image,labels\na.jpg,sky\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        TableSource(tmp_path / "labels.csv", tmp_path / name)
