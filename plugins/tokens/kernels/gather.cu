// GatherTokens: the surviving rows of the hidden states and of the position ids, in one launch.
//
// Grid (surviving rows, batch), one block a row. Macros: UNIT_BYTES (16, 8, 4 or 2: the widest word
// that divides a row of hidden states), THREADS.

typedef long long Index;

struct alignas(UNIT_BYTES) Unit {
    unsigned short halves[UNIT_BYTES / 2];
};

// hidden [B, sequence, units], positions [B, sequence, components], keep_index [B, surviving]
// -> hidden_kept [B, surviving, units], positions_kept [B, surviving, components].
extern "C" __global__ void __launch_bounds__(THREADS)
    gather_tokens(const Unit* __restrict__ hidden, const Index* __restrict__ positions,
                  const Index* __restrict__ keep_index, int sequence, int units, int components,
                  Unit* __restrict__ hidden_kept, Index* __restrict__ positions_kept) {
    const Index target = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index source = static_cast<Index>(blockIdx.y) * sequence + keep_index[target];
#pragma unroll 4
    for (int i = threadIdx.x; i < units; i += THREADS)
        hidden_kept[target * units + i] = hidden[source * units + i];
    for (int i = threadIdx.x; i < components; i += THREADS)
        positions_kept[target * components + i] = positions[source * components + i];
}
