// SpectrumSelect: the highest energies of every group, ties to the lower position, in one launch.
//
// A radix search finds the key of the last token kept, 8 bits at a time; then the tokens are walked
// in order, 32 per warp vote, and every surviving position of the sequence is written to its place.
// Keys lie in registers, or in local memory for long groups, so no length is refused.
//
// Grid (groups, batch), THREADS a block. Macros: LENGTH (tokens of a group), THREADS (a multiple of
// 32, at most 1024).

#define DEVICE static __device__ __forceinline__

typedef long long Index;

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int WARPS = THREADS / 32;
constexpr int OWNED = (LENGTH + THREADS - 1) / THREADS;  // thread t owns tokens t, t + THREADS, ...
constexpr int DIGITS = 256;                              // values of the 8 bits looked at
constexpr int ROWS = OWNED < 32 ? OWNED : 32;            // rows of THREADS tokens per walk
constexpr int UNROLL = OWNED <= 16 ? OWNED : 1;          // unrolled, the keys stay in registers

// Tokens above the threshold, and tokens equal to it.
struct Counts {
    int above, equal;
};

struct Shared {
    unsigned histogram[DIGITS];
    unsigned threshold;  // key of the last token kept, as far as it is known
    int wanted;          // tokens still to be taken among those that match it
    Counts warp_totals[32];
    unsigned above[THREADS], equal[THREADS];  // votes on 32 consecutive tokens
    Counts before[THREADS];                   // tokens of this walk before those 32
};

struct Outputs {
    Index *keep_index, *next_visual_index, *kept;
};

// A key that orders like the float; not-a-number counts as the highest.
DEVICE unsigned ordered_key(float energy) {
    union {
        float value;
        unsigned bits;
    } word = {energy};
    return word.bits & 0x80000000u ? ~word.bits : word.bits | 0x80000000u;
}

// Sums the chunks and keeps the keys; adding to zero makes -0 and 0 the same key.
DEVICE void load_keys(const float* energies, int chunks, Index tokens, unsigned (&keys)[OWNED]) {
#pragma unroll UNROLL
    for (int i = 0; i < OWNED; i++) {
        const int token = i * THREADS + threadIdx.x;
        float energy = 0.f;
        if (token < LENGTH) {
#pragma unroll 8
            for (int chunk = 0; chunk < chunks; chunk++) energy += energies[chunk * tokens + token];
        }
        keys[i] = ordered_key(energy);
    }
}

// Counts the digit at `shift` of the keys that match the threshold above it. The lanes of a warp
// that hold the same digit add once: energies share their exponents, and single adds would queue.
DEVICE void count_digits(const unsigned (&keys)[OWNED], int shift, Shared& shared) {
    const unsigned known = shift == 24 ? 0u : ALL_LANES << (shift + 8);
    const unsigned lane = threadIdx.x % 32;
#pragma unroll UNROLL
    for (int i = 0; i < OWNED; i++) {
        const bool real = i * THREADS + static_cast<int>(threadIdx.x) < LENGTH;
        const bool matches = real && ((keys[i] ^ shared.threshold) & known) == 0;
        const unsigned digit = matches ? keys[i] >> shift & (DIGITS - 1) : DIGITS;
        const unsigned peers = __match_any_sync(ALL_LANES, digit);
        if (matches && lane == static_cast<unsigned>(__ffs(peers)) - 1)
            atomicAdd(&shared.histogram[digit], static_cast<unsigned>(__popc(peers)));
    }
}

// The first warp finds the digit of the last token kept: the highest with `wanted` keys at or
// above.
DEVICE void choose_digit(int shift, Shared& shared) {
    constexpr int SHARE = DIGITS / 32;
    const int lane = threadIdx.x, wanted = shared.wanted;
    const int highest = DIGITS - 1 - lane * SHARE;  // lane 0 owns the highest digits
    int own = 0;
    for (int i = 0; i < SHARE; i++) own += shared.histogram[highest - i];
    int through = own;  // keys in this lane's digits and all higher ones
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(ALL_LANES, through, step);
        if (lane >= step) through += other;
    }
    __syncwarp();
    int higher = through - own;
    if (higher >= wanted || through < wanted) return;
    int digit = highest;
    while (higher + static_cast<int>(shared.histogram[digit]) < wanted)
        higher += shared.histogram[digit--];
    shared.threshold |= static_cast<unsigned>(digit) << shift;
    shared.wanted = wanted - higher;
}

// Afterwards `threshold` is the key of the last token kept, `wanted` how many equal to it are kept.
DEVICE void find_threshold(const unsigned (&keys)[OWNED], int keep, Shared& shared) {
    if (threadIdx.x == 0) {
        shared.threshold = 0;
        shared.wanted = keep;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int digit = threadIdx.x; digit < DIGITS; digit += THREADS) shared.histogram[digit] = 0;
        __syncthreads();
        count_digits(keys, shift, shared);
        __syncthreads();
        if (threadIdx.x < 32) choose_digit(shift, shared);
        __syncthreads();
    }
}

// Sum over the lower lanes, and over the whole warp in `total`.
DEVICE Counts scan_warp(Counts own, Counts& total) {
    const int lane = threadIdx.x % 32;
    Counts through = own;
    for (int step = 1; step < 32; step *= 2) {
        const int above = __shfl_up_sync(ALL_LANES, through.above, step);
        const int equal = __shfl_up_sync(ALL_LANES, through.equal, step);
        if (lane >= step) through = {through.above + above, through.equal + equal};
    }
    total.above = __shfl_sync(ALL_LANES, through.above, 31);
    total.equal = __shfl_sync(ALL_LANES, through.equal, 31);
    return {through.above - own.above, through.equal - own.equal};
}

// Fills `before` from the votes; returns the counts of the whole walk. Called by all threads.
DEVICE Counts scan_votes(Shared& shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Counts total;
    const Counts own = {__popc(shared.above[threadIdx.x]), __popc(shared.equal[threadIdx.x])};
    const Counts in_warp = scan_warp(own, total);
    if (lane == 31) shared.warp_totals[warp] = total;
    __syncthreads();
    Counts of_warp = {0, 0};
    if (lane < WARPS) of_warp = shared.warp_totals[lane];
    const Counts in_block = scan_warp(of_warp, total);
    const int above = __shfl_sync(ALL_LANES, in_block.above, warp);
    const int equal = __shfl_sync(ALL_LANES, in_block.equal, warp);
    shared.before[threadIdx.x] = {in_warp.above + above, in_warp.equal + equal};
    return total;
}

// Votes of one walk: bit b of word w is token (first_row * THREADS + 32 w + b) of the group.
DEVICE void vote(const unsigned (&keys)[OWNED], int first_row, Shared& shared) {
    const unsigned threshold = shared.threshold;
#pragma unroll UNROLL
    for (int row = 0; row < ROWS; row++) {
        const int i = first_row + row;
        if (i >= OWNED) break;
        const bool real = i * THREADS + static_cast<int>(threadIdx.x) < LENGTH;
        const unsigned above = __ballot_sync(ALL_LANES, real && keys[i] > threshold);
        const unsigned equal = __ballot_sync(ALL_LANES, real && keys[i] == threshold);
        if (threadIdx.x % 32 == 0) {
            shared.above[row * WARPS + threadIdx.x / 32] = above;
            shared.equal[row * WARPS + threadIdx.x / 32] = equal;
        }
    }
    if (first_row + static_cast<int>(threadIdx.x) / WARPS >= OWNED)
        shared.above[threadIdx.x] = shared.equal[threadIdx.x] = 0;
}

// The text between a visual token and the one before it moves up by the tokens dropped so far. One
// lane after the other, the whole warp copies the lane's gap.
DEVICE void write_gaps(Index begin, Index end, Index dropped, Index* keep_index) {
    const int lane = threadIdx.x % 32;
    unsigned waiting = __ballot_sync(ALL_LANES, begin < end);
    while (waiting) {
        const int owner = __ffs(waiting) - 1;
        const Index from = __shfl_sync(ALL_LANES, begin, owner);
        const Index to = __shfl_sync(ALL_LANES, end, owner);
        const Index shift = __shfl_sync(ALL_LANES, dropped, owner);
        for (Index s = from + lane; s < to; s += 32) keep_index[s - shift] = s;
        waiting &= waiting - 1;
    }
}

struct Walk {
    const Index* rows;  // positions of all visual tokens of this batch row
    Index first_token;  // ordinal of the first token of this group among all visual tokens
    Index first_kept;   // tokens kept in the groups before this one
    Counts done;        // tokens of the earlier walks
};

// Writes the row of THREADS tokens numbered `row` and the text before each of them.
DEVICE void write_row(const Walk& walk, int first_row, int row, const Shared& shared,
                      const Outputs& out) {
    const int token = (first_row + row) * THREADS + threadIdx.x;
    const int word = row * WARPS + threadIdx.x / 32, wanted = shared.wanted;
    const unsigned bit = 1u << threadIdx.x % 32, above = shared.above[word],
                   equal = shared.equal[word];
    const int taken = walk.done.above + shared.before[word].above + __popc(above & (bit - 1));
    const int ties = walk.done.equal + shared.before[word].equal + __popc(equal & (bit - 1));
    const Index rank = walk.first_kept + taken + (ties < wanted ? ties : wanted);
    const Index ordinal = walk.first_token + token, dropped = ordinal - rank;
    Index begin = 0, position = 0;
    if (token < LENGTH) {
        position = walk.rows[ordinal];
        begin = ordinal == 0 ? 0 : walk.rows[ordinal - 1] + 1;
        if ((above & bit) || ((equal & bit) && ties < wanted)) {
            out.keep_index[position - dropped] = position;
            out.next_visual_index[rank] = position - dropped;
            out.kept[rank] = ordinal;
        }
    }
    write_gaps(begin, position, dropped, out.keep_index);
}

// energies [B, chunks, V], visual_index [B, V], positions (unread) -> keep_index [B, S - V + keep],
// next_visual_index [B, keep], kept [B, keep]; the last group also writes the text after its
// tokens.
extern "C" __global__ void __launch_bounds__(THREADS)
    spectrum_select(const float* __restrict__ energies, const Index* __restrict__ visual_index,
                    const Index* __restrict__ positions, int sequence, int chunks, int keep,
                    Index* __restrict__ keep_index, Index* __restrict__ next_visual_index,
                    Index* __restrict__ kept) {
    __shared__ Shared shared;
    const Index batch = blockIdx.y, group = blockIdx.x, groups = gridDim.x;
    const Index tokens = groups * LENGTH;
    const int group_keep = keep / static_cast<int>(groups);
    unsigned keys[OWNED];
    load_keys(energies + batch * chunks * tokens + group * LENGTH, chunks, tokens, keys);
    find_threshold(keys, group_keep, shared);
    const Outputs out = {keep_index + batch * (sequence - tokens + keep),
                         next_visual_index + batch * keep, kept + batch * keep};
    Walk walk = {visual_index + batch * tokens, group * LENGTH, group * group_keep, {0, 0}};
    for (int first_row = 0; first_row < OWNED; first_row += ROWS) {
        vote(keys, first_row, shared);
        __syncthreads();
        const Counts total = scan_votes(shared);
        __syncthreads();
        for (int row = 0; row < ROWS && first_row + row < OWNED; row++)
            write_row(walk, first_row, row, shared, out);
        walk.done = {walk.done.above + total.above, walk.done.equal + total.equal};
        __syncthreads();
    }
    if (group + 1 < groups) return;
    const Index dropped = tokens - keep;
    for (Index s = walk.rows[tokens - 1] + 1 + threadIdx.x; s < sequence; s += THREADS)
        out.keep_index[s - dropped] = s;
}
