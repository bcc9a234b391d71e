// Runs the kernels on the host: every thread of a block is a fiber, and a barrier or a warp
// collective hands over to the next one. Warps run one after the other, each as far as it gets,
// first to last or backwards, so a missing barrier shows. When no thread can go on before all are
// done, they wait at different places and the launch fails.
//
// It proves arithmetic and indexing, not the absence of races on a GPU.
#pragma once
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)
#define __restrict__

struct Dim3 {
    unsigned x, y, z;
};
static Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emu {

enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Fiber {
    ucontext_t context;
    State state;
    unsigned long long slot;  // what a warp collective offers to the other lanes
};

constexpr size_t STACK_BYTES = 128 << 10;
static Fiber fibers[1024];
static ucontext_t scheduler;
static unsigned current;
static void (*invoke)(void** arguments);
static void** kernel_arguments;
static bool backwards;  // order in which the fibers of a block run

inline void wait(State state) {
    const unsigned self = current;
    fibers[self].state = state;
    swapcontext(&fibers[self].context, &scheduler);
}

inline void body() {
    invoke(kernel_arguments);
    wait(DONE);
}

// True when all unfinished threads of [begin, end) wait in `state`; then they may go on.
inline bool release(unsigned begin, unsigned end, State state) {
    bool any = false;
    for (unsigned t = begin; t < end; t++) {
        if (fibers[t].state == DONE) continue;
        if (fibers[t].state != state) return false;
        any = true;
    }
    for (unsigned t = begin; t < end; t++)
        if (fibers[t].state == state) fibers[t].state = READY;
    return any;
}

// Runs threads [begin, end) of one warp until all of them wait at a barrier of the block, or are
// done.
inline void run_warp(unsigned begin, unsigned end) {
    do {
        for (unsigned i = begin; i < end; i++) {
            const unsigned t = backwards ? begin + end - 1 - i : i;
            if (fibers[t].state != READY) continue;
            current = t;
            threadIdx = {t, 0, 0};
            swapcontext(&scheduler, &fibers[t].context);
        }
    } while (release(begin, end, AT_WARP));
}

// False when threads were left waiting for each other.
inline bool run_block(unsigned threads, char* stacks) {
    for (unsigned t = 0; t < threads; t++) {
        getcontext(&fibers[t].context);
        fibers[t].context.uc_stack.ss_sp = stacks + t * STACK_BYTES;
        fibers[t].context.uc_stack.ss_size = STACK_BYTES;
        fibers[t].context.uc_link = &scheduler;
        fibers[t].state = READY;
        makecontext(&fibers[t].context, body, 0);
    }
    const unsigned warps = (threads + 31) / 32;
    do {
        for (unsigned i = 0; i < warps; i++) {
            const unsigned first = (backwards ? warps - 1 - i : i) * 32;
            run_warp(first, first + 32 < threads ? first + 32 : threads);
        }
    } while (release(0, threads, AT_BLOCK));
    for (unsigned t = 0; t < threads; t++)
        if (fibers[t].state != DONE) return false;
    return true;
}

template <typename T>
T exchange(T value, unsigned lane) {
    static_assert(sizeof(T) <= 8, "one slot holds 8 bytes");
    memcpy(&fibers[current].slot, &value, sizeof(T));
    wait(AT_WARP);
    memcpy(&value, &fibers[(current & ~31u) + lane].slot, sizeof(T));
    wait(AT_WARP);
    return value;
}

}  // namespace emu

inline void __syncthreads() { emu::wait(emu::AT_BLOCK); }
inline void __syncwarp() { emu::wait(emu::AT_WARP); }

template <typename T>
T __shfl_sync(unsigned, T value, unsigned lane) {
    return emu::exchange(value, lane % 32);
}

template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned step) {
    const unsigned lane = emu::current % 32;
    return emu::exchange(value, lane >= step ? lane - step : lane);
}

// The lanes whose value equals this lane's.
inline unsigned __match_any_sync(unsigned, unsigned value) {
    const unsigned self = emu::current;
    emu::fibers[self].slot = value;
    emu::wait(emu::AT_WARP);
    unsigned peers = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        peers |= static_cast<unsigned>(emu::fibers[(self & ~31u) + lane].slot == value) << lane;
    emu::wait(emu::AT_WARP);
    return peers;
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
    const unsigned same = __match_any_sync(mask, vote);
    return vote ? same : ~same;
}

inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline void atomicAdd(unsigned* address, unsigned value) { *address += value; }
