// The kernels of cuda/kernels.h on the fake machine: the CPU's, run by the stream's thread. Metadata is read when the
// kernel runs, as a GPU would.
#include <algorithm>
#include <cstring>

#include "cpu/ops.h"
#include "cuda/kernels.h"
#include "test/fake_cuda.h"

namespace flexplan::cuda {
namespace {

using test::launchFake;

// Kernels run on the compute stream's thread alone.
ThreadPool& pool() {
  static ThreadPool inlinePool(1);
  return inlinePool;
}

template <typename T>
test::Operand operand(const T* memory, int64_t count) {
  return {memory, count * static_cast<int64_t>(sizeof(T))};
}

test::Operand storedRows(DataType dtype, const std::byte* rows, int64_t numRows, int64_t cols) {
  return {rows, numRows * static_cast<int64_t>(rowBytes(dtype, cols))};
}

int64_t strided(int64_t rows, int64_t stride, int64_t width) { return rows == 0 ? 0 : (rows - 1) * stride + width; }

}  // namespace

void toFloat(Stream stream, DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out) {
  launchFake(stream, "toFloat", {storedRows(from, rows, numRows, cols), operand(out, numRows * cols)},
             [=] { cpu::toFloat(pool(), from, rows, numRows, cols, out); });
}

void fromFloat(Stream stream, DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out) {
  launchFake(stream, "fromFloat", {operand(rows, numRows * cols), storedRows(to, out, numRows, cols)},
             [=] { cpu::fromFloat(pool(), to, rows, numRows, cols, out); });
}

void copySpans(Stream stream, const CopySpan* spans, int64_t count, int64_t mostBytes) {
  launchFake(stream, "copySpans", {operand(spans, count)}, [=] {
    for (int64_t n = 0; n < count; ++n) {
      const CopySpan& span = spans[n];
      if (span.bytes > mostBytes) test::fakeMachine().broken("no span is longer than was said");
      for (const void* side : {static_cast<const void*>(span.to), static_cast<const void*>(span.from)})
        if (!test::fakeMachine().isDevice(side, span.bytes)) test::fakeMachine().broken("spans are device memory");
      std::memcpy(span.to, span.from, static_cast<size_t>(span.bytes));
    }
  });
}

void storeKvRows(Stream stream, DataType dtype, const float* k, const float* v, int64_t stride, int64_t tokens,
                 int64_t numKvHeads, int64_t headDim, KvDestination to) {
  const int64_t floats = strided(tokens, stride, numKvHeads * headDim);
  const auto bytes = static_cast<int64_t>(cpu::kvRowBytes(dtype, numKvHeads, headDim));
  launchFake(stream, "storeKvRows",
             {operand(k, floats), operand(v, floats), operand(to.places, to.places ? tokens : 0),
              {to.places ? nullptr : to.first, tokens * bytes}},
             [=] {
               std::vector<cpu::KvRun> runs;
               for (int64_t t = 0; t < tokens; ++t)
                 runs.push_back({to.places ? to.places[t] : to.first + t * bytes, 1});
               cpu::storeKvRows(pool(), {dtype, k, v, stride, numKvHeads, headDim}, runs);
             });
}

void norm(Stream stream, const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens,
          int64_t size, float* y) {
  launchFake(stream, "norm",
             {operand(x, tokens * size), operand(weight, size), operand(bias, size), operand(y, tokens * size)}, [=] {
               bias ? cpu::layerNorm(pool(), x, weight, bias, epsilon, tokens, size, y)
                    : cpu::rmsNorm(pool(), x, weight, epsilon, tokens, size, y);
             });
}

void add(Stream stream, const float* x, int64_t count, float* y) {
  launchFake(stream, "add", {operand(x, count), operand(y, count)}, [=] { cpu::add(pool(), x, count, y); });
}

void activate(Stream stream, cpu::Activation f, const float* gate, int64_t count, float* x) {
  launchFake(stream, "activate", {operand(gate, count), operand(x, count)},
             [=] { cpu::activate(pool(), f, gate, count, x); });
}

void rope(Stream stream, const int32_t* positions, const float* inverseFrequencies, int64_t tokens, int64_t numHeads,
          int64_t headDim, int64_t xStride, float* x) {
  launchFake(stream, "rope",
             {operand(positions, tokens), operand(inverseFrequencies, headDim / 2),
              operand(x, strided(tokens, xStride, numHeads * headDim))},
             [=] { cpu::rope(pool(), positions, inverseFrequencies, tokens, numHeads, headDim, xStride, x); });
}

void matmulInput(Stream stream, DataType weights, const float* x, int64_t xStride, int64_t tokens, int64_t cols,
                 void* out) {
  const int64_t bytes = matmulInputBytes(weights, tokens, cols);
  launchFake(stream, "matmulInput", {operand(x, strided(tokens, xStride, cols)), {out, bytes}}, [=] {
    std::memset(out, 0, static_cast<size_t>(bytes));
    for (int64_t t = 0; t < tokens; ++t)
      cpu::fromFloat(pool(), matmulInputType(weights), x + t * xStride, 1, cols,
                     static_cast<std::byte*>(out) + t * matmulInputStride(cols) * 2);
  });
}

void repeatRow(Stream stream, const float* row, int64_t size, int64_t count, int64_t outStride, float* out) {
  launchFake(stream, "repeatRow", {operand(row, size), operand(out, strided(count, outStride, size))}, [=] {
    for (int64_t t = 0; t < count; ++t) std::copy(row, row + size, out + t * outStride);
  });
}

namespace {

// On the input as it was rounded for the product.
void multiply(const Matmul& op, int64_t tokens) {
  std::vector<float> x(static_cast<size_t>(tokens * op.cols));
  const DataType stored = matmulInputType(op.dtype);
  for (int64_t t = 0; t < tokens; ++t)
    cpu::toFloat(pool(), stored,
                 static_cast<const std::byte*>(op.x) + t * static_cast<int64_t>(rowBytes(stored, op.xStride)), 1,
                 op.cols, x.data() + t * op.cols);
  cpu::Matmul same{{op.dtype, op.cols, {}, op.numPieces}, op.bias, x.data(), op.cols, op.out, op.outStride};
  for (int p = 0; p < op.numPieces; ++p) same.weight.pieces[p] = {op.pieces[p].data, op.pieces[p].rows};
  cpu::matmul(pool(), {&same, 1}, tokens);
}

std::vector<test::Operand> operandsOf(const Matmul* ops, int count, int64_t tokens) {
  std::vector<test::Operand> operands;
  for (int n = 0; n < count; ++n) {
    const Matmul& op = ops[n];
    int64_t rows = 0;
    for (int p = 0; p < op.numPieces; ++p) {
      rows += op.pieces[p].rows;
      operands.push_back(storedRows(op.dtype, op.pieces[p].data, op.pieces[p].rows, op.cols));
    }
    operands.push_back(operand(op.bias, rows));
    operands.push_back(operand(op.out, strided(tokens, op.outStride, rows)));
  }
  return operands;
}

}  // namespace

void matmul(Stream stream, const Matmul* ops, int count, int64_t tokens) {
  launchFake(stream, "matmul", operandsOf(ops, count, tokens), [own = std::vector<Matmul>(ops, ops + count), tokens] {
    for (const Matmul& op : own) multiply(op, tokens);
  });
}

void matmulByExpert(Stream stream, const Matmul* ops, const Matmul* deviceOps, int count, const int32_t* ends,
                    int64_t tokens) {
  std::vector<test::Operand> operands = operandsOf(ops, count, tokens);
  operands.push_back(operand(deviceOps, count));
  operands.push_back(operand(ends, count));
  launchFake(stream, "matmulByExpert", operands, [=] {
    if (ends[count - 1] != tokens) test::fakeMachine().broken("every row is one expert's");
    int64_t begin = 0;
    for (int e = 0; e < count; begin = ends[e++]) {
      Matmul own = deviceOps[e];
      const int64_t xBytes = static_cast<int64_t>(rowBytes(matmulInputType(own.dtype), own.xStride));
      own.x = static_cast<const std::byte*>(own.x) + begin * xBytes;
      own.out += begin * own.outStride;
      multiply(own, ends[e] - begin);
    }
  });
}

void route(Stream stream, const float* scores, int64_t tokens, const cpu::Routing& routing,
           const cpu::ExpertRows& out) {
  const int64_t rows = tokens * routing.numActive;
  launchFake(stream, "route",
             {operand(scores, tokens * routing.numExperts), operand(out.ends, routing.numExperts),
              operand(out.tokens, rows), operand(out.experts, rows), operand(out.rows, rows),
              operand(out.weights, rows)},
             [=] { cpu::route(scores, tokens, routing, out); });
}

void gatherRows(Stream stream, DataType from, const std::byte* table, const int32_t* places, int64_t count,
                int64_t cols, float* out) {
  launchFake(stream, "gatherRows", {operand(places, count), operand(out, count * cols)}, [=] {
    for (int64_t n = 0; n < count; ++n) {
      const std::byte* const row = table + places[n] * static_cast<int64_t>(rowBytes(from, cols));
      if (!test::fakeMachine().isDevice(row, static_cast<int64_t>(rowBytes(from, cols))))
        test::fakeMachine().broken("gathered rows are device memory");
      cpu::toFloat(pool(), from, row, 1, cols, out + n * cols);
    }
  });
}

void addExpertRows(Stream stream, const float* x, const cpu::ExpertRows& rows, int64_t tokens, int64_t numActive,
                   int64_t size, float* y) {
  const int64_t count = tokens * numActive;
  launchFake(stream, "addExpertRows",
             {operand(x, count * size), operand(rows.rows, count), operand(rows.weights, count),
              operand(y, tokens * size)},
             [=] {
               for (int64_t i = 0; i < count; ++i)
                 for (int64_t c = 0; c < size; ++c)
                   y[i / numActive * size + c] += rows.weights[i] * x[rows.rows[i] * size + c];
             });
}

void chooseTokens(Stream stream, const float* logits, const cpu::TokenChoice* choices, int64_t rows, int64_t vocabSize,
                  int32_t* tokens) {
  launchFake(stream, "chooseTokens", {operand(logits, rows * vocabSize), operand(choices, rows), operand(tokens, rows)},
             [=] {
               for (int64_t r = 0; r < rows; ++r)
                 tokens[r] =
                     cpu::chooseToken({logits + r * vocabSize, static_cast<size_t>(vocabSize)}, choices[r]);
             });
}

namespace {

void attend(const AttentionShape& shape, const AttentionSequence* sequences, int64_t count, int64_t mostQueries,
            int64_t mostPositions) {
  for (int64_t n = 0; n < count; ++n) {
    const AttentionSequence& from = sequences[n];
    if (from.numQueries > mostQueries || from.numPast + from.numQueries > mostPositions)
      test::fakeMachine().broken("no sequence is longer than was said");
    const cpu::AttentionSequence same{
        {from.pages, shape.pageRows, shape.kvType}, from.numPast, from.numQueries, from.q, from.out};
    cpu::attention(
        pool(), {shape.numHeads, shape.numKvHeads, shape.headDim, shape.qStride, shape.outStride, shape.slidingWindow},
        {&same, 1});
  }
}

}  // namespace

void prefillAttention(Stream stream, const AttentionShape& shape, const AttentionSequence* sequences, int64_t count,
                      int64_t mostQueries) {
  launchFake(stream, "prefillAttention", {operand(sequences, count)},
             [=] { attend(shape, sequences, count, mostQueries, kWholeSequence); });
}

void decodeAttention(Stream stream, const AttentionShape& shape, const AttentionSequence* sequences, int64_t count,
                     int64_t mostPositions, void* scratch) {
  const int64_t bytes = decodeAttentionScratchBytes(shape.numHeads, shape.headDim, count, mostPositions);
  launchFake(stream, "decodeAttention", {operand(sequences, count), {scratch, bytes}}, [=] {
    if (bytes > 0) std::memset(scratch, 0xff, static_cast<size_t>(bytes));
    attend(shape, sequences, count, 1, mostPositions);
  });
}

}  // namespace flexplan::cuda
