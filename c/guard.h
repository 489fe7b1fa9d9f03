/* Includes sqz.h so that AddressSanitizer knows what the decoder allocated in the workspace: all else is poisoned. */
#include <sanitizer/asan_interface.h>
#define SQZ_GUARD(address, size, open) \
    ((open) ? __asan_unpoison_memory_region(address, size) : __asan_poison_memory_region(address, size))
#define SQZ_GAP 16 /* bytes behind everything that is allocated */
