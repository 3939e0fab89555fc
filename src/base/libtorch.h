// What of LibTorch most sources need; the precompiled header of all of them. torch/torch.h would
// cost each source three seconds more: GCC instantiates what a precompiled header left pending once
// a source. What few need, they include themselves.
//
// A guard by macro for the reason in tests/support/testing.h.
#ifndef ZEBRA_BASE_LIBTORCH_H
#define ZEBRA_BASE_LIBTORCH_H

#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>
#include <torch/utils.h>

#endif  // ZEBRA_BASE_LIBTORCH_H
