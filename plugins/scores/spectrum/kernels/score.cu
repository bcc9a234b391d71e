// SpectrumScore for lengths whose transform fits shared memory (prime factors up to 13).
//
// energies[b, chunk, n] = sum over the chunk's channels of filtered(signal)[b, n, channel]^2. The
// filter keeps the bins |f| <= cutoff of the transform along the tokens, or, in band HIGH, the
// others, which is the signal less its low-pass. Two real channels travel as the real and imaginary
// part of one complex transform: the filter is symmetric in f, so it acts on both parts alone, and
// |z|^2 is the sum of both squares.
//
// Grid (chunks, batch, groups), THREADS a block. Nothing is shared between blocks: no atomics, and
// the same input gives the same bits.
//
// Macros beside those of common.cuh and fft.cuh: LENGTH (tokens of a group), BAND (LOW or HIGH),
// PAIRS (channel pairs transformed at once), PITCH (elements between them), MAX_RADIX 16.
#include "common.cuh"
#include "fft.cuh"

constexpr int STAGES = count_stages(LENGTH);
typedef Stage<LENGTH, 0> First;
typedef Stage<LENGTH, STAGES - 1> Last;

// A column is what one butterfly of the first stage reads; thread t owns every
// THREADS-th column from t on in the first and the last pass. Pairs vary fastest, so that a warp
// reads neighbouring channels.
constexpr int COLUMNS = First::stride * PAIRS;
constexpr int OWNED = (COLUMNS + THREADS - 1) / THREADS;

struct Source {
    const Element* signal;  // first row of this batch row
    const Index* rows;      // positions of the visual tokens of this group
    const Complex* twiddle;
    int channels;
    int channel;  // first channel of this pass
    int cutoff;
};

DEVICE void load_column(const Source& source, int item, Complex (&a)[First::radix]) {
    const int column = item / PAIRS, channel = source.channel + item % PAIRS * 2;
#pragma unroll
    for (int r = 0; r < First::radix; r++) {
        const Index row = source.rows[column + r * First::stride];
        a[r] = load_pair(source.signal + row * source.channels, channel, source.channels);
    }
}

// Zeroes the bins outside the band; a[r] holds bin `bin + r * step`.
template <int R>
DEVICE void filter(Complex (&a)[R], int bin, int step, int cutoff) {
#pragma unroll
    for (int r = 0; r < R; r++) {
        const int f = bin + r * step;
        const bool above = f > cutoff && LENGTH - f > cutoff;
        if (above != (BAND == HIGH)) a[r] = {0.f, 0.f};
    }
}

// First forward stage: global memory to registers to shared memory.
DEVICE void first_stage(const Source& source, Complex* shared) {
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        const int item = threadIdx.x + i * THREADS;
        if (item >= COLUMNS) break;
        Complex a[First::radix];
        load_column(source, item, a);
        butterfly<FORWARD>(a);
        const int column = item / PAIRS;
        Complex* x = shared + item % PAIRS * PITCH;
#pragma unroll
        for (int r = 0; r < First::radix; r++) {
            const Complex w = source.twiddle[r * column];
            x[padded(column + r * First::stride)] = r == 0 ? a[r] : twiddled<FORWARD>(a[r], w);
        }
    }
}

// Last forward stage, filter and first inverse stage, all in registers.
DEVICE void filter_stage(Complex* shared, int cutoff) {
    constexpr int BLOCKS = LENGTH / Last::radix;
    for (int item = threadIdx.x; item < BLOCKS * PAIRS; item += THREADS) {
        Complex* x = shared + item / BLOCKS * PITCH;
        const int start = item % BLOCKS * Last::radix;
        Complex a[Last::radix];
#pragma unroll
        for (int r = 0; r < Last::radix; r++) a[r] = x[padded(start + r)];
        butterfly<FORWARD>(a);
        filter(a, frequency<LENGTH, 0, STAGES>(start), BLOCKS, cutoff);
        butterfly<INVERSE>(a);
#pragma unroll
        for (int r = 0; r < Last::radix; r++) x[padded(start + r)] = a[r];
    }
}

// Last inverse stage: shared memory to registers, squared into the thread's own sums.
DEVICE void last_stage(const Source& source, const Complex* shared,
                       float (&sums)[OWNED][First::radix]) {
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        const int item = threadIdx.x + i * THREADS;
        if (item >= COLUMNS) break;
        const int column = item / PAIRS;
        const Complex* x = shared + item % PAIRS * PITCH;
        Complex a[First::radix];
#pragma unroll
        for (int r = 0; r < First::radix; r++) {
            const Complex w = source.twiddle[r * column];
            a[r] = x[padded(column + r * First::stride)];
            if (r > 0) a[r] = twiddled<INVERSE>(a[r], w);
        }
        butterfly<INVERSE>(a);
#pragma unroll
        for (int r = 0; r < First::radix; r++) sums[i][r] += squared(a[r]);
    }
}

// Lengths of a single butterfly: the whole filter in registers.
DEVICE void single_stage(const Source& source, float (&sums)[OWNED][First::radix]) {
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        const int item = threadIdx.x + i * THREADS;
        if (item >= COLUMNS) break;
        Complex a[First::radix];
        load_column(source, item, a);
        butterfly<FORWARD>(a);
        filter(a, 0, 1, source.cutoff);
        butterfly<INVERSE>(a);
#pragma unroll
        for (int r = 0; r < First::radix; r++) sums[i][r] += squared(a[r]);
    }
}

// Adds the sums of all pairs token by token, in the same order every time.
DEVICE void write_energies(const float (&sums)[OWNED][First::radix], Complex* shared,
                           float* energies) {
    float* per_pair = reinterpret_cast<float*>(shared);  // [PAIRS, LENGTH]
    __syncthreads();
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        const int item = threadIdx.x + i * THREADS;
        if (item >= COLUMNS) break;
#pragma unroll
        for (int r = 0; r < First::radix; r++)
            per_pair[item % PAIRS * LENGTH + item / PAIRS + r * First::stride] = sums[i][r];
    }
    __syncthreads();
    const float scale = 1.f / (static_cast<float>(LENGTH) * LENGTH);
    for (int token = threadIdx.x; token < LENGTH; token += THREADS) {
        float energy = 0.f;
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++) energy += per_pair[pair * LENGTH + token];
        energies[token] = energy * scale;
    }
}

// signal [B, sequence, channels], visual_index [B, V], twiddle [LENGTH, 2] ->
// energies [B, chunks, V].
extern "C" __global__ void __launch_bounds__(THREADS)
    spectrum_score(const Element* __restrict__ signal, const Index* __restrict__ visual_index,
                   const Complex* __restrict__ twiddle, int sequence, int channels, int cutoff,
                   float* __restrict__ energies) {
    __shared__ Complex shared[PAIRS * PITCH];
    const Index batch = blockIdx.y, tokens = static_cast<Index>(gridDim.z) * LENGTH;
    const Index group = static_cast<Index>(blockIdx.z) * LENGTH;
    Source source = {signal + batch * sequence * channels,
                     visual_index + batch * tokens + group,
                     twiddle,
                     channels,
                     0,
                     cutoff};
    float sums[OWNED][First::radix] = {};
    const int passes = (channels + 2 * PAIRS - 1) / (2 * PAIRS), chunks = gridDim.x;
    const int share = (passes + chunks - 1) / chunks, begin = blockIdx.x * share;
    for (int pass = begin; pass < passes && pass < begin + share; pass++) {
        source.channel = pass * 2 * PAIRS;
        if constexpr (STAGES == 1) {
            single_stage(source, sums);
        } else {
            // No barrier closes the loop: a thread next overwrites only what it alone just read.
            first_stage(source, shared);
            __syncthreads();
            run_forward<LENGTH, 1, STAGES - 1, PAIRS, PITCH>(shared, twiddle, 1);
            filter_stage(shared, cutoff);
            __syncthreads();
            run_inverse<LENGTH, 1, STAGES - 1, PAIRS, PITCH>(shared, twiddle, 1);
            last_stage(source, shared, sums);
        }
    }
    write_energies(sums, shared, energies + (batch * chunks + blockIdx.x) * tokens + group);
}
