import concurrent.futures
import contextlib
import io
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from sqz_keras.images.files import find_images, read_image, read_images
from sqz_keras.images.pillow import MAX_PIXELS, pixels_of
from tests.images.png_files import COLOUR, GREY, chunk, write_png
from tests.images.tiff_files import planar_tiff, write_tiff


def encode(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


@pytest.fixture
def image():
    """Left half red, right half blue, 40 wide and 20 high, so that every rotation is visible."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = (230, 20, 20)
    pixels[:, 20:] = (20, 20, 230)
    return Image.fromarray(pixels)


def assert_shows(array, image):
    assert array.dtype == np.uint8
    assert array.shape == (image.height, image.width, 3)
    assert np.abs(array.astype(int)[5:15, [5, 34]] - np.asarray(image).astype(int)[5:15, [5, 34]]).max() < 12


def test_jpeg_png_and_path(image, tmp_path):
    assert_shows(read_image(encode(image, format="JPEG", quality=95)), image)
    (tmp_path / "a.png").write_bytes(encode(image, format="PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(image, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = image if orientation == 1 else image.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format in ("AVIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP"):
        assert_shows(read_image(encode(stored, format=format, quality=95, exif=exif.tobytes())), image)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_with_a_tag_of_an_odd_type_turns_the_image_too(image, format):
    """Pillow fails on such a tag when it rewrites the EXIF."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 8, 72.0
    odd = (
        exif.tobytes()
        .replace(b"\x1a\x01\x05\x00", b"\x1a\x01\x02\x00")
        .replace(b"\x01\x1a\x00\x05", b"\x01\x1a\x00\x02")
    )
    assert odd != exif.tobytes()
    stored = image.transpose(Image.Transpose.ROTATE_270)
    assert_shows(read_image(encode(stored, format=format, quality=95, exif=odd)), image)


def test_orientation_elsewhere_than_in_exif_is_not_applied(image):
    """Viewers and the served graph ignore it; Pillow treats it as EXIF."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert_shows(read_image(encode(image, format="JPEG", quality=95, xmp=xmp)), image)


def test_cmyk_is_shown_in_its_colours(image):
    assert_shows(read_image(encode(image.convert("CMYK"), format="JPEG", quality=95)), image)


def test_grey_palette_and_transparency(image):
    grey = read_image(encode(image.convert("L"), format="JPEG"))
    assert grey.shape == (20, 40, 3)
    assert (np.ptp(grey, axis=2) == 0).all()
    assert_shows(read_image(encode(image.quantize(4), format="PNG")), image)
    clear = image.convert("RGBA")
    clear.putalpha(0)
    assert (read_image(encode(clear, format="PNG")) == 255).all()


def test_16_bits_become_8():
    levels = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    array = read_image(encode(Image.fromarray(levels), format="PNG"))
    np.testing.assert_array_equal(array[..., 0], levels >> 8)


@pytest.mark.parametrize(("bits", "colours"), [(8, 0), (8, 1), (12, 1), (16, 0), (16, 1)])
def test_grey_tiff_of_every_depth(bits, colours):
    """Pillow leaves 12-bit samples as they are, nearly black, and shows 16 bits in which 0 is white as a negative."""
    levels = np.arange(256).reshape(16, 16)
    samples = levels << (bits - 8)
    data = write_tiff(samples if colours else 2**bits - 1 - samples, bits, colours=colours)
    np.testing.assert_array_equal(read_image(data)[..., 0], levels)
    turned = write_tiff(samples if colours else 2**bits - 1 - samples, bits, colours=colours, orientation=3)
    np.testing.assert_array_equal(read_image(turned)[..., 0], levels[::-1, ::-1])


def test_tiff_of_another_range_is_refused():
    levels = np.arange(256).reshape(16, 16)
    for bits in (8, 16):
        with pytest.raises(ValueError, match="signed numbers of an unknown range; save it with 8 or 16 bits, unsigned"):
            read_image(write_tiff(levels, bits, numbers=2))
    with pytest.raises(ValueError, match="more than 16 bits; save it with 8 or 16 bits"):
        read_image(write_tiff(levels, 32))


@pytest.mark.parametrize("kind", [GREY, COLOUR])
def test_a_transparent_colour_of_16_bits_keeps_the_orientation(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    samples = np.zeros((10, 20, 3 if kind == COLOUR else 1), int)
    data = write_png(samples, kind, 16, {b"eXIf": exif.tobytes()[6:], b"tRNS": bytes(2 * samples.shape[-1])})
    assert read_image(data).shape == (20, 10, 3)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0garbage"])
def test_what_is_no_image_is_refused(content, tmp_path):
    with pytest.raises(ValueError, match="not an image"):
        read_image(content)
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.jpg: not an image"):
        read_image(tmp_path / "broken.jpg")


def test_files_that_are_no_images_in_a_common_way_say_so():
    with pytest.raises(ValueError, match="an empty file"):
        read_image(b"")
    with pytest.raises(ValueError, match="a pointer of Git LFS, not the image itself; fetch it: git lfs pull"):
        read_image(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


@pytest.mark.parametrize("format", ["AVIF", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_half_a_file_is_refused(image, format):
    noise = image.resize((400, 200)).effect_spread(50)
    content = encode(noise, format=format, **{"compression": "tiff_lzw"} if format == "TIFF" else {})
    with pytest.raises(ValueError, match=r"^the bytes: not an image that can be read: .*(damaged|ends early)[^.]*\.$"):
        read_image(content[: len(content) // 2])


def test_exhausted_memory_is_no_damage(image, monkeypatch):
    monkeypatch.setattr("sqz_keras.images.files.pixels_of", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(ValueError, match="there is not enough memory for it"):
        read_image(encode(image, format="PNG"))


def test_damage_of_any_kind_is_refused(image):
    """On damaged files, Pillow raises RuntimeError, TypeError and others."""
    random = np.random.default_rng(0)
    for format in ("AVIF", "GIF", "TIFF", "WEBP"):
        content = np.frombuffer(encode(image.resize((60, 30)), format=format), np.uint8)
        for _ in range(60):
            damaged = content.copy()
            damaged[random.integers(0, len(content), 3)] = random.integers(0, 256, 3)
            with contextlib.suppress(ValueError):
                assert read_image(damaged.tobytes()).dtype == np.uint8


def with_early_end(content: bytes, part: float = 0.5) -> bytes:
    """A JPEG file without its last pixels, but with the end marker."""
    start = content.index(b"\xff\xda")
    return content[: start + int(part * (len(content) - start))] + b"\xff\xd9"


def noise_jpeg(mode: str, **options) -> bytes:
    """A JPEG of 60 x 40 random pixels in a mode of Pillow, or in YCCK, as Photoshop stores inks."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    content = encode(Image.fromarray(pixels).convert("CMYK" if mode == "YCCK" else mode), format="JPEG", **options)
    kind = content.index(b"Adobe") + 11 if mode == "YCCK" else len(content)
    return content[:kind] + b"\2"[: len(content) - kind] + content[kind + 1 :]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCCK"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_blocks": 1}], ids=str)
def test_a_jpeg_that_ends_early_is_refused(mode, options):
    """The JPEG library paints the missing pixels grey and only warns."""
    content = noise_jpeg(mode, **options)
    for part in (0.3, 0.9):
        with pytest.raises(ValueError, match="the file ends early: some of its pixels are missing"):
            read_image(with_early_end(content, part))
    assert read_image(content + b"trailer").shape == (40, 60, 3)


@pytest.mark.parametrize("format", ["JPEG", "MPO"])
def test_a_jpeg_whose_end_is_zeros_is_refused(format):
    """Interrupted downloads and damaged cards leave such a file. Pillow decodes the zeros; TensorFlow refuses it."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    thumbnail = b"Exif\0\0" + encode(Image.new("RGB", (8, 8)), format="JPEG")
    content = encode(Image.fromarray(pixels), format=format, exif=thumbnail)
    assert read_image(content + bytes(500)).shape == (40, 60, 3)
    scan = content.rindex(b"\xff\xda")
    for kept in (scan + 500, content.rindex(b"\xff\xd9")):
        with pytest.raises(ValueError, match="the file ends early: some of its pixels are missing"):
            read_image(content[:kept] + bytes(4000))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 20}], ids=str)
def test_a_grey_jpeg_ends_where_it_should(options):
    grey = Image.new("RGB", (40, 24), (128, 128, 128))
    np.testing.assert_array_equal(read_image(encode(grey, format="JPEG", **options)), grey)


def test_a_png_without_its_end_is_refused(image):
    content = encode(image, format="PNG")
    for missing in (1, 12):
        with pytest.raises(ValueError, match="the file ends early"):
            read_image(content[:-missing])
    np.testing.assert_array_equal(read_image(content + b"trailer"), image)


@pytest.mark.parametrize("kind", [GREY, COLOUR])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_of_too_few_rows_is_refused(kind, depth):
    """Pillow leaves the missing rows black."""
    samples = np.random.default_rng(0).integers(1, 255, (8, 6, 3 if kind == COLOUR else 1))
    samples[-1] = 0
    whole = write_png(samples, kind, depth, {})
    assert not read_image(whole)[-1].any()
    short = write_png(samples[:5], kind, depth, {})
    header = b"IHDR" + struct.pack(">II", 6, 8) + short[24:29]
    short = short[:12] + header + struct.pack(">I", zlib.crc32(header)) + short[33:]
    with pytest.raises(ValueError, match="the file ends early: some of its pixels are missing"):
        read_image(short)


@pytest.mark.parametrize("size", [(9, 6), (1, 1), (5, 1), (1, 5)])
def test_an_interlaced_png_of_too_few_pixels_is_refused(size):
    samples = np.random.default_rng(0).integers(1, 255, (*size, 3))
    whole = write_png(samples, COLOUR, 8, {}, interlaced=True)
    np.testing.assert_array_equal(read_image(whole), samples)
    pixels = zlib.decompress(whole[41:-16])
    for missing in (1, len(pixels) // 2):
        short = whole[:33] + chunk(b"IDAT", zlib.compress(pixels[:-missing])) + chunk(b"IEND", b"")
        with pytest.raises(ValueError, match="the file ends early: some of its pixels are missing"):
            read_image(short)


def test_a_later_image_of_an_mpo_may_end_in_grey(image):
    file = io.BytesIO(encode(image, format="MPO", save_all=True, append_images=[Image.new("RGB", (16, 16), "#808080")]))
    with Image.open(file) as opened:
        opened.seek(1)
        np.testing.assert_array_equal(pixels_of(opened, file), np.full((16, 16, 3), 128))


def test_a_lossless_jpeg_is_refused():
    """Pillow reads it; TensorFlow, which trains and serves, does not. The image is 8 x 8 grey pixels."""
    header = "ffd8 ffc3 000b 08 0008 0008 01 011100 ffc4 0014 00 01 000000000000000000000000000000 00"
    content = bytes.fromhex(f"{header} ffda 0008 01 0100 010000 {64 * '0'} ffd9")
    assert np.asarray(Image.open(io.BytesIO(content))).shape == (8, 8)
    with pytest.raises(ValueError, match="a lossless JPEG; save it as a PNG"):
        read_image(content)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_colours_that_are_multiplied_by_their_alpha(mode):
    clear = Image.radial_gradient("L").resize((20, 20)).convert(mode)
    clear.putalpha(Image.linear_gradient("L").resize((20, 20)))
    expected = read_image(encode(clear, format="PNG")).astype(int)
    multiplied = clear.convert({"RGBA": "RGBa", "LA": "La"}[mode])
    np.testing.assert_allclose(pixels_of(multiplied, None).astype(int), expected, atol=2)


def test_a_tiff_whose_colours_pillow_mixes_up_is_refused():
    """Pillow mixes up uncompressed planes of more than 8 bits, and of LAB."""
    samples = np.arange(3 * 256).reshape(3, 16, 16) % 256
    np.testing.assert_array_equal(read_image(planar_tiff(samples, 8)), samples.transpose(1, 2, 0))
    for bits, colours in ((16, 2), (8, 8)):
        with pytest.raises(ValueError, match="colours lie in separate planes; save it with 8 bits, or compressed"):
            read_image(planar_tiff(samples, bits, colours))


def test_a_bmp_whose_pixels_are_all_transparent(image):
    clear = image.convert("RGBA")
    for alpha, expected in ((0, np.asarray(image)), (128, np.asarray(image) / 2 + 128)):
        clear.putalpha(alpha)
        content = bytearray(encode(clear, format="BMP"))
        # Pillow writes the fourth byte, but calls it unused; the longer header of type 4 has a mask for it.
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        header = struct.pack("<I", 108) + content[18:30] + struct.pack("<I", 3) + content[34:54] + masks + bytes(52)
        content = content[:10] + struct.pack("<I", 14 + len(header)) + header + content[54:]
        np.testing.assert_allclose(read_image(bytes(content)), expected, atol=1)


def test_a_gif_whose_first_frame_leaves_a_gap():
    """Browsers show the page behind the gap; Pillow shows the first colour of the palette."""
    content = encode(Image.new("RGB", (4, 4), "blue"), format="GIF")
    content = content[:6] + struct.pack("<HH", 8, 6) + content[10:]
    expected = np.full((6, 8, 3), 255)
    expected[:4, :4] = (0, 0, 255)
    np.testing.assert_array_equal(read_image(content), expected)


def test_an_animated_webp_whose_first_frame_leaves_a_gap():
    """Pillow makes the gap black if no frame has any transparency."""

    def chunk(name, content):
        return name + struct.pack("<I", len(content)) + content

    def bytes3(*numbers):
        return b"".join(number.to_bytes(3, "little") for number in numbers)

    frame = encode(Image.new("RGB", (4, 4), "blue"), format="WEBP", lossless=True)[12:]
    animation = chunk(b"VP8X", bytes([2, 0, 0, 0]) + bytes3(7, 5)) + chunk(b"ANIM", bytes(6))
    animation += chunk(b"ANMF", bytes3(2 // 2, 0, 3, 3, 100) + b"\0" + frame)
    expected = np.full((6, 8, 3), 255)
    expected[:4, 2:6] = (0, 0, 255)
    np.testing.assert_array_equal(read_image(chunk(b"RIFF", b"WEBP" + animation)), expected)


def test_a_tiff_palette_of_8_bits():
    """TIFF palettes have 16 bits, but some programs write 8, which Pillow turns black."""
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    for factor in (1, 257):
        content = encode(
            image, format="TIFF", tiffinfo={262: 3, 320: tuple(int(v) * factor for v in colours.T.ravel())}
        )
        np.testing.assert_array_equal(read_image(content), colours.reshape(16, 16, 3))


def test_a_huge_declared_size_is_refused_before_it_is_decoded():
    """A PNG of a few hundred bytes that says it is 30,000 x 30,000."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    assert MAX_PIXELS < 30_000 * 30_000
    with pytest.raises(ValueError, match="more than 100,000,000 pixels; make it smaller"):
        read_image(bomb)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a folder, not an image; give the images in it"):
        read_image(tmp_path)


def test_a_pipe(image, tmp_path):
    """As in `curl URL | sqz-classify /dev/stdin`."""
    os.mkfifo(tmp_path / "pipe")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pool.submit((tmp_path / "pipe").write_bytes, encode(image, format="PNG"))
        np.testing.assert_array_equal(read_image(tmp_path / "pipe"), image)


def test_missing_file(tmp_path):
    with pytest.raises(OSError, match=r"none\.jpg"):
        read_image(tmp_path / "none.jpg")


@pytest.mark.parametrize("threads", [0, 2])
def test_images_that_cannot_be_read_do_not_stop_the_others(image, tmp_path, threads):
    image.save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"not an image")
    paths = [tmp_path / name for name in ("broken.png", "good.png", "none.png")]

    def prepare(pixels):
        return 255 - pixels

    if threads:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            results = list(read_images(paths, prepare, pool.map))
    else:
        results = list(read_images(paths, prepare))
    assert [path for path, _, _ in results] == paths
    (_, broken, error), (_, pixels, none), (_, missing, missing_error) = results
    assert broken is missing is none is None
    np.testing.assert_array_equal(pixels, prepare(np.asarray(image)))
    assert isinstance(error, ValueError) and "broken.png" in str(error)
    assert isinstance(missing_error, OSError) and "none.png" in str(missing_error)


@pytest.mark.parametrize("format", ["AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP"])
def test_formats(image, format):
    assert_shows(read_image(encode(image, format=format)), image)


def test_of_several_frames_the_first(image):
    frames = [Image.new("RGB", image.size, "white")]
    for format in ("GIF", "TIFF", "WEBP"):
        assert_shows(read_image(encode(image, format=format, save_all=True, append_images=frames)), image)


def test_other_formats_are_refused(image):
    """Pillow opens EPS by running Ghostscript."""
    for format in ("EPS", "PCX", "ICO"):
        with pytest.raises(ValueError, match="none of the formats AVIF"):
            read_image(encode(image.convert("RGB"), format=format))


def test_heic_names_the_package_that_reads_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        read_image(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ValueError, match="none of the formats"):
        read_image(b"\0\0\0\x18ftypmif1\0\0\0\0avifmiaf" + bytes(100))


def test_pixels_of_an_unknown_range_are_refused():
    floats = Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16))
    integers = Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16) << 20)
    for pixels in (floats, integers):
        with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
            read_image(encode(pixels, format="TIFF"))


def test_jpegs_and_tiffs_of_a_kind_that_is_not_read_say_so():
    data = encode(Image.new("RGB", (16, 16)), format="JPEG")
    start = data.index(b"\xff\xc0") + 4  # start of the frame header; its first byte is the number of bits
    with pytest.raises(ValueError, match=r"a JPEG .* \(cannot handle 12-bit layers\); save it anew, with 8 bits"):
        read_image(data[:start] + bytes([12]) + data[start + 1 :])
    floats = encode(Image.fromarray(np.zeros((4, 4), np.float32)), format="TIFF")
    with pytest.raises(ValueError, match=r"a TIFF .* \(unknown pixel mode\); save it anew, with 8 bits"):
        read_image(floats.replace(b"\x02\x01\x03\0\x01\0\0\0 \0", b"\x02\x01\x03\0\x01\0\0\0@\0"))


def test_elongated_images_are_refused():
    """Resizing the short side of 1 x 40,000 pixels to 256 would take 31 GB."""
    for size in ((1, 101), (40_000, 1)):
        with pytest.raises(ValueError, match="100 times as long as wide"):
            read_image(encode(Image.new("RGB", size), format="PNG"))
    assert read_image(encode(Image.new("RGB", (1, 100)), format="PNG")).shape == (100, 1, 3)


def test_files_without_the_suffix_of_an_image_are_counted_and_named(image, tmp_path, capsys):
    for name in ("a.webp", "b.TIFF", "c.jpg"):
        image.save(tmp_path / name)
    assert [path.name for path in find_images(tmp_path)] == ["a.webp", "b.TIFF", "c.jpg"]
    assert capsys.readouterr().err == ""
    for name in ("1.cr2", "2.txt", "3", "4.mp4", ".hidden"):
        (tmp_path / name).touch()
    assert len(find_images(tmp_path)) == 3
    assert "left out 4 files without the suffix of an image: 1.cr2, 2.txt, 3, ..." in capsys.readouterr().err
