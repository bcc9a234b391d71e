// SpectrumScore for any length: the low-pass as two products with the cosines and sines of the kept
// bins (the truncated Fourier basis), without a transform.
//
//   forward   c[k] = sum_n x[n] cos(2 pi k n / LENGTH),  s[k] likewise with the sine,  k <= cutoff
//   back      y[n] = sum_k weight[k] (c[k] cos(2 pi k n / LENGTH) + s[k] sin(2 pi k n / LENGTH))
//
// Band HIGH reads the signal again and takes y from it.
//
// Tokens n and LENGTH - n share their cosines and, but for the sign, their sines: a `fold` is such
// a pair, and both products run over folds only. A block takes a range of folds and all the bins, a
// tile of bins at a time, so neither the length nor the cutoff is bounded by shared memory; with
// several ranges each computes the bins anew.
//
// Grid (chunks, batch, groups * ranges), THREADS a block; energies as in score.cu.
//
// Macros beside those of common.cuh: LENGTH, BAND (LOW or HIGH), THREADS, CHANNELS (channels at
// once), OWNED (folds per thread), RANGES, TILE (folds staged in shared memory at a time).
#include "common.cuh"

constexpr int FOLDS = LENGTH / 2 + 1;
constexpr int STEPS = 16;  // rotations between two readings of the table; divides TILE and THREADS

struct Source {
    const Element* signal;  // first row of this batch row
    const Index* rows;      // positions of the visual tokens of this group
    const Complex* twiddle;
    int channels;
    int channel;  // first channel of this pass
    int cutoff;
};

// Even and odd part of a fold, or the cosine and sine coefficient of a bin, for every channel.
struct alignas(4 * CHANNELS) Parts {
    float even[CHANNELS], odd[CHANNELS];
};

DEVICE float load_channel(const Source& source, int token, int channel) {
    if (channel >= source.channels) return 0.f;
    return to_float(source.signal[source.rows[token] * source.channels + channel]);
}

// Even and odd parts of the folds first .. first + TILE - 1, zero past the last fold.
DEVICE void load_folds(const Source& source, int first, Parts* folds) {
    for (int item = threadIdx.x; item < TILE * CHANNELS; item += THREADS) {
        const int fold = first + item / CHANNELS, c = item % CHANNELS;
        const int mirror = LENGTH - fold;
        const bool alone = fold == 0 || fold == mirror;
        float value = 0.f, mirrored = 0.f;
        if (fold < FOLDS) value = load_channel(source, fold, source.channel + c);
        if (fold < FOLDS && !alone) mirrored = load_channel(source, mirror, source.channel + c);
        folds[item / CHANNELS].even[c] = value + mirrored;
        folds[item / CHANNELS].odd[c] = alone ? 0.f : value - mirrored;
    }
}

// Adds parts[i] times the cosine and sine of (first + i) * turn to the sum, i < count, which is a
// multiple of STEPS. A rotation yields the next cosine and sine faster than the table does; reading
// the table every STEPS terms keeps them exact. Summed apart first, rounding grows slower.
DEVICE void accumulate(const Source& source, const Parts* parts, int count, int first, int turn,
                       Parts& sum) {
    const Complex step = source.twiddle[turn];
    Parts part = {};
    for (int i = 0; i < count; i += STEPS) {
        Complex w = source.twiddle[static_cast<Index>(first + i) * turn % LENGTH];
#pragma unroll
        for (int j = 0; j < STEPS; j++) {
#pragma unroll
            for (int c = 0; c < CHANNELS; c++) {
                part.even[c] += parts[i + j].even[c] * w.re;
                part.odd[c] += parts[i + j].odd[c] * w.im;
            }
            w = w * step;
        }
    }
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
        sum.even[c] += part.even[c];
        sum.odd[c] += part.odd[c];
    }
}

// Coefficients of the bins first .. first + THREADS - 1, one per thread, weighted for the way back.
DEVICE void forward(const Source& source, int first, Parts* folds, Parts* bins) {
    const int k = first + threadIdx.x;
    Parts bin = {};
    for (int fold = 0; fold < FOLDS; fold += TILE) {
        load_folds(source, fold, folds);
        __syncthreads();
        if (k <= source.cutoff) accumulate(source, folds, TILE, fold, k, bin);
        __syncthreads();
    }
    const float weight = (k == 0 || 2 * k == LENGTH ? 1.f : 2.f) / LENGTH;
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
        bins[threadIdx.x].even[c] = bin.even[c] * weight;
        bins[threadIdx.x].odd[c] = bin.odd[c] * weight;
    }
}

// Square of a token's channel in the band, from its low-pass.
DEVICE float energy_of(const Source& source, int token, int channel, float low) {
    float value = low;
    if constexpr (BAND == HIGH) value = load_channel(source, token, channel) - low;
    return value * value;
}

// One pass over CHANNELS channels: adds the squares of both tokens of each fold the thread owns.
DEVICE void add_pass(const Source& source, int first_fold, Parts* folds, Parts* bins,
                     float (&sums)[OWNED][2]) {
    Parts filtered[OWNED] = {};
    for (int first = 0; first <= source.cutoff; first += THREADS) {
        forward(source, first, folds, bins);
        __syncthreads();
        const int left = source.cutoff + 1 - first, tile = left < THREADS ? left : THREADS;
        const int count = (tile + STEPS - 1) / STEPS * STEPS;  // bins past the cutoff are zero
#pragma unroll
        for (int i = 0; i < OWNED; i++) {
            const int n = first_fold + i * THREADS;
            if (n < FOLDS) accumulate(source, bins, count, first, n, filtered[i]);
        }
        // No barrier closes the loop: forward() has its own before it writes the bins again.
    }
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        const int fold = first_fold + i * THREADS, mirror = fold == 0 ? 0 : LENGTH - fold;
        if (fold >= FOLDS) break;
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) {
            const float even = filtered[i].even[c], odd = filtered[i].odd[c];
            sums[i][0] += energy_of(source, fold, source.channel + c, even + odd);
            sums[i][1] += energy_of(source, mirror, source.channel + c, even - odd);
        }
    }
}

// signal [B, sequence, channels], visual_index [B, V], twiddle [LENGTH, 2] ->
// energies [B, chunks, V].
extern "C" __global__ void __launch_bounds__(THREADS)
    spectrum_score_basis(const Element* __restrict__ signal, const Index* __restrict__ visual_index,
                         const Complex* __restrict__ twiddle, int sequence, int channels,
                         int cutoff, float* __restrict__ energies) {
    __shared__ Parts folds[TILE];
    __shared__ Parts bins[THREADS];
    const Index batch = blockIdx.y, tokens = static_cast<Index>(gridDim.z / RANGES) * LENGTH;
    const Index group = static_cast<Index>(blockIdx.z / RANGES) * LENGTH;
    const int first_fold = blockIdx.z % RANGES * THREADS * OWNED + threadIdx.x;
    Source source = {signal + batch * sequence * channels,
                     visual_index + batch * tokens + group,
                     twiddle,
                     channels,
                     0,
                     cutoff};
    float sums[OWNED][2] = {};
    const int passes = (channels + CHANNELS - 1) / CHANNELS, chunks = gridDim.x;
    const int share = (passes + chunks - 1) / chunks, begin = blockIdx.x * share;
    for (int pass = begin; pass < passes && pass < begin + share; pass++) {
        source.channel = pass * CHANNELS;
        add_pass(source, first_fold, folds, bins, sums);
    }
    energies += (batch * chunks + blockIdx.x) * tokens + group;
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        const int fold = first_fold + i * THREADS;
        if (fold < FOLDS) energies[fold] = sums[i][0];
        if (fold > 0 && fold < FOLDS) energies[LENGTH - fold] = sums[i][1];
    }
}
