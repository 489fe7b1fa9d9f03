/* sqz FILE [BASE]               lists the arrays of a `.sqz` file, and prints how much workspace it takes
   sqz --time=ROUNDS FILE [BASE] prints how many milliseconds reading takes: the median of the rounds
   sqz --verdicts CORPUS         reads many files from one, and prints a line for each: whether it is accepted, and what
                                 it holds. For each file, CORPUS holds the size of its base and its own size (u32,
                                 little-endian), then the base and the file. A size of 0 means that it has no base. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#include "guard.h"
#endif
#define SQZ_IMPLEMENTATION
#include "sqz.h"

#if defined(__SANITIZE_ADDRESS__)
static const size_t workspace_size = (size_t)64 << 20; /* smaller, as every byte is poisoned for each file */
#else
static const size_t workspace_size = (size_t)1 << 30; /* the system provides only the pages that are used */
#endif

static void die(const char *what, const char *name) {
    fprintf(stderr, "sqz: %s: %s\n", name, what);
    exit(2);
}

static unsigned char *read_file(const char *name, size_t *size) {
    FILE *file = fopen(name, "rb");
    unsigned char *data;
    long end;
    if (!file || fseek(file, 0, SEEK_END) || (end = ftell(file)) < 0) die("cannot be read", name);
    *size = (size_t)end;
    data = malloc(*size + 1);
    rewind(file);
    if (!data || fread(data, 1, *size, file) != *size) die("cannot be read", name);
    fclose(file);
    return data;
}

/* Prints text from a file, with \xNN for what a terminal would act on. */
static void print_text(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i], next = i + 1 < size ? (unsigned char)text[i + 1] : 0;
        if (c == 0xC2 && next < 0xA0) printf("\\x%02x", next), i++; /* U+0080 to U+009F are C2 80 to C2 9F */
        else printf(c < 32 || c == 127 ? "\\x%02x" : "%c", c);
    }
}

static void list(const sqz_file *file) {
    for (size_t i = 0; i < file->array_count; i++) {
        const sqz_array *array = &file->arrays[i];
        print_text(array->name, array->name_bytes);
        printf(" [");
        for (size_t k = 0; k < array->dimensions; k++) printf(k ? ", %zu" : "%zu", array->shape[k]);
        printf("]\n");
    }
    printf("profile %s, version %d, header ", file->max_profile ? "max" : "paper", file->version);
    print_text(file->header, file->header_bytes);
    printf("\n");
    printf("workspace: %zu bytes, of which %zu stay\n", file->workspace_peak, file->workspace_used);
}

static void print_hash(const void *data, size_t size) {
    unsigned char digest[32];
    sqz__sha256(data, size, digest);
    for (int i = 0; i < 32; i++) printf("%02x", digest[i]);
}

/* Prints a file's line: `refused`, status and message; or hashes of its JSON and its values, where its header lies, the
   workspace that it took, and names and shapes. */
static void print_verdict(const sqz_file *file, int status) {
    size_t values = 0;
    if (status != SQZ_OK) {
        printf("refused %d %s\n", status, file->message);
        return;
    }
    for (size_t i = 0; i < file->array_count; i++) values += file->arrays[i].count;
    print_hash(file->json, file->json_bytes);
    printf(" ");
    print_hash(file->array_count ? file->arrays[0].values : NULL, 4 * values); /* all arrays' values are contiguous */
    printf(" %zu %zu %zu", (size_t)(file->header - file->json), file->header_bytes, file->workspace_peak);
    for (size_t i = 0; i < file->array_count; i++) {
        const sqz_array *array = &file->arrays[i];
        printf(" ");
        for (size_t k = 0; k < array->name_bytes; k++) printf("%02x", (unsigned)(unsigned char)array->name[k]);
        for (size_t k = 0; k < array->dimensions; k++) printf("%c%zu", k ? ',' : ':', array->shape[k]);
    }
    printf("\n");
}

/* A copy with no readable memory after it. */
static unsigned char *copy_of(const unsigned char *data, size_t size) {
    unsigned char *copy = malloc(size);
    if (!copy && size) die("not enough memory", "verdicts");
    if (size) memcpy(copy, data, size);
    return copy;
}

static void print_verdicts(const char *name, void *workspace) {
    size_t size;
    unsigned char *corpus = read_file(name, &size);
    for (size_t at = 0; size - at >= 8;) {
        size_t base_size = sqz__u32(corpus + at), file_size = sqz__u32(corpus + at + 4);
        unsigned char *base, *data;
        sqz_file file;
        if (base_size > size - at - 8 || file_size > size - at - 8 - base_size) die("ends too early", name);
        base = base_size ? copy_of(corpus + at + 8, base_size) : NULL;
        data = copy_of(corpus + at + 8 + base_size, file_size);
        at += 8 + base_size + file_size;
        print_verdict(&file, sqz_decode(&file, data, file_size, base, base_size, workspace, workspace_size));
        free(base);
        free(data);
    }
    free(corpus);
}

static int by_time(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) * 2 - 1; }

int main(int count, char **arguments) {
    int rounds = 1, first = 1;
    size_t size, base_size = 0;
    unsigned char *data, *base = NULL, *workspace = malloc(workspace_size);
    double *milliseconds;
    sqz_file file;
    if (!workspace) die("not enough memory", "workspace");
    if (count == 3 && strcmp(arguments[1], "--verdicts") == 0) {
        print_verdicts(arguments[2], workspace);
        free(workspace);
        return 0;
    }
    if (count > 1 && strncmp(arguments[1], "--time=", 7) == 0) rounds = atoi(arguments[first++] + 7);
    if (count - first < 1 || count - first > 2 || rounds < 1) die("expected FILE [BASE]", "usage");
    data = read_file(arguments[first], &size);
    if (count - first == 2) base = read_file(arguments[first + 1], &base_size);
    milliseconds = malloc((size_t)rounds * sizeof *milliseconds);
    for (int i = 0; milliseconds && i < rounds; i++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        if (sqz_decode(&file, data, size, base, base_size, workspace, workspace_size) != SQZ_OK)
            die(file.message, arguments[first]);
        clock_gettime(CLOCK_MONOTONIC, &end);
        milliseconds[i] = (double)(end.tv_sec - start.tv_sec) * 1e3 + (double)(end.tv_nsec - start.tv_nsec) / 1e6;
    }
    if (first == 1) list(&file);
    else if (milliseconds) {
        qsort(milliseconds, (size_t)rounds, sizeof *milliseconds, by_time);
        printf("%.3f\n", milliseconds[rounds / 2]);
    }
    free(milliseconds);
    free(base);
    free(data);
    free(workspace);
    return 0;
}
