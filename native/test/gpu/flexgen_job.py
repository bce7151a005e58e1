"""The same job under FlexGen itself: its package from a checkout of the user's, weights that it makes up, no network.

python3 flexgen_job.py <checkout> <model> <GPU memory in GB> <RAM in GB> --percent wg wc cg cc hg hc
    --gpu-batch-size N --num-gpu-batches N [--compress-weight] [--compress-cache] [--cpu-attention] [--no-overlap]
    [--no-pin] [--prompt-tokens N] [--gen-tokens N]

Prints one JSON document. The batches are a published policy's; where they need more RAM than is given, there are fewer.
Every step is run and timed (the published rates of the large models were projected from 20 layers of one step).
"""
import argparse
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import types

INT4_FRACTION = 4.5 / 16  # groups of 64 with scale and minimum, of fp16


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("model")
    parser.add_argument("gpu_gb", type=float)
    parser.add_argument("ram_gb", type=float)
    parser.add_argument("--percent", type=float, nargs=6, required=True)
    parser.add_argument("--gpu-batch-size", type=int, required=True)
    parser.add_argument("--num-gpu-batches", type=int, required=True)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--gen-tokens", type=int, default=32)
    for flag in ("compress-weight", "compress-cache", "cpu-attention", "no-overlap", "no-pin"):
        parser.add_argument("--" + flag, action="store_true")
    return parser.parse_args()


def host_bytes(config, args, gpu_batch_size, num_gpu_batches):
    """An upper bound of what the policy keeps in RAM."""
    tokens = args.prompt_tokens + args.gen_tokens
    sequences = gpu_batch_size * num_gpu_batches
    weights = 0 if args.percent[0] == 100 else config.model_bytes()
    if args.compress_weight:
        weights *= INT4_FRACTION
    elif not args.no_pin:
        # PyTorch rounds each pinned tensor up to a power of two.
        matrix = 2 * config.input_dim**2
        weights *= (1 << (matrix - 1).bit_length()) / matrix
    cache = config.cache_bytes(sequences, tokens) * args.percent[3] / 100
    if args.compress_cache:
        cache *= INT4_FRACTION
    hidden = config.hidden_bytes(sequences, tokens) * args.percent[5] / 100
    workspace = 8 * gpu_batch_size * tokens * config.input_dim if args.cpu_attention else 0
    return weights + cache + hidden + workspace


def fitted_batches(config, args):
    """The published batches, or the most that fit the RAM: fewer first, then smaller ones by 4."""
    size, count = args.gpu_batch_size, args.num_gpu_batches
    while host_bytes(config, args, size, count) > args.ram_gb * 1e9:
        if count > 1:
            count -= 1
        elif size > 4:
            size -= 4
        else:
            need = host_bytes(config, args, size, count) / 1e9
            sys.exit(f"expected at least {need:.0f} GB of RAM for {args.model}, got {args.ram_gb:.0f}")
    return size, count


def import_flexgen(checkout):
    """The package under its present or its former name. Its tokenizer, which would be downloaded, is not used."""
    sys.path.insert(0, checkout)
    name = "flexllmgen" if os.path.isdir(os.path.join(checkout, "flexllmgen")) else "flexgen"
    if importlib.util.find_spec("transformers") is None:
        sys.modules["transformers"] = types.SimpleNamespace(AutoTokenizer=None)
    return [importlib.import_module(f"{name}.{part}") for part in
            ("flex_opt", "pytorch_backend", "opt_config", "compression", "timer", "utils")]


def make_policy(engine, compression, args, size, count):
    def groups(dim):
        return compression.CompressionConfig(num_bits=4, group_size=64, group_dim=dim, symmetric=False)

    return engine.Policy(
        size, count, *args.percent, overlap=not args.no_overlap, sep_layer=True, pin_weight=not args.no_pin,
        cpu_cache_compute=args.cpu_attention, attn_sparsity=1.0, compress_weight=args.compress_weight,
        comp_weight_config=groups(0), compress_cache=args.compress_cache, comp_cache_config=groups(2))


def random_prompts(config, tokens, count):
    import numpy as np

    return np.random.default_rng(7).integers(4, config.vocab_size - 4, (count, tokens)).tolist()


def main():
    args = parse_arguments()
    import torch

    engine, backend, opt_config, compression, timer, utils = import_flexgen(args.checkout)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, args.gpu_gb * 1e9 / total), 0)
    config = opt_config.get_opt_config(args.model)
    size, count = fitted_batches(config, args)
    with tempfile.TemporaryDirectory() as offload:
        gpu, cpu, disk = backend.TorchDevice("cuda:0"), backend.TorchDevice("cpu"), backend.TorchDisk(offload)
        env = utils.ExecutionEnv(gpu=gpu, cpu=cpu, disk=disk, mixed=backend.TorchMixedDevice([gpu, cpu, disk]))
        try:
            model = engine.OptLM(config, env, engine.DUMMY_WEIGHT, make_policy(engine, compression, args, size, count))
            model.generate(random_prompts(config, 32, size * count), max_new_tokens=1)  # as its own benchmark warms up
            timer.timers("generate").reset()
            model.generate(random_prompts(config, args.prompt_tokens, size * count), max_new_tokens=args.gen_tokens)
            seconds = timer.timers("generate").costs
        finally:
            env.close_copy_threads()
    print(json.dumps({
        "system": "flexgen", "model": args.model, "gpuGb": args.gpu_gb, "ramGb": args.ram_gb,
        "gpuBatchSize": size, "numGpuBatches": count, "percent": args.percent,
        "compressWeight": args.compress_weight, "compressCache": args.compress_cache,
        "cpuAttention": args.cpu_attention, "overlap": not args.no_overlap,
        "promptTokens": args.prompt_tokens, "genTokens": args.gen_tokens,
        "prefillSeconds": seconds[0], "decodeSeconds": sum(seconds[1:]),
        "genTokensPerSecond": size * count * args.gen_tokens / sum(seconds),
        "peakGpuBytes": torch.cuda.max_memory_allocated(),
    }))


if __name__ == "__main__":
    main()
