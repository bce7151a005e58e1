"""The same job under Hugging Face Accelerate's offloading: a model of the folder's shape, the same prompts' sizes.

python3 accelerate.py <model folder> <GPU memory in GB> <prompt tokens> <tokens to generate> <batch> ; prints one JSON document.
Weights are what the folder holds; what does not fit the GPU's share lies in RAM.
"""
import json
import sys
import time

import torch
from accelerate import infer_auto_device_map, init_empty_weights, load_checkpoint_and_dispatch
from transformers import AutoConfig, AutoModelForCausalLM

folder, gpu_gb, prompt_tokens, gen_tokens, batch = sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:6])
config = AutoConfig.from_pretrained(folder)
with init_empty_weights():
    model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.float16)
model.tie_weights()
blocks = ["OPTDecoderLayer"]
# Room for activations and KV cache: they are not what the map plans for.
devices = infer_auto_device_map(model, {0: int(0.7 * gpu_gb * 1e9), "cpu": int(110e9)}, no_split_module_classes=blocks)
model = load_checkpoint_and_dispatch(model, folder, device_map=devices, no_split_module_classes=blocks, dtype=torch.float16)
prompts = torch.randint(4, config.vocab_size - 4, (batch, prompt_tokens), device="cuda:0")
times = []
for new_tokens in (1, gen_tokens):
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new_tokens,
                       min_new_tokens=new_tokens, do_sample=False, pad_token_id=1)
    torch.cuda.synchronize()
    times.append(time.perf_counter() - start)
print(json.dumps({
    "system": "accelerate", "folder": folder, "gpuGb": gpu_gb, "batch": batch, "promptTokens": prompt_tokens,
    "genTokens": gen_tokens, "firstTokenSeconds": times[0], "totalSeconds": times[1],
    "genTokensPerSecond": batch * gen_tokens / times[1],
    "layersOnGpu": sum(1 for place in devices.values() if place == 0), "peakGpuBytes": torch.cuda.max_memory_allocated(),
}))
