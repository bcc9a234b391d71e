#include "plan.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <stdexcept>

namespace luvc {
namespace {

constexpr int64_t SHARED_BYTES = 48 * 1024;
constexpr int64_t COMPLEX_BYTES = 8;
constexpr int64_t WARP = 32;
constexpr int64_t CHUNKS = 128;
constexpr int64_t MIN_SPLIT = 256;

using Macros = std::vector<std::pair<std::string, int64_t>>;

[[noreturn]] void refuse(std::string const& text) { throw std::invalid_argument(text); }

std::string number(int64_t value) { return std::to_string(value); }

int64_t ceilDivide(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

int64_t roundUp(int64_t value, int64_t multiple) { return ceilDivide(value, multiple) * multiple; }

int64_t padded(int64_t length) { return length + length / 16; }

int64_t largestRadix(int64_t length, int64_t limit) {
    for (int64_t radix : {16, 13, 11, 8, 7, 5, 4, 3, 2})
        if (radix <= limit && length % radix == 0 && !(radix == 16 && length == 32)) return radix;
    return 0;
}

bool isSmooth(int64_t length) {
    for (int64_t prime : {2, 3, 5, 7, 11, 13})
        while (length % prime == 0) length /= prime;
    return length == 1;
}

int chunkCount(int64_t passes) {
    int64_t const share = ceilDivide(passes, CHUNKS);
    return static_cast<int>(ceilDivide(passes, share));
}

int64_t groupLength(int64_t tokens, int64_t groups) {
    if (tokens < 1)
        refuse("V = " + number(tokens) +
               " visual tokens; a stage needs at least 1. Leave the stage out.");
    if (groups < 1 || tokens % groups)
        refuse("groups " + number(groups) + " does not divide V = " + number(tokens) +
               " visual tokens into equal runs; use 1 or a divisor of V.");
    return tokens / groups;
}

Launch finished(Launch launch, Macros common, Macros const& own, int64_t threads) {
    common.insert(common.end(), own.begin(), own.end());
    launch.macros = std::move(common);
    launch.threads = static_cast<int>(threads);
    return launch;
}

Call callOf(Launch const& launch, int64_t const (&grid)[3],
            std::initializer_list<int64_t> scalars) {
    Call call{launch, {}, {}};
    for (int i = 0; i < 3; i++) call.grid[i] = static_cast<unsigned>(grid[i]);
    for (int64_t scalar : scalars) call.scalars.push_back(static_cast<int32_t>(scalar));
    return call;
}

std::optional<Launch> transformLaunch(int64_t length, int64_t groups, int64_t channels,
                                      Macros const& common) {
    if (length == 1 || !isSmooth(length)) return std::nullopt;
    int64_t const columns = length / largestRadix(length, 16);
    for (int64_t pairs : {8, 4, 2, 1}) {
        int64_t pitch = padded(length);
        while (pairs > 1 && pitch % 16 != 16 / pairs) pitch++;
        int64_t const shared = pairs * pitch * COMPLEX_BYTES;
        if (shared > SHARED_BYTES || columns * pairs > 512) continue;
        int64_t const threads = roundUp(columns * pairs, WARP);
        Launch launch{"score.cu", "spectrum_score", {}, 0, shared};
        launch.chunks = chunkCount(ceilDivide(channels, 2 * pairs));
        launch.blocks = static_cast<int>(groups);
        return finished(
            launch, common,
            {{"PAIRS", pairs}, {"PITCH", pitch}, {"THREADS", threads}, {"MAX_RADIX", 16}}, threads);
    }
    return std::nullopt;
}

std::optional<Launch> splitLaunch(int64_t length, int64_t groups, int64_t channels, int64_t cutoff,
                                  Macros const& common) {
    int64_t const bins = 2 * cutoff + 1, room = SHARED_BYTES / COMPLEX_BYTES - bins;
    int64_t sub = std::min(room, length / 2);
    while (sub >= MIN_SPLIT && (length % sub || padded(sub) > room || !isSmooth(sub))) sub--;
    if (sub < MIN_SPLIT || bins > length) return std::nullopt;
    int64_t const threads = std::min<int64_t>(512, roundUp(sub / largestRadix(sub, 13), WARP));
    Launch launch{
        "score_split.cu", "spectrum_score_split", {}, 0, (padded(sub) + bins) * COMPLEX_BYTES};
    launch.chunks = chunkCount(ceilDivide(channels, 2));
    launch.blocks = static_cast<int>(groups);
    return finished(launch, common,
                    {{"SUB", sub}, {"BINS", bins}, {"THREADS", threads}, {"MAX_RADIX", 13}},
                    threads);
}

Launch basisLaunch(int64_t length, int64_t groups, int64_t channels, Macros const& common) {
    int64_t const folds = length / 2 + 1, tile = 64;
    int64_t const threads = length <= 2048 ? 128 : length <= 8192 ? 256 : 512;
    int64_t const owned = std::min<int64_t>(16, ceilDivide(folds, threads));
    int64_t const ranges = ceilDivide(folds, owned * threads);
    int64_t const width = owned <= 4 ? 4 : owned <= 8 ? 2 : 1;
    Launch launch{
        "score_basis.cu", "spectrum_score_basis", {}, 0, (tile + threads) * 2 * 4 * width};
    launch.chunks = chunkCount(ceilDivide(channels, width));
    launch.blocks = static_cast<int>(groups * ranges);
    return finished(launch, common,
                    {{"CHANNELS", width},
                     {"OWNED", owned},
                     {"RANGES", ranges},
                     {"TILE", tile},
                     {"THREADS", threads}},
                    threads);
}

}  // namespace

std::vector<std::string> Launch::options() const {
    std::vector<std::string> result{"--gpu-architecture=compute_80", "--std=c++17"};
    for (auto const& [name, value] : macros) result.push_back("-D" + name + "=" + number(value));
    return result;
}

Launch scoreLaunch(int64_t tokens, int64_t groups, int64_t channels, int64_t cutoff, int64_t band,
                   Element element) {
    int64_t const length = groupLength(tokens, groups);
    if (channels < 1)
        refuse("SpectrumScore: D = " + number(channels) + " channels; at least 1 is needed.");
    if (cutoff < 0 || cutoff > length / 2)
        refuse("SpectrumScore: cutoff " + number(cutoff) + " is outside 0 .. " +
               number(length / 2) + ", the bins of " + number(length) +
               " tokens; lower the cutoff share or keep more tokens.");
    if (band != 0 && band != 1)
        refuse("SpectrumScore: band " + number(band) + " is none of 0 (low) and 1 (high).");
    Macros const common{{"ELEMENT", static_cast<int64_t>(element)},
                        {"EVEN_CHANNELS", channels % 2 == 0},
                        {"LENGTH", length},
                        {"BAND", band}};
    if (auto launch = transformLaunch(length, groups, channels, common)) return *launch;
    if (auto launch = splitLaunch(length, groups, channels, cutoff, common)) return *launch;
    return basisLaunch(length, groups, channels, common);
}

Launch selectLaunch(int64_t tokens, int64_t groups, int64_t keep) {
    int64_t const length = groupLength(tokens, groups);
    if (keep < 1 || keep > tokens)
        refuse("SpectrumSelect: keep " + number(keep) + " is outside 1 .. " + number(tokens) +
               ", the visual tokens that enter; lower keep (to drop them all, leave the stage out "
               "and cut the rows).");
    if (keep % groups)
        refuse("SpectrumSelect: keep " + number(keep) + " is no multiple of groups " +
               number(groups) + ", and each group keeps the same number; use " +
               number(keep < groups ? groups : keep - keep % groups) + ".");
    int64_t const threads = std::min<int64_t>(1024, roundUp(length, WARP));
    Launch launch{"select.cu", "spectrum_select", {}, 0, 256 * 4 + 2 * 4 + 32 * 8 + threads * 16};
    launch.blocks = static_cast<int>(groups);
    return finished(launch, {}, {{"LENGTH", length}, {"THREADS", threads}}, threads);
}

int64_t itemBytes(Element element) { return element == Element::FLOAT32 ? 4 : 2; }

int64_t unitBytes(int64_t channels, Element element) {
    int64_t const row = channels * itemBytes(element);
    for (int64_t width : {16, 8, 4})
        if (row % width == 0) return width;
    return 2;
}

Launch gatherLaunch(int64_t channels, Element element) {
    if (channels < 1)
        refuse("GatherTokens: D = " + number(channels) + " channels; at least 1 is needed.");
    int64_t const unit = unitBytes(channels, element);
    int64_t const threads =
        std::min<int64_t>(256, roundUp(channels * itemBytes(element) / unit, WARP));
    Launch const launch{"gather.cu", "gather_tokens", {}};
    return finished(launch, {}, {{"UNIT_BYTES", unit}, {"THREADS", threads}}, threads);
}

Call scoreCall(Launch const& launch, int64_t batch, int64_t sequence, int64_t channels,
               int64_t cutoff) {
    return callOf(launch, {launch.chunks, batch, launch.blocks}, {sequence, channels, cutoff});
}

Call selectCall(Launch const& launch, int64_t batch, int64_t sequence, int64_t chunks,
                int64_t keep) {
    return callOf(launch, {launch.blocks, batch, 1}, {sequence, chunks, keep});
}

Call gatherCall(int64_t channels, Element element, int64_t batch, int64_t sequence, int64_t rows,
                int64_t components) {
    Launch const launch = gatherLaunch(channels, element);
    int64_t const units = channels * itemBytes(element) / unitBytes(channels, element);
    return callOf(launch, {rows, batch, 1}, {sequence, units, components});
}

namespace {

Call described(int operation, int64_t const* n) {
    if (operation == 0) {
        Launch const launch = scoreLaunch(n[0], n[1], n[2], n[3], n[4], static_cast<Element>(n[5]));
        return scoreCall(launch, n[6], n[7], n[2], n[3]);
    }
    if (operation == 1) return selectCall(selectLaunch(n[0], n[1], n[2]), n[3], n[4], n[5], n[2]);
    return gatherCall(n[0], static_cast<Element>(n[1]), n[2], n[3], n[4], n[5]);
}

}  // namespace

}  // namespace luvc

// For the test that holds this file equal to launch.py: one line with everything, or the refusal.
// `numbers` is tokens, groups, channels, cutoff, band, element, batch, sequence for operation 0
// (score); tokens, groups, keep, batch, sequence, chunks for 1 (select); channels, element, batch,
// sequence, rows, components for 2 (gather).
extern "C" int luvc_describe_launch(int operation, int64_t const* numbers, char* text,
                                    int capacity) {
    using namespace luvc;
    std::string line;
    try {
        Call const call = described(operation, numbers);
        Launch const& launch = call.launch;
        line = launch.source + " " + launch.entry;
        for (int64_t value : {int64_t{launch.threads}, launch.sharedBytes, int64_t{launch.chunks},
                              int64_t{launch.blocks}})
            line += " " + number(value);
        for (unsigned blocks : call.grid) line += " " + number(blocks);
        for (int32_t scalar : call.scalars) line += " " + number(scalar);
        for (auto const& option : launch.options()) line += " " + option;
    } catch (std::invalid_argument const& error) {
        line = error.what();
    }
    return static_cast<int>(line.copy(text, capacity));
}
