/* Fuzzing of sqz.h. This is a target for clang's libFuzzer: `make fuzz`. Any compiler can instead build a program that
   damages the given files at random, for so many seconds: cc -DSQZ_FUZZ_MAIN fuzz.c; ./a.out SECONDS FILES...

   An input is a file, followed by its base if it is a delta: the base is whatever follows the size that the file
   states. Checksums are corrected first, since hardly any damage would get past them. */
#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
#include "guard.h"
#endif
#define SQZ_IMPLEMENTATION
#include "sqz.h"

enum { WORKSPACE = 1 << 22 };
static unsigned char workspace[WORKSPACE];

static void put_u32(unsigned char *p, uint32_t value) {
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(value >> (8 * i));
}

/* Corrects the stated size and all checksums of a file. */
static void seal(unsigned char *data, size_t size) {
    static sqz__decoder d;
    size_t at = 16, length;
    if (!d.crc_table[1]) sqz__make_crc_table(&d);
    if (size < 16) return;
    put_u32(data + 8, (uint32_t)size);
    put_u32(data + 12, sqz__crc32(&d, 0, data, 12));
    for (; at + 12 <= size; at += 12 + length) {
        length = sqz__u32(data + at + 4);
        if (length > size - at - 12) return;
        put_u32(data + at + 8, sqz__crc32(&d, sqz__crc32(&d, 0, data + at, 8), data + at + 12, length));
    }
}

/* Decodes in a workspace whose size depends on the input, and checks that every value can be read and is finite. */
static void decode(unsigned char *data, size_t size, unsigned char *base, size_t base_size) {
    size_t room = size % 7 ? WORKSPACE : sqz__u32(data + size - 4) % WORKSPACE;
    sqz_file file;
    seal(data, size);
    if (base && size >= 12 + 16) { /* write the base's hash into the delta, if its section BASE is where it should be */
        size_t at = 16 + 12 + (size_t)sqz__u32(data + 20);
        seal(base, base_size);
        if (at < size && size - at >= 12 + 32 && memcmp(data + at, "BASE", 4) == 0)
            sqz__sha256(base, base_size, data + at + 12);
        seal(data, size);
    }
    if (sqz_decode(&file, data, size, base, base_size, workspace, room) != SQZ_OK) return;
    for (size_t i = 0; i < file.array_count; i++)
        for (size_t k = 0; k < file.arrays[i].count; k++)
            if (!sqz__is_finite(file.arrays[i].values[k]) || strlen(file.arrays[i].name) > file.arrays[i].name_bytes) abort();
}

/* The size of the file at the front of an input. */
static size_t file_size(const unsigned char *input, size_t size) {
    size_t stated = size < 16 ? size : sqz__u32(input + 8);
    return stated < 16 || stated > size ? size : stated;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    size_t data_size = file_size(input, size), base_size = size - data_size;
    unsigned char *data = malloc(data_size), *base = base_size ? malloc(base_size) : NULL; /* nothing after either */
    if (data_size >= 16 && data && (base || !base_size)) {
        memcpy(data, input, data_size);
        if (base) memcpy(base, input + data_size, base_size);
        decode(data, data_size, base, base_size);
    }
    free(data);
    free(base);
    return 0;
}

#ifdef SQZ_FUZZ_MAIN
#include <time.h>

static uint32_t chosen(uint32_t below) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

/* Damages a file in 1 to 8 places, in rare cases by cutting off its end. Returns the new size. */
static size_t damage(unsigned char *data, size_t size) {
    for (uint32_t i = 0, count = 1 + chosen(8); i < count && size > 32; i++) {
        size_t at = chosen(8) ? 28 + chosen((uint32_t)size - 28) : chosen((uint32_t)size);
        switch (chosen(5)) {
            case 0: data[at] ^= (unsigned char)(1u << chosen(8)); break;
            case 1: data[at] = (unsigned char)chosen(256); break;
            case 2: data[at] = (unsigned char)(chosen(2) ? 0 : 255); break;
            case 3: memmove(data + at, data + at + 1, size - at - 1), data[size - 1] = (unsigned char)chosen(256); break;
            default: if (!chosen(20)) size -= chosen((uint32_t)(size - 32) + 1);
        }
    }
    return size;
}

int main(int count, char **arguments) {
    static unsigned char files[64][1 << 16], copy[1 << 16];
    size_t sizes[64];
    int file_count = 0;
    unsigned long runs = 0;
    time_t end = time(NULL) + (count > 1 ? atoi(arguments[1]) : 0);
    for (int i = 2; i < count && file_count < 64; i++) {
        FILE *file = fopen(arguments[i], "rb");
        if (file) sizes[file_count] = fread(files[file_count], 1, sizeof *files, file), file_count++, fclose(file);
    }
    if (!file_count) return fprintf(stderr, "usage: fuzz SECONDS FILES...\n"), 2;
    for (; time(NULL) < end; runs++) {
        uint32_t which = chosen((uint32_t)file_count);
        size_t first = file_size(files[which], sizes[which]), behind = sizes[which] - first, size;
        memcpy(copy, files[which], first);
        size = damage(copy, first);
        if (behind) put_u32(copy + 8, (uint32_t)size);
        memcpy(copy + size, files[which] + first, behind);
        if (behind && !chosen(4)) damage(copy + size, behind);
        LLVMFuzzerTestOneInput(copy, size + behind);
    }
    printf("%lu damaged files decoded or refused\n", runs);
    return 0;
}
#endif
