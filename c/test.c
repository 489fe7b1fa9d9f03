/* Tests of sqz.h that need no Python: test GOLDEN_FOLDER. The tests in tests/codec/test_c_header.py compare the decoder
   with the Python reader; the tests here run wherever there is a C compiler. */
#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#include "guard.h"
#endif
#define SQZ_IMPLEMENTATION
#include "sqz.h"

static const struct {
    const char *name, *base, *hash; /* sha256 of the values of all arrays, as the Python reader decodes them */
} golden[] = {
    {"paper.sqz", NULL, "51e65fd18d11ff1d218a70e7fa7304e986cc6d48aab9963ce6719ad64f51c022"},
    {"max.sqz", NULL, "51e65fd18d11ff1d218a70e7fa7304e986cc6d48aab9963ce6719ad64f51c022"},
    {"paper2.sqz", NULL, "b2ffbe09edbc436bf1763747eaa514179214c4d06957513b36cdc947e98e1ab2"},
    {"max2.sqz", NULL, "b2ffbe09edbc436bf1763747eaa514179214c4d06957513b36cdc947e98e1ab2"},
    {"delta.sqz", "max.sqz", "3b35f56139a36c0c84850b79ce2c3441823104929817f1b53c4383a8e76dae48"},
    {"delta2_paper.sqz", "max.sqz", "7c55fefbe3f916b62f10096927c5f01f383c119860771285acecf6bdf02b5c5d"},
    {"delta2_max.sqz", "max.sqz", "7c55fefbe3f916b62f10096927c5f01f383c119860771285acecf6bdf02b5c5d"},
};
enum { MOST = 1 << 18 };
static unsigned char data[MOST], base[MOST], workspace[MOST + 8];

static void expect(int condition, const char *name, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s: %s\n", name, what);
    exit(1);
}

static size_t read_file(const char *folder, const char *name, unsigned char *to) {
    char path[1024];
    FILE *file;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "rb");
    expect(file != NULL, path, "cannot be opened");
    size = fread(to, 1, MOST, file);
    fclose(file);
    return size;
}

static void test_values(const sqz_file *file, const char *name, const char *hash) {
    unsigned char digest[32];
    char text[65];
    size_t count = 0;
    for (size_t i = 0; i < file->array_count; i++) count += file->arrays[i].count;
    sqz__sha256((const unsigned char *)file->arrays[0].values, 4 * count, digest);
    for (int i = 0; i < 32; i++) snprintf(text + 2 * i, 3, "%02x", (unsigned)digest[i]);
    expect(strcmp(text, hash) == 0, name, "other values than expected");
}

/* A workspace of `workspace_peak` bytes (7 more if it is not aligned) is enough, and a smaller one is refused. */
static void test_workspace(const char *name, size_t size, const unsigned char *base_data, size_t base_size) {
    sqz_file file;
    size_t peak;
    expect(sqz_decode(&file, data, size, base_data, base_size, workspace, MOST) == SQZ_OK, name, "refused");
    peak = file.workspace_peak;
    expect(sqz_decode(&file, data, size, base_data, base_size, workspace, peak) == SQZ_OK, name, "the peak is not enough");
    expect(sqz_decode(&file, data, size, base_data, base_size, workspace + 1, peak + 7) == SQZ_OK, name, "unaligned");
    for (size_t less = 0; less < peak; less += less < 100 ? 1 : 97)
        expect(sqz_decode(&file, data, size, base_data, base_size, workspace, less) == SQZ_WORKSPACE, name, "too small");
    expect(sqz_decode(&file, data, size, base_data, base_size, NULL, 0) == SQZ_WORKSPACE, name, "no workspace");
}

/* The checksums detect every changed byte and every truncation. */
static void test_damage(const char *name, size_t size, const unsigned char *base_data, size_t base_size) {
    sqz_file file;
    for (size_t i = 0; i < size; i++) {
        data[i] ^= (unsigned char)(1u << i % 8);
        expect(sqz_decode(&file, data, size, base_data, base_size, workspace, MOST) != SQZ_OK, name, "a damaged file");
        expect(file.message && !file.arrays && !file.array_count, name, "no message, or arrays in spite of one");
        data[i] ^= (unsigned char)(1u << i % 8);
        expect(sqz_decode(&file, data, i, base_data, base_size, workspace, MOST) != SQZ_OK, name, "a cut file");
    }
}

/* A round lists the elements whose keys are in it, in order, with the places that follow from their indices. */
static void test_rounds(uint32_t height, uint32_t width, uint32_t rows, uint32_t columns) {
    const size_t dimensions[4] = {height, width, rows, columns};
    uint32_t size = height * width * rows * columns;
    sqz__place *places = malloc((sqz__most_places(size) + 1) * sizeof *places);
    sqz__codes shape = {0};
    sqz__set_shape(&shape, dimensions, 4, size);
    expect(places != NULL, "rounds", "not enough memory");
    for (uint32_t turn = 0; turn < 16; turn++) {
        size_t count = sqz__list_round(turn, &shape, places), at = 0;
        expect(count <= sqz__most_places(size), "rounds", "more elements than expected");
        for (uint32_t i = 0; i < size; i++) {
            uint32_t key = (uint32_t)((uint64_t)i * 2654435769u % ((uint64_t)1 << 32) >> 24);
            if (key < sqz__bounds[turn] || (turn < 15 && key >= sqz__bounds[turn + 1])) continue;
            expect(at < count && places[at].index == i && places[at].column == i % columns &&
                       places[at].row == i / columns % rows && places[at].tap == i / columns / rows,
                   "rounds", "an element is missing or misplaced");
            at++;
        }
        expect(at == count, "rounds", "too many elements");
    }
    free(places);
}

int main(int count, char **arguments) {
    static const uint32_t shapes[][4] = {{1, 1, 1, 1}, {1, 1, 1, 4}, {3, 3, 17, 5}, {7, 7, 3, 96}, {1, 1, 700, 1}, {900, 1, 1, 1}};
    expect(count == 2, "test", "expected the folder of golden files");
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        size_t size = read_file(arguments[1], golden[i].name, data);
        size_t base_size = golden[i].base ? read_file(arguments[1], golden[i].base, base) : 0;
        const unsigned char *base_data = golden[i].base ? base : NULL;
        sqz_file file;
        expect(sqz_decode(&file, data, size, base_data, base_size, workspace, MOST) == SQZ_OK, golden[i].name, "refused");
        test_values(&file, golden[i].name, golden[i].hash);
        test_workspace(golden[i].name, size, base_data, base_size);
        test_damage(golden[i].name, size, base_data, base_size);
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        test_rounds(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
    test_rounds(2, 1, 1000, 2097); /* about 2**22 elements, the most that an array may have */
    printf("golden files, workspaces, damage and rounds are as they should be\n");
    return 0;
}
