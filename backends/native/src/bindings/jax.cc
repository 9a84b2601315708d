// The door for JAX: a handler of XLA's foreign function interface.
//
// The interface is plain C, and passes structs that begin with their own size. The parts that are used are
// declared here (XLA, xla/ffi/api/c_api.h, version 0.1 and later), so that neither building nor loading needs
// JAX.
#include <string>

#include "../neighbours.h"
#include "packed_call.h"

namespace {

struct Extension {
  size_t struct_size;
  int type;
  Extension *next;
};

struct ApiVersion {
  size_t struct_size;
  Extension *extension_start;
  int major, minor;
};

struct Metadata {
  size_t struct_size;
  ApiVersion api_version;
  uint32_t traits;
};

struct MetadataExtension {
  Extension base;
  Metadata *metadata;
};
constexpr int kMetadataExtension = 1;

struct ErrorArguments {
  size_t struct_size;
  Extension *extension_start;
  const char *message;
  int code;
};
constexpr int kInvalidArgument = 3, kResourceExhausted = 8;

struct Api {
  size_t struct_size;
  Extension *extension_start;
  ApiVersion version;
  const void *internal;
  void *(*create_error)(ErrorArguments *);
};

struct Buffer {
  size_t struct_size;
  Extension *extension_start;
  int dtype;
  void *data;
  int64_t rank;
  int64_t *dims;
};

struct Buffers {
  size_t struct_size;
  Extension *extension_start;
  int64_t size;
  int *types;
  Buffer **buffers;
};

struct Span {
  const char *data;
  size_t size;
};

struct Array {
  int dtype;
  size_t size;
  const void *data;
};

struct Attributes {
  size_t struct_size;
  Extension *extension_start;
  int64_t size;
  int *types;
  Span **names;
  void **values;
};
constexpr int kArrayAttribute = 1, kInt64 = 5;

struct CallFrame {
  size_t struct_size;
  Extension *extension_start;
  const Api *api;
  void *context;
  int stage;
  Buffers arguments, results;
  Attributes attributes;
};
constexpr int kExecute = 3;

void *error(const CallFrame &frame, int code, const char *message) {
  ErrorArguments arguments{sizeof(ErrorArguments), nullptr, message, code};
  return frame.api->create_error(&arguments);
}

// Indexed by lcmulti_dtype.
constexpr int kTypes[] = {11, 12, 16, 10};

bool is(const Buffer &buffer, int64_t dtype, const lcmulti::Shape &shape) {
  return buffer.dtype == kTypes[dtype] && shape.is(buffer.rank, buffer.dims);
}

// Whether the frame is a question, which is answered here, and not a call.
bool answered(CallFrame *frame) {
  // XLA first asks which version of the interface the handler speaks.
  if (Extension *extension = frame->extension_start; extension && extension->type == kMetadataExtension) {
    Metadata *metadata = reinterpret_cast<MetadataExtension *>(extension)->metadata;
    metadata->api_version.major = 0;
    metadata->api_version.minor = 1;
    metadata->traits = 0;
    return true;
  }
  return frame->stage != kExecute;
}

// The attribute of a call of two arrays and one result.
const Array *attribute(const CallFrame &frame) {
  if (frame.arguments.size != 2 || frame.results.size != 1 || frame.attributes.size != 1) return nullptr;
  const Array *call = static_cast<const Array *>(frame.attributes.values[0]);
  return frame.attributes.types[0] == kArrayAttribute && call->dtype == kInt64 ? call : nullptr;
}

void *ended(const CallFrame &frame, int status) {
  if (status == LCMULTI_OK) return nullptr;
  const std::string message = std::string("lcmulti: ") + lcmulti_status_text(status);
  return error(frame, status == LCMULTI_NO_MEMORY ? kResourceExhausted : kInvalidArgument, message.c_str());
}

}  // namespace

extern "C" LCMULTI_API void *lcmulti_jax(CallFrame *frame) {
  if (answered(frame)) return nullptr;
  const Array *call = attribute(*frame);
  if (call == nullptr || call->size != lcmulti::kCallLength) {
    return error(*frame, kInvalidArgument, "lcmulti: the attribute is no call of this version");
  }
  lcmulti::PackedCall packed;
  std::memcpy(&packed, call->data, sizeof packed);
  if (!packed.sound()) return error(*frame, kInvalidArgument, "lcmulti: a geometry that cannot be");
  const Buffer *a = frame->arguments.buffers[0], *b = frame->arguments.buffers[1], *result = frame->results.buffers[0];
  const lcmulti::Shapes shapes = packed.shapes();
  const int64_t dtype = packed.geometry.dtype;
  if (!is(*a, dtype, shapes.a) || !is(*b, dtype, shapes.b) || !is(*result, dtype, shapes.result)) {
    return error(*frame, kInvalidArgument, "lcmulti: arrays other than the operation was made for");
  }
  if (shapes.result.elements() == 0) return nullptr;
  packed.make_contiguous();
  const int map = static_cast<int>(packed.map);
  return ended(*frame, lcmulti_compute(&packed.geometry, map, a->data, b->data, result->data));
}

extern "C" LCMULTI_API void *lcmulti_jax_cosines(CallFrame *frame) {
  if (answered(frame)) return nullptr;
  const Array *call = attribute(*frame);
  lcmulti::Sheet sheet;
  if (call == nullptr || !lcmulti::read(static_cast<const int64_t *>(call->data), call->size, sheet)) {
    return error(*frame, kInvalidArgument, "lcmulti: the attribute is no call of this version");
  }
  const Buffer *a = frame->arguments.buffers[0], *b = frame->arguments.buffers[1], *result = frame->results.buffers[0];
  int64_t elements[3], i = 0;
  for (const Buffer *each : {a, b, result}) {
    if (each->dtype != kTypes[sheet.dtype]) return error(*frame, kInvalidArgument, "lcmulti: another dtype");
    elements[i] = 1;
    for (int64_t axis = 0; axis < each->rank; ++axis) elements[i] *= each->dims[axis];
    ++i;
  }
  if (!sheet.takes(elements[0], elements[1], elements[2])) {
    return error(*frame, kInvalidArgument, "lcmulti: arrays other than the operation was made for");
  }
  const auto *words = static_cast<const int64_t *>(call->data);
  return ended(*frame, lcmulti_cosines(nullptr, words, call->size, a->data, b->data, result->data));
}
