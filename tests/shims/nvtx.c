/* A tool that NVTX loads, for tests of what ranges a program makes. Writes a line to SHIM_RECORD for each range that begins or
 * ends and for each domain. A range of another domain than the first, or of none, is recorded as a fault. Types and numbers are
 * NVTX's, version 3: nvtxDetail/nvtxTypes.h. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*Function)(void);
typedef struct {
    size_t struct_size;
    int (*GetModuleFunctionTable)(int module, Function ***table, unsigned *size);
} Callbacks;
typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved;
    union { uint64_t u; double d; } payload;
    int32_t message_type;
    const char *message;
} Event;

enum { CALLBACKS = 1, CORE2 = 5, RANGE_PUSH = 4, RANGE_POP = 5, DOMAIN_CREATE = 12, ASCII = 1 };

static int domain;

static void record(const char *what, const char *name) {
    const char *path = getenv("SHIM_RECORD");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file) return;
    fprintf(file, "%s%s\n", what, name);
    fclose(file);
}

static void *domain_create(const char *name) {
    record("domain ", name);
    return &domain;
}

static int push(void *of, const Event *event) {
    int right = of == &domain && event->version == 3 && event->size == sizeof *event && event->message_type == ASCII;
    record(right ? "push " : "fault: push ", event->message);
    return 0;
}

static int pop(void *of) {
    record(of == &domain ? "pop" : "fault: pop", "");
    return 0;
}

int InitializeInjectionNvtx2(const void *(*get_table)(uint32_t)) {
    const Callbacks *callbacks = get_table(CALLBACKS);
    Function **table;
    unsigned size;
    if (getenv("SHIM_REFUSE")) return 0;
    if (!callbacks || callbacks->struct_size < sizeof *callbacks) return 0;
    if (!callbacks->GetModuleFunctionTable(CORE2, &table, &size) || size <= DOMAIN_CREATE) return 0;
    *table[RANGE_PUSH] = (Function)push;
    *table[RANGE_POP] = (Function)pop;
    *table[DOMAIN_CREATE] = (Function)domain_create;
    return 1;
}
