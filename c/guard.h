/* Include this before sqz.h to let AddressSanitizer know what the decoder has allocated: all else is poisoned. */
#include <sanitizer/asan_interface.h>
#define SQZ_GUARD(address, size, open) \
    ((open) ? __asan_unpoison_memory_region(address, size) : __asan_poison_memory_region(address, size))
#define SQZ_GAP 16 /* bytes after each allocation */
