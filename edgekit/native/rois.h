// RoI max pooling: the cells of a feature map under each region, as six rows and columns of maxima.
#pragma once

#include "kernels.h"

namespace edgekit {

constexpr int kRoiStride = 16;  // input pixels a cell
constexpr float kMaxRoiSide = 1 << 24;  // of a coordinate: pixels

// Maxima of `features` [rows * columns][channels] in the bins of `rois` [count][4] (left, top, right, bottom in input
// pixels, right and bottom inclusive, each finite and within +-kMaxRoiSide) -> `pooled` [count][channels][6][6].
// Caffe's rule (roi_pooling_layer.cpp): bins overlap by rounding outwards, and one that is empty because it lies outside
// the map is 0.
void pool_rois(const Kernels& kernels, const float* features, int rows, int columns, int channels, const float* rois,
               int count, float* pooled);

// What a change of `features` by one changes in a sum of `pooled` weighted with `gradient` [count][channels][6][6], added
// to `sum` [rows * columns][channels]: each weight goes to the cell whose value was the maximum, to the first of equals.
void pool_rois_gradient(const float* features, int rows, int columns, int channels, const float* rois, int count,
                        const float* gradient, float* sum);

}  // namespace edgekit
