#include "rows.cc"  // the same source for the host and for the GPU
