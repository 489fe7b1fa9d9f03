"""A second decoder, written from docs/sqz-format.md alone: plain Python, one symbol at a time."""

import hashlib
import itertools
import json
import math
import struct
import zlib

BOUNDS = [0, 1, 3, 7, 13, 22, 34, 48, 64, 84, 107, 131, 156, 181, 206, 231, 256]
FULL = 1 << 15


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self):
        return self.take(1)[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value


def float_of_rank(rank):
    bits = rank & 0x7FFFFFFF if rank >> 31 else ~rank & 0xFFFFFFFF
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def decode(data, base=None):
    """{name: (shape, flat list of values, flat list of codes or None)} of a file, with its base if it is a delta."""
    at, parts = 16, {}
    while at < len(data):
        tag, size = data[at : at + 4].decode(), int.from_bytes(data[at + 4 : at + 8], "little")
        parts[tag], at = data[at + 12 : at + 12 + size], at + 12 + size
    base_arrays, packed = {}, zlib.decompressobj()
    if "BASE" in parts:
        assert hashlib.sha256(base).digest() == parts["BASE"]
        base_arrays = decode(base)
        if data[4] == 2:
            packed = zlib.decompressobj(zdict=zlib.decompress(base[28 : 28 + int.from_bytes(base[20:24], "little")]))
    shapes = json.loads(packed.decompress(parts["JSON"]))["arrays"]
    table, rows = Bytes(parts["ARRS"]), []
    for name, shape in shapes.items():
        kind = table.u8()
        spans = [
            (-table.varint(), table.varint())
            for _ in range({0: 0, 1: 1, 2: 1, 3: 0, 4: 3, 5: 3, 6: 1, 7: 1, 8: 1}[kind])
        ]
        rows.append((name, shape, math.prod(shape), kind, spans))
    coded = []  # (shape, low, high, rows) of each array of codes
    for name, shape, size, kind, spans in rows:
        if kind in (1, 2, 6, 7, 8):
            coded.append((shape, *spans[0], None))
        elif kind in (4, 5):
            used = [code for code in base_arrays[name][2] if code != 0]
            coded.append(([len(used)], *spans[1], used if data[4] == 2 else None))
            coded.append(([size - len(used)], *spans[2], None))
    floats = [shape for _, shape, _, kind, _ in rows if kind == 0]
    books = sum(spans[0][1] - spans[0][0] for *_, kind, spans in rows if kind in (1, 4))
    steps = 4 * sum(kind in (2, 5, 6, 7, 8) for *_, kind, _ in rows)
    read = read_paper if data[5] == 0 else read_max
    codes, planes, raw_steps = read(table, parts, coded, floats, books, steps)
    return assemble(rows, codes, planes, raw_steps, base_arrays)


def assemble(rows, codes, planes, raw_steps, base_arrays):
    turned = [sum(planes[p][i] << 24 - 8 * p for p in range(4)) for i in range(len(planes[0]))]
    floats = iter([struct.unpack("<f", struct.pack("<I", b >> 1 | (b & 1) << 31))[0] for b in turned])
    ranks = iter([sum(planes[4 + p][i] << 24 - 8 * p for p in range(4)) for i in range(len(planes[4]))])
    steps, codes, result = iter(struct.unpack(f"<{len(raw_steps) // 4}f", raw_steps)), iter(codes), {}
    for name, shape, size, kind, spans in rows:
        flat = None
        if kind == 0:
            values = [next(floats) for _ in range(size)]
        elif kind == 3:
            _, values, flat = base_arrays[name]
        else:
            flat = next(codes)
            if kind in (4, 5):
                differences = iter(flat), iter(next(codes))
                flat = [code + next(differences[code == 0]) for code in base_arrays[name][2]]
            if kind in (2, 5, 6, 7, 8):
                step = next(steps)
                integers = trellis_integers(flat, shape[-1], kind) if kind in (6, 7) else flat
                values = [float32(step * v) for v in integers]
                if kind == 8:
                    values = [float32(old + v) for old, v in zip(base_arrays[name][1], values, strict=True)]
            else:
                low, high = spans[0]
                rank, book = 0, [0.0]
                for _ in range(high - low):
                    rank += next(ranks)
                    book.append(float_of_rank(rank))
                book = [*book[1 : 1 - low], 0.0, *book[1 - low :]]
                values = [book[code - low] for code in flat]
        result[name] = (tuple(shape), values, flat)
    return result


NEXT = {0: (0, 5, 1, 4, 2, 7, 3, 6), 1: (2, 7, 3, 6, 0, 5, 1, 4)}  # by b, then by the state


def trellis_integers(codes, filters, kind):
    states, integers = [0] * filters, []
    for number, c in enumerate(codes):
        s = states[number % filters]
        q = s % 2
        v = 2 * c + q if kind == 7 else 2 * c - q * ((c > 0) - (c < 0))
        if kind == 7 or v:
            states[number % filters] = NEXT[(v >> 1) % 2][s]
        integers.append(v)
    return integers


def read_paper(table, parts, coded, floats, books, steps):
    plane_sizes = [sum(map(math.prod, floats))] * 4 + [books] * 4
    alphabets = []  # (symbols of the alphabet, symbols in the stream)
    indices = []
    for shape, low, high, _ in coded:
        bits = table.u8()
        entries = table.varint() if bits else math.prod(shape)
        alphabets.append((high - low + 1, entries))
        if bits:
            alphabets.append((1 << bits, entries))
        indices.append(bits)
    modes = [table.u8() for _ in range(8)]
    alphabets += [(256, size) for size, mode in zip(plane_sizes, modes, strict=True) if mode]
    lengths = Bytes(zlib.decompress(table.data[table.at :]))
    tables = [list(lengths.take(alphabet)) for alphabet, _ in alphabets]
    decoded = [
        [table_lengths.index(1)] * count if sum(map(bool, table_lengths)) == 1 else []
        for table_lengths, (_, count) in zip(tables, alphabets, strict=True)
    ]
    turns = [
        number
        for number, (table_lengths, (_, count)) in enumerate(zip(tables, alphabets, strict=True))
        if sum(map(bool, table_lengths)) > 1
        for _ in range(count)
    ]
    stream, lanes = Bytes(parts["CODE"]), max(1, min(256, len(turns) // 64))
    least, width = stream.varint(), stream.u8()
    packed = "".join(f"{byte:08b}" for byte in stream.take((lanes * width + 7) // 8))
    sizes = [least + int("0" + packed[lane * width : (lane + 1) * width], 2) for lane in range(lanes)]
    bits = "".join(f"{byte:08b}" for byte in stream.data[stream.at :])
    at = [sum(sizes[:lane]) for lane in range(lanes)]
    books = []
    for table_lengths in tables:
        code, last, book = 0, 0, {}
        for length, symbol in sorted((length, symbol) for symbol, length in enumerate(table_lengths) if length):
            code <<= length - last
            last = length
            book[f"{code:0{length}b}"] = symbol
            code += 1
        books.append(book)
    for number, which in enumerate(turns):
        lane, size = number % lanes, 1
        while bits[at[lane] : at[lane] + size] not in books[which]:
            size += 1
        decoded[which].append(books[which][bits[at[lane] : at[lane] + size]])
        at[lane] += size
    symbols, raw = iter(decoded), Bytes(parts["VALS"])
    arrays = []
    for (shape, low, *_), index in zip(coded, indices, strict=True):
        flat = [symbol + low for symbol in next(symbols)]
        if index:
            entries, flat, place = flat, [0] * math.prod(shape), -1
            for code, gap in zip(entries, next(symbols), strict=True):
                place += gap + 1
                flat[place] = code
        arrays.append(flat)
    raw_steps = raw.take(steps)
    planes = [next(symbols) if mode else raw.take(size) for size, mode in zip(plane_sizes, modes, strict=True)]
    return arrays, planes, raw_steps


def tabled(weights, possible):
    """(begin, end) of each symbol."""
    room, total, count, before, ends = FULL - sum(possible), sum(weights), 0, 0, [0]
    for weight, can in zip(weights, possible, strict=True):
        count, before = count + can, before + weight
        ends.append(count + before * room // total)
    return list(itertools.pairwise(ends))


class Coder:
    def __init__(self, data, lanes):
        self.states = list(struct.unpack(f"<{lanes}I", data[: 4 * lanes]))
        self.words = list(struct.unpack(f"<{len(data) // 2 - 2 * lanes}H", data[4 * lanes :]))

    def call(self, tables):
        """The symbols of a call. For each symbol, `tables` holds the (begin, end) of every symbol that is possible."""
        symbols, lanes = [], len(self.states)
        for start in range(0, len(tables), lanes):
            for lane, spans in enumerate(tables[start : start + lanes]):
                slot = self.states[lane] % FULL
                symbol = next(s for s, (begin, end) in enumerate(spans) if begin <= slot < end)
                begin, end = spans[symbol]
                self.states[lane] = (end - begin) * (self.states[lane] >> 15) + slot - begin
                symbols.append(symbol)
            for lane in range(len(tables[start : start + lanes])):
                if self.states[lane] < 1 << 16:
                    self.states[lane] = self.states[lane] << 16 | self.words.pop(0)
        return symbols


def key_round(index):
    key = (index * 2654435769 % (1 << 32)) >> 24
    return sum(bound <= key for bound in BOUNDS) - 1


def read_max(table, parts, coded, floats, books, steps):
    plane_sizes = [sum(map(math.prod, floats))] * 4 + [books] * 4
    live = [array for array in coded if array[1] < array[2]]
    dense = [table.u8() for _ in live]
    modes = [table.u8() for _ in range(8)]
    bitmaps = {number: table.take(32) for number, mode in enumerate(modes) if mode == 2}
    count = sum(math.prod(shape) for shape, *_ in live)
    count += sum(size for size, mode in zip(plane_sizes, modes, strict=True) if mode)
    raw_size = steps + sum(size for size, mode in zip(plane_sizes, modes, strict=True) if not mode)
    lanes = 1 << min(9 if raw_size >= 1024 else 8, (count // 1024).bit_length())
    coder = Coder(parts["CODE"], lanes)
    batch = iter(Batch(live, dense).run(coder) if live else [])  # small files have one batch
    arrays = [next(batch) if low < high else [0] * math.prod(shape) for shape, low, high, _ in coded]
    planes = []
    for number, (size, mode) in enumerate(zip(plane_sizes, modes, strict=True)):
        if mode == 2:
            used = [byte for byte in range(256) if bitmaps[number][byte // 8] >> byte % 8 & 1]
            planes.append(modelled_plane(coder, number, floats, used, planes))
            continue
        plane, counts = [0] * size, [0] * 256
        for turn in range(16 if mode else 0):
            places = [index for index in range(size) if key_round(index) == turn]
            spans = tabled([1024 * n + 64 for n in counts], [1] * 256)
            for index, byte in zip(places, coder.call([spans] * len(places)), strict=True):
                plane[index] = byte
                counts[byte] += 1
        planes.append(plane if mode else None)
    assert not coder.words and all(state >> 16 == 1 for state in coder.states)
    raw = Bytes((struct.pack(f"<{lanes}H", *(s & 0xFFFF for s in coder.states))[:raw_size]) + parts["VALS"])
    raw_steps = raw.take(steps)
    planes = [list(raw.take(n)) if plane is None else plane for n, plane in zip(plane_sizes, planes, strict=True)]
    return arrays, planes, raw_steps


def modelled_plane(coder, number, floats, used, planes):
    """Decodes a plane in one batch, which is enough for small files."""
    elements, base = [], 0  # (array, index, the element's place in the plane, places of its neighbours)
    for array, shape in enumerate(floats):
        a = Array(shape, 0, 0)
        for index in range(a.size):
            around = [base + i for i in a.around(index)] if a.height * a.width > 1 else []
            elements.append((array, index, base + index, around))
        base += a.size
    plane, counts = [None] * base, {}
    for turn in range(16):
        now = [element for element in elements if key_round(element[1]) == turn]
        contexts, spans = [], {}
        for array, _, place, around in now:
            near = [plane[i] for i in around if plane[i] is not None]
            if number == 0:
                m = max(near, default=0)
                contexts.append((("array", array), (array, 1 + min(used[-1] - m, 14) if m else 0)))
            elif number == 3:
                total = sum(1 - 2 * (byte % 2) for byte in near)
                contexts.append((("sum", total), (array, total)))
            else:
                contexts.append(("all", planes[0][place]))
        for group, context in contexts:
            if (group, context) not in spans:
                n, g = counts.get((group, context), {}), counts.get(group, {})
                whole = sum(4 * g.get(byte, 0) + 1 for byte in used)
                weights = [1024 * n.get(b, 0) + 524288 * (4 * g.get(b, 0) + 1) // whole for b in used]
                spans[group, context] = tabled(weights, [1] * len(used))
        symbols = coder.call([spans[key] for key in contexts])
        for (_, _, place, _), key, symbol in zip(now, contexts, symbols, strict=True):
            plane[place] = used[symbol]
            for where in (key, key[0]):
                tally = counts.setdefault(where, {})
                tally[used[symbol]] = tally.get(used[symbol], 0) + 1
    return plane


class Array:
    """An array of codes while it is being decoded."""

    def __init__(self, shape, low, high, rows=None):
        self.rows = rows
        shape = [1] * (4 - len(shape)) + list(shape)
        self.height, (self.width, self.depth, self.filters) = math.prod(shape[:-3]), shape[-3:]
        self.low, self.high = low, high
        self.size = math.prod(shape)
        self.codes = [0] * self.size
        self.mask = {}  # (what, which): [decoded, not zero]
        self.values = {}  # (what, which): [not zero, magnitudes, sum]
        self.pairs = {}
        self.classes = {}  # [N, not zero, E1]
        self.counts = {}
        self.sign = {}  # (context, bucket): [F, X]

    def where(self, index):
        if self.rows is not None:
            return 0, self.rows[index], 0
        spot, rest = divmod(index, self.depth * self.filters)
        return spot, rest // self.filters, rest % self.filters

    def around(self, index):
        """Indices of the elements above, below, left and right."""
        spot, row, column = self.where(index)
        down, right = divmod(spot, self.width)
        for y, x in ((down - 1, right), (down + 1, right), (down, right - 1), (down, right + 1)):
            if 0 <= y < self.height and 0 <= x < self.width:
                yield ((y * self.width + x) * self.depth + row) * self.filters + column

    def lines(self, index):
        spot, row, column = self.where(index)
        return ("array", 0), ("row", row), ("column", column), ("spot", spot)

    def factor(self, which):
        decoded, ones = self.mask.get(("array", 0), (0, 0))
        density = (ones + 0.5) / (decoded + 1.0)
        decoded, ones = self.mask.get(which, (0, 0))
        shrunk = (ones + 120.0 * density) / (decoded + 120.0)
        return shrunk / (1.0 - shrunk) / (density / (1.0 - density))

    def odds(self, index):
        """Frequency of a 1, and the element's class and prior frequency; these are None if there is only one spot."""
        decoded, ones = self.mask.get(("array", 0), (0, 0))
        density = (ones + 0.5) / (decoded + 1.0)
        _, row, column, spot = self.lines(index)
        product = density / (1.0 - density) * self.factor(row) * self.factor(column)
        which = prior = None
        if self.height * self.width > 1:
            product *= self.factor(spot)
            prior = round(product / (1.0 + product) * FULL)
            decoded, ones = self.pairs.get((row, column), (0, 0))
            which = 6 * min(decoded, 4) - 5 + (10 * ones + decoded) // (2 * decoded) if decoded else 0
            total, ones, expected = self.classes.get(which, (0, 0, 0))
            up = (ones + 20.0) / (expected / FULL + 20.0)
            product *= up / ((total - ones + 20.0) / ((total * FULL - expected) / FULL + 20.0))
        return min(max(round(product / (1.0 + product) * FULL), 8), FULL - 8), which, prior

    def learn_mask(self, index, bit, which, prior):
        for line in self.lines(index):
            seen = self.mask.setdefault(line, [0, 0])
            seen[0], seen[1] = seen[0] + 1, seen[1] + bit
        if which is not None:
            pair = self.pairs.setdefault(self.lines(index)[1:3], [0, 0])
            pair[0], pair[1] = pair[0] + 1, pair[1] + bit
            seen = self.classes.setdefault(which, [0, 0, 0])
            seen[0], seen[1], seen[2] = seen[0] + 1, seen[1] + bit, seen[2] + prior

    def prepare(self):
        """Sets the base weights, buckets and shares of this round."""
        span = range(self.low, self.high + 1)
        count = self.counts.get
        smooth = {}
        for c in span:
            around = [(7 - abs(d), c + d) for d in range(-6, 7) if c + d in span and c + d]
            near = sum(w * (count(at, 0) + (count(-at, 0) if -at in span else 0)) for w, at in around)
            smooth[c] = 256 * near // sum(w for w, _ in around) + 64 if c else 0
        total, size = sum(smooth.values()), self.high - self.low + 1
        self.base = {c: (count(c, 0) << 16) + (4 * size << 16) * smooth[c] // total for c in span}
        self.mass = sum(self.base.values())
        self.bucket, self.share = [], []
        for order in (sorted(span, key=lambda c: (abs(c), c)), span):
            ahead, buckets, shares = 0, {}, [0] * 16
            for c in order:
                ahead += self.base[c]
                buckets[c] = min(15, (ahead - self.base[c] // 2) * 16 // self.mass)
                shares[buckets[c]] += self.base[c]
            self.bucket.append(buckets)
            self.share.append([(share << 12) // self.mass for share in shares])

    def contexts(self, index):
        n1, m1, t1 = self.values.get(("array", 0), (0, 0, 0))
        m1 = max(m1, 1)
        lines = [self.values.get(line, (0, 0, 0)) for line in self.lines(index)[1:3]]
        g = [((m * n1 + 20 * m1) * 256) // ((n + 20) * m1) for n, m, _ in lines]
        scale = sum(bound < (g[0] * g[1] // 256 if n1 else 256) for bound in (210, 241, 271, 307))
        if self.height * self.width > 1:
            tilt = sum(64 * self.codes[neighbour] for neighbour in self.around(index))
        else:
            tilt = sum(256 * (t * n1 - n * t1) // (max(n1, 1) * (n + 30)) for n, _, t in lines)
        value = tilt * n1 // (8 * m1)
        return scale, sum(bound <= value for bound in (-24, -12, -4, 0, 1, 4, 12, 24))

    def learn_value(self, index, code):
        for line in self.lines(index)[:3]:
            seen = self.values.setdefault(line, [0, 0, 0])
            seen[0], seen[1], seen[2] = seen[0] + 1, seen[1] + abs(code), seen[2] + code
        self.counts[code] = self.counts.get(code, 0) + 1


def ratio(tally, context, bucket):
    actual, expected = tally.get((context, bucket), (0, 0))
    return min(max(((actual + 40) << 24) // (expected + (40 << 12)), 1 << 8), 1 << 16)


def tally_up(tally, context, bucket, shares):
    for b in range(16):
        seen = tally.setdefault((context, b), [0, 0])
        seen[0], seen[1] = seen[0] + (b == bucket), seen[1] + shares[b]


class Batch:
    def __init__(self, live, dense):
        self.arrays = [Array(*spec) for spec in live]
        self.dense = dense
        self.scale = {}

    def run(self, coder):
        for turn in range(16):
            todo = [[index for index in range(a.size) if key_round(index) == turn] for a in self.arrays]
            parts = list(zip(self.arrays, self.dense, todo, strict=True))
            undecided = [(a, i) for a, dense, indices in parts if not dense for i in indices]
            odds = [a.odds(i) for a, i in undecided]
            bits = coder.call([[(0, FULL - one), (FULL - one, FULL)] for one, _, _ in odds])
            for (a, i), bit, (_, which, prior) in zip(undecided, bits, odds, strict=True):
                a.learn_mask(i, bit, which, prior)
            rest = [element for element, bit in zip(undecided, bits, strict=True) if bit]
            rest += [(a, i) for a, dense, indices in parts if dense for i in indices]
            self.round_of_codes(coder, rest)
        return [a.codes for a in self.arrays]

    def round_of_codes(self, coder, elements):
        for a in self.arrays:
            a.prepare()
        rows = [(self.arrays.index(a), *a.contexts(i), a, i) for a, i in elements]
        rows.sort(key=lambda row: row[:3])
        tables, made = [], {}
        for key in (row[:3] for row in rows):
            if key not in made:
                made[key] = self.table(*key)
            tables.append(made[key])
        symbols = coder.call(tables)
        for (_, scale, sign, a, i), symbol in zip(rows, symbols, strict=True):
            code = symbol + a.low
            tally_up(self.scale, scale, a.bucket[0][code], a.share[0])
            tally_up(a.sign, sign, a.bucket[1][code], a.share[1])
            a.codes[i] = code
            a.learn_value(i, code)

    def table(self, number, scale, sign):
        a, weights = self.arrays[number], []
        for c in range(a.low, a.high + 1):
            weight = ((a.base[c] << 20) // a.mass + 1) * ratio(self.scale, scale, a.bucket[0][c]) >> 6
            weights.append(weight * ratio(a.sign, sign, a.bucket[1][c]) if c else 0)
        return tabled(weights, [int(c != 0) for c in range(a.low, a.high + 1)])
