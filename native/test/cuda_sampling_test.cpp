// Choosing tokens, on the CPU and on the GPU, against a twin that adds probabilities one after the other in extended
// precision.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "test/cuda_kernels_test.h"

namespace flexplan::test {
namespace {

using cpu::TokenChoice;

struct Candidate {
  long double weight;
  float logit;
  int32_t id;
};

std::vector<Candidate> candidatesOf(const std::vector<float>& logits, const TokenChoice& choice) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  std::vector<Candidate> all;
  for (size_t id = 0; id < logits.size(); ++id) {
    const long double exponent =
        (static_cast<long double>(logits[id]) - highest) / static_cast<long double>(choice.temperature);
    all.push_back({std::exp(exponent), logits[id], static_cast<int32_t>(id)});
  }
  if (choice.topP < 1)
    std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
      return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
    });
  return all;
}

// The range of sums, as fractions of all, that each token answers for is off by `error` at either end: whether the
// token may be chosen.
bool mayBe(int32_t token, const std::vector<float>& logits, const TokenChoice& choice, double error) {
  if (choice.temperature <= 0) return token == std::max_element(logits.begin(), logits.end()) - logits.begin();
  const auto all = candidatesOf(logits, choice);
  long double total = 0;
  for (const Candidate& candidate : all) total += candidate.weight;
  for (const double topP : {choice.topP - error, choice.topP + error}) {
    long double kept = 0, before = 0;
    for (const Candidate& candidate : all) {
      if (choice.topP < 1 && kept > 0 && kept >= topP * total) break;
      kept += candidate.weight;
    }
    for (const Candidate& candidate : all) {
      const long double through = before + candidate.weight;
      const long double wanted = choice.uniform * kept, slack = error * total;
      if (candidate.id == token) {
        if (before - slack <= wanted && wanted < through + slack && before < kept + slack) return true;
        break;
      }
      before = through;
    }
  }
  return false;
}

// Of the sums on the GPU: weights are off by the roundings of the exponent (u of it, twice), of the exponential (a few
// u), and to 2^-40.
double errorOf(const std::vector<float>& logits, const TokenChoice& choice) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  double error = 0, total = 0;
  for (const float logit : logits) {
    const double exponent = (static_cast<double>(highest) - logit) / choice.temperature, weight = std::exp(-exponent);
    error += weight * (2 * exponent + 8) * kU + 0x1p-40;
    total += weight;
  }
  return 2 * error / total;
}

std::vector<float> someLogits(Random& random, int64_t vocabSize, int kind) {
  std::vector<float> logits = random.vector(vocabSize, -8, 8);
  if (kind == 1)
    for (float& logit : logits) logit = std::round(logit / 4);  // many equals
  if (kind == 2) logits[index(random.below(vocabSize))] = 30;    // one token has nearly all
  if (kind == 3)
    for (float& logit : logits) logit = -std::abs(logit) * 20;  // most have nearly nothing; both zeros
  return logits;
}

std::vector<TokenChoice> someChoices(Random& random) {
  std::vector<TokenChoice> choices{{0, 1, 0.5},         {0, 0.5, 0.5},         {1, 1, 0},       {1, 0.9, 0},
                                   {1, 1, 1 - 0x1p-53}, {1, 0.5, 1 - 0x1p-53}, {0.7, 1e-9, 0.5}};
  for (const double temperature : {0.01, 1.0, 5.0})
    for (const double topP : {0.05, 0.95, 1.0})
      choices.push_back({temperature, topP, random.uniform(0, 1)});
  return choices;
}

std::vector<int32_t> chooseOnDevice(const std::vector<float>& rows, const std::vector<TokenChoice>& choices,
                                    int64_t vocabSize) {
  const DeviceArray<int32_t> tokens(choices.size(), -1);
  cuda::chooseTokens(nullptr, DeviceArray<float>(rows).data(), DeviceArray<TokenChoice>(choices).data(),
                     static_cast<int64_t>(choices.size()), vocabSize, tokens.data());
  return tokens.values();
}

void testChoices(Checks& checks) {
  Random random(50);
  int64_t numAsOnCpu = 0, numChosen = 0;
  for (const int64_t vocabSize : {1, 7, 700})
    for (const int kind : {0, 1, 2, 3}) {
      if (vocabSize == 1 && kind > 0) continue;
      const auto choices = someChoices(random);
      std::vector<float> rows;
      for (size_t n = 0; n < choices.size(); ++n) {
        const auto row = someLogits(random, vocabSize, kind);
        rows.insert(rows.end(), row.begin(), row.end());
      }
      std::vector<int32_t> tokens;
      const auto choose = [&, vocabSize = vocabSize] { tokens = chooseOnDevice(rows, choices, vocabSize); };
      kind == 0 ? forEachOrder(choose) : choose();
      for (size_t n = 0; n < choices.size(); ++n) {
        const auto begin = rows.begin() + static_cast<int64_t>(n) * vocabSize;
        const std::vector<float> row(begin, begin + vocabSize);
        const std::string name = named("chooseTokens", DataType::kFloat32, {vocabSize, kind, static_cast<int64_t>(n)});
        const int32_t onCpu = cpu::chooseToken(row, choices[n]);
        checks.that(mayBe(onCpu, row, choices[n], 1e-12), name + " on the CPU");
        checks.that(mayBe(tokens[n], row, choices[n], errorOf(row, choices[n])), name);
        // At the ends of the sum tokens of nearly no weight are within the errors.
        if (choices[n].uniform < 0.001 || choices[n].uniform > 0.999) continue;
        numAsOnCpu += tokens[n] == onCpu;
        ++numChosen;
      }
    }
  // Near-ties aside.
  checks.that(numAsOnCpu >= numChosen * 995 / 1000,
              "the GPU chooses the CPU's tokens: " + std::to_string(numAsOnCpu) + " of " + std::to_string(numChosen));
}

// The frequencies of many draws are the probabilities, and nothing outside the nucleus is drawn.
void testFrequencies(Checks& checks) {
  const std::vector<float> row{std::log(1.0f), std::log(4.0f), std::log(2.0f), std::log(3.0f)};
  for (const double topP : {1.0, 0.65}) {
    std::vector<TokenChoice> choices;
    std::vector<float> rows;
    const int draws = 20;
    for (int n = 0; n < draws; ++n) {
      choices.push_back({1, topP, (n + 0.5) / draws});
      rows.insert(rows.end(), row.begin(), row.end());
    }
    std::array<int, 4> onDevice{}, onCpu{};
    for (const int32_t token : chooseOnDevice(rows, choices, 4)) ++onDevice[index(token)];
    for (const TokenChoice& choice : choices) ++onCpu[index(cpu::chooseToken(row, choice))];
    const std::array<double, 4> expected =
        topP == 1 ? std::array<double, 4>{2, 8, 4, 6} : std::array<double, 4>{0, 80 / 7.0, 0, 60 / 7.0};
    for (size_t id = 0; id < 4; ++id)
      checks.that(std::abs(onDevice[id] - expected[id]) <= 1 && std::abs(onCpu[id] - expected[id]) <= 1,
                  named("frequencies", DataType::kFloat32, {static_cast<int64_t>(id)}));
  }
}

// Logits that are no numbers still choose a token of the vocabulary.
void testStrangeLogits(Checks& checks) {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& row :
       {std::vector<float>{nan, nan, nan}, {nan, 2, 1}, {inf, 0, inf}, {-inf, -inf, -inf}, {-inf, 1, -inf}})
    for (const TokenChoice& choice : {TokenChoice{0, 1, 0.9}, {1, 1, 0.9}, {1, 0.5, 0.9}}) {
      const int32_t token = chooseOnDevice(row, {choice}, 3)[0];
      checks.that(token >= 0 && token < 3, "strange logits");
      if (row[1] == 1 && row[0] == -inf) checks.that(token == 1, "what has a probability is chosen");
    }
}

}  // namespace

void testSampling(Checks& checks) {
  testChoices(checks);
  testFrequencies(checks);
  testStrangeLogits(checks);
}

}  // namespace flexplan::test
