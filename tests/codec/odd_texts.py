"""JSON texts and zlib streams that are valid, nearly valid, or damaged, for comparing readers of `.sqz` files."""

import itertools
import random
import zlib

# Values of "header" in a text, one per line.
HEADERS = r"""
{}
 { "a" : [ 1 , 2.5e+3 , -0 , -0.0e-9 , true , false , null , "" ] }
{"a":{"a":{"a":1},"b":1}}
{"a":1,"a":2}
{"a":1,"\u0061":2}
{"a":[{"b":1,"c":[],"b":2}]}
{"a":[,1]}
{"a":[1,]}
{"a":1,}
{"a":"\ud83d\ude00","\ud83d":1,"\ude00":2}
{"\ud83d\ude00":1,"😀":2}
{"a":"\ud83d\u00"}
{"a":"\ud83dx"}
{"a":"\ud83d\ud83d\ude00"}
{"a":"\x"}
{"a":"\u12g4"}
{"a":"\/\b\f\n\r\t\\\""}
{"a":1e+}
{"a":1E9}
{"a":1e999}
{"a":NaN}
{"a":-Infinity}
{"a":0x1}
{"a":--1}
{"a":01}
{"a":+1}
{"a":1.}
{"a":.5}
{"a":1e}
{"a":-}
{"a":tru}
{"a":truex}
{"a":nullnull}
{"é":"€😀"}
[]
1
"a"
{}}
{}{}
{"a":1 "b":2}
{"a" 1}
{a:1}
{1:1}
{"a":'b'}
""".strip("\n").split("\n")
SHAPES = """
[1,8] [8] [2,2,2] [1,1,1,1,1,1,1,8] [1,1,1,1,1,1,1,1,8] [8.0] [8e0] [-8] [true] ["8"] [[8]] 8 null {} [8,-0] [08]
[8,0] [268435456,0] [268435457,0] [] [4,2,] [{"a":1}]
"""


def _headers():
    yield from HEADERS
    yield from ('{"a":"\t"}', "{}\0", "{} \t\r\n", "{}\v", "", '{"a":"\x7f"}')
    yield from ('{"a":%s}' % ("9" * digits) for digits in (4300, 4301))
    yield from ('{"a":-%s.5}' % ("9" * digits) for digits in (4300, 4301))
    yield from ('{"a":' + "[" * levels + "]" * levels + "}" for levels in (61, 62, 63, 2000))
    for members in (2999, 3001):  # 3000 unordered keys: one occurs twice, or all differ
        yield "{" + ",".join(f'"{number * 7919 % members}":0' for number in range(3000)) + "}"


def documents():
    """Texts for a file with one array of 8 elements."""
    whole = '{"arrays":{"%s":%s},"header":%s}'
    yield from (whole % ("k", "[8]", header) for header in _headers())
    yield from (whole % ("k", shape, "{}") for shape in [*SHAPES.split(), "[ 8 ]"])
    names = [
        "",
        "é",
        "x" * 255,
        "x" * 256,
        "é" * 255,
        "😀" * 255,
        r"\ud83d\ude00" * 255,
        r"\ud83d" * 255,
        r"\u0000",
        " ",
    ]
    yield from (whole % (name, "[8]", "{}") for name in names)
    yield '{"arrays":{"k":[8],"k":[8]},"header":{}}'
    yield '{"header":{},"arrays":{"k":[8]}}'
    yield '{"arrays":{"k":[8]}}'
    yield '{"arrays":{"k":[8]},"header":{},"more":1}'
    yield r'{"\u0061rrays":{"k":[8]},"he\u0061der":{}}'
    yield '{"arrays\\u0000":{"k":[8]},"header":{}}'
    yield '{"arrays":[],"header":{}}'


def damaged_documents(count):
    """Texts with one to three characters changed, removed or doubled."""
    chosen = random.Random(5)
    sources = [text for text in documents() if len(text) < 200]
    for _ in range(count):
        text = list(chosen.choice(sources))
        for _ in range(chosen.randint(1, 3)):
            at = chosen.randrange(len(text))
            other = chosen.choice('"\\{}[],:0189-+.eEtfnu \t\n\x01é😀')
            text[at : at + 1] = chosen.choice([[other], [], text[at : at + 2]])
            text = text or ["x"]
        yield "".join(text)


def odd_bytes():
    """Texts with a string whose bytes are valid or nearly valid UTF-8."""
    strings = [bytes(pair) for pair in itertools.product((34, 127, 128, 191), repeat=2)]
    heads = [0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF]
    tails = [b"\x80", b"\x9f\xbf", b"\xa0\x80", b"\x8f\xbf\xbf", b"\x90\x80\x80", b"\xbf\xbf\xbf\xbf"]
    strings += [bytes([head]) + tail for head in heads for tail in tails]
    return [b'{"arrays":{"k":[8]},"header":{"a":"%s"}}' % string for string in strings]


def zlib_streams(text, count):
    """Streams with every kind of block, and `count` damaged streams whose checksum matches what they inflate to."""
    for level, strategy, bits in itertools.product((0, 1, 9), (0, 1, 2, 3, 4), (9, 15)):
        packer = zlib.compressobj(level, zlib.DEFLATED, bits, 9, strategy)
        yield packer.compress(text[:9]) + packer.flush(zlib.Z_FULL_FLUSH) + packer.compress(text[9:]) + packer.flush()
    packer = zlib.compressobj(zdict=b"arrays header")
    yield packer.compress(text) + packer.flush()
    chosen, sources = random.Random(7), [zlib.compress(text, level) for level in (1, 9)]
    for _ in range(count):
        copy = bytearray(chosen.choice(sources))
        copy[chosen.randrange(len(copy))] ^= 1 << chosen.randrange(8)
        try:
            inflated = zlib.decompressobj(-15).decompress(bytes(copy[2:]), 1 << 22)
        except zlib.error:
            inflated = text
        yield bytes(copy[:-4]) + zlib.adler32(inflated).to_bytes(4, "big")
