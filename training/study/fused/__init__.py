"""A step of the Semantic Focus study's encoder in C++, for the CPU."""
