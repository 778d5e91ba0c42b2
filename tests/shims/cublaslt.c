/* A cuBLASLt that computes on the CPU, for tests of a program that uses it: the calls, types, epilogues and demands that cublasLt.h
 * documents for products in float32, TF32 and bfloat16. It refuses what the documentation does not allow, and more where hardware
 * is not asked: alignment of 16 bytes for all that algorithms read. Operands are fetched through the driver that the program has,
 * also where the product is captured.
 *
 *     SHIM_UNSUPPORTED=N,..    epilogues that no algorithm has
 *     SHIM_WRONG=WHAT          a fault: `mask`, `bias`, `sums`, `beta` are ignored, or the `transpose` of A
 */

#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { F32 = 0, BF16 = 14 };              /* cudaDataType_t */
enum { COMPUTE_32F = 68, FAST_TF32 = 77 }; /* cublasComputeType_t */
enum { DEFAULT = 1, RELU = 2, BIAS = 4, DRELU = 8, SUMS = 16, AUX = 128, BGRADA = 256, BGRADB = 512 }; /* of cublasLtEpilogue_t */
enum { VERSION = 120405, ALGORITHMS = 2, ALGORITHM_WORKSPACE = 1 << 20, ALIGNMENT = 16 };

typedef struct { uint64_t kind; int compute, scale, trans_a, trans_b; uint32_t epilogue; uint64_t bias, aux; int64_t aux_ld; } Desc;
typedef struct { uint64_t kind; int type; uint64_t rows, cols; int64_t ld; } Layout;
typedef struct { uint64_t kind, workspace; } Preference;
typedef struct { uint64_t data[8]; } Algo; /* which, and of what product */
typedef struct { Algo algo; size_t workspace; int state; float waves; int reserved[4]; } Result;
enum { DESC = 0x6465, LAYOUT = 0x6c61, PREFERENCE = 0x7072, HANDLE = 0x6861 };

/* ---- the driver ---- */

static void *driver(const char *name) {
    static void *library;
    if (!library) library = dlopen("libcuda.so", RTLD_LAZY);
    if (!library) library = dlopen("libcuda.so.1", RTLD_LAZY);
    void *call = library ? dlsym(library, name) : NULL;
    if (!call) {
        fprintf(stderr, "shim: the driver has no %s\n", name);
        abort();
    }
    return call;
}

static int from_device(void *to, uint64_t from, size_t bytes, void *stream) {
    return ((int (*)(void *, uint64_t, size_t, void *))driver("cuMemcpyDtoHAsync_v2"))(to, from, bytes, stream);
}

static int to_device(uint64_t to, const void *from, size_t bytes, void *stream) {
    return ((int (*)(uint64_t, const void *, size_t, void *))driver("cuMemcpyHtoDAsync_v2"))(to, from, bytes, stream);
}

/* ---- descriptors ---- */

static const char *wrong(void) {
    const char *what = getenv("SHIM_WRONG");
    return what ? what : "";
}

static int unsupported(uint32_t epilogue) {
    const char *at = getenv("SHIM_UNSUPPORTED");
    for (; at && *at; at += strcspn(at, ","), at += *at == ',')
        if (strtoul(at, NULL, 10) == epilogue) return 1;
    return 0;
}

int cublasLtCreate(void **handle) {
    uint64_t *made = malloc(sizeof *made);
    *made = HANDLE;
    *handle = made;
    return OK;
}

int cublasLtDestroy(void *handle) {
    free(handle);
    return OK;
}

size_t cublasLtGetVersion(void) { return VERSION; }

int cublasLtMatmulDescCreate(Desc **desc, int compute, int scale) {
    *desc = malloc(sizeof **desc);
    **desc = (Desc){DESC, compute, scale, 0, 0, DEFAULT, 0, 0, 0};
    return OK;
}

int cublasLtMatmulDescDestroy(Desc *desc) {
    free(desc);
    return OK;
}

int cublasLtMatmulDescSetAttribute(Desc *desc, int attribute, const void *value, size_t bytes) {
    void *field;
    size_t size;
    if (!desc || desc->kind != DESC || !value) return INVALID_VALUE;
    switch (attribute) {
    case 3: field = &desc->trans_a, size = 4; break;
    case 4: field = &desc->trans_b, size = 4; break;
    case 7: field = &desc->epilogue, size = 4; break;
    case 8: field = &desc->bias, size = 8; break;
    case 11: field = &desc->aux, size = 8; break;
    case 12: field = &desc->aux_ld, size = 8; break;
    default: fprintf(stderr, "shim: no attribute %d of a product\n", attribute); return INVALID_VALUE;
    }
    if (bytes != size) return INVALID_VALUE;
    memcpy(field, value, size);
    return OK;
}

int cublasLtMatrixLayoutCreate(Layout **layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    *layout = malloc(sizeof **layout);
    **layout = (Layout){LAYOUT, type, rows, cols, ld};
    return OK;
}

int cublasLtMatrixLayoutDestroy(Layout *layout) {
    free(layout);
    return OK;
}

int cublasLtMatmulPreferenceCreate(Preference **preference) {
    *preference = malloc(sizeof **preference);
    **preference = (Preference){PREFERENCE, 0};
    return OK;
}

int cublasLtMatmulPreferenceDestroy(Preference *preference) {
    free(preference);
    return OK;
}

int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *value, size_t bytes) {
    if (!preference || preference->kind != PREFERENCE || attribute != 1 || !value || bytes != 8) return INVALID_VALUE;
    memcpy(&preference->workspace, value, 8);
    return OK;
}

/* ---- what is allowed ---- */

static int is_layout(const Layout *l) { return l && l->kind == LAYOUT && l->rows && l->cols && l->ld >= (int64_t)l->rows; }
static size_t size_of(int type) { return type == BF16 ? 2 : 4; }

static int refused(const char *why) {
    fprintf(stderr, "shim: cublasLt: %s\n", why);
    return INVALID_VALUE;
}

/* Rows, columns and depth of op(A) op(B). */
typedef struct { uint64_t m, n, k; } Dims;

static int allowed(const Desc *desc, const Layout *a, const Layout *b, const Layout *c, const Layout *d, Dims *dims) {
    if (!desc || desc->kind != DESC || !is_layout(a) || !is_layout(b) || !is_layout(c) || !is_layout(d)) return refused("no layout");
    if ((desc->trans_a | desc->trans_b) & ~1) return refused("an operation is neither N nor T");
    *dims = (Dims){desc->trans_a ? a->cols : a->rows, desc->trans_b ? b->rows : b->cols, desc->trans_a ? a->rows : a->cols};
    if (dims->k != (desc->trans_b ? b->cols : b->rows)) return refused("A and B do not fit");
    if (d->rows != dims->m || d->cols != dims->n || c->rows != dims->m || c->cols != dims->n) return refused("C or D does not fit");
    if (desc->scale != F32 || a->type != b->type || c->type != d->type) return NOT_SUPPORTED;
    int full = a->type == F32 && d->type == F32, half = a->type == BF16 && (d->type == BF16 || d->type == F32);
    if (desc->compute == FAST_TF32 ? !full : desc->compute != COMPUTE_32F || !(full || half)) return NOT_SUPPORTED;
    const Layout *all[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (all[i]->ld * size_of(all[i]->type) % ALIGNMENT) return NOT_SUPPORTED;

    uint32_t epilogue = desc->epilogue;
    switch (epilogue) {
    case DEFAULT: return OK;
    case RELU: case RELU | AUX: case BIAS: case RELU | BIAS: case RELU | AUX | BIAS:
    case DRELU | AUX: case DRELU | AUX | SUMS: case BGRADA: case BGRADB: break;
    default: return NOT_SUPPORTED;
    }
    if (unsupported(epilogue)) return NOT_SUPPORTED;
    if (epilogue & (BIAS | SUMS | BGRADA | BGRADB)) {
        if (!desc->bias) return refused("no bias pointer");
        if (desc->bias % ALIGNMENT) return NOT_SUPPORTED;
    }
    if (epilogue & AUX) {
        if (!desc->aux) return refused("no aux pointer");
        if (desc->aux_ld % 128 || desc->aux_ld < (int64_t)dims->m) return refused("aux ld: expected a multiple of 128 from the rows of D on");
        if (desc->aux % ALIGNMENT) return NOT_SUPPORTED;
    }
    if (epilogue & DRELU && dims->k == 1) return NOT_SUPPORTED;
    if (epilogue == BGRADA && (desc->trans_a || dims->k == 1)) return NOT_SUPPORTED;
    if (epilogue == BGRADB && (!desc->trans_b || dims->k == 1 || dims->n == 1)) return NOT_SUPPORTED;
    return OK;
}

/* An algorithm for a product: another one's is refused. */
static Algo algo_for(uint64_t which, const Desc *desc, const Layout *a, const Layout *d, Dims dims) {
    uint64_t types = (uint64_t)desc->compute << 32 | a->type << 8 | d->type, how = desc->trans_a << 16 | desc->trans_b << 17 | desc->epilogue;
    return (Algo){{which, dims.m, dims.n, dims.k, types, how, desc->aux_ld, ~which}};
}

int cublasLtMatmulAlgoGetHeuristic(const uint64_t *handle, const Desc *desc, const Layout *a, const Layout *b, const Layout *c,
                                   const Layout *d, const Preference *preference, int requested, Result *results, int *count) {
    Dims dims;
    *count = 0;
    if (!handle || *handle != HANDLE || requested < 1 || !preference || preference->kind != PREFERENCE) return INVALID_VALUE;
    int status = allowed(desc, a, b, c, d, &dims);
    if (status != OK) return status;
    /* The first result is one whose state tells not to use it. */
    for (uint64_t which = 0; which <= ALGORITHMS && *count < requested; which++) {
        size_t workspace = which == 1 ? ALGORITHM_WORKSPACE : 0;
        if (workspace > preference->workspace) continue;
        results[(*count)++] = (Result){algo_for(which, desc, a, d, dims), workspace, which ? OK : NOT_SUPPORTED, 1.0f, {0}};
    }
    return OK;
}

/* ---- the product ---- */

static float read_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

/* To the nearest, ties to even, of the numbers whose lowest `bits` bits are zero. */
static float rounded(float value, int bits) {
    uint32_t all;
    memcpy(&all, &value, 4);
    if (!isfinite(value)) return value;
    all += (1u << (bits - 1)) - 1 + (all >> bits & 1);
    all &= ~0u << bits;
    memcpy(&value, &all, 4);
    return value;
}

static double element(const void *matrix, int type, size_t at) {
    return type == BF16 ? read_bf16(((const uint16_t *)matrix)[at]) : ((const float *)matrix)[at];
}

static void store(void *matrix, int type, size_t at, double value) {
    float single = (float)value;
    if (type == F32) {
        ((float *)matrix)[at] = single;
        return;
    }
    uint32_t bits;
    single = rounded(single, 16);
    memcpy(&bits, &single, 4);
    ((uint16_t *)matrix)[at] = bits >> 16;
}

/* A product, with copies of all that it reads and writes. */
typedef struct {
    Desc desc;
    Layout a, b, c, d;
    Dims dims;
    float alpha, beta;
    void *to_a, *to_b, *to_c, *to_d, *vector;
    uint8_t *aux;
} Job;

static double operand(const Job *job, const void *matrix, int type, size_t at) {
    double value = element(matrix, type, at);
    return job->desc.compute == FAST_TF32 ? rounded((float)value, 13) : value;
}

static void compute(void *argument) {
    Job *job = argument;
    const Desc *desc = &job->desc;
    uint64_t m = job->dims.m, n = job->dims.n, k = job->dims.k;
    uint32_t epilogue = desc->epilogue;
    int trans_a = desc->trans_a && strcmp(wrong(), "transpose");
    size_t in_a = job->a.ld * (job->a.cols - 1) + job->a.rows;
    double *op_a = malloc(m * k * sizeof *op_a), *op_b = malloc(k * n * sizeof *op_b), *sums = calloc(m + n, sizeof *sums);
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t p = 0; p < k; p++)
            op_a[i * k + p] = operand(job, job->to_a, job->a.type, (trans_a ? p + i * job->a.ld : i + p * job->a.ld) % in_a);
    for (uint64_t j = 0; j < n; j++)
        for (uint64_t p = 0; p < k; p++)
            op_b[j * k + p] = operand(job, job->to_b, job->b.type, desc->trans_b ? j + p * job->b.ld : p + j * job->b.ld);
    if (epilogue == (RELU | AUX) || epilogue == (RELU | AUX | BIAS)) memset(job->aux, 0, desc->aux_ld / 8 * n);
    for (uint64_t j = 0; j < n; j++) {
        for (uint64_t i = 0; i < m; i++) {
            double sum = 0.0;
            for (uint64_t p = 0; p < k; p++) sum += op_a[i * k + p] * op_b[j * k + p];
            sum *= job->alpha;
            if (job->beta != 0.0f && strcmp(wrong(), "beta")) sum += job->beta * element(job->to_c, job->c.type, i + j * job->c.ld);
            if (epilogue & BIAS && strcmp(wrong(), "bias")) sum += element(job->vector, job->d.type, i);
            uint8_t *bits = job->aux ? &job->aux[j * desc->aux_ld / 8 + i / 8] : NULL, bit = 1 << i % 8;
            if (epilogue & RELU) {
                if (epilogue & AUX && sum >= 0.0) *bits |= bit;
                if (sum < 0.0) sum = 0.0;
            }
            if (epilogue & DRELU && !(*bits & bit) && strcmp(wrong(), "mask")) sum = 0.0;
            sums[i] += sum;
            store(job->to_d, job->d.type, i + j * job->d.ld, sum);
        }
    }
    if (epilogue == BGRADA || epilogue == BGRADB) {
        const double *rows = epilogue == BGRADA ? op_a : op_b;
        for (uint64_t i = 0; i < (epilogue == BGRADA ? m : n); i++) {
            sums[i] = 0.0;
            for (uint64_t p = 0; p < k; p++) sums[i] += rows[i * k + p];
        }
    }
    if (epilogue & (SUMS | BGRADA | BGRADB))
        for (uint64_t i = 0; i < (epilogue == BGRADB ? n : m); i++) store(job->vector, job->d.type, i, strcmp(wrong(), "sums") ? sums[i] : 0.0);
    free(op_a);
    free(op_b);
    free(sums);
}

static size_t bytes_of(const Layout *l) { return (l->ld * (l->cols - 1) + l->rows) * size_of(l->type); }

int cublasLtMatmul(const uint64_t *handle, const Desc *desc, const float *alpha, uint64_t a, const Layout *la, uint64_t b,
                   const Layout *lb, const float *beta, uint64_t c, const Layout *lc, uint64_t d, const Layout *ld, const Algo *algo,
                   uint64_t workspace, size_t workspace_bytes, void *stream) {
    Dims dims;
    if (!handle || *handle != HANDLE || !alpha || !beta || !a || !b || !d) return refused("no operand");
    int status = allowed(desc, la, lb, lc, ld, &dims);
    if (status != OK) return status;
    if ((a | b | c | d | workspace) % ALIGNMENT) return refused("an operand is not aligned as the algorithm wants");
    if (*beta != 0.0f && !c) return refused("no C");
    if (c == d && (lc->ld != ld->ld || lc->type != ld->type)) return refused("C and D are one matrix with two layouts");
    if (algo) {
        Algo mine = algo_for(algo->data[0], desc, la, ld, dims);
        if (!algo->data[0] || memcmp(algo, &mine, sizeof mine)) return refused("the algorithm is another product's");
        if (algo->data[0] == 1 && (!workspace || workspace_bytes < ALGORITHM_WORKSPACE)) return refused("the workspace is too small");
    }

    Job *job = malloc(sizeof *job);
    size_t bytes_d = bytes_of(ld), elements = desc->epilogue == BGRADB ? dims.n : dims.m;
    *job = (Job){*desc, *la, *lb, *lc, *ld, dims, *alpha, *beta, malloc(bytes_of(la)), malloc(bytes_of(lb)), malloc(bytes_of(lc)),
                 malloc(bytes_d), malloc(elements * size_of(ld->type)), NULL};
    size_t bytes_vector = elements * size_of(ld->type), bytes_aux = 0;
    if (desc->epilogue & AUX) {
        bytes_aux = desc->aux_ld / 8 * dims.n;
        job->aux = malloc(bytes_aux);
    }
    int reads_gaps = ld->ld != (int64_t)ld->rows; /* what lies between columns stays as it is */
    int failed = from_device(job->to_a, a, bytes_of(la), stream) || from_device(job->to_b, b, bytes_of(lb), stream) ||
                 (*beta != 0.0f && from_device(job->to_c, c, bytes_of(lc), stream)) ||
                 (reads_gaps && from_device(job->to_d, d, bytes_d, stream)) ||
                 (desc->epilogue & BIAS && from_device(job->vector, desc->bias, bytes_vector, stream)) ||
                 (desc->epilogue & DRELU && from_device(job->aux, desc->aux, bytes_aux, stream));
    int capturing = 0;
    failed = failed || ((int (*)(void *, int *))driver("cuStreamIsCapturing"))(stream, &capturing);
    if (capturing) {
        /* Its copies live as long as the graph may. */
        failed = failed || ((int (*)(void *, void (*)(void *), void *))driver("cuLaunchHostFunc"))(stream, compute, job);
    } else if (!failed) {
        failed = ((int (*)(void *))driver("cuStreamSynchronize"))(stream);
        if (!failed) compute(job);
    }
    failed = failed || to_device(d, job->to_d, bytes_d, stream) ||
             (desc->epilogue & (SUMS | BGRADA | BGRADB) && to_device(desc->bias, job->vector, bytes_vector, stream)) ||
             ((desc->epilogue & (RELU | AUX)) == (RELU | AUX) && to_device(desc->aux, job->aux, bytes_aux, stream));
    if (!capturing) {
        failed = failed || ((int (*)(void *))driver("cuStreamSynchronize"))(stream);
        void *all[] = {job->to_a, job->to_b, job->to_c, job->to_d, job->vector, job->aux, job};
        for (int i = 0; i < 7; i++) free(all[i]);
    }
    return failed ? EXECUTION_FAILED : OK;
}
