// Test aid: asks the plugins of the C++ library what TensorRT's builder asks, with stand-ins for
// symbolic sizes. Needs the TensorRT headers and nothing of TensorRT itself.
//   drive_library LIBRARY OPERATOR KEY=VALUE ... -- TYPE:SIZE,SIZE,... ...
// TYPE is the number of a nvinfer1::DataType; a negative SIZE varies at run time, at most to its
// absolute value. Prints lines; the PTX comes last.
#include <NvInfer.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

using namespace nvinfer1;

struct Size : IDimensionExpr, apiv::VDimensionExpr {
    std::string text;
    int64_t value;
    bool known;

    Size(std::string text_, int64_t value_, bool known_)
        : text(std::move(text_)), value(value_), known(known_) {
        mImpl = this;
    }
    bool isConstant() const override { return known; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
};

struct Builder : IExprBuilder, apiv::VExprBuilder {
    std::deque<Size> sizes;

    Builder() { mImpl = this; }
    IDimensionExpr const* constant(int64_t value) override {
        return &sizes.emplace_back(std::to_string(value), value, true);
    }
    IDimensionExpr const* operation(DimensionOperation op, IDimensionExpr const& first,
                                    IDimensionExpr const& second) override {
        auto const &a = static_cast<Size const&>(first), &b = static_cast<Size const&>(second);
        bool const sum = op == DimensionOperation::kSUM;
        std::string const text = "(" + a.text + (sum ? "+" : "-") + b.text + ")";
        return &sizes.emplace_back(text, sum ? a.value + b.value : a.value - b.value,
                                   a.known && b.known);
    }
    IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const& optimum,
                                            IDimensionExpr const&) override {
        return &optimum;
    }
};

struct Input {
    DataType type;
    std::vector<int64_t> sizes;
};

static Input parse(char const* text) {
    Input input{static_cast<DataType>(std::atoi(text)), {}};
    for (char const* at = std::strchr(text, ':'); at; at = std::strchr(at, ','))
        input.sizes.push_back(std::atoll(++at));
    return input;
}

static int fail(char const* what) {
    std::printf("refused in %s\n", what);
    return 0;
}

static IPluginV3* create(IPluginCreatorInterface* interface,
                         std::vector<PluginField> const& fields) {
    PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
    auto* creator = static_cast<IPluginCreatorV3One*>(interface);
    return creator->createPlugin(creator->getPluginName(), &collection, TensorRTPhase::kBUILD);
}

static std::vector<DynamicPluginTensorDesc> describe(std::vector<Input> const& inputs) {
    std::vector<DynamicPluginTensorDesc> descs(inputs.size());
    for (size_t i = 0; i < inputs.size(); i++) {
        auto& desc = descs[i];
        desc.desc.type = inputs[i].type;
        desc.desc.format = TensorFormat::kLINEAR;
        desc.desc.dims.nbDims = desc.max.nbDims = static_cast<int32_t>(inputs[i].sizes.size());
        for (size_t j = 0; j < inputs[i].sizes.size(); j++) {
            int64_t const size = inputs[i].sizes[j];
            desc.desc.dims.d[j] = size < 0 ? -1 : size;
            desc.max.d[j] = std::llabs(size);
        }
        desc.min = desc.opt = desc.max;
    }
    return descs;
}

static bool printShapes(IPluginV3OneBuild* build, std::vector<Input> const& inputs) {
    Builder builder;
    std::vector<DimsExprs> in(inputs.size()), out(build->getNbOutputs());
    for (size_t i = 0; i < inputs.size(); i++) {
        in[i].nbDims = static_cast<int32_t>(inputs[i].sizes.size());
        for (size_t j = 0; j < inputs[i].sizes.size(); j++) {
            int64_t const size = inputs[i].sizes[j];
            std::string const text =
                size < 0 ? "i" + std::to_string(i) + "." + std::to_string(j) : std::to_string(size);
            in[i].d[j] = &builder.sizes.emplace_back(text, std::llabs(size), size >= 0);
        }
    }
    if (build->getOutputShapes(in.data(), in.size(), nullptr, 0, out.data(), out.size(), builder))
        return false;
    for (auto const& shape : out) {
        std::printf("shape");
        for (int32_t j = 0; j < shape.nbDims; j++)
            std::printf(" %s", static_cast<Size const*>(shape.d[j])->text.c_str());
        std::printf("\n");
    }
    return true;
}

static int drive(IPluginCreatorInterface* interface, std::vector<PluginField> const& fields,
                 std::vector<Input> const& inputs) {
    IPluginV3* plugin = create(interface, fields);
    if (!plugin) return fail("createPlugin");
    auto* build = static_cast<IPluginV3OneBuild*>(
        plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
    std::vector<DataType> types, outputs(build->getNbOutputs());
    for (auto const& input : inputs) types.push_back(input.type);
    if (build->getOutputDataTypes(outputs.data(), outputs.size(), types.data(), types.size()))
        return fail("getOutputDataTypes");
    std::printf("types");
    for (auto type : outputs) std::printf(" %d", static_cast<int>(type));
    std::printf("\n");
    if (!printShapes(build, inputs)) return fail("getOutputShapes");
    auto descs = describe(inputs);
    for (size_t i = 0; i < descs.size(); i++)
        if (!build->supportsFormatCombination(i, descs.data(), descs.size(), outputs.size()))
            return fail("supportsFormatCombination");
    if (build->configurePlugin(descs.data(), descs.size(), nullptr, 0))
        return fail("configurePlugin");
    // What the engine stores must bring back the same plugin.
    auto* runtime = static_cast<IPluginV3OneRuntime*>(
        plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    auto const* stored = runtime->getFieldsToSerialize();
    IPluginV3* again = create(interface, {stored->fields, stored->fields + stored->nbFields});
    if (!again) return fail("createPlugin from the serialized fields");
    runtime = static_cast<IPluginV3OneRuntime*>(
        again->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    stored = runtime->getFieldsToSerialize();
    for (int32_t i = 0; i < stored->nbFields; i++) {
        PluginField const& field = stored->fields[i];
        if (field.type == PluginFieldType::kINT64)
            std::printf("%s %lld\n", field.name, *static_cast<long long const*>(field.data));
        else
            std::printf("%s %.*s\n", field.name, field.length,
                        static_cast<char const*>(field.data));
    }
    return 0;
}

int main(int count, char** words) {
    void* library = dlopen(words[1], RTLD_NOW);
    if (!library) return std::fprintf(stderr, "%s\n", dlerror()), 1;
    auto* creators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(
        dlsym(library, "getCreators"));
    std::deque<std::pair<std::string, int64_t>> values;
    std::vector<PluginField> fields;
    int at = 3;
    for (; at < count && std::strcmp(words[at], "--"); at++) {
        char const* equals = std::strchr(words[at], '=');
        auto& value =
            values.emplace_back(std::string(words[at], equals - words[at]), std::atoll(equals + 1));
        fields.emplace_back(value.first.c_str(), &value.second, PluginFieldType::kINT64, 1);
    }
    std::vector<Input> inputs;
    for (at++; at < count; at++) inputs.push_back(parse(words[at]));
    int32_t found = 0;
    auto* const* all = creators(found);
    for (int32_t i = 0; i < found; i++)
        if (!std::strcmp(static_cast<IPluginCreatorV3One*>(all[i])->getPluginName(), words[2]))
            return drive(all[i], fields, inputs);
    return fail("getCreators");
}
