// Scratch memory of one thread, which is kept between tasks and between calls.
#pragma once

#include <memory>
#include <new>

#include "plan.h"

namespace lcmulti::LCMULTI_ISA {

class Scratch {
 public:
  // At least `bytes`, aligned to a cache line; previous content is lost.
  char *take(size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    size_ = 0;  // stays 0 if the allocation fails
#endif
    if (bytes > size_) {
      memory_.reset();
      size_ = 0;
      memory_.reset(static_cast<char *>(::operator new(bytes, std::align_val_t{64})));
      size_ = bytes;
    }
    return memory_.get();
  }
  // Frees memory that only a large task needed.
  void trim() {
    if (size_ > 4 * kPassingBytes) memory_.reset(), size_ = 0;
  }

 private:
  struct Free {
    void operator()(char *p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<char, Free> memory_;
  size_t size_ = 0;
};

inline thread_local Scratch scratch;

template <class A>
A *part(char *&memory, int64_t elements) {
  A *result = reinterpret_cast<A *>(memory);
  memory += (elements * static_cast<int64_t>(sizeof(A)) + 63) / 64 * 64;
  return result;
}

}  // namespace lcmulti::LCMULTI_ISA
