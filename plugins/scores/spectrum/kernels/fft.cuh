// In-place mixed-radix Fourier transforms in shared memory.
//
// Forward stages (decimation in frequency) turn natural order into digit-reversed order, inverse
// stages (decimation in time) turn it back, so nothing is ever reordered: a filter between the two
// asks `frequency(position)` which bin it holds. Twiddle factors come from a table whose row n is
// exp(+2 pi i n / table length); the table may be a multiple of the transform long.
//
// Macros: MAX_RADIX (13 or 16), THREADS.
#pragma once

// Largest radix that divides the rest of the length; 0 when a prime factor exceeds 13.
__host__ __device__ constexpr int pick_radix(int length) {
    const int radices[] = {16, 13, 11, 8, 7, 5, 4, 3, 2};
    for (int radix : radices)
        if (radix <= MAX_RADIX && length % radix == 0 && !(radix == 16 && length == 32))
            return radix;
    return 0;
}

__host__ __device__ constexpr int count_stages(int length) {
    return length == 1 ? 0 : 1 + count_stages(length / pick_radix(length));
}

// Stage S of a transform of POINTS points: every block of `length` points is `radix` runs of
// `stride`.
template <int POINTS, int S>
struct Stage {
    static constexpr int length = Stage<POINTS, S - 1>::stride;
    static constexpr int radix = pick_radix(length);
    static constexpr int stride = length / radix;
};

template <int POINTS>
struct Stage<POINTS, 0> {
    static constexpr int length = POINTS;
    static constexpr int radix = pick_radix(POINTS);
    static constexpr int stride = POINTS / radix;
};

// SIGN of a transform is the sign of its exponent: FORWARD or INVERSE.
constexpr int FORWARD = -1, INVERSE = 1;

template <int SIGN>
DEVICE Complex times_i(Complex a) {
    return SIGN > 0 ? Complex{-a.im, a.re} : Complex{a.im, -a.re};
}

template <int SIGN>
DEVICE Complex twiddled(Complex a, Complex w) {
    return a * (SIGN > 0 ? w : conjugate(w));
}

template <int SIGN>
DEVICE void butterfly(Complex (&a)[2]) {
    const Complex difference = a[0] - a[1];
    a[0] = a[0] + a[1];
    a[1] = difference;
}

template <int SIGN>
DEVICE void butterfly(Complex (&a)[4]) {
    const Complex even_sum = a[0] + a[2], even_difference = a[0] - a[2];
    const Complex odd_sum = a[1] + a[3], odd_difference = times_i<SIGN>(a[1] - a[3]);
    a[0] = even_sum + odd_sum;
    a[1] = even_difference + odd_difference;
    a[2] = even_sum - odd_sum;
    a[3] = even_difference - odd_difference;
}

// Joins the transforms of the even and odd points into the transform of all 2 * HALF points.
template <int SIGN, int HALF>
DEVICE void join_halves(Complex (&a)[2 * HALF], Complex (&even)[HALF], Complex (&odd)[HALF],
                        const float* cosines) {
#pragma unroll
    for (int k = 0; k < HALF; k++) {
        const Complex root = {cosines[k], cosines[k <= HALF / 2 ? HALF / 2 - k : k - HALF / 2]};
        const Complex turned = k == 0          ? odd[k]
                               : k == HALF / 2 ? times_i<SIGN>(odd[k])
                                               : twiddled<SIGN>(odd[k], root);
        a[k] = even[k] + turned;
        a[k + HALF] = even[k] - turned;
    }
}

template <int SIGN, int HALF>
DEVICE void split_halves(const Complex (&a)[2 * HALF], Complex (&even)[HALF],
                         Complex (&odd)[HALF]) {
#pragma unroll
    for (int k = 0; k < HALF; k++) {
        even[k] = a[2 * k];
        odd[k] = a[2 * k + 1];
    }
    butterfly<SIGN>(even);
    butterfly<SIGN>(odd);
}

template <int SIGN>
DEVICE void butterfly(Complex (&a)[8]) {
    const float cosines[] = {1.f, 0.7071067812f, 0.f, -0.7071067812f};
    Complex even[4], odd[4];
    split_halves<SIGN, 4>(a, even, odd);
    join_halves<SIGN, 4>(a, even, odd, cosines);
}

template <int SIGN>
DEVICE void butterfly(Complex (&a)[16]) {
    const float cosines[] = {1.f, 0.9238795325f,  0.7071067812f,  0.3826834324f,
                             0.f, -0.3826834324f, -0.7071067812f, -0.9238795325f};
    Complex even[8], odd[8];
    split_halves<SIGN, 8>(a, even, odd);
    join_halves<SIGN, 8>(a, even, odd, cosines);
}

// Odd prime radix: the pairs a[j], a[R - j] share their cosines and sines.
// cosines[j - 1], sines[j - 1] are those of 2 pi j / R, j = 1 .. (R - 1) / 2.
template <int SIGN, int R>
DEVICE void odd_butterfly(Complex (&a)[R], const float* cosines, const float* sines) {
    constexpr int HALF = (R - 1) / 2;
    Complex sum[HALF], difference[HALF];
    const Complex first = a[0];
#pragma unroll
    for (int j = 0; j < HALF; j++) {
        sum[j] = a[j + 1] + a[R - 1 - j];
        difference[j] = a[j + 1] - a[R - 1 - j];
        a[0] = a[0] + sum[j];
    }
#pragma unroll
    for (int k = 1; k <= HALF; k++) {
        Complex even = first, odd = {0.f, 0.f};
#pragma unroll
        for (int j = 0; j < HALF; j++) {
            const int turn = k * (j + 1) % R, fold = turn > HALF ? R - turn : turn;
            const float c = cosines[fold - 1], s = turn > HALF ? -sines[fold - 1] : sines[fold - 1];
            even = even + Complex{c * sum[j].re, c * sum[j].im};
            odd = odd + Complex{s * difference[j].re, s * difference[j].im};
        }
        odd = times_i<SIGN>(odd);
        a[k] = even + odd;
        a[R - k] = even - odd;
    }
}

template <int SIGN>
DEVICE void butterfly(Complex (&a)[3]) {
    const float cosines[] = {-0.5f}, sines[] = {0.8660254038f};
    odd_butterfly<SIGN>(a, cosines, sines);
}

template <int SIGN>
DEVICE void butterfly(Complex (&a)[5]) {
    const float cosines[] = {0.3090169944f, -0.8090169944f};
    const float sines[] = {0.9510565163f, 0.5877852523f};
    odd_butterfly<SIGN>(a, cosines, sines);
}

template <int SIGN>
DEVICE void butterfly(Complex (&a)[7]) {
    const float cosines[] = {0.6234898019f, -0.222520934f, -0.9009688679f};
    const float sines[] = {0.7818314825f, 0.9749279122f, 0.4338837391f};
    odd_butterfly<SIGN>(a, cosines, sines);
}

template <int SIGN>
DEVICE void butterfly(Complex (&a)[11]) {
    const float cosines[] = {0.8412535328f, 0.415415013f, -0.1423148383f, -0.6548607339f,
                             -0.9594929736f};
    const float sines[] = {0.5406408175f, 0.9096319954f, 0.9898214419f, 0.7557495744f,
                           0.2817325568f};
    odd_butterfly<SIGN>(a, cosines, sines);
}

template <int SIGN>
DEVICE void butterfly(Complex (&a)[13]) {
    const float cosines[] = {0.8854560257f, 0.5680647467f,  0.1205366803f,
                             -0.354604887f, -0.7485107482f, -0.9709418174f};
    const float sines[] = {0.464723172f,  0.8229838659f, 0.9927088741f,
                           0.9350162427f, 0.6631226582f, 0.2393156643f};
    odd_butterfly<SIGN>(a, cosines, sines);
}

// Shared memory has 32 banks: one unused element after every 16 keeps power-of-two strides apart.
DEVICE int padded(int position) { return position + (position >> 4); }

// Bin held at `position` after all forward stages, its lowest digit taken from stage S onwards.
template <int POINTS, int S, int END>
DEVICE int frequency(int position) {
    if constexpr (S == END) {
        return 0;
    } else {
        typedef Stage<POINTS, S> Now;
        return position / Now::stride +
               Now::radix * frequency<POINTS, S + 1, END>(position % Now::stride);
    }
}

// The butterflies of stage S on COPIES transforms that lie APART elements apart, shared by all
// threads.
template <int SIGN, int POINTS, int S, int COPIES, int APART>
DEVICE void run_stage(Complex* shared, const Complex* table, int table_step) {
    typedef Stage<POINTS, S> Now;
    constexpr int COLUMNS = POINTS / Now::radix;
    for (int item = threadIdx.x; item < COLUMNS * COPIES; item += THREADS) {
        Complex* x = shared + item / COLUMNS * APART;
        const int column = item % COLUMNS % Now::stride;
        const int start = item % COLUMNS / Now::stride * Now::length + column;
        const int turn = column * (POINTS / Now::length) * table_step;
        Complex a[Now::radix];
#pragma unroll
        for (int r = 0; r < Now::radix; r++) {
            a[r] = x[padded(start + r * Now::stride)];
            if (SIGN == INVERSE && r > 0) a[r] = twiddled<SIGN>(a[r], table[r * turn]);
        }
        butterfly<SIGN>(a);
#pragma unroll
        for (int r = 0; r < Now::radix; r++) {
            if (SIGN == FORWARD && r > 0) a[r] = twiddled<SIGN>(a[r], table[r * turn]);
            x[padded(start + r * Now::stride)] = a[r];
        }
    }
}

// Forward stages FROM .. TO - 1, a barrier after each.
template <int POINTS, int FROM, int TO, int COPIES, int APART>
DEVICE void run_forward(Complex* shared, const Complex* table, int table_step) {
    if constexpr (FROM < TO) {
        run_stage<FORWARD, POINTS, FROM, COPIES, APART>(shared, table, table_step);
        __syncthreads();
        run_forward<POINTS, FROM + 1, TO, COPIES, APART>(shared, table, table_step);
    }
}

// Inverse stages TO - 1 down to FROM, a barrier after each.
template <int POINTS, int FROM, int TO, int COPIES, int APART>
DEVICE void run_inverse(Complex* shared, const Complex* table, int table_step) {
    if constexpr (FROM < TO) {
        run_stage<INVERSE, POINTS, TO - 1, COPIES, APART>(shared, table, table_step);
        __syncthreads();
        run_inverse<POINTS, FROM, TO - 1, COPIES, APART>(shared, table, table_step);
    }
}
