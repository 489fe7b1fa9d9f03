/* sqz.h: reads `.sqz` files and deltas, versions 1 and 2, both profiles. It is a single C99 header, and needs string.h
   but no other library. docs/sqz-format.md specifies the format; a "section" in a comment is a section of that page. In
   one source file of a program:

       #define SQZ_IMPLEMENTATION
       #include "sqz.h"

       void use(const char *name, const size_t *shape, const float *values, size_t count);
       static unsigned char workspace[16 << 20];

       const char *load(const void *data, size_t size) {
           sqz_file net;
           if (sqz_decode(&net, data, size, NULL, 0, workspace, sizeof workspace) != SQZ_OK) return net.message;
           for (size_t i = 0; i < net.array_count; i++)
               use(net.arrays[i].name, net.arrays[i].shape, net.arrays[i].values, net.arrays[i].count);
           return NULL;
       }

   Other files include it without the #define. All memory is the caller's workspace, except less than 24 KiB of stack.
   Every length is checked before it is used, and a file that departs from the format in any way is refused. The models
   need IEEE 754 binary64 without fused multiply-adds: compile with -ffp-contract=off (the header also asks GCC, clang
   and MSVC for it), and never with -ffast-math. */
#ifndef SQZ_H
#define SQZ_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

enum {
    SQZ_OK,
    SQZ_MALFORMED, /* damaged, or not a .sqz file */
    SQZ_VERSION,   /* a version or profile that this reader does not know */
    SQZ_BASE,      /* a delta without its base or with a wrong one, or a base for a file that is not a delta */
    SQZ_WORKSPACE  /* the workspace is too small */
};
typedef struct {
    const char *name; /* UTF-8, a lone surrogate as 3 bytes; a 0 byte follows */
    size_t name_bytes, dimensions, shape[8], count; /* count: number of elements, which are in C order */
    const float *values;
} sqz_array;
typedef struct {
    int version, max_profile; /* 1 or 2; 0 for the profile `paper`, 1 for `max` */
    const sqz_array *arrays;
    size_t array_count;
    const char *json, *header; /* the whole JSON text, and within it the object that was encoded with the arrays */
    size_t json_bytes, header_bytes;
    size_t workspace_used, workspace_peak; /* bytes that the result takes, and bytes that decoding took */
    const char *message;                   /* one line that says why the file is refused */
} sqz_file;

/* Decodes a file. The result lies in the workspace; data and base are no longer needed afterwards.
   base: the file that this one is a delta against; NULL for a file that is not a delta.
   workspace: any memory, preferably aligned to 8 bytes (otherwise up to 7 more are needed). A file always takes the
       same `workspace_peak`; if the file is known in advance, the program `sqz` prints it. For other files the bound is
       1 MiB, 64 KiB for each array, 4 bytes for each byte of the file and of the JSON, 16 bytes for each element, and
       80 for each element of the largest batch (section 6), which has at most 2**22; for a delta, as much again for its
       base.
   Returns SQZ_OK, or what is wrong; in that case the result is empty except for `message` and `workspace_peak`. */
int sqz_decode(sqz_file *file, const void *data, size_t size, const void *base, size_t base_size, void *workspace,
               size_t workspace_size);
#ifdef __cplusplus
}
#endif
#endif

#if defined(SQZ_IMPLEMENTATION) && !defined(SQZ_IMPLEMENTED)
#define SQZ_IMPLEMENTED
#include <string.h>
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    (defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ == 2)
#error "sqz.h needs IEEE 754: no -ffast-math nor a part of it, and on 32-bit x86 -msse2 -mfpmath=sse"
#elif defined(__SIZEOF_DOUBLE__) && __SIZEOF_DOUBLE__ != 8
#error "sqz.h needs doubles of 64 bits: some compilers for small processors need a flag for them"
#elif defined(__cplusplus)
#error "sqz.h is C99: define SQZ_IMPLEMENTATION in a .c file; C++ files can include sqz.h without it"
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif

enum { /* the format's limits; those of bytes and elements are powers of 2 */
    SQZ__MAX_BYTES = 1 << 28, SQZ__MAX_JSON = 1 << 22, SQZ__MAX_ARRAYS = 1024, SQZ__MAX_NAME = 255,
    SQZ__MAX_DIMENSIONS = 8, SQZ__MAX_LEVELS = 64, SQZ__MAX_DIGITS = 4300, /* of the JSON, and of an integer in it */
    SQZ__MAX_CODES = 4096, SQZ__MAX_CODED = 1 << 22, SQZ__BATCH_CODES = 1 << 14, SQZ__MAX_FILTER = 1 << 16,
    SQZ__FULL = 1 << 15 /* the sum of the frequencies in a table */
};

/* ---- The state of the decoder: its first error, and its memory, which is filled from the front ---- */
typedef struct {
    int status;
    const char *message;
    unsigned char *memory;
    size_t size, used, peak; /* multiples of 8 */
    uint32_t crc_table[4 * 256]; /* for a byte, then for a byte followed by 1, 2 and 3 others */
} sqz__decoder;
typedef struct { const unsigned char *at, *end; } sqz__bytes;

static int sqz__fail(sqz__decoder *d, int status, const char *message) { /* returns 0, like every function that fails */
    if (!d->status) d->status = status, d->message = message;
    return 0;
}
#define SQZ__TRY(success) do { if (!(success)) return 0; } while (0)
#define SQZ__NEED(condition, status, text) SQZ__TRY((condition) || sqz__fail(d, status, text))
#define SQZ__CHECK(condition, text) SQZ__NEED(condition, SQZ_MALFORMED, text)
/* Memory for n things, cleared or not; 0 if there is not enough. */
#define SQZ__NEW(pointer, n) (((pointer) = sqz__alloc(d, n, sizeof *(pointer), 1)) != NULL)
#define SQZ__GET(pointer, n) (((pointer) = sqz__alloc(d, n, sizeof *(pointer), 0)) != NULL)
#ifndef SQZ_GUARD /* tests tell a sanitizer which part of the workspace may be used: guard.h */
#define SQZ_GUARD(address, size, open) ((void)0)
#define SQZ_GAP 0
#endif
static int sqz__no_room(sqz__decoder *d) { return sqz__fail(d, SQZ_WORKSPACE, "the workspace is too small"); }
static void *sqz__alloc(sqz__decoder *d, size_t count, size_t size, int clear) {
    unsigned char *start = d->memory + d->used;
    if (d->used + SQZ_GAP > d->size || count > (d->size - d->used - SQZ_GAP) / size) return sqz__no_room(d), NULL;
    SQZ_GUARD(start, count * size, 1);
    d->used += (count * size + 7) / 8 * 8 + SQZ_GAP;
    if (d->used > d->peak) d->peak = d->used;
    return clear ? memset(start, 0, count * size) : start;
}
static void sqz__release(sqz__decoder *d, size_t mark) {
    SQZ_GUARD(d->memory + mark, d->used - mark, 0);
    d->used = mark;
}
static size_t sqz__left(const sqz__bytes *in) { return (size_t)(in->end - in->at); }
static uint32_t sqz__u16(const unsigned char *p) { return p[0] | (uint32_t)p[1] << 8; }
static uint32_t sqz__u32(const unsigned char *p) { return sqz__u16(p) | sqz__u16(p + 2) << 16; }
static const unsigned char *sqz__take(sqz__decoder *d, sqz__bytes *in, size_t size) {
    if (size <= sqz__left(in)) return in->at += size, in->at - size;
    return sqz__fail(d, SQZ_MALFORMED, "a section ends too early"), NULL;
}
static uint32_t sqz__u8(sqz__decoder *d, sqz__bytes *in) { /* beyond the end: 0, and an error that is noticed later */
    const unsigned char *byte = sqz__take(d, in, 1);
    return byte ? *byte : 0;
}
static uint64_t sqz__varint(sqz__decoder *d, sqz__bytes *in) {
    uint64_t value = 0;
    uint32_t shift = 0, byte = 128;
    for (; byte > 127 && shift < 35; shift += 7) value |= (uint64_t)((byte = sqz__u8(d, in)) & 127) << shift;
    SQZ__CHECK(byte <= 127 && (byte || shift == 7), "a number has more than 35 bits, or more bytes than it needs");
    return value;
}

/* ---- Checksums and hashes ---- */
static void sqz__make_crc_table(sqz__decoder *d) {
    for (uint32_t i = 0; i < 4 * 256; i++) {
        uint32_t crc = i < 256 ? i : d->crc_table[i - 256];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1) * 0xEDB88320u;
        d->crc_table[i] = crc;
    }
}
static uint32_t sqz__crc32(const sqz__decoder *d, uint32_t crc, const unsigned char *data, size_t size) {
    const uint32_t *t = d->crc_table;
    for (crc = ~crc; size >= 4; size -= 4, data += 4) {
        crc ^= sqz__u32(data);
        crc = t[768 + (crc & 255)] ^ t[512 + (crc >> 8 & 255)] ^ t[256 + (crc >> 16 & 255)] ^ t[crc >> 24];
    }
    while (size--) crc = crc >> 8 ^ t[(crc ^ *data++) & 255];
    return ~crc;
}
static uint32_t sqz__rotate(uint32_t x, int by) { return x >> by | x << (32 - by); }
static uint32_t sqz__mix(uint32_t x, int a, int b, int c) {
    return sqz__rotate(x, a) ^ sqz__rotate(x, b) ^ sqz__rotate(x, c);
}
static void sqz__sha256(const unsigned char *data, size_t size, unsigned char digest[32]) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
        0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
        0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
        0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
        0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
        0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
        0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    size_t padded = (size + 72) / 64 * 64; /* after the data: a 1, zeros, and the number of bits in 8 bytes */
    for (size_t at = 0; at < padded;) {
        uint32_t w[64] = {0}, v[8];
        for (size_t i = 0; i < 64; i++, at++) {
            uint64_t bits = padded - at > 8 ? 0 : (uint64_t)size << 3 >> (8 * (padded - at - 1));
            w[i / 4] = w[i / 4] << 8 | (at < size ? data[at] : at == size ? 128 : (uint32_t)bits & 255);
        }
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] + (sqz__rotate(w[i - 15], 7) ^ sqz__rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
                   (sqz__rotate(w[i - 2], 17) ^ sqz__rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 64; i++) {
            uint32_t t = v[7] + sqz__mix(v[4], 6, 11, 25) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
            uint32_t u = sqz__mix(v[0], 2, 13, 22) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += t;
            v[0] = t + u;
        }
        for (int i = 0; i < 8; i++) h[i] += v[i];
    }
    for (int i = 0; i < 32; i++) digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* ---- Prefix codes, and inflating a zlib stream (RFC 1950 and 1951) ---- */
/* at, end: in bits; `at` may pass the end, where bits read as 0. flip: 0 if a byte's lowest bit comes first, else 7. */
typedef struct { const unsigned char *data; uint64_t at, end; uint32_t flip; } sqz__bits;
typedef struct { uint16_t count[16], *symbols; } sqz__prefix_code; /* count: by length; symbols: in order of codes */

static sqz__bits sqz__bits_of(sqz__bytes in, uint32_t flip) {
    return (sqz__bits){in.at, 0, 8 * (uint64_t)sqz__left(&in), flip};
}
static uint32_t sqz__bit(sqz__bits *in) {
    uint64_t at = in->at++;
    return at < in->end ? in->data[at >> 3] >> ((at & 7) ^ in->flip) & 1u : 0;
}
static uint32_t sqz__number(sqz__bits *in, uint32_t width) { /* the lowest bit comes first, or last with `flip` */
    uint32_t value = 0;
    for (uint32_t i = 0; i < width; i++) value = in->flip ? value << 1 | sqz__bit(in) : value | sqz__bit(in) << i;
    return value;
}
/* Makes a code from lengths. It must be complete; with `lone`, it may also have one symbol of length 1, or none. */
static int sqz__make_code(sqz__decoder *d, sqz__prefix_code *code, const unsigned char *lengths, uint32_t n, int lone) {
    uint16_t place[17] = {0};
    int32_t left = 1;
    memset(code->count, 0, sizeof code->count);
    for (uint32_t s = 0; s < n; s++) {
        SQZ__CHECK(lengths[s] < 16, "a code length is more than 15");
        code->count[lengths[s]]++;
    }
    for (int length = 1; length < 16; length++) {
        left = 2 * left - code->count[length]; /* once it is below 0, it stays there */
        place[length + 1] = (uint16_t)(place[length] + code->count[length]);
    }
    int complete = !left || (lone && left > 0 && code->count[0] + code->count[1] == (int32_t)n);
    SQZ__CHECK(complete, "a prefix code is not complete, or has too many symbols");
    for (uint32_t s = 0; s < n; s++)
        if (lengths[s]) code->symbols[place[lengths[s]]++] = (uint16_t)s;
    return 1;
}
static uint32_t sqz__code_symbol(sqz__bits *in, const sqz__prefix_code *code) { /* UINT32_MAX: no such code */
    uint32_t value = 0, index = 0;
    for (int length = 1; length < 16; index += code->count[length++]) {
        value = value << 1 | sqz__bit(in);
        if (value < code->count[length]) return code->symbols[index + value];
        value -= code->count[length];
    }
    return UINT32_MAX;
}
typedef struct { sqz__bits in; unsigned char *out; size_t first, size, limit; } sqz__zlib; /* first: first known byte */

static int sqz__put(sqz__decoder *d, sqz__zlib *z, uint32_t byte) {
    SQZ__CHECK(z->size < z->limit, "a zlib stream inflates to more than is allowed");
    SQZ__TRY(z->size < d->size - d->used || sqz__no_room(d));
    z->out[z->size++] = (unsigned char)byte;
    return 1;
}
/* Makes the codes of a block: `codes[0]` for literals and lengths, `codes[1]` for distances. */
static int sqz__block_codes(sqz__decoder *d, sqz__bits *in, int fixed, sqz__prefix_code *codes) {
    static const unsigned char order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    unsigned char lengths[320] = {0};
    for (int i = 0; fixed && i < 320; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : i < 288 ? 8 : 5;
    if (fixed) return sqz__make_code(d, codes, lengths, 288, 0) && sqz__make_code(d, codes + 1, lengths + 288, 32, 0);
    uint32_t first = sqz__number(in, 5) + 257, n = first + sqz__number(in, 5) + 1, count = sqz__number(in, 4) + 4;
    SQZ__CHECK(first <= 286 && n - first <= 30, "a zlib stream has too many symbols");
    for (uint32_t i = 0; i < count; i++) lengths[order[i]] = (unsigned char)sqz__number(in, 3);
    SQZ__TRY(sqz__make_code(d, codes, lengths, 19, 0));
    for (uint32_t i = 0; i < n;) {
        uint32_t s = sqz__code_symbol(in, codes), repeat = 1;
        if (s > 15) repeat = (s == 18 ? 11 : 3) + sqz__number(in, s == 16 ? 2 : s == 17 ? 3 : 7);
        SQZ__CHECK(repeat <= n - i && (s != 16 || i), "a zlib stream has invalid code lengths");
        if (s > 15) s = s == 16 ? lengths[i - 1] : 0;
        while (repeat--) lengths[i++] = (unsigned char)s;
    }
    SQZ__CHECK(lengths[256], "a zlib stream has a block without an end");
    return sqz__make_code(d, codes, lengths, first, 1) && sqz__make_code(d, codes + 1, lengths + first, n - first, 1);
}
static int sqz__inflate_block(sqz__decoder *d, sqz__zlib *z, uint32_t type) {
    uint16_t symbols[288 + 32];
    sqz__prefix_code codes[2] = {{{0}, symbols}, {{0}, symbols + 288}};
    sqz__bits *in = &z->in;
    if (type == 0) { /* stored bytes */
        in->at = (in->at + 7) / 8 * 8;
        uint32_t size = sqz__number(in, 16);
        SQZ__CHECK(size == (sqz__number(in, 16) ^ 0xFFFF), "a zlib stream has a damaged stored block");
        while (size--) SQZ__TRY(sqz__put(d, z, sqz__number(in, 8)));
        return 1;
    }
    SQZ__TRY(sqz__block_codes(d, in, type == 1, codes));
    for (uint32_t s; (s = sqz__code_symbol(in, &codes[0])) != 256;) {
        SQZ__CHECK(s < 286 && in->at <= in->end, "a zlib stream has an invalid symbol, or ends too early");
        if (s < 256) SQZ__TRY(sqz__put(d, z, s));
        if (s < 256) continue;
        uint32_t step = s - 257, bits = step < 8 ? 0 : step / 4 - 1; /* extra bits of the length */
        uint32_t length = step == 28 ? 258 : step < 8 ? 3 + step : 3 + ((4 + step % 4) << bits) + sqz__number(in, bits);
        step = sqz__code_symbol(in, &codes[1]);
        SQZ__CHECK(step < 30, "a zlib stream has an invalid distance");
        bits = step < 4 ? 0 : step / 2 - 1;
        size_t distance = step < 4 ? 1 + step : 1 + ((2 + step % 2) << bits) + sqz__number(in, bits);
        SQZ__CHECK(distance <= z->size - z->first, "a zlib stream refers to what is before its beginning");
        while (length--) SQZ__TRY(sqz__put(d, z, z->out[z->size - distance]));
    }
    return 1;
}
static int sqz__adler_is(sqz__bits *in, const unsigned char *data, size_t size) {
    uint32_t a = 1, b = 0, sum = 0;
    for (size_t i = 0; i < size; i++) a = (a + data[i]) % 65521, b = (b + a) % 65521;
    for (int i = 0; i < 4; i++) sum = sum << 8 | sqz__number(in, 8);
    return sum == (b << 16 | a);
}
/* Inflates the stream that fills `in` into the free memory, and allocates what it took and a 0 byte after it. The first
   `preset` bytes of that memory are a dictionary that the stream may use; they are overwritten. */
static int sqz__inflate(sqz__decoder *d, sqz__bytes in, size_t limit, size_t preset, sqz__bytes *inflated) {
    sqz__zlib z = {sqz__bits_of(in, 0), d->memory + d->used, preset, preset, preset + limit};
    uint32_t method = sqz__number(&z.in, 8), flags = sqz__number(&z.in, 8), last, type;
    SQZ__CHECK((method & 15) == 8 && method >> 4 < 8 && (method << 8 | flags) % 31 == 0,
               "a zlib stream has an invalid header"); /* method 8, a window of at most 32 KiB */
    SQZ_GUARD(z.out, d->size - d->used, 1);
    if (flags & 32) {
        SQZ__CHECK(preset && sqz__adler_is(&z.in, z.out, preset), "a zlib stream needs another preset dictionary");
        z.first = 0;
    }
    do {
        last = sqz__number(&z.in, 1);
        type = sqz__number(&z.in, 2);
        SQZ__CHECK(type < 3, "a zlib stream has an invalid block");
        SQZ__TRY(sqz__inflate_block(d, &z, type));
    } while (!last);
    size_t size = z.size - preset, peak = d->used + (z.size + 7) / 8 * 8;
    if (peak > d->peak) d->peak = peak;
    memmove(z.out, z.out + preset, size);
    z.in.at = (z.in.at + 7) / 8 * 8;
    SQZ__CHECK(sqz__adler_is(&z.in, z.out, size) && z.in.at == z.in.end, "a zlib stream is damaged, or too long");
    SQZ_GUARD(z.out, d->size - d->used, 0);
    SQZ__TRY(SQZ__GET(z.out, size + 1));
    z.out[size] = 0;
    *inflated = (sqz__bytes){z.out, z.out + size};
    return 1;
}

/* ---- The JSON (section 1): one pass checks the text, and a second one reads what is needed ---- */
typedef struct {
    const unsigned char *at, **keys; /* at: a 0 byte, valid nowhere, ends the text; keys: of all open objects */
    size_t key_count, members;       /* members: number of keys in the object that was closed last */
    uint64_t elements;               /* of all arrays read so far, an empty dimension counting as 1 */
} sqz__json;
enum { SQZ__END_OF_STRING = -1, SQZ__INVALID = -2 };

static int sqz__is_one_of(unsigned char c, const char *these) { return c && strchr(these, c); }
static int32_t sqz__hex4(const unsigned char *p) {
    int32_t value = 0;
    if (strspn((const char *)p, "0123456789abcdefABCDEF") < 4) return SQZ__INVALID;
    for (int i = 0; i < 4; i++) value = value << 4 | (p[i] <= '9' ? p[i] - '0' : (p[i] | 32) - 'a' + 10);
    return value;
}
/* The next character of a string, SQZ__END_OF_STRING or SQZ__INVALID. An escaped surrogate pair is one character. */
static int32_t sqz__character(const unsigned char **at) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    static const int32_t least[4] = {0, 0x80, 0x800, 0x10000};
    int32_t c = *(*at)++, more = c < 0xC0 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
    if (c < 32 || c > 0xF7 || (c > 127 && c < 0xC0)) return SQZ__INVALID;
    if (c == '"') return SQZ__END_OF_STRING;
    if (c != '\\') {
        c &= more ? 63 >> more : 127;
        for (int i = 0; i < more; i++) {
            if (**at >> 6 != 2) return SQZ__INVALID;
            c = c << 6 | (*(*at)++ & 63);
        }
        return c < least[more] || c > 0x10FFFF || c >> 11 == 0x1B ? SQZ__INVALID : c;
    }
    if (sqz__is_one_of(**at, names)) return values[strchr(names, *(*at)++) - names];
    if (*(*at)++ != 'u' || (c = sqz__hex4(*at)) < 0) return SQZ__INVALID;
    *at += 4;
    int32_t low = c >> 10 == 0x36 && (*at)[0] == '\\' && (*at)[1] == 'u' ? sqz__hex4(*at + 2) : 0;
    if (low >> 10 != 0x37) return c;
    *at += 6;
    return 0x10000 + ((c & 1023) << 10 | (low & 1023));
}
static int sqz__compare(const unsigned char *a, const unsigned char *b) { /* the strings have been checked */
    int32_t x, y;
    do x = sqz__character(&a), y = sqz__character(&b); while (x == y && x >= 0);
    return (x > y) - (x < y);
}
/* Sorts keys by heapsort, and says whether two of them are equal. */
static int sqz__has_twins(const unsigned char **keys, size_t count) {
    for (size_t start = count / 2, end = count, root, child; end > 1;) {
        const unsigned char *key = start ? keys[--start] : keys[--end];
        if (end < count && !start) keys[end] = keys[0];
        for (root = start; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && sqz__compare(keys[child], keys[child + 1]) < 0) child++;
            if (sqz__compare(key, keys[child]) >= 0) break;
            keys[root] = keys[child];
        }
        keys[root] = key;
    }
    while (count > 1 && sqz__compare(keys[count - 2], keys[count - 1]) != 0) count--;
    return count > 1;
}
static size_t sqz__pass(sqz__json *j, const char *these) { /* skips bytes that are among these, and returns how many */
    size_t count = strspn((const char *)j->at, these);
    j->at += count;
    return count;
}
static int sqz__accept(sqz__json *j, int c) { /* skips white space, and then the next byte if it is `c` */
    sqz__pass(j, " \t\n\r");
    return *j->at == c ? j->at++, 1 : 0;
}
static int sqz__next_is(sqz__json *j, int c) { return sqz__accept(j, c) ? j->at--, 1 : 0; }
/* Checks a string, or any value that is neither a list nor an object. */
static int sqz__scalar(sqz__json *j) {
    static const char *const words[3] = {"true", "false", "null"}, digits[] = "0123456789";
    int32_t c = 0;
    if (sqz__accept(j, '"')) {
        while (c >= 0) c = sqz__character(&j->at);
        return c == SQZ__END_OF_STRING;
    }
    for (int i = 0; i < 3; i++)
        if (strncmp((const char *)j->at, words[i], strlen(words[i])) == 0) return j->at += strlen(words[i]), 1;
    sqz__accept(j, '-');
    int zero = *j->at == '0';
    size_t count = sqz__pass(j, digits);
    const unsigned char *end = j->at;
    SQZ__TRY(count && !(zero && count > 1));
    if (*j->at == '.') SQZ__TRY((j->at++, sqz__pass(j, digits)));
    if (sqz__is_one_of(*j->at, "eE")) SQZ__TRY((j->at += 1 + sqz__is_one_of(j->at[1], "+-"), sqz__pass(j, digits)));
    return j->at > end || count <= SQZ__MAX_DIGITS;
}
/* Checks a value inside `level` lists and objects. No object may have a key twice. */
static int sqz__value(sqz__json *j, int level) {
    int object = sqz__accept(j, '{'), close = object ? '}' : ']';
    size_t first = j->key_count;
    if (!object && !sqz__accept(j, '[')) return sqz__scalar(j);
    SQZ__TRY(level < SQZ__MAX_LEVELS);
    for (int more = !sqz__next_is(j, close); more; more = sqz__accept(j, ',')) {
        if (object) {
            SQZ__TRY(sqz__next_is(j, '"'));
            j->keys[j->key_count++] = j->at + 1;
            SQZ__TRY(sqz__scalar(j) && sqz__accept(j, ':'));
        }
        SQZ__TRY(sqz__value(j, level + 1));
    }
    j->members = j->key_count - first;
    j->key_count = first;
    return sqz__accept(j, close) && !sqz__has_twins(j->keys + first, j->members);
}
/* Skips the key `name` and the object after it, and sets `*start` to where the object begins. */
static int sqz__member(sqz__json *j, const char *name, const unsigned char **start) {
    int32_t c = sqz__accept(j, '"') ? sqz__character(&j->at) : SQZ__INVALID;
    for (; *name && c == *name; name++) c = sqz__character(&j->at);
    SQZ__TRY(c == SQZ__END_OF_STRING && !*name && sqz__accept(j, ':') && sqz__next_is(j, '{'));
    *start = j->at;
    return sqz__value(j, 1);
}
/* Reads an array's name, which it stores as UTF-8, and its list of dimensions. */
static int sqz__read_array(sqz__decoder *d, sqz__json *j, sqz_array *array) {
    static const unsigned char lead[4] = {0, 0xC0, 0xE0, 0xF0};
    unsigned char utf8[4 * SQZ__MAX_NAME + 1], *end = utf8, *name;
    uint64_t bounded = 1; /* the number of elements, empty dimensions counting as 1 */
    array->count = 1;
    SQZ__TRY(sqz__accept(j, '"'));
    for (int32_t c, characters = 0; (c = sqz__character(&j->at)) >= 0; characters++) {
        int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        SQZ__CHECK(characters < SQZ__MAX_NAME, "the name of an array has more than 255 characters");
        *end++ = (unsigned char)(lead[more] | c >> (6 * more));
        while (more--) *end++ = (unsigned char)(0x80 | (c >> (6 * more) & 63));
    }
    SQZ__CHECK(end > utf8 && sqz__accept(j, ':') && sqz__accept(j, '['), "an array has no name or no shape");
    array->name_bytes = (size_t)(end - utf8);
    SQZ__TRY(SQZ__NEW(name, array->name_bytes + 1));
    array->name = memcpy(name, utf8, array->name_bytes);
    while (!sqz__accept(j, ']')) {
        int negative = sqz__accept(j, '-');
        size_t size = 0;
        for (; sqz__is_one_of(*j->at, "0123456789") && size <= SQZ__MAX_BYTES; j->at++) size = 10 * size + *j->at - '0';
        bounded *= size ? size : 1;
        SQZ__CHECK((sqz__accept(j, ',') || sqz__next_is(j, ']')) && size <= SQZ__MAX_BYTES && !(negative && size) &&
                   array->dimensions < SQZ__MAX_DIMENSIONS && bounded <= SQZ__MAX_BYTES, "a shape is invalid");
        array->shape[array->dimensions++] = size;
        array->count *= size;
    }
    j->elements += bounded;
    return 1;
}
/* Reads the arrays' names and shapes. `base`: the JSON of a delta's base; inflated, it is the dictionary. Or empty. */
static int sqz__read_json(sqz__decoder *d, sqz_file *file, sqz__bytes section, sqz__bytes base, sqz_array **arrays) {
    sqz__json j = {0};
    sqz__bytes text, dictionary = {0};
    const unsigned char *start, *header;
    size_t mark = d->used;
    SQZ__TRY(!base.at || sqz__inflate(d, base, SQZ__MAX_JSON, 0, &dictionary));
    sqz__release(d, mark);
    SQZ__TRY(sqz__inflate(d, section, SQZ__MAX_JSON, sqz__left(&dictionary), &text));
    mark = d->used;
    j.at = text.at;
    SQZ__TRY(SQZ__GET(j.keys, sqz__left(&text) / 4 + 1)); /* a key and its value have at least 4 bytes: "":0 */
    SQZ__CHECK(sqz__accept(&j, '{') && sqz__member(&j, "arrays", &start), "the JSON has no valid object `arrays`");
    file->array_count = j.members;
    SQZ__CHECK(sqz__accept(&j, ',') && sqz__member(&j, "header", &header), "the JSON has no valid object `header`");
    file->json = (const char *)text.at, file->json_bytes = sqz__left(&text);
    file->header = (const char *)header, file->header_bytes = (size_t)(j.at - header);
    SQZ__CHECK(sqz__accept(&j, '}') && sqz__next_is(&j, 0) && j.at == text.end, "something follows the header");
    SQZ__CHECK(file->array_count <= SQZ__MAX_ARRAYS, "there are more than 1024 arrays");
    sqz__release(d, mark);
    SQZ__TRY(SQZ__NEW(*arrays, file->array_count));
    file->arrays = *arrays;
    j.at = start + 1;
    for (size_t i = 0; i < file->array_count; i++, sqz__accept(&j, ','))
        SQZ__TRY(sqz__read_array(d, &j, *arrays + i));
    SQZ__CHECK(j.elements <= SQZ__MAX_BYTES / 4, "the arrays are too large");
    return 1;
}

/* ---- Rows of the table and arrays of codes (sections 2 and 3) ---- */
enum { SQZ__FLOATS, SQZ__CODEBOOK, SQZ__GRID, SQZ__SAME, SQZ__BOOK_DELTA, SQZ__GRID_DELTA, /* kinds of arrays */
       SQZ__TRELLIS, SQZ__DENSE_TRELLIS, SQZ__ADDED };
typedef struct { /* an array of codes or differences; or only the shape of floats, with the range 0 to 0 */
    uint32_t width, rows, columns, size, taps; /* section "Places" */
    int32_t low, high, dense;                  /* dense: it has no zeros; for profile `max` */
    int32_t (*neighbours)[4]; /* by tap; NULL in arrays of one tap */
    uint16_t *row_of; /* by index, in differences of version 2; NULL if the row follows from the index */
    int16_t *codes;
} sqz__codes;
typedef struct {
    uint32_t kind, part_count;
    sqz__codes codes, differences[2], *parts; /* parts: what the profile decodes, either the codes or the differences */
    const sqz_array *base;
    const int16_t *base_codes; /* in a delta by differences */
} sqz__row;
typedef struct {
    sqz_file *file;
    sqz__bytes json, digest, table, raw, stream; /* the sections, in order; BASE is empty if there is none */
    sqz_array *arrays;
    sqz__row *rows;
    sqz__codes **coded, **floats; /* all arrays of codes, and the shapes of all arrays of floats */
    size_t coded_count, float_count, grids, plane_size[8];
    const unsigned char *steps, *plane[8], *bitmap[8]; /* steps: 4 bytes for each grid; bitmap: of modelled planes */
    uint32_t mode[8];
} sqz__net;

static int sqz__has_codebook(const sqz__row *r) { return r->kind == SQZ__CODEBOOK || r->kind == SQZ__BOOK_DELTA; }
static int sqz__has_trellis(const sqz__row *r) { return r->kind == SQZ__TRELLIS || r->kind == SQZ__DENSE_TRELLIS; }
static int sqz__has_codes(const sqz__row *r) { return r->kind != SQZ__FLOATS && r->kind != SQZ__SAME; }
static uint32_t sqz__code_count(const sqz__codes *codes) { return (uint32_t)(codes->high - codes->low + 1); }
static void sqz__set_shape(sqz__codes *codes, const size_t *shape, size_t n, size_t size) {
    codes->width = codes->taps = n > 2 ? (uint32_t)shape[n - 3] : 1;
    codes->rows = n > 1 ? (uint32_t)shape[n - 2] : 1;
    codes->columns = n > 0 ? (uint32_t)shape[n - 1] : 1;
    for (size_t i = 0; i + 3 < n; i++) codes->taps *= (uint32_t)shape[i];
    codes->size = (uint32_t)size;
    if (size) return; /* without elements, the other dimensions would take memory for nothing */
    codes->width = codes->taps = codes->rows = 1;
    codes->columns = 0;
}
static int sqz__read_range(sqz__decoder *d, sqz__bytes *table, sqz__codes *codes) {
    uint64_t below = sqz__varint(d, table), above = sqz__varint(d, table);
    SQZ__CHECK(below + above < SQZ__MAX_CODES, "a range has more than 4096 codes");
    codes->low = -(int32_t)below;
    codes->high = (int32_t)above;
    return !d->status;
}
static int sqz__read_row(sqz__decoder *d, sqz__bytes *table, const sqz_array *array, int version, sqz__row *row) {
    size_t filter = 1;
    row->kind = sqz__u8(d, table);
    SQZ__CHECK(row->kind <= (version == 1 ? SQZ__GRID_DELTA : SQZ__ADDED), "a kind of array is unknown");
    sqz__set_shape(&row->codes, array->shape, array->dimensions, array->count);
    if (!sqz__has_codes(row)) return !d->status;
    int delta = row->kind == SQZ__BOOK_DELTA || row->kind == SQZ__GRID_DELTA;
    row->parts = delta ? row->differences : &row->codes;
    row->part_count = delta ? 2 : 1;
    SQZ__TRY(sqz__read_range(d, table, &row->codes));
    for (int i = 0; i < 2 && delta; i++) SQZ__TRY(sqz__read_range(d, table, &row->differences[i]));
    SQZ__CHECK(array->count <= SQZ__MAX_CODED, "an array of codes has more than 2**22 elements");
    SQZ__CHECK(sqz__has_codebook(row) || row->codes.low < row->codes.high, "a grid has no values");
    for (size_t i = 0; i + 1 < array->dimensions; i++) filter *= array->shape[i];
    int fit = array->dimensions > 1 && filter <= SQZ__MAX_FILTER;
    SQZ__CHECK(fit || !sqz__has_trellis(row), "a trellis has too few dimensions, or too large filters");
    return 1;
}
/* Checks that the lowest and highest codes (or 0) are those that the table declares. */
static int sqz__check_range(sqz__decoder *d, const sqz__codes *codes) {
    int32_t least = 0, most = 0;
    for (const int16_t *c = codes->codes, *end = c + codes->size; c < end; c++) {
        least = *c < least ? *c : least;
        most = *c > most ? *c : most;
    }
    SQZ__CHECK(least == codes->low && most == codes->high, "the codes of an array are not of the declared range");
    return 1;
}
/* Reads the modes of the planes. They must be below 2; in planes 0 to 3, below `end`. */
static int sqz__read_modes(sqz__decoder *d, sqz__net *net, uint32_t end) {
    for (uint32_t i = 0; i < 8; i++) {
        net->mode[i] = sqz__u8(d, &net->table);
        SQZ__CHECK(net->mode[i] < (i < 4 ? end : 2), "the mode of a plane is unknown");
    }
    return !d->status;
}
/* Finds the grids' steps and the raw planes in the raw bytes. */
static int sqz__read_raw(sqz__decoder *d, sqz__net *net, sqz__bytes raw) {
    SQZ__TRY((net->steps = sqz__take(d, &raw, 4 * net->grids)) != NULL);
    for (int i = 0; i < 8; i++)
        if (!net->mode[i]) SQZ__TRY((net->plane[i] = sqz__take(d, &raw, net->plane_size[i])) != NULL);
    SQZ__CHECK(raw.at == raw.end, "the section VALS has a wrong size");
    return 1;
}

/* ---- Profile `paper` (section 5) ---- */
typedef struct { uint32_t alphabet, used; size_t count; sqz__prefix_code code; } sqz__huffman; /* count: to decode */
typedef struct { sqz__bits *lanes; uint32_t count, next; } sqz__lanes; /* next: the lane of the next symbol */

static uint32_t sqz__huffman_symbol(sqz__lanes *stream, const sqz__huffman *h) {
    if (h->used == 1) return h->code.symbols[0];
    sqz__bits *lane = &stream->lanes[stream->next];
    stream->next = stream->next + 1 == stream->count ? 0 : stream->next + 1;
    return sqz__code_symbol(lane, &h->code);
}
/* Reads the lengths of the lanes in a stream of `total` symbols. */
static int sqz__open_lanes(sqz__decoder *d, sqz__bytes in, uint64_t total, sqz__lanes *stream) {
    uint64_t least = sqz__varint(d, &in), end = 0;
    uint32_t width = sqz__u8(d, &in), all = 0, smallest = UINT32_MAX;
    stream->count = total < 128 ? 1 : total < 256 * 64 ? (uint32_t)(total / 64) : 256;
    SQZ__CHECK(width <= 17, "the lengths of lanes have more than 17 bits");
    const unsigned char *start = sqz__take(d, &in, (stream->count * width + 7) / 8);
    SQZ__TRY(!d->status && SQZ__GET(stream->lanes, stream->count));
    sqz__bits fields = sqz__bits_of((sqz__bytes){start, in.at}, 7), bits = sqz__bits_of(in, 7);
    for (sqz__bits *lane = stream->lanes; lane < stream->lanes + stream->count; lane++) {
        uint32_t field = sqz__number(&fields, width);
        all |= field, smallest = field < smallest ? field : smallest;
        *lane = (sqz__bits){in.at, end, end + least + field, 7};
        end = lane->end;
    }
    SQZ__CHECK(!smallest && (!width || all >> (width - 1)), "the lengths of lanes have more bits than they need");
    SQZ__CHECK((end + 7) / 8 * 8 == bits.end && total <= end, "the lanes have another size than they should");
    while (fields.at % 8) SQZ__CHECK(!sqz__bit(&fields), "the bits behind the lengths of lanes are not 0");
    for (bits.at = end; bits.at % 8;) SQZ__CHECK(!sqz__bit(&bits), "the bits behind the lanes are not 0");
    return 1;
}
/* Decodes the codes of an array: all of them, or, with index bits, entries and the gaps before them. */
static int sqz__paper_codes(sqz__decoder *d, sqz__lanes *lanes, const sqz__huffman *h, const sqz__codes *coded) {
    size_t mark = d->used, at = 0;
    int16_t *entries = coded->codes;
    SQZ__TRY(!h[1].alphabet || SQZ__GET(entries, h->count));
    for (size_t i = 0; i < h->count; i++) entries[i] = (int16_t)((int32_t)sqz__huffman_symbol(lanes, h) + coded->low);
    for (size_t i = 0; i < h[1].count; i++, at++) {
        uint32_t gap = sqz__huffman_symbol(lanes, h + 1);
        SQZ__CHECK(entries[i] || (gap + 1 == h[1].alphabet && i + 1 < h->count), "a filler stands where none may");
        SQZ__CHECK(gap < coded->size - at, "the gaps lead out of an array");
        coded->codes[at += gap] = entries[i];
    }
    sqz__release(d, mark);
    return 1;
}
/* Decodes codes and planes. Each array of codes has two tables; without index bits, the second is empty. */
static int sqz__read_paper(sqz__decoder *d, sqz__net *net) {
    size_t n = 2 * net->coded_count + 8, alphabets = 0;
    uint64_t total = 0;
    sqz__huffman *tables, *planes;
    sqz__lanes lanes = {0};
    sqz__bytes lengths;
    unsigned char *plane;
    SQZ__TRY(SQZ__NEW(tables, n));
    planes = tables + n - 8;
    for (size_t i = 0; i < net->coded_count; i++) {
        sqz__huffman *h = &tables[2 * i];
        uint32_t bits = sqz__u8(d, &net->table);
        uint64_t entries = bits ? sqz__varint(d, &net->table) : net->coded[i]->size;
        SQZ__CHECK(bits <= 12 && entries <= net->coded[i]->size, "an array has too many entries or index bits");
        h[0].alphabet = sqz__code_count(net->coded[i]);
        h[0].count = (size_t)entries;
        if (bits) h[1].alphabet = 1u << bits, h[1].count = h[0].count;
    }
    SQZ__TRY(sqz__read_modes(d, net, 2));
    for (int i = 0; i < 8; i++)
        if (net->mode[i]) planes[i].alphabet = 256, planes[i].count = net->plane_size[i];
    for (size_t i = 0; i < n; i++) alphabets += tables[i].alphabet;
    SQZ__TRY(sqz__inflate(d, net->table, alphabets, 0, &lengths));
    SQZ__CHECK(sqz__left(&lengths) == alphabets, "there are too few code lengths");
    for (sqz__huffman *h = tables; h < tables + n; lengths.at += h++->alphabet) {
        SQZ__TRY(SQZ__GET(h->code.symbols, h->alphabet) && sqz__make_code(d, &h->code, lengths.at, h->alphabet, 1));
        h->used = h->alphabet - h->code.count[0];
        SQZ__CHECK(!h->used == !h->count, "a table is empty and used, or not empty and not used");
        total += h->used > 1 ? h->count : 0;
    }
    SQZ__TRY(sqz__open_lanes(d, net->stream, total, &lanes));
    for (size_t i = 0; i < net->coded_count; i++) SQZ__TRY(sqz__paper_codes(d, &lanes, &tables[2 * i], net->coded[i]));
    for (int i = 0; i < 8; i++) {
        SQZ__TRY(SQZ__GET(plane, planes[i].count));
        for (size_t k = 0; k < planes[i].count; k++) plane[k] = (unsigned char)sqz__huffman_symbol(&lanes, &planes[i]);
        net->plane[i] = plane;
    }
    for (uint32_t i = 0; i < lanes.count; i++)
        SQZ__CHECK(lanes.lanes[i].at == lanes.lanes[i].end, "a lane does not end where it should");
    return sqz__read_raw(d, net, net->raw);
}

/* ---- Profile `max` (section 6): the coder ---- */
/* at, size: of the stream, in bytes; `at` passes the end if words are missing. lane: the lane of the next symbol. */
typedef struct { const unsigned char *start; size_t at, size; uint32_t *state, lanes, lane; } sqz__coder;
/* Symbol s begins at sums[s] / total (section "Tables"). power: the highest power of 2 that is at most count. */
typedef struct { int64_t *sums, total; size_t count, power; } sqz__table;

static int sqz__open_coder(sqz__decoder *d, sqz__bytes in, uint32_t lanes, sqz__coder *coder) {
    *coder = (sqz__coder){in.at, 4 * (size_t)lanes, sqz__left(&in), NULL, lanes, 0};
    SQZ__CHECK(coder->size >= coder->at && coder->size % 2 == 0, "the coded stream has a wrong size");
    SQZ__TRY(SQZ__GET(coder->state, lanes));
    for (uint32_t lane = 0; lane < lanes; lane++) {
        coder->state[lane] = sqz__u32(in.at + 4 * lane);
        SQZ__CHECK(coder->state[lane] >> 16, "the state of a lane is below 2**16");
    }
    return 1;
}
/* Decodes a symbol with a given interval, and moves to the next lane. Whether a word is needed is practically random,
   so there is no branch; beyond the end, the last word is read again. */
static inline void sqz__advance(sqz__coder *coder, uint32_t begin, uint32_t frequency) {
    size_t at = coder->at < coder->size ? coder->at : coder->size - 2;
    uint32_t x = coder->state[coder->lane];
    x = frequency * (x >> 15) + (x & (SQZ__FULL - 1)) - begin;
    uint32_t low = x < 1u << 16;
    coder->state[coder->lane] = x << (16 * low) | (sqz__u16(coder->start + at) & (0 - low));
    coder->at += 2 * low;
    coder->lane = (coder->lane + 1) & (coder->lanes - 1); /* their number is a power of 2 */
}
static sqz__table sqz__make_table(int64_t *sums, int64_t total, uint32_t count) {
    sqz__table table = {sums, total, count, 1};
    while (table.power <= count / 2) table.power *= 2;
    return table;
}
static inline uint32_t sqz__symbol(sqz__coder *coder, const sqz__table *table) {
    const int64_t *at = table->sums;
    int64_t end = ((coder->state[coder->lane] & (SQZ__FULL - 1)) + (int64_t)1) * table->total;
    at += at[table->count - table->power] < end ? table->count - table->power : 0;
    for (size_t half = table->power / 2; half; half /= 2) at += at[half] < end ? half : 0;
    uint32_t begin = (uint32_t)(at[0] / table->total);
    sqz__advance(coder, begin, (uint32_t)(at[1] / table->total) - begin);
    return (uint32_t)(at - table->sums);
}

/* ---- Rounds: the places of the elements that are coded together ---- */
/* K of section 6. The last one, 256, is 0 on the circle of keys. */
static const unsigned char sqz__bounds[17] = {0, 1, 3, 7, 13, 22, 34, 48, 64, 84, 107, 131, 156, 181, 206, 231, 0};
typedef struct { uint32_t index, tap, row, column; } sqz__place;
typedef struct { uint64_t factor; uint32_t shift; } sqz__divisor;

/* Division of numbers below 2**22 by a number from 1 to 2**22, as a multiplication. */
static sqz__divisor sqz__divisor_of(uint32_t n) {
    uint32_t shift = 41;
    while (n >> (shift - 40)) shift++; /* at most 63 */
    return (sqz__divisor){((uint64_t)1 << shift) / n + 1, shift};
}
static uint32_t sqz__quotient(uint32_t a, sqz__divisor by) { return (uint32_t)(a * by.factor >> by.shift); }
/* Where an element is on the circle of 2**32 keys: its key of section 6, with 24 more bits. */
static uint32_t sqz__key(uint32_t index) { return index * 2654435769u; }
/* The most elements of a round: any two are at least 5 places apart. */
static size_t sqz__most_places(size_t size) { return size / 5 + 1; }
/* Lists the elements of an array whose keys are in a round. By the three-gap theorem, the step from one element to the
   next is the shortest step that moves up the circle by less than the round's width, the shortest that moves down by
   less than that, or, if neither fits, both together. */
static size_t sqz__list_round(uint32_t turn, const sqz__codes *shape, sqz__place *places) {
    uint32_t begin = (uint32_t)sqz__bounds[turn] << 24, width = ((uint32_t)sqz__bounds[turn + 1] << 24) - begin;
    uint32_t up = 1, down = 1, at = 0, columns = shape->columns, rows = shape->rows, size = shape->size;
    sqz__place *next = places;
    if (!size) return 0;
    while (at < size && sqz__key(at) - begin >= width) at++;
    while (sqz__key(up) >= width) up++;
    while (0 - sqz__key(down) >= width) down++;
    const sqz__divisor by_columns = sqz__divisor_of(columns), by_rows = sqz__divisor_of(rows);
    const uint32_t rise = sqz__key(up), fall = 0 - sqz__key(down);
    for (uint32_t x = sqz__key(at) - begin; at < size; next++) {
        uint32_t line = sqz__quotient(at, by_columns), tap = line < rows ? 0 : sqz__quotient(line, by_rows);
        uint32_t raised = x + rise, fallen = x < fall ? x - fall + rise : x - fall, step = x < fall ? up + down : down;
        *next = (sqz__place){at, tap, line - tap * rows, at - line * columns};
        at += raised < width ? up : step;
        x = raised < width ? raised : fallen;
    }
    for (sqz__place *p = places; p < next && shape->row_of; p++)
        p->row = shape->row_of[p->index], p->column = p->tap = 0;
    return (size_t)(next - places);
}
/* Sets, for each tap, the distances to the elements above, below, left and right in the slice; 0 beyond its edges. */
static int sqz__make_neighbours(sqz__decoder *d, sqz__codes *shape) {
    int32_t right = (int32_t)(shape->rows * shape->columns), down = (int32_t)shape->width * right;
    if (shape->taps == 1) return 1;
    SQZ__TRY(SQZ__GET(shape->neighbours, shape->taps));
    for (uint32_t tap = 0; tap < shape->taps; tap++) {
        int32_t *n = shape->neighbours[tap];
        n[0] = tap >= shape->width ? -down : 0;
        n[1] = tap + shape->width < shape->taps ? down : 0;
        n[2] = tap % shape->width ? -right : 0;
        n[3] = (tap + 1) % shape->width ? right : 0;
    }
    return 1;
}
/* Returns the number of arrays in the next batch. Sets the most elements that a round may have, in any one array
   (`most`) and in all of them together (`all`). */
static size_t sqz__batch_count(sqz__codes *const *shapes, size_t count, size_t *most, size_t *all) {
    size_t elements = 0, codes = 0, i;
    *most = *all = 0;
    for (i = 0; i < count && i < SQZ__MAX_ARRAYS; i++) {
        size_t places = sqz__most_places(shapes[i]->size);
        elements += shapes[i]->size;
        codes += shapes[i]->codes ? sqz__code_count(shapes[i]) : 0;
        if (i && (elements > SQZ__MAX_CODED || codes > SQZ__BATCH_CODES)) break;
        *most = places > *most ? places : *most;
        *all += places;
    }
    return i;
}

/* ---- The models of arrays of codes (sections "Zeros" and "Codes") ---- */
enum { SQZ__CLASSES = 25, SQZ__SCALES = 5, SQZ__SIGNS = 9, SQZ__KEYS = SQZ__SCALES * SQZ__SIGNS, SQZ__BUCKETS = 16 };
/* How many elements are known, and, in the upper half, how many of these are not 0: one addition counts both. */
typedef uint64_t sqz__seen;
/* A row, column, tap or array; n, m and t of its codes; g and a part of y. Structs of 2**n bytes are indexed faster. */
typedef struct { sqz__seen seen; double factor; int64_t count, magnitudes, sum, scale, tilt, unused; } sqz__line;
typedef struct { sqz__seen seen; int64_t expected; double ratio; } sqz__class; /* N and N - Z, E1 */
typedef struct { int64_t actual, expected, ratio, unused; } sqz__tally;        /* F, X */
typedef struct { int64_t before, share[SQZ__BUCKETS]; uint32_t bucket, size[SQZ__BUCKETS]; } sqz__buckets;
typedef struct {
    const sqz__codes *shape;
    sqz__seen seen, *slices; /* taps and slices: NULL in arrays of one tap */
    uint32_t *counts;        /* n(c), by c - low */
    sqz__line *rows, *columns, *taps, *end; /* one after another in memory */
    sqz__class classes[SQZ__CLASSES];
    sqz__tally signs[SQZ__SIGNS][SQZ__BUCKETS];
    sqz__place *found; /* the elements of this round, later only those that are not 0 */
    size_t found_count;
} sqz__model;
typedef struct { /* what all arrays of a batch share, and memory that they use in turn */
    sqz__tally scales[SQZ__SCALES][SQZ__BUCKETS];
    /* By symbol, with the code 0 left out: base(c), later its share of B; sums of the weights before the contexts of
       sign; a table; buckets. A bucket by value holds consecutive symbols. */
    int64_t *around, *base, *sums, *table;
    unsigned char *by_magnitude, *by_value, *keys, class_of[16][16]; /* class_of: by k and n */
    sqz__buckets magnitude, value;
    uint16_t *zeros; /* their frequencies */
    sqz__place *places, *found;
} sqz__batch;

static uint32_t sqz__known(sqz__seen seen) { return (uint32_t)seen; }
static uint32_t sqz__nonzero(sqz__seen seen) { return (uint32_t)(seen >> 32); }
static uint32_t sqz__class_of(uint32_t k, uint32_t n) {
    return k ? 6 * (k < 4 ? k : 4) - 5 + (10 * n + k) / (2 * k) : 0;
}
/* Rounds a value from 0 to 2**15 to the nearest integer, ties to even: adding 1.5 * 2**52 leaves no fraction. */
static int32_t sqz__round(double x) { return (int32_t)((x + 6755399441055744.0) - 6755399441055744.0); }
/* Computes the frequency of a 0 for each element in `found`, and what their classes expect. */
static void sqz__predict_zeros(sqz__batch *restrict b, sqz__model *restrict m) {
    /* The counts are cast because -fsingle-precision-constant makes 0.5 a float, and so its sum with an integer. */
    double density = ((double)sqz__nonzero(m->seen) + 0.5) / ((double)sqz__known(m->seen) + 1.0);
    double prior = 120.0 * density;
    double array_odds = density / (1.0 - density);
    uint32_t width = m->shape->columns;
    for (sqz__line *line = m->rows; line < m->end; line++) {
        double r = (sqz__nonzero(line->seen) + prior) / ((double)sqz__known(line->seen) + 120.0);
        line->factor = (line < m->columns ? array_odds : 1.0) * (r / (1.0 - r) / array_odds);
    }
    for (sqz__class *c = m->classes; c < m->classes + SQZ__CLASSES; c++) {
        double n = sqz__known(c->seen), nonzero = sqz__nonzero(c->seen), expected = (double)c->expected / 32768.0;
        c->ratio = (nonzero + 20.0) / (expected + 20.0) / ((n - nonzero + 20.0) / (n - expected + 20.0));
    }
    const sqz__place *p = m->found;
    for (size_t i = 0; i < m->found_count; i++, p++) {
        double odds = m->rows[p->row].factor * m->columns[p->column].factor;
        if (m->taps) {
            sqz__seen seen = m->slices[p->row * width + p->column];
            uint32_t known = sqz__known(seen), nonzero = sqz__nonzero(seen);
            b->keys[i] = known < 16 ? b->class_of[known][nonzero] : (unsigned char)sqz__class_of(known, nonzero);
            odds *= m->taps[p->tap].factor;
            m->classes[b->keys[i]].expected += sqz__round(odds / (1.0 + odds) * 32768.0);
            odds *= m->classes[b->keys[i]].ratio;
        }
        int32_t zeros = SQZ__FULL - sqz__round(odds / (1.0 + odds) * 32768.0);
        b->zeros[i] = (uint16_t)(zeros < 8 ? 8 : zeros > SQZ__FULL - 8 ? SQZ__FULL - 8 : zeros);
    }
}
/* Decodes which elements in `found` are 0, learns from it, and keeps in `found` those that are not. */
static void sqz__decode_zeros(sqz__coder *coder, const sqz__batch *restrict b, sqz__model *restrict m) {
    sqz__place *found = m->found, *p = found;
    uint32_t width = m->shape->columns;
    sqz__coder c = *coder; /* a copy can stay in registers */
    for (size_t i = 0; i < m->found_count; i++, p++) {
        uint32_t zeros = b->zeros[i], ones = SQZ__FULL - zeros, bit = (c.state[c.lane] & (SQZ__FULL - 1)) >= zeros;
        sqz__seen more = 1 + ((sqz__seen)bit << 32);
        sqz__advance(&c, zeros & (0 - bit), bit ? ones : zeros);
        m->rows[p->row].seen += more;
        m->columns[p->column].seen += more;
        *found = *p;
        found += bit;
        if (!m->taps) continue;
        m->slices[p->row * width + p->column] += more;
        m->classes[b->keys[i]].seen += more;
        m->taps[p->tap].seen += more;
    }
    *coder = c;
    m->seen += m->found_count + ((sqz__seen)(found - m->found) << 32);
    m->found_count = (size_t)(found - m->found);
}
/* Sums and products that do not fit keep their low 64 bits. */
static int64_t sqz__times(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
static int64_t sqz__plus(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static int64_t sqz__divide(int64_t a, int64_t b) { return a / b - (a % b < 0); } /* rounds down; b > 0 */
/* Returns the bucket of the next code in an order. */
static unsigned char sqz__next_bucket(sqz__buckets *order, int64_t base, int64_t total) {
    int64_t middle = (order->before + base - base / 2) * SQZ__BUCKETS;
    while (order->bucket < SQZ__BUCKETS - 1 && middle >= (order->bucket + 1) * total) order->bucket++;
    order->before += base;
    order->share[order->bucket] += base;
    order->size[order->bucket]++;
    return (unsigned char)order->bucket;
}
/* Computes the base weights and buckets of an array's codes for this round. Returns n, m and t of the array. */
static sqz__line sqz__prepare_codes(sqz__batch *b, const sqz__model *m) {
    const int64_t one = (int64_t)1 << 32;
    int32_t low = m->shape->low, high = m->shape->high, size = high - low + 1;
    int64_t smooth_sum = 0, total = 0;
    sqz__line all = {0};
    for (int32_t c = low; c <= high; c++) { /* n(c) + n(-c), plus `one` for a code that can occur; 0 beyond both ends */
        int64_t n = m->counts[c - low];
        all.count += n, all.magnitudes += n * (c < 0 ? -c : c), all.sum += n * c;
        if (c) b->around[c - low + 6] = n + (-c >= low && -c <= high ? m->counts[-c - low] : 0) + one;
    }
    for (int32_t s = 0; s < size - 1; s++) {
        const int64_t *a = b->around + s + (s >= -low); /* near(c) and room(c) are the two halves of one sum */
        int64_t sum = a[0] + a[12] + 2 * (a[1] + a[11]) + 3 * (a[2] + a[10]) + 4 * (a[3] + a[9]) + 5 * (a[4] + a[8]) +
                      6 * (a[5] + a[7]) + 7 * a[6];
        smooth_sum += b->base[s] = sum % one * 256 / (sum / one) + 64; /* smooth(c) */
    }
    memset(b->around, 0, (size_t)(size + 12) * sizeof *b->around);
    for (int32_t s = 0; s < size - 1; s++)
        total += b->base[s] = m->counts[s + (s >= -low)] * 65536LL + size * 262144LL * b->base[s] / smooth_sum;
    b->magnitude = b->value = (sqz__buckets){0};
    for (int32_t c = 1; c <= high || c <= -low; c++) {
        if (-c >= low) b->by_magnitude[-c - low] = sqz__next_bucket(&b->magnitude, b->base[-c - low], total);
        if (c <= high) b->by_magnitude[c - low - 1] = sqz__next_bucket(&b->magnitude, b->base[c - low - 1], total);
    }
    for (int32_t s = 0; s < size - 1; s++) {
        b->by_value[s] = sqz__next_bucket(&b->value, b->base[s], total);
        b->base[s] = b->base[s] * 1048576 / total + 1;
    }
    for (int i = 0; i < SQZ__BUCKETS; i++) b->magnitude.share[i] = b->magnitude.share[i] * 4096 / total;
    for (int i = 0; i < SQZ__BUCKETS; i++) b->value.share[i] = b->value.share[i] * 4096 / total;
    return all;
}
static void sqz__set_ratios(sqz__tally *tallies, size_t count) {
    for (sqz__tally *tally = tallies; tally < tallies + count; tally++) {
        int64_t ratio = ((tally->actual + 40) << 24) / (tally->expected + (40 << 12));
        tally->ratio = ratio < 256 ? 256 : ratio > 65536 ? 65536 : ratio;
    }
}
/* Computes 9 times the context of scale plus the context of sign for each found element, and how many have each key. */
static void sqz__find_contexts(sqz__batch *restrict b, const sqz__model *restrict m, const sqz__line *all,
                               uint32_t *elements_of_key) {
    int64_t magnitudes = all->magnitudes ? all->magnitudes : 1, unit = 8 * magnitudes, count = all->count, x, tilt;
    int32_t (*neighbours)[4] = m->shape->neighbours;
    const sqz__place *p = m->found;
    for (sqz__line *line = m->rows; line < m->columns + m->shape->columns; line++) {
        int64_t more = sqz__plus(sqz__times(line->sum, count), -sqz__times(line->count, all->sum));
        line->tilt = sqz__divide(sqz__times(256, more), (count ? count : 1) * (line->count + 30));
        more = sqz__plus(sqz__times(line->magnitudes, count), 20 * magnitudes);
        line->scale = sqz__divide(sqz__times(256, more), (line->count + 20) * magnitudes);
    }
    for (size_t i = 0; i < m->found_count; i++, p++) {
        const sqz__line *row = &m->rows[p->row], *column = &m->columns[p->column];
        if (neighbours) { /* beyond an edge, this reads the element itself, which is not known yet and still 0 */
            const int16_t *code = m->shape->codes + p->index;
            const int32_t *n = neighbours[p->tap];
            tilt = (code[n[0]] + code[n[1]] + code[n[2]] + code[n[3]]) * (64 * count);
        } else tilt = sqz__times(sqz__plus(row->tilt, column->tilt), count);
        x = sqz__times(row->scale, column->scale);
        int scale = (x >= 211 * 256) + (x >= 242 * 256) + (x >= 272 * 256) + (x >= 308 * 256);
        int negative = tilt < 0;
        x = tilt ^ -(int64_t)negative; /* -1 - tilt if tilt is negative: -4 units are as near as 4 units less 1 */
        int far = (x >= 4 * unit) + (x >= 12 * unit) + (x >= 24 * unit);
        int sign = 4 + (tilt >= unit) + (far ^ -negative); /* ~far is -1 - far */
        elements_of_key[b->keys[i] = (unsigned char)(scale * SQZ__SIGNS + sign)]++;
    }
}
static void sqz__add_code(sqz__line *line, int32_t code) {
    line->count++;
    line->magnitudes += code < 0 ? -code : code;
    line->sum += code;
}
/* Decodes the elements that have the same contexts, and learns from them. In their table, the weights in a bucket by
   value are the weights of `b->sums` times one ratio. */
static void sqz__decode_context(sqz__coder *coder, sqz__batch *restrict b, sqz__model *restrict m, uint32_t key,
                                const sqz__place *p, uint32_t count) {
    sqz__tally *scales = b->scales[key / SQZ__SIGNS], *signs = m->signs[key % SQZ__SIGNS];
    const int64_t *sums = b->sums, symbols = sqz__code_count(m->shape) - 1, room = SQZ__FULL - symbols;
    int64_t total = 0, before = 0;
    for (uint32_t i = 0, s = 0; i < SQZ__BUCKETS; s += b->value.size[i++])
        total += (sums[s + b->value.size[i]] - sums[s]) * signs[i].ratio;
    for (uint32_t i = 0, s = 0, end = 0; i < SQZ__BUCKETS; i++) {
        int64_t factor = signs[i].ratio * room, offset = before - sums[s] * factor;
        for (end += b->value.size[i]; s < end; s++) b->table[s] = sums[s] * factor + offset + s * total;
        before = sums[s] * factor + offset;
    }
    b->table[symbols] = SQZ__FULL * total;
    const sqz__table table = sqz__make_table(b->table, total, (uint32_t)symbols);
    const sqz__codes shape = *m->shape;
    sqz__coder c = *coder;
    for (uint32_t i = 0; i < count; i++, p++) {
        int32_t s = (int32_t)sqz__symbol(&c, &table), code = s + shape.low + (s + shape.low >= 0);
        shape.codes[p->index] = (int16_t)code;
        m->counts[code - shape.low]++;
        scales[b->by_magnitude[s]].actual++;
        signs[b->by_value[s]].actual++;
        sqz__add_code(&m->rows[p->row], code);
        sqz__add_code(&m->columns[p->column], code);
    }
    *coder = c;
    for (int i = 0; i < SQZ__BUCKETS; i++) scales[i].expected += count * b->magnitude.share[i];
    for (int i = 0; i < SQZ__BUCKETS; i++) signs[i].expected += count * b->value.share[i];
}
/* Decodes the codes of this round's found elements, in the order of their contexts. */
static void sqz__decode_codes(sqz__coder *coder, sqz__batch *b, sqz__model *m) {
    uint32_t ends[SQZ__KEYS + 1] = {0}, start = 0, symbols = sqz__code_count(m->shape) - 1;
    if (!m->found_count) return;
    const sqz__line all = sqz__prepare_codes(b, m);
    sqz__set_ratios(m->signs[0], SQZ__SIGNS * SQZ__BUCKETS);
    sqz__find_contexts(b, m, &all, ends + 1);
    for (int key = 1; key < SQZ__KEYS; key++) ends[key] += ends[key - 1]; /* where the elements of a key begin */
    for (size_t i = 0; i < m->found_count; i++) b->places[ends[b->keys[i]]++] = m->found[i];
    for (uint32_t key = 0; key < SQZ__KEYS; start = ends[key++]) {
        const sqz__tally *scales = b->scales[key / SQZ__SIGNS];
        for (uint32_t s = 0; s < symbols && key % SQZ__SIGNS == 0; s++)
            b->sums[s + 1] = b->sums[s] + ((b->base[s] * scales[b->by_magnitude[s]].ratio) >> 6);
        if (ends[key] > start) sqz__decode_context(coder, b, m, key, b->places + start, ends[key] - start);
    }
}
/* Decodes the next batch, and returns how many arrays it has; 0 if it fails. */
static size_t sqz__decode_batch(sqz__decoder *d, sqz__coder *coder, sqz__codes *const *shapes, size_t shape_count) {
    size_t mark = d->used, codes = 0, most, all, count = sqz__batch_count(shapes, shape_count, &most, &all);
    sqz__batch *b;
    sqz__model *models, *m;
    SQZ__TRY(SQZ__NEW(b, 1) && SQZ__NEW(models, count));
    for (size_t i = 0; i < count; i++) {
        uint32_t rows = shapes[i]->rows, columns = shapes[i]->columns, taps = shapes[i]->taps > 1 ? shapes[i]->taps : 0;
        m = &models[i];
        m->shape = shapes[i];
        SQZ__TRY(SQZ__NEW(m->counts, sqz__code_count(m->shape)) && SQZ__NEW(m->rows, rows + columns + taps));
        m->columns = m->rows + rows;
        m->end = m->columns + columns + taps;
        if (taps) SQZ__TRY(SQZ__NEW(m->slices, rows * columns) && sqz__make_neighbours(d, shapes[i]));
        if (taps) m->taps = m->end - taps;
        if (sqz__code_count(m->shape) > codes) codes = sqz__code_count(m->shape);
    }
    SQZ__TRY(SQZ__NEW(b->around, codes + 12) && SQZ__GET(b->base, codes) && SQZ__NEW(b->sums, codes + 1) &&
             SQZ__GET(b->table, codes + 1) && SQZ__GET(b->by_magnitude, codes) && SQZ__GET(b->by_value, codes) &&
             SQZ__GET(b->places, most) && SQZ__GET(b->zeros, most) &&
             SQZ__GET(b->keys, most) && SQZ__GET(b->found, all));
    for (uint32_t i = 0; i < 256; i++) b->class_of[i / 16][i % 16] = (unsigned char)sqz__class_of(i / 16, i % 16);
    for (uint32_t turn = 0; turn < 16; turn++) {
        sqz__place *found = b->found;
        coder->lane = 0;
        for (m = models; m < models + count; found += m++->found_count) {
            m->found = found;
            m->found_count = sqz__list_round(turn, m->shape, found);
            if (m->shape->dense) continue;
            sqz__predict_zeros(b, m);
            sqz__decode_zeros(coder, b, m);
        }
        coder->lane = 0;
        sqz__set_ratios(b->scales[0], SQZ__SCALES * SQZ__BUCKETS);
        for (m = models; m < models + count; m++) sqz__decode_codes(coder, b, m);
        SQZ__CHECK(coder->at <= coder->size, "the coded stream ends too early");
    }
    for (m = models; m < models + count; m++)
        SQZ__CHECK(m->shape->dense || sqz__nonzero(m->seen) < sqz__known(m->seen), "a dense array is not declared so");
    sqz__release(d, mark);
    return count;
}

/* ---- Byte planes in profile `max` (sections 6 and 8): a coded plane is modelled too, with a single context ---- */
enum { SQZ__CODED_PLANE = 4 }; /* the others are modelled */
typedef struct {
    uint32_t number, symbols;
    unsigned char *plane, used[256];  /* used: the bytes that occur, in ascending order */
    const unsigned char *exponents;   /* the bytes of plane 0, for planes 1 and 2 */
    size_t done, groups, locals;      /* elements of earlier batches; number of groups, and of contexts in each group */
    uint32_t *counts, *group_counts;  /* by context and symbol, by group and symbol */
    sqz__table *tables;               /* by context; in each round, the total is 0 until the table is made */
    int64_t *sums;                    /* of all tables */
    sqz__place *places;
    size_t made, *context;            /* made: tables in this round; context, symbol: of the round's elements */
    unsigned char *symbol;
} sqz__plane_model;

/* The context of an element of array `i` of the batch, whose bytes begin at `base`: its group times `locals`, plus its
   number within the group. */
static size_t sqz__plane_context(const sqz__plane_model *m, const sqz__codes *shape, size_t i, size_t base,
                                 const sqz__place *p, uint32_t turn) {
    const unsigned char *bytes = m->plane + base;
    uint32_t largest = 0, signs = 4;
    if (m->number == SQZ__CODED_PLANE) return 0;
    if (m->exponents) return m->exponents[base + p->index];
    for (int k = 0; k < 4 && shape->neighbours; k++) {
        uint32_t index = p->index + (uint32_t)shape->neighbours[p->tap][k];
        if (index == p->index || sqz__key(index) >> 24 >= sqz__bounds[turn]) continue; /* an edge, or not known yet */
        largest = bytes[index] > largest ? bytes[index] : largest;
        signs += bytes[index] % 2 ? UINT32_MAX : 1;
    }
    if (m->number == 3) return signs * m->locals + i;
    uint32_t below = m->used[m->symbols - 1] - largest;
    return i * m->locals + (!largest ? 0 : 1 + (below < 14 ? below : 14));
}
static void sqz__make_plane_table(sqz__plane_model *m, size_t context) {
    const uint32_t *counts = m->counts + context * m->symbols;
    const uint32_t *group = m->group_counts + context / m->locals * m->symbols;
    int64_t *sums = m->sums + m->made++ * (m->symbols + 1), weights[256], whole = 0, total = 0;
    for (uint32_t s = 0; s < m->symbols; s++) whole += 4 * (int64_t)group[s] + 1;
    for (uint32_t s = 0; s < m->symbols; s++) {
        weights[s] = m->number == SQZ__CODED_PLANE ? 64 : 524288 * (4 * (int64_t)group[s] + 1) / whole;
        total += weights[s] += 1024 * (int64_t)counts[s];
    }
    for (uint32_t s = 0; s < m->symbols; s++) sums[s + 1] = sums[s] + (SQZ__FULL - m->symbols) * weights[s] + total;
    m->tables[context] = sqz__make_table(sums, total, m->symbols);
}
/* Decodes the elements of a round, and then learns from them. */
static void sqz__decode_plane_round(sqz__coder *coder, sqz__plane_model *m, sqz__codes *const *shapes, size_t count,
                                    uint32_t turn) {
    size_t n = 0, base = m->done;
    coder->lane = 0;
    m->made = 0;
    for (size_t c = 0; c < m->groups * m->locals; c++) m->tables[c].total = 0;
    for (size_t i = 0; i < count; base += shapes[i++]->size) {
        size_t listed = sqz__list_round(turn, shapes[i], m->places);
        for (sqz__place *p = m->places; p < m->places + listed; p++, n++) {
            size_t context = m->context[n] = sqz__plane_context(m, shapes[i], i, base, p, turn);
            if (!m->tables[context].total) sqz__make_plane_table(m, context);
            m->symbol[n] = (unsigned char)sqz__symbol(coder, &m->tables[context]);
            m->plane[base + p->index] = m->used[m->symbol[n]];
        }
    }
    for (size_t i = 0; i < n; i++) {
        m->counts[m->context[i] * m->symbols + m->symbol[i]]++;
        m->group_counts[m->context[i] / m->locals * m->symbols + m->symbol[i]]++;
    }
}
/* Decodes a modelled plane or a coded one. A coded plane has no bitmap, and its parts of at most 2**22 bytes are its
   batches. */
static int sqz__decode_plane(sqz__decoder *d, sqz__coder *coder, sqz__net *net, uint32_t number) {
    const unsigned char *bitmap = net->bitmap[number];
    sqz__plane_model m = {.number = bitmap ? number : SQZ__CODED_PLANE};
    sqz__codes part = {0}, *const parts[1] = {&part}, *const *shapes = bitmap ? net->floats : parts;
    size_t size = net->plane_size[number], left = bitmap ? net->float_count : 1;
    SQZ__TRY(SQZ__NEW(m.plane, size));
    net->plane[number] = m.plane;
    if (m.number == 1 || m.number == 2) m.exponents = net->plane[0];
    for (uint32_t byte = 0; byte < 256; byte++)
        if (!bitmap || (bitmap[byte / 8] >> byte % 8 & 1)) m.used[m.symbols++] = (unsigned char)byte;
    SQZ__CHECK(m.symbols, "no byte is declared to occur in a plane");
    if (!bitmap) SQZ__TRY(SQZ__NEW(m.counts, 256) && SQZ__NEW(m.group_counts, 256)); /* kept for all parts */
    while (m.done < size) {
        size_t mark = d->used, count, most, all, rest = size - m.done < SQZ__MAX_CODED ? size - m.done : SQZ__MAX_CODED;
        sqz__set_shape(&part, &rest, 1, rest);
        count = sqz__batch_count(shapes, left, &most, &all);
        m.groups = m.number == 0 ? count : m.number == 3 ? 9 : 1;
        m.locals = m.number == 0 ? 16 : m.number == 3 ? count : m.exponents ? 256 : 1;
        size_t contexts = m.groups * m.locals;
        if (bitmap) SQZ__TRY(SQZ__NEW(m.counts, contexts * m.symbols) && SQZ__NEW(m.group_counts, m.groups * m.symbols));
        SQZ__TRY(SQZ__GET(m.tables, contexts) && SQZ__GET(m.context, all) && SQZ__GET(m.symbol, all) &&
                 SQZ__GET(m.places, most) && SQZ__NEW(m.sums, (contexts < all ? contexts : all) * (m.symbols + 1)));
        for (size_t i = 0; i < count; i++) SQZ__TRY(sqz__make_neighbours(d, shapes[i]));
        for (uint32_t turn = 0; turn < 16; turn++) {
            sqz__decode_plane_round(coder, &m, shapes, count, turn);
            SQZ__CHECK(coder->at <= coder->size, "the coded stream ends too early");
        }
        for (size_t i = 0; i < count; i++) m.done += shapes[i]->size;
        if (bitmap) shapes += count, left -= count;
        sqz__release(d, mark);
    }
    for (uint32_t s = 0; s < m.symbols && bitmap; s++)
        SQZ__CHECK(memchr(m.plane, m.used[s], size), "a declared byte does not occur");
    return 1;
}

/* ---- Profile `max`: the whole of it ---- */
static int sqz__read_max(sqz__decoder *d, sqz__net *net) {
    sqz__coder coder;
    size_t symbols = 0, raw_size = 4 * net->grids;
    uint32_t bits = 0;
    int fit = net->plane_size[0] > 0; /* whether planes can be modelled */
    unsigned char *bytes;
    for (size_t i = 0; i < net->coded_count; i++) {
        sqz__codes *coded = net->coded[i];
        symbols += coded->size;
        coded->dense = (int32_t)sqz__u8(d, &net->table);
        SQZ__CHECK(coded->dense < 2, "the flag of a dense array is neither 0 nor 1");
    }
    SQZ__TRY(sqz__read_modes(d, net, net->file->version > 1 ? 3 : 2));
    for (size_t i = 0; i < net->float_count; i++) fit &= net->floats[i]->size <= SQZ__MAX_CODED;
    for (size_t i = 0; i < 8; i++) {
        *(net->mode[i] ? &symbols : &raw_size) += net->plane_size[i];
        if (net->mode[i] < 2) continue;
        SQZ__CHECK(fit && (i == 0 || i == 3 || net->mode[0]), "a plane cannot be modelled");
        SQZ__TRY((net->bitmap[i] = sqz__take(d, &net->table, 32)) != NULL);
    }
    SQZ__CHECK(net->table.at == net->table.end, "the section ARRS is too long");
    while (bits < (raw_size < 1024 ? 8 : 9) && symbols / 1024 >> bits) bits++;
    SQZ__TRY(sqz__open_coder(d, net->stream, 1u << bits, &coder));
    for (size_t i = 0, count; i < net->coded_count; i += count)
        SQZ__TRY((count = sqz__decode_batch(d, &coder, net->coded + i, net->coded_count - i)) > 0);
    for (uint32_t i = 0; i < 8; i++)
        if (net->mode[i]) SQZ__TRY(sqz__decode_plane(d, &coder, net, i));
    SQZ__CHECK(coder.at == coder.size, "words of the coded stream are left over");
    size_t hidden = 2 * (size_t)coder.lanes, left = sqz__left(&net->raw); /* hidden: bytes in the final states */
    SQZ__TRY(SQZ__GET(bytes, hidden + left));
    for (size_t i = 0; i < hidden; i++) {
        bytes[i] = (unsigned char)(coder.state[i / 2] >> (i % 2 ? 8 : 0) & 255);
        SQZ__CHECK(coder.state[i / 2] >> 16 == 1 && (i < raw_size || !bytes[i]), "a lane has a wrong final state");
    }
    if (left) memcpy(bytes + hidden, net->raw.at, left);
    return sqz__read_raw(d, net, (sqz__bytes){bytes, bytes + (left || raw_size > hidden ? hidden + left : raw_size)});
}

/* ---- From codes and planes to values (sections 2, 3, 4 and 7) ---- */
static float sqz__float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static int sqz__is_finite(float value) { return value - value == 0.0f; }
static uint32_t sqz__plane_bits(const unsigned char *const *planes, size_t at) {
    return (uint32_t)planes[0][at] << 24 | (uint32_t)planes[1][at] << 16 | (uint32_t)planes[2][at] << 8 | planes[3][at];
}
/* In a delta, adds the differences to the base's codes. */
static int sqz__join_codes(sqz__decoder *d, sqz__row *row) {
    const int16_t *parts[2] = {row->differences[0].codes, row->differences[1].codes};
    SQZ__TRY(SQZ__GET(row->codes.codes, row->codes.size));
    for (size_t i = 0; i < row->codes.size; i++) {
        int32_t code = row->base_codes[i] + *parts[row->base_codes[i] == 0]++;
        SQZ__CHECK(code >= row->codes.low && code <= row->codes.high, "a code is not in the declared range");
        row->codes.codes[i] = (int16_t)code;
    }
    return sqz__check_range(d, &row->codes);
}
/* Computes values from codes: of a codebook, whose ranks begin at `*at` in the planes; of a trellis; or of a grid,
   whose state never changes. The values of an added grid are then added to the base's. */
static int sqz__code_values(sqz__decoder *d, const sqz__net *net, const sqz__row *row, float step, size_t *at,
                            float *values) {
    static const unsigned char next[8][3] = {{0, 2, 0}, {5, 7, 1}, {1, 3, 2}, {4, 6, 3},
                                             {2, 0, 4}, {7, 5, 5}, {3, 1, 6}, {6, 4, 7}}; /* by state and column */
    struct { float value; uint16_t column, used; } *moves, *move; /* by 2 * (c - low) + q */
    int trellis = sqz__has_trellis(row), dense = row->kind == SQZ__DENSE_TRELLIS, added = row->kind == SQZ__ADDED;
    size_t mark = d->used, filters = row->codes.columns, size = row->codes.size;
    int32_t low = row->codes.low;
    const int16_t *code = row->codes.codes;
    unsigned char *states;
    uint64_t rank = 0;
    SQZ__TRY(SQZ__NEW(states, filters) && SQZ__NEW(moves, 2 * sqz__code_count(&row->codes)));
    move = moves;
    for (int32_t i = 2 * low; i < 2 * row->codes.high + 2; i++, move++) {
        int32_t q = i & 1, c = (i - q) / 2, v = !trellis ? c : 2 * c + q * (dense ? 1 : (c < 0) - (c > 0));
        move->value = step * (float)v;
        move->column = trellis && (v || dense) ? (uint32_t)v >> 1 & 1 : 2; /* b; in the last column, the state stays */
        if (!sqz__has_codebook(row) || !c || q) continue;
        uint32_t more = sqz__plane_bits(net->plane + 4, (*at)++);
        rank += more;
        int in_order = c < 0 ? rank > 0x007FFFFF && rank < 0x80000000 : rank > 0x80000000 && rank < 0xFF800000;
        SQZ__CHECK(more && in_order, "a value of a codebook is there twice, infinite, or of the wrong sign");
        move->value = sqz__float_of_bits((uint32_t)(rank >> 31 ? rank & 0x7FFFFFFF : ~rank & 0xFFFFFFFF));
    }
    for (float *value = values; value < values + size;)
        for (size_t f = 0; f < filters; f++) {
            move = moves + (2 * (*code++ - low) + (states[f] & 1));
            states[f] = next[states[f]][move->column];
            move->used = 1;
            *value++ = move->value;
        }
    for (size_t i = 0; i < size && (added || !sqz__is_finite(step * 8192.0f)); i++) { /* |v| is at most 2 * 4095 + 1 */
        values[i] += added ? row->base->values[i] : 0.0f;
        SQZ__CHECK(sqz__is_finite(values[i]), "a value of a grid is infinite");
    }
    for (int32_t c = low; c <= row->codes.high && sqz__has_codebook(row); c++)
        SQZ__CHECK(!c || moves[2 * (c - low)].used, "a value of a codebook is never used");
    sqz__release(d, mark);
    return 1;
}
static int sqz__make_values(sqz__decoder *d, sqz__net *net, float *values) {
    size_t floats = 0, ranks = 0, grids = 0;
    for (size_t i = 0; i < net->file->array_count; i++) {
        sqz__row *row = &net->rows[i];
        size_t count = net->arrays[i].count;
        float step = 0.0f;
        net->arrays[i].values = values;
        if (row->part_count == 2) SQZ__TRY(sqz__join_codes(d, row));
        if (sqz__has_codes(row) && !sqz__has_codebook(row)) {
            step = sqz__float_of_bits(sqz__u32(net->steps + 4 * grids++));
            SQZ__CHECK(step > 0.0f && sqz__is_finite(step), "the step of a grid is not positive and finite");
        }
        for (size_t k = 0; k < count && row->kind == SQZ__FLOATS; k++) {
            uint32_t bits = sqz__plane_bits(net->plane, floats++);
            SQZ__CHECK(bits >> 24 != 255, "a stored float is NaN or infinite");
            values[k] = sqz__float_of_bits(bits >> 1 | bits << 31);
        }
        if (row->kind == SQZ__SAME) memcpy(values, row->base->values, count * sizeof *values);
        if (sqz__has_codes(row)) SQZ__TRY(sqz__code_values(d, net, row, step, &ranks, values));
        values += count;
    }
    return 1;
}

/* ---- The frame (section 1), deltas, and the whole file ---- */
/* Checks the frame and all checksums, and finds the sections. */
static int sqz__read_frame(sqz__decoder *d, sqz__net *net, sqz__bytes in) {
    static const char tags[5][5] = {"JSON", "BASE", "ARRS", "VALS", "CODE"};
    sqz__bytes *const sections[5] = {&net->json, &net->digest, &net->table, &net->raw, &net->stream};
    const unsigned char *start = in.at, *head;
    size_t size = sqz__left(&in);
    SQZ__CHECK(size >= 16 && size <= SQZ__MAX_BYTES && memcmp(start, "\x89SQZ", 4) == 0, "not a .sqz file");
    SQZ__CHECK(sqz__u32(start + 12) == sqz__crc32(d, 0, start, 12), "the header of the file is damaged");
    net->file->version = start[4];
    net->file->max_profile = start[5];
    SQZ__NEED(start[4] >= 1 && start[4] <= 2 && start[5] <= 1, SQZ_VERSION, "the version or the profile is unknown");
    SQZ__CHECK(start[7] == 0 && sqz__u32(start + 8) == size, "the file has another size than its header says");
    in.at += 16;
    for (int i = 0; i < 5; i++) {
        if (i == 1 && (sqz__left(&in) < 4 || memcmp(in.at, tags[i], 4) != 0)) continue;
        SQZ__TRY((head = sqz__take(d, &in, 12)) && (sections[i]->at = sqz__take(d, &in, sqz__u32(head + 4))));
        sections[i]->end = in.at;
        uint32_t crc = sqz__crc32(d, sqz__crc32(d, 0, head, 8), sections[i]->at, sqz__left(sections[i]));
        SQZ__CHECK(memcmp(head, tags[i], 4) == 0, "a section is missing, unknown or out of order");
        SQZ__CHECK(sqz__u32(head + 8) == crc, "a section is damaged");
    }
    SQZ__CHECK(in.at == in.end && start[6] == (net->digest.at ? 5 : 4), "something follows the sections");
    return 1;
}
/* Finds the base's array with the name and shape of an array, and the shapes of the differences from its codes. */
static int sqz__find_base(sqz__decoder *d, const sqz__net *base, const sqz_array *array, int version, sqz__row *row) {
    size_t counts[2] = {0}, i = 0;
    while (i < base->file->array_count && (base->arrays[i].name_bytes != array->name_bytes ||
           memcmp(base->arrays[i].name, array->name, array->name_bytes) != 0)) i++;
    SQZ__CHECK(i < base->file->array_count && base->arrays[i].dimensions == array->dimensions &&
               memcmp(base->arrays[i].shape, array->shape, sizeof array->shape) == 0, "the base has no matching array");
    row->base = &base->arrays[i];
    if (row->part_count < 2) return 1;
    const sqz__codes *codes = &base->rows[i].codes;
    row->base_codes = codes->codes;
    SQZ__CHECK(codes->codes && !sqz__has_trellis(&base->rows[i]), "the base has no matching codes");
    for (size_t k = 0; k < array->count; k++) counts[codes->codes[k] == 0]++;
    for (int part = 0; part < 2; part++) sqz__set_shape(&row->differences[part], &counts[part], 1, counts[part]);
    if (version == 1) return 1; /* in version 2, differences from codes that are not 0 are in rows by these codes */
    row->differences[0].rows = sqz__code_count(codes);
    row->differences[0].columns = 1;
    SQZ__TRY(SQZ__GET(row->differences[0].row_of, counts[0]));
    for (size_t k = 0, n = 0; k < array->count; k++)
        if (codes->codes[k]) row->differences[0].row_of[n++] = (uint16_t)(codes->codes[k] - codes->low);
    return 1;
}
/* Reads the rows of the table, and makes room for the arrays of codes. */
static int sqz__read_rows(sqz__decoder *d, sqz__net *net, const sqz__net *base) {
    size_t count = net->file->array_count;
    SQZ__TRY(SQZ__NEW(net->rows, count) && SQZ__GET(net->coded, 2 * count) && SQZ__GET(net->floats, count));
    for (size_t i = 0; i < count; i++) {
        sqz__row *row = &net->rows[i];
        SQZ__TRY(sqz__read_row(d, &net->table, &net->arrays[i], net->file->version, row));
        if (row->kind == SQZ__SAME || row->kind == SQZ__ADDED || row->part_count == 2)
            SQZ__TRY(sqz__find_base(d, base, &net->arrays[i], net->file->version, row));
        if (row->kind == SQZ__FLOATS) net->floats[net->float_count++] = &row->codes;
        net->plane_size[0] += row->kind == SQZ__FLOATS ? net->arrays[i].count : 0;
        net->plane_size[4] += sqz__has_codebook(row) ? sqz__code_count(&row->codes) - 1 : 0;
        net->grids += sqz__has_codes(row) && !sqz__has_codebook(row);
        for (uint32_t part = 0; part < row->part_count; part++) {
            SQZ__TRY(SQZ__NEW(row->parts[part].codes, row->parts[part].size));
            if (row->parts[part].low == row->parts[part].high && net->file->max_profile) continue; /* all zeros */
            net->coded[net->coded_count++] = &row->parts[part];
        }
    }
    for (int i = 0; i < 8; i++) net->plane_size[i] = net->plane_size[i / 4 * 4];
    return 1;
}
/* Decodes a file into the workspace: first what stays, up to `workspace_used`, then what is needed temporarily. */
static int sqz__decode_file(sqz__decoder *d, sqz_file *file, sqz__net *net, sqz__bytes data, sqz__bytes base_data) {
    sqz_file base_file = {0};
    sqz__net base = {.file = &base_file};
    unsigned char actual[32];
    size_t total = 0;
    float *values;
    net->file = file;
    SQZ__TRY(sqz__read_frame(d, net, data));
    SQZ__NEED(!net->digest.at == !base_data.at, SQZ_BASE, "a delta needs its base, others have none");
    if (base_data.at) {
        SQZ__CHECK(sqz__left(&net->digest) == 32, "the section BASE does not have 32 bytes");
        sqz__sha256(base_data.at, sqz__left(&base_data), actual);
        SQZ__NEED(memcmp(actual, net->digest.at, 32) == 0, SQZ_BASE, "the delta is against another base");
        SQZ__TRY(sqz__read_frame(d, &base, base_data));
    }
    SQZ__TRY(sqz__read_json(d, file, net->json, file->version > 1 ? base.json : (sqz__bytes){0}, &net->arrays));
    for (size_t i = 0; i < file->array_count; i++) total += net->arrays[i].count;
    SQZ__TRY(SQZ__GET(values, total));
    file->workspace_used = d->used;
    if (base_data.at) SQZ__TRY(sqz__decode_file(d, &base_file, &base, base_data, (sqz__bytes){0})); /* refuses deltas */
    SQZ__TRY(sqz__read_rows(d, net, &base));
    SQZ__TRY(file->max_profile ? sqz__read_max(d, net) : sqz__read_paper(d, net));
    for (size_t i = 0; i < net->coded_count; i++) SQZ__TRY(sqz__check_range(d, net->coded[i]));
    return sqz__make_values(d, net, values);
}
int sqz_decode(sqz_file *file, const void *data, size_t size, const void *base, size_t base_size, void *workspace,
               size_t workspace_size) {
    sqz__net net = {0};
    size_t skew = (0 - (size_t)(uintptr_t)workspace) % 8; /* bytes up to a multiple of 8 */
    sqz__decoder d = {.memory = (unsigned char *)workspace + skew};
    if (workspace && workspace_size > skew) d.size = (workspace_size - skew) / 8 * 8;
    sqz__bytes file_bytes = {data, data ? (const unsigned char *)data + size : NULL};
    sqz__bytes base_bytes = {base, base ? (const unsigned char *)base + base_size : NULL};
    *file = (sqz_file){0};
    SQZ_GUARD(d.memory, d.size, 0);
    sqz__make_crc_table(&d);
    if (!sqz__decode_file(&d, file, &net, file_bytes, base_bytes)) {
        sqz__fail(&d, SQZ_MALFORMED, "the file is malformed");
        *file = (sqz_file){0};
    }
    SQZ_GUARD(d.memory, d.size, 1);
    file->message = d.message, file->workspace_peak = d.peak;
    return d.status;
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif
#endif
