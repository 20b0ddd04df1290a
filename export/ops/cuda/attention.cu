#include "attention.cc"  // the same source for the host and for the GPU
