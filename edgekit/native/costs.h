// What running a program costs at worst, to refuse one that would take all of a board.
#pragma once

#include "program.h"

namespace edgekit {

struct Costs {
    double bytes;   // that an engine with one thread allocates
    double work;    // multiply-accumulates of a frame under a mask of ones
};

// Of a program of which every operation has been checked.
Costs costs_of(const Program& program);

}  // namespace edgekit
