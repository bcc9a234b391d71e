// SpectrumScore for long lengths: LENGTH = RUNS * SUB, with only SUB points and the kept bins in
// shared memory at a time.
//
// Run r holds the tokens r, r + RUNS, r + 2 RUNS, ... Its transform F_r of SUB points adds
// F_r[k mod SUB] * exp(-2 pi i r k / LENGTH) to every kept bin k, |k| <= cutoff. The way back folds
// the kept bins with the opposite phase into SUB points and transforms those: run r of the filtered
// signal. Only SUB needs small prime factors; RUNS may be any integer. Band HIGH reads the signal
// again and takes that from it: the other bins would not fit.
//
// Grid (chunks, batch, groups), THREADS a block; energies as in score.cu, a channel pair at a time.
//
// Macros beside those of common.cuh and fft.cuh: LENGTH, BAND (LOW or HIGH), SUB,
// BINS (2 * cutoff + 1), MAX_RADIX 13.
#include "common.cuh"
#include "fft.cuh"

constexpr int RUNS = LENGTH / SUB;
constexpr int CUTOFF = BINS / 2;
constexpr int STAGES = count_stages(SUB);
constexpr int PITCH = SUB + SUB / 16;
typedef Stage<SUB, 0> First;
static_assert(STAGES > 1, "a transform of one butterfly has no use for the split");

struct Source {
    const Element* signal;  // first row of this batch row
    const Index* rows;      // positions of the visual tokens of this group
    const Complex* twiddle;
    int channels;
};

DEVICE Complex load_token(const Source& source, int token, int channel) {
    const Element* row = source.signal + source.rows[token] * source.channels;
    return load_pair(row, channel, source.channels);
}

// First forward stage of run `run`: global memory to registers to shared memory.
DEVICE void load_run(const Source& source, int run, int channel, Complex* x) {
    for (int column = threadIdx.x; column < First::stride; column += THREADS) {
        Complex a[First::radix];
#pragma unroll
        for (int r = 0; r < First::radix; r++) {
            a[r] = load_token(source, (column + r * First::stride) * RUNS + run, channel);
        }
        butterfly<FORWARD>(a);
#pragma unroll
        for (int r = 0; r < First::radix; r++) {
            const Complex w = source.twiddle[r * column * RUNS];
            x[padded(column + r * First::stride)] = r == 0 ? a[r] : twiddled<FORWARD>(a[r], w);
        }
    }
}

// Kept bins that alias to `bin` of a run are bin + SUB * lap, from this lap upwards.
DEVICE int lowest_lap(int bin) { return -((bin + CUTOFF) / SUB); }

// Phase of bin + SUB * lap in run `run` is that of `bin` times this one, the same for all threads.
DEVICE Complex lap_phase(const Source& source, int run, int lap) {
    return source.twiddle[(lap < 0 ? lap + RUNS : lap) * run % RUNS * SUB];
}

// Adds the transform of one run to the kept bins; every bin belongs to one position, so to one
// thread.
DEVICE void gather_bins(const Source& source, int run, const Complex* x, Complex* bins) {
    for (int position = threadIdx.x; position < SUB; position += THREADS) {
        const int bin = frequency<SUB, 0, STAGES>(position);
        const Complex value = twiddled<FORWARD>(x[padded(position)], source.twiddle[run * bin]);
        for (int lap = lowest_lap(bin); bin + SUB * lap <= CUTOFF; lap++) {
            Complex& sum = bins[bin + SUB * lap + CUTOFF];
            const Complex part = twiddled<FORWARD>(value, lap_phase(source, run, lap));
            sum = run == 0 ? part : sum + part;
        }
    }
}

// Folds the kept bins into the SUB points whose inverse transform is run `run`.
DEVICE void spread_bins(const Source& source, int run, const Complex* bins, Complex* x) {
    for (int position = threadIdx.x; position < SUB; position += THREADS) {
        Complex value = {0.f, 0.f};
        const int bin = frequency<SUB, 0, STAGES>(position);
        for (int lap = lowest_lap(bin); bin + SUB * lap <= CUTOFF; lap++) {
            const Complex w = lap_phase(source, run, lap);
            value = value + twiddled<INVERSE>(bins[bin + SUB * lap + CUTOFF], w);
        }
        x[padded(position)] = twiddled<INVERSE>(value, source.twiddle[run * bin]);
    }
}

// Square of a token's pair in the band; `sum` is LENGTH times its low-pass.
DEVICE float energy_of(const Source& source, int token, int channel, Complex sum) {
    constexpr float scale = 1.f / LENGTH;
    const Complex low = {sum.re * scale, sum.im * scale};
    if constexpr (BAND == HIGH)
        return squared(load_token(source, token, channel) - low);
    else
        return squared(low);
}

// Last inverse stage: squares into this block's slice of the energies, each token always by the
// same thread.
DEVICE void add_squares(const Source& source, int run, int channel, bool first, const Complex* x,
                        float* energies) {
    for (int column = threadIdx.x; column < First::stride; column += THREADS) {
        Complex a[First::radix];
#pragma unroll
        for (int r = 0; r < First::radix; r++) {
            const Complex w = source.twiddle[r * column * RUNS];
            a[r] = x[padded(column + r * First::stride)];
            if (r > 0) a[r] = twiddled<INVERSE>(a[r], w);
        }
        butterfly<INVERSE>(a);
#pragma unroll
        for (int r = 0; r < First::radix; r++) {
            const int token = (column + r * First::stride) * RUNS + run;
            const float energy = energy_of(source, token, channel, a[r]);
            energies[token] = (first ? 0.f : energies[token]) + energy;
        }
    }
}

// signal [B, sequence, channels], visual_index [B, V], twiddle [LENGTH, 2] ->
// energies [B, chunks, V].
extern "C" __global__ void __launch_bounds__(THREADS)
    spectrum_score_split(const Element* __restrict__ signal, const Index* __restrict__ visual_index,
                         const Complex* __restrict__ twiddle, int sequence, int channels,
                         int cutoff, float* __restrict__ energies) {
    __shared__ Complex x[PITCH];
    __shared__ Complex bins[BINS];
    const Index batch = blockIdx.y, tokens = static_cast<Index>(gridDim.z) * LENGTH;
    const Index group = static_cast<Index>(blockIdx.z) * LENGTH;
    const Source source = {signal + batch * sequence * channels,
                           visual_index + batch * tokens + group, twiddle, channels};
    const int pairs = (channels + 1) / 2, chunks = gridDim.x, share = (pairs + chunks - 1) / chunks;
    const int begin = blockIdx.x * share, end = begin + share < pairs ? begin + share : pairs;
    energies += (batch * chunks + blockIdx.x) * tokens + group;
    for (int pair = begin; pair < end; pair++) {
        for (int run = 0; run < RUNS; run++) {
            load_run(source, run, pair * 2, x);
            __syncthreads();
            run_forward<SUB, 1, STAGES, 1, PITCH>(x, twiddle, RUNS);
            gather_bins(source, run, x, bins);
            __syncthreads();
        }
        for (int run = 0; run < RUNS; run++) {
            spread_bins(source, run, bins, x);
            __syncthreads();
            run_inverse<SUB, 1, STAGES, 1, PITCH>(x, twiddle, RUNS);
            add_squares(source, run, pair * 2, pair == begin, x, energies);
            __syncthreads();
        }
    }
    for (int token = threadIdx.x; begin >= end && token < LENGTH; token += THREADS)
        energies[token] = 0.f;
}
