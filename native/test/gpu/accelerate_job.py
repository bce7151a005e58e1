"""The same job under Hugging Face Accelerate's offloading: the folder's model in 16 bits, prompts of the same sizes.

python3 accelerate_job.py <model folder> <GPU memory in GB> <RAM in GB> <prompt tokens> <tokens to generate> <batch>

Prints one JSON document. What of the weights does not fit the GPU beside the KV cache lies in RAM. (This file must not
be called accelerate.py: the folder of a script is where Python looks for packages first.)
"""
import json
import sys
import time

import torch
from accelerate import infer_auto_device_map, init_empty_weights, load_checkpoint_and_dispatch
from transformers import AutoConfig, AutoModelForCausalLM

BLOCKS = ["OPTDecoderLayer"]
WORKSPACE_BYTES = 3e9  # a layer on its way, activations, logits

folder, gpu_gb, ram_gb = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
prompt_tokens, gen_tokens, batch = map(int, sys.argv[4:7])
torch.cuda.set_per_process_memory_fraction(
    min(1.0, gpu_gb * 1e9 / torch.cuda.get_device_properties(0).total_memory), 0)
config = AutoConfig.from_pretrained(folder)
with init_empty_weights():
    model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.float16)
model.tie_weights()
kv_bytes = 4 * config.num_hidden_layers * config.hidden_size * batch * (prompt_tokens + gen_tokens)
weight_bytes = max(0, int(gpu_gb * 1e9 - kv_bytes - WORKSPACE_BYTES))
devices = infer_auto_device_map(model, {0: weight_bytes, "cpu": int(ram_gb * 1e9)}, no_split_module_classes=BLOCKS)
model = load_checkpoint_and_dispatch(
    model, folder, device_map=devices, no_split_module_classes=BLOCKS, dtype=torch.float16)


def seconds_of(prompts, new_tokens):
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new_tokens,
                       min_new_tokens=new_tokens, do_sample=False, pad_token_id=1)
    torch.cuda.synchronize()
    return time.perf_counter() - start


prompts = torch.randint(4, config.vocab_size - 4, (batch, prompt_tokens), device="cuda:0")
seconds_of(prompts[:, :32], 1)  # warm-up
prefill = seconds_of(prompts, 1)
total = seconds_of(prompts, gen_tokens)
print(json.dumps({
    "system": "accelerate", "folder": folder, "gpuGb": gpu_gb, "ramGb": ram_gb, "batch": batch,
    "promptTokens": prompt_tokens, "genTokens": gen_tokens,
    "prefillSeconds": prefill, "decodeSeconds": total - prefill, "genTokensPerSecond": batch * gen_tokens / total,
    "layersOnGpu": sum(1 for place in devices.values() if place == 0),
    "peakGpuBytes": torch.cuda.max_memory_allocated(),
}))
