// The door for TensorFlow: an operation and its kernel, by the C interface (tensorflow/c/ops.h and kernels.h).
// It is a library of its own, for `tf.load_op_library`.
//
// The functions are looked up in TensorFlow when this library is loaded. Their prototypes are declared here,
// so that building does not need TensorFlow.
#include <dlfcn.h>

#include <cstdio>
#include <string>
#include <vector>

#include "../neighbours.h"
#include "packed_call.h"

namespace {

using Handle = void *;
constexpr int kInvalidArgument = 3, kResourceExhausted = 8;  // TF_Code

struct DataType {
  int tensorflow;
  int64_t ours;
  size_t size;
};
constexpr DataType kTypes[] = {
    {1, LCMULTI_FLOAT32, 4}, {2, LCMULTI_FLOAT64, 8}, {14, LCMULTI_BFLOAT16, 2}, {19, LCMULTI_FLOAT16, 2}};

#define LCMULTI_TENSORFLOW_FUNCTIONS(F)                                                         \
  F(Handle, TF_NewStatus, ())                                                                   \
  F(void, TF_DeleteStatus, (Handle))                                                            \
  F(void, TF_SetStatus, (Handle, int, const char *))                                            \
  F(int, TF_GetCode, (Handle))                                                                  \
  F(Handle, TF_NewOpDefinitionBuilder, (const char *))                                          \
  F(void, TF_OpDefinitionBuilderAddAttr, (Handle, const char *))                                \
  F(void, TF_OpDefinitionBuilderAddInput, (Handle, const char *))                               \
  F(void, TF_OpDefinitionBuilderAddOutput, (Handle, const char *))                              \
  F(void, TF_OpDefinitionBuilderSetShapeInferenceFunction, (Handle, void (*)(Handle, Handle)))  \
  F(void, TF_ShapeInferenceContextSetUnknownShape, (Handle, Handle))                            \
  F(void, TF_RegisterOpDefinition, (Handle, Handle))                                            \
  F(Handle, TF_NewKernelBuilder,                                                                \
    (const char *, const char *, Handle (*)(Handle), void (*)(Handle, Handle), void (*)(Handle))) \
  F(void, TF_KernelBuilder_TypeConstraint, (Handle, const char *, int, Handle))                 \
  F(void, TF_RegisterKernelBuilder, (const char *, Handle, Handle))                             \
  F(void, TF_OpKernelConstruction_GetAttrInt64List, (Handle, const char *, int64_t *, int, Handle)) \
  F(void, TF_OpKernelConstruction_GetAttrSize, (Handle, const char *, int32_t *, int32_t *, Handle)) \
  F(void, TF_OpKernelConstruction_Failure, (Handle, Handle))                                    \
  F(void, TF_OpKernelContext_Failure, (Handle, Handle))                                         \
  F(void, TF_GetInput, (Handle, int, Handle *, Handle))                                         \
  F(Handle, TF_AllocateOutput, (Handle, int, int, const int64_t *, int, size_t, Handle))        \
  F(int, TF_TensorType, (Handle))                                                               \
  F(int, TF_NumDims, (Handle))                                                                  \
  F(int64_t, TF_Dim, (Handle, int))                                                             \
  F(void *, TF_TensorData, (Handle))                                                            \
  F(void, TF_DeleteTensor, (Handle))

struct TensorFlow {
#define LCMULTI_DECLARE(result, name, arguments) result(*name) arguments = nullptr;
  LCMULTI_TENSORFLOW_FUNCTIONS(LCMULTI_DECLARE)
#undef LCMULTI_DECLARE

  bool find() {
#if defined(__APPLE__)
    const char *library = "libtensorflow_framework.2.dylib";
#else
    const char *library = "libtensorflow_framework.so.2";
#endif
    void *handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == nullptr) handle = RTLD_DEFAULT;
    bool all = true;
#define LCMULTI_FIND(result, name, arguments)                                    \
  name = reinterpret_cast<result(*) arguments>(dlsym(handle, #name));            \
  all &= name != nullptr;
    LCMULTI_TENSORFLOW_FUNCTIONS(LCMULTI_FIND)
#undef LCMULTI_FIND
    return all;
  }
};

TensorFlow tf;

class Status {
 public:
  Status() : handle(tf.TF_NewStatus()) {}
  ~Status() { tf.TF_DeleteStatus(handle); }
  Status(const Status &) = delete;
  Status &operator=(const Status &) = delete;
  bool ok() const { return tf.TF_GetCode(handle) == 0; }
  const Handle handle;
};

class Tensor {
 public:
  explicit Tensor(Handle tensor = nullptr) : handle(tensor) {}
  ~Tensor() {
    if (handle != nullptr) tf.TF_DeleteTensor(handle);
  }
  Tensor(const Tensor &) = delete;
  Tensor &operator=(const Tensor &) = delete;
  bool is(const lcmulti::Shape &shape) const {
    if (tf.TF_NumDims(handle) != shape.rank) return false;
    for (int i = 0; i < shape.rank; ++i) {
      if (tf.TF_Dim(handle, i) != shape.sizes[i]) return false;
    }
    return true;
  }
  int64_t elements() const {
    int64_t count = 1;
    for (int i = 0; i < tf.TF_NumDims(handle); ++i) count *= tf.TF_Dim(handle, i);
    return count;
  }
  Handle handle;
};

// The attribute of an operation.
std::vector<int64_t> words(Handle construction, const Status &status) {
  int32_t length = 0, unused = 0;
  tf.TF_OpKernelConstruction_GetAttrSize(construction, "call", &length, &unused, status.handle);
  std::vector<int64_t> found(static_cast<size_t>(status.ok() ? length : 0));
  if (status.ok()) {
    tf.TF_OpKernelConstruction_GetAttrInt64List(construction, "call", found.data(), length, status.handle);
  }
  return found;
}

void fail(Handle context, const Status &status, int code, const char *why) {
  tf.TF_SetStatus(status.handle, code, (std::string("lcmulti: ") + why).c_str());
  tf.TF_OpKernelContext_Failure(context, status.handle);
}

void fail(Handle context, const Status &status, int code) {
  fail(context, status, code == LCMULTI_NO_MEMORY ? kResourceExhausted : kInvalidArgument, lcmulti_status_text(code));
}

void *create(Handle construction) {
  Status status;
  const std::vector<int64_t> given = words(construction, status);
  auto *call = new lcmulti::PackedCall{};
  if (given.size() == lcmulti::kCallLength) {
    std::memcpy(call, given.data(), sizeof *call);
  } else if (status.ok()) {
    tf.TF_SetStatus(status.handle, kInvalidArgument, "lcmulti: the attribute is no call of this version");
  }
  if (status.ok() && !call->sound()) {
    tf.TF_SetStatus(status.handle, kInvalidArgument, "lcmulti: a geometry that cannot be");
  }
  if (!status.ok()) tf.TF_OpKernelConstruction_Failure(construction, status.handle);
  return call;
}

void compute(Handle kernel, Handle context) {
  lcmulti::PackedCall call = *static_cast<lcmulti::PackedCall *>(kernel);  // runs on many threads at once
  lcmulti_geometry &g = call.geometry;
  Status status;
  Tensor a, b;
  tf.TF_GetInput(context, 0, &a.handle, status.handle);
  if (status.ok()) tf.TF_GetInput(context, 1, &b.handle, status.handle);
  if (!status.ok()) return tf.TF_OpKernelContext_Failure(context, status.handle);
  const int type = tf.TF_TensorType(a.handle);
  size_t bytes = 0;
  for (const DataType &each : kTypes) {
    if (each.tensorflow == type) g.dtype = each.ours, bytes = each.size;
  }
  g.batch = tf.TF_NumDims(a.handle) > 0 ? tf.TF_Dim(a.handle, 0) : 0;
  const lcmulti::Shapes shapes = call.shapes();
  const int64_t elements = shapes.result.elements();
  if (elements < 0 || !a.is(shapes.a) || !b.is(shapes.b)) {
    return fail(context, status, kInvalidArgument, "shapes other than the operation was made for");
  }
  const Tensor result(tf.TF_AllocateOutput(context, 0, type, shapes.result.sizes, shapes.result.rank,
                                           bytes * static_cast<size_t>(elements), status.handle));
  if (!status.ok()) return tf.TF_OpKernelContext_Failure(context, status.handle);
  if (elements == 0) return;
  call.make_contiguous();
  const auto data = [&](const auto &tensor) { return tf.TF_TensorData(tensor.handle); };
  const int code = lcmulti_compute(&g, static_cast<int>(call.map), data(a), data(b), data(result));
  if (code != LCMULTI_OK) fail(context, status, code);
}

void destroy(Handle kernel) { delete static_cast<lcmulti::PackedCall *>(kernel); }

void *create_cosines(Handle construction) {
  Status status;
  auto *call = new std::vector<int64_t>(words(construction, status));
  lcmulti::Sheet sheet;
  if (status.ok() && !lcmulti::read(call->data(), static_cast<int64_t>(call->size()), sheet)) {
    tf.TF_SetStatus(status.handle, kInvalidArgument, "lcmulti: the attribute is no call of this version");
  }
  if (!status.ok()) tf.TF_OpKernelConstruction_Failure(construction, status.handle);
  return call;
}

void compute_cosines(Handle kernel, Handle context) {
  const auto &call = *static_cast<std::vector<int64_t> *>(kernel);
  const auto length = static_cast<int64_t>(call.size());
  lcmulti::Sheet sheet;
  lcmulti::read(call.data(), length, sheet);
  Status status;
  Tensor a, b;
  tf.TF_GetInput(context, 0, &a.handle, status.handle);
  if (status.ok()) tf.TF_GetInput(context, 1, &b.handle, status.handle);
  if (!status.ok()) return tf.TF_OpKernelContext_Failure(context, status.handle);
  const DataType &type = kTypes[sheet.dtype];
  // The sums have the shape of the bias, after an axis of 4; slopes that of their array.
  const Tensor &like = sheet.map == LCMULTI_COSINE_SUMS ? b : a;
  lcmulti::Shape shape;
  if (sheet.map == LCMULTI_COSINE_SUMS) shape.add(4);
  const int rank = tf.TF_NumDims(like.handle);
  if (rank > 2 * LCMULTI_MAX_AXES) return fail(context, status, kInvalidArgument, "too many axes");
  for (int i = 0; i < rank; ++i) shape.add(tf.TF_Dim(like.handle, i));
  if (!sheet.takes(a.elements(), b.elements(), shape.elements()) || tf.TF_TensorType(a.handle) != type.tensorflow) {
    return fail(context, status, kInvalidArgument, "arrays other than the operation was made for");
  }
  const Tensor result(tf.TF_AllocateOutput(context, 0, type.tensorflow, shape.sizes, shape.rank,
                                           type.size * static_cast<size_t>(shape.elements()), status.handle));
  if (!status.ok()) return tf.TF_OpKernelContext_Failure(context, status.handle);
  const auto data = [&](const auto &tensor) { return tf.TF_TensorData(tensor.handle); };
  const int code = lcmulti_cosines(nullptr, call.data(), length, data(a), data(b), data(result));
  if (code != LCMULTI_OK) fail(context, status, code);
}

void destroy_cosines(Handle kernel) { delete static_cast<std::vector<int64_t> *>(kernel); }

void shape(Handle context, Handle status) { tf.TF_ShapeInferenceContextSetUnknownShape(context, status); }

using Create = void *(*)(Handle);
using Compute = void (*)(Handle, Handle);
using Destroy = void (*)(Handle);

// An operation of two arrays and one result, for the first of the types.
void add(const char *name, const char *types, int count, Create create, Compute compute, Destroy destroy,
         const Status &status) {
  const Handle op = tf.TF_NewOpDefinitionBuilder(name);
  tf.TF_OpDefinitionBuilderAddAttr(op, types);
  tf.TF_OpDefinitionBuilderAddAttr(op, "call: list(int)");
  tf.TF_OpDefinitionBuilderAddInput(op, "a: T");
  tf.TF_OpDefinitionBuilderAddInput(op, "b: T");
  tf.TF_OpDefinitionBuilderAddOutput(op, "result: T");
  tf.TF_OpDefinitionBuilderSetShapeInferenceFunction(op, &shape);
  tf.TF_RegisterOpDefinition(op, status.handle);
  for (int i = 0; i < count; ++i) {
    const Handle kernel = tf.TF_NewKernelBuilder(name, "CPU", create, compute, destroy);
    tf.TF_KernelBuilder_TypeConstraint(kernel, "T", kTypes[i].tensorflow, status.handle);
    tf.TF_RegisterKernelBuilder(name, kernel, status.handle);
  }
}

bool registered() {
  if (!tf.find()) {
    std::fputs("lcmulti-native: this TensorFlow lacks the C interface for operations\n", stderr);
    return false;
  }
  Status status;
  add("LcmultiNative", "T: {float, double, bfloat16, half}", 4, &create, &compute, &destroy, status);
  add("LcmultiCosines", "T: {float, double}", 2, &create_cosines, &compute_cosines, &destroy_cosines, status);
  return status.ok();
}

// TensorFlow collects what a library registers while it is loaded.
[[maybe_unused]] const bool done = registered();

}  // namespace
