"""Odd but good images become records, byte for byte; a disk, a folder or a rival that refuses is told."""

import io
import os
import re
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from drawn_source import SMALL, DrawnSource, read_records
from PIL import Image

from cnnrnn_tf.data.images import decode_image
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.sources.nuswide import NusWide81
from tfrecords.sources.table import TableSource


def make_picture(mode="RGB"):
    ramp = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    return Image.fromarray(ramp).convert(mode)


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def make_16_bit():
    levels = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    return encode(Image.fromarray(levels), "PNG")


def make_palette_with_alpha():
    return encode(make_picture("P"), "PNG", transparency=bytes(range(256)))


def make_animation():
    frames = [make_picture("P"), Image.new("P", (64, 48))]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


ODD_IMAGES = {
    "CMYK.jpg": (encode(make_picture("CMYK"), "JPEG"), "jpeg"),
    "16-bit.png": (make_16_bit(), "png"),
    "grey.jpg": (encode(make_picture("L"), "JPEG"), "jpeg"),
    "palette with alpha.png": (make_palette_with_alpha(), "png"),
    "animated.gif": (make_animation(), "gif"),
    "photo.webp": (encode(make_picture(), "WEBP"), "webp"),
    "PNG named.jpg": (encode(make_picture(), "PNG"), "png"),
    "progressive.jpeg": (encode(make_picture(), "JPEG", progressive=True), "jpeg"),
    "bitmap.bmp": (encode(make_picture(), "BMP"), "bmp"),
    "no suffix": (encode(make_picture(), "JPEG"), "jpeg"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A data set of all of them: image id -> record."""
    folder = tmp_path_factory.mktemp("odd")
    for name, (data, _) in ODD_IMAGES.items():
        (folder / name).write_bytes(data)
    rows = "".join(f"{name},{'sky;sea' if i else 'sky'}\n" for i, name in enumerate(ODD_IMAGES))
    (folder / "labels.csv").write_text("image,labels\n" + rows)
    manifest = build(TableSource(folder / "labels.csv"), "odd", folder / "data", progress=False)
    assert manifest.splits["train"].skipped == {}
    return read_records(manifest, folder / "data" / "odd", "train")


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_an_odd_but_good_image_becomes_a_record_byte_for_byte_and_decodes(odd, name):
    data, format = ODD_IMAGES[name]
    record = odd[name]
    assert record["image/encoded"] == data
    assert record["image/format"].decode() == format
    pixels = decode_image(record["image/encoded"], record["image/orientation"])
    assert pixels.shape == (48, 64, 3) == (record["image/height"], record["image/width"], 3)


def test_one_photograph_in_eight_orientations_keeps_its_bytes_and_parses_to_one_tensor(tmp_path):
    turns = {
        1: (),
        2: (Image.Transpose.FLIP_LEFT_RIGHT,),
        3: (Image.Transpose.ROTATE_180,),
        4: (Image.Transpose.FLIP_TOP_BOTTOM,),
        5: (Image.Transpose.TRANSPOSE,),
        6: (Image.Transpose.ROTATE_90,),
        7: (Image.Transpose.TRANSVERSE,),
        8: (Image.Transpose.ROTATE_270,),
    }
    blocks = np.repeat(np.repeat(np.arange(12).reshape(3, 4) * 20, 16, 0), 16, 1).astype(np.uint8)
    upright, files = Image.fromarray(blocks), {}
    for tag, operations in turns.items():
        stored = upright
        for operation in operations:
            stored = stored.transpose(operation)
        exif = Image.Exif()
        exif[0x0112] = tag
        files[f"{tag}.jpg"] = encode(stored, "JPEG", quality=95, exif=exif)
        (tmp_path / f"{tag}.jpg").write_bytes(files[f"{tag}.jpg"])
    rows = "".join(f"{name},{'sky;sea' if i else 'sky'}\n" for i, name in enumerate(files))
    (tmp_path / "labels.csv").write_text("image,labels\n" + rows)
    manifest = build(TableSource(tmp_path / "labels.csv"), "turned", tmp_path / "data", progress=False)
    records = read_records(manifest, tmp_path / "data" / "turned", "train")
    assert {name: record["image/encoded"] for name, record in records.items()} == files
    assert {name: record["image/orientation"] for name, record in records.items()} == {
        f"{tag}.jpg": tag for tag in turns
    }
    for record in records.values():
        pixels = decode_image(record["image/encoded"], record["image/orientation"])
        np.testing.assert_array_equal(pixels[..., 0], blocks)


def test_a_bomb_of_50000_by_50000_px_is_skipped_before_it_is_decoded(tmp_path):
    data = bytearray(encode(make_picture(), "PNG"))
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    jpeg = bytearray(encode(make_picture(), "JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = (50_000).to_bytes(2, "big") * 2
    (tmp_path / "bomb.jpg").write_bytes(jpeg)
    (tmp_path / "good.jpg").write_bytes(encode(make_picture(), "JPEG"))
    (tmp_path / "labels.csv").write_text("image,labels\nbomb.png,sea\nbomb.jpg,sea\ngood.jpg,sky;sea\n")
    manifest = build(TableSource(tmp_path / "labels.csv"), "mine", tmp_path / "data", progress=False)
    assert (manifest.splits["train"].num_images, manifest.splits["train"].skipped) == (1, {"too_large": 2})


def test_a_file_name_that_is_not_utf_8_survives_or_is_listed(tmp_path):
    """In the image list of NUS-WIDE, say; of a table, only its text can be read."""
    root = tmp_path / "NUS-WIDE"
    labels = root / "Groundtruth" / "TrainTestLabels"
    for folder in (root / "ImageList", root / "ConceptsList", labels, root / "Flickr"):
        folder.mkdir(parents=True)
    names = [f"c{i}" for i in range(81)]
    (root / "ConceptsList" / "Concepts81.txt").write_text("\n".join(names))
    there, missing = b"caf\xe9.jpg", b"stra\xdfe.jpg"
    with open(os.fsencode(root / "Flickr") + b"/" + there, "wb") as file:
        file.write(encode(make_picture(), "JPEG"))
    (root / "Flickr" / "test.jpg").write_bytes(encode(make_picture(), "JPEG"))
    for word, lines in (("Train", [there, missing]), ("Test", [b"test.jpg"])):
        (root / "ImageList" / f"{word}Imagelist.txt").write_bytes(b"\n".join(lines) + b"\n")
        for name in names:
            (labels / f"Labels_{name}_{word}.txt").write_text("1\n" * len(lines))
    manifest = build(NusWide81(root), "nuswide81", tmp_path / "data", progress=False)
    assert manifest.splits["train"].num_images == 1
    (folder,) = (tmp_path / "data").iterdir()
    assert missing + b",missing_image," in (folder / "skipped.csv").read_bytes()
    import tensorflow as tf

    [record] = tf.data.TFRecordDataset(manifest.shard_paths(folder, "train")).as_numpy_iterator()
    feature = tf.train.Example.FromString(record).features.feature
    assert feature["image/filename"].bytes_list.value == [there]
    assert feature["image/source_id"].bytes_list.value == [there]


# ---- the disk, the folder, the rival

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from tfrecords.__main__ import main; sys.exit(main(sys.argv[1:]))"


def run_build(folder, *words, **options):
    command = [sys.executable, "-c", BUILD, "build", "demo", "--data-dir", str(folder), *words]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, **options
    )


@pytest.mark.parametrize(
    ("limit", "reason"),
    [(300_000, "File too large"), (50_000, "annotations.sqlite|File too large")],
    ids=["while a shard is written", "while labels are read"],
)
def test_a_disk_that_is_full_is_told_and_the_next_build_is_whole(tmp_path, limit, reason):
    """The operating system's limit on a file's size stands for the end of the disk."""

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with run_build(tmp_path, "--num-train", "300", "--num-test", "60", preexec_fn=limit_files) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = err.strip().splitlines()[-1:]
    assert re.match(f"error: cannot write .*({reason})", line)
    assert "Traceback" not in err
    assert not (tmp_path / "demo").exists()
    with run_build(tmp_path, "--num-train", "300", "--num-test", "60") as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_folder_that_is_read_only_is_told(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot write .*small: .*Read-only file system"):
        build(DrawnSource(SMALL), "small", tmp_path, progress=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_without_permission_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot write .*small: .*Permission denied"):
        build(DrawnSource(SMALL), "small", tmp_path, progress=False)


def test_of_two_builds_into_one_folder_at_once_one_is_refused_and_one_is_whole(tmp_path):
    words = ("--num-train", "2000", "--num-test", "100", "--workers", "1")
    builds = [run_build(tmp_path, *words) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in builds]
    assert sorted(process.returncode for process in builds) == [0, 2]
    [refused] = [error for process, error in zip(builds, errors, strict=True) if process.returncode]
    line = refused.strip().splitlines()[-1]
    assert "another build of this data set is running" in line or "demo exists: pass --overwrite" in line
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
