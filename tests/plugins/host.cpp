// One kernel as a shared library for the tests. Macros: SOURCE (file to include), ENTRY (its
// kernel) and those of the kernel itself.
#include "emu.h"

#include SOURCE

#include <utility>

template <typename... Parameters, size_t... I>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Parameters*>(arguments[I])...);
}

template <typename... Parameters>
void unpack(void (*kernel)(Parameters...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<Parameters...>());
}

// Runs the whole grid; `arguments` points at the kernel's parameters, as for cuLaunchKernel.
// Returns 0, or 1 when threads of a block waited for each other.
extern "C" int launch(void** arguments, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                      unsigned threads, int backwards) {
    char* stacks = static_cast<char*>(malloc(threads * emu::STACK_BYTES));
    emu::kernel_arguments = arguments;
    emu::invoke = [](void** values) { unpack(ENTRY, values); };
    emu::backwards = backwards;
    gridDim = {grid_x, grid_y, grid_z};
    blockDim = {threads, 1, 1};
    bool ended = true;
    for (blockIdx.z = 0; blockIdx.z < grid_z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid_y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid_x; blockIdx.x++)
                ended = ended && emu::run_block(threads, stacks);
    free(stacks);
    return !ended;
}
