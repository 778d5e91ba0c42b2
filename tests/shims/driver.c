/* A CUDA driver in front of another one, for tests of what a program makes of it. Linked against the other, in which all
 * calls are found that are not defined here. Variables say what is to be different, and where calls are recorded:
 *
 *     SHIM_INIT=N            cuInit answers N
 *     SHIM_CAPABILITY=N      devices have compute capability N: 75 is 7.5
 *     SHIM_RECORD=FILE       a line for each launch and for each call that starts or stops the profiler, or that waits
 *
 * REAL is the path of the other. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef int Result;
typedef int Device;
typedef void *Handle;

static void *real(const char *name) {
    static void *library;
    if (!library) library = dlopen(REAL, RTLD_LAZY);
    void *call = library ? dlsym(library, name) : NULL;
    if (!call) {
        fprintf(stderr, "shim: no %s in %s\n", name, REAL);
        abort();
    }
    return call;
}

static int setting(const char *name, int *value) {
    const char *text = getenv(name);
    if (text) *value = atoi(text);
    return text != NULL;
}

static void record(const char *line) {
    const char *path = getenv("SHIM_RECORD");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file) return;
    fprintf(file, "%s\n", line);
    fclose(file);
}

Result cuInit(unsigned flags) {
    int answer;
    if (setting("SHIM_INIT", &answer)) return answer;
    return ((Result(*)(unsigned))real("cuInit"))(flags);
}

/* 75 and 76 are the attributes of the capability's major and minor number. */
Result cuDeviceGetAttribute(int *value, int attribute, Device device) {
    int capability;
    if ((attribute == 75 || attribute == 76) && setting("SHIM_CAPABILITY", &capability)) {
        *value = attribute == 75 ? capability / 10 : capability % 10;
        return 0;
    }
    return ((Result(*)(int *, int, Device))real("cuDeviceGetAttribute"))(value, attribute, device);
}

Result cuProfilerStart(void) {
    record("profiler start");
    return ((Result(*)(void))real("cuProfilerStart"))();
}

Result cuProfilerStop(void) {
    record("profiler stop");
    return ((Result(*)(void))real("cuProfilerStop"))();
}

Result cuCtxSynchronize(void) {
    record("wait");
    return ((Result(*)(void))real("cuCtxSynchronize"))();
}

Result cuGraphLaunch(Handle graph, Handle stream) {
    record("launch graph");
    return ((Result(*)(Handle, Handle))real("cuGraphLaunch"))(graph, stream);
}

Result cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, Handle stream, void **params, void **extra) {
    record("launch kernel");
    typedef Result (*Call)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void **,
                           void **);
    return ((Call)real("cuLaunchKernel"))(function, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
}
