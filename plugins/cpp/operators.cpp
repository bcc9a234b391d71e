#include "operators.h"

#include <stdexcept>

namespace luvc {
namespace {

using namespace nvinfer1;

Element elementOf(DataType type) {
    return type == DataType::kHALF   ? Element::FLOAT16
           : type == DataType::kBF16 ? Element::BFLOAT16
                                     : Element::FLOAT32;
}

// Size of an axis that must be known when the engine is built.
int64_t fixedSize(DimsExprs const& shape, int axis, char const* meaning) {
    if (shape.d[axis]->isConstant()) return shape.d[axis]->getConstantValue();
    throw std::invalid_argument(std::string(meaning) +
                                " varies at run time; it must be fixed in the ONNX graph.");
}

constexpr char const* TOKENS = "V, the number of visual tokens,";
constexpr char const* CHANNELS = "D, the hidden size,";

void scoreShapes(DimsExprs const* in, DimsExprs* out, IExprBuilder& builder, Attributes const& a) {
    int64_t const tokens = fixedSize(in[1], 1, TOKENS), channels = fixedSize(in[0], 2, CHANNELS);
    // The number of chunks is the same for every element type.
    Launch const launch = scoreLaunch(tokens, a[1], channels, a[0], a[2], Element::FLOAT16);
    int64_t const rows = fixedSize(in[2], 0, "the length of twiddle");
    if (rows != tokens / a[1])
        throw std::invalid_argument("SpectrumScore: twiddle has " + std::to_string(rows) +
                                    " rows; it must have V / groups.");
    out[0].nbDims = 3;
    out[0].d[0] = in[0].d[0];
    out[0].d[1] = builder.constant(launch.chunks);
    out[0].d[2] = in[1].d[1];
}

Call scoreOf(PluginTensorDesc const* in, Attributes const& a) {
    auto const& signal = in[0].dims.d;
    Launch const launch =
        scoreLaunch(in[1].dims.d[1], a[1], signal[2], a[0], a[2], elementOf(in[0].type));
    return scoreCall(launch, signal[0], signal[1], signal[2], a[0]);
}

void selectShapes(DimsExprs const* in, DimsExprs* out, IExprBuilder& builder, Attributes const& a) {
    selectLaunch(fixedSize(in[1], 1, TOKENS), a[1], a[0]);
    auto const* keep = builder.constant(a[0]);
    auto const* text = builder.operation(DimensionOperation::kSUB, *in[2].d[1], *in[1].d[1]);
    for (int i = 0; i < 3; i++) {
        out[i].nbDims = 2;
        out[i].d[0] = in[1].d[0];
        out[i].d[1] = i == 0 ? builder.operation(DimensionOperation::kSUM, *text, *keep) : keep;
    }
}

Call selectOf(PluginTensorDesc const* in, Attributes const& a) {
    auto const &energies = in[0].dims.d, &index = in[1].dims.d, &positions = in[2].dims.d;
    Launch const launch = selectLaunch(index[1], a[1], a[0]);
    return selectCall(launch, index[0], positions[1], energies[1], a[0]);
}

void gatherShapes(DimsExprs const* in, DimsExprs* out, IExprBuilder&, Attributes const&) {
    fixedSize(in[0], 2, CHANNELS);
    for (int i = 0; i < 2; i++) {
        out[i].nbDims = 3;
        out[i].d[0] = in[2].d[0];
        out[i].d[1] = in[2].d[1];
        out[i].d[2] = in[i].d[2];
    }
}

Call gatherOf(PluginTensorDesc const* in, Attributes const&) {
    auto const &hidden = in[0].dims.d, &positions = in[1].dims.d, &index = in[2].dims.d;
    return gatherCall(hidden[2], elementOf(in[0].type), index[0], hidden[1], index[1],
                      positions[2]);
}

bool isFloat(DataType type) {
    return type == DataType::kHALF || type == DataType::kBF16 || type == DataType::kFLOAT;
}

}  // namespace

bool Operator::accepts(DataType type, DataType first, size_t position) const {
    Kind const kind =
        position < inputs.size() ? inputs[position] : outputs[position - inputs.size()];
    if (kind == Kind::ANY_FLOAT) return isFloat(type);
    if (kind == Kind::LIKE_FIRST) return type == first;
    return type == (kind == Kind::FLOAT32 ? DataType::kFLOAT : DataType::kINT64);
}

std::vector<Operator> const& operators() {
    static std::vector<Operator> const all{{"SpectrumScore",
                                            {"cutoff", "groups", "band"},
                                            1,
                                            {Kind::ANY_FLOAT, Kind::INT64, Kind::FLOAT32},
                                            {Kind::FLOAT32},
                                            {3, 2, 2},
                                            scoreShapes,
                                            scoreOf},
                                           {"SpectrumSelect",
                                            {"keep", "groups"},
                                            0,
                                            {Kind::FLOAT32, Kind::INT64, Kind::INT64},
                                            {Kind::INT64, Kind::INT64, Kind::INT64},
                                            {3, 2, 3},
                                            selectShapes,
                                            selectOf},
                                           {"GatherTokens",
                                            {},
                                            0,
                                            {Kind::ANY_FLOAT, Kind::INT64, Kind::INT64},
                                            {Kind::LIKE_FIRST, Kind::INT64},
                                            {3, 3, 2},
                                            gatherShapes,
                                            gatherOf}};
    return all;
}

}  // namespace luvc
