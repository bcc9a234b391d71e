// The three operators as data and three functions each, in the order and with the names of
// contract.py.
#pragma once

#include <NvInfer.h>

#include <string>
#include <vector>

#include "plan.h"

namespace luvc {

// Element type of an input or output; LIKE_FIRST is that of input 0.
enum class Kind { ANY_FLOAT, LIKE_FIRST, FLOAT32, INT64 };

using Attributes = std::vector<int64_t>;  // in the order of Operator::attributes

struct Operator {
    char const* name;
    std::vector<char const*> attributes;
    size_t optional;  // of the last attributes: graphs of earlier versions lack them; 0 there
    std::vector<Kind> inputs, outputs;
    std::vector<int32_t> ranks;  // axes of each input

    // Shapes of the outputs. Throws std::invalid_argument for sizes that cannot be met.
    void (*shapes)(nvinfer1::DimsExprs const* in, nvinfer1::DimsExprs* out,
                   nvinfer1::IExprBuilder& builder, Attributes const& attributes);

    // The launch for inputs of known shape.
    Call (*call)(nvinfer1::PluginTensorDesc const* in, Attributes const& attributes);

    // Whether input or output `position` may have this type, input 0 having type `first`.
    bool accepts(nvinfer1::DataType type, nvinfer1::DataType first, size_t position) const;
};

std::vector<Operator> const& operators();

}  // namespace luvc
