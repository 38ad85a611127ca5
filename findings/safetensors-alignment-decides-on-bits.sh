#!/usr/bin/env bash
# The same weights give another product when safetensors has read them from a file.
#
# Guess: tensors with equal values give equal results, however they were loaded: from the same file by `load_file` or
# from its bytes by `load`, or from a file of torch.
# What happens: `load_file` lets tensors begin wherever the file has them, at any multiple of four bytes; the others
# copy each tensor to a multiple of 16 or 64. With a bias of seven floats in the same file, the matrix begins where no
# vector register does. The product of MKL with a vector groups its sum by the address, so its last bits differ.
set -euo pipefail
pins=$(realpath "$(dirname "$0")")/torch-2.14.1.txt
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME ${!OMP_*} ${!GOMP_*} ${!MKL_*}
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --no-deps --disable-pip-version-check --requirement "$pins"
environment/bin/pip install --quiet --no-deps --disable-pip-version-check safetensors==0.8.0
cat > product.py <<'PYTHON'
import sys
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load, load_file, save_file

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
weights = {"bias": torch.randn(7, generator=generator), "weight": torch.randn(512, 512, generator=generator)}
vector = torch.randn(512, generator=generator)
save_file(weights, "weights.safetensors")
torch.save(weights, "weights.pt")

print("safetensors", safetensors.__version__, "torch", torch.__version__, "python", sys.version.split()[0])
loaded = {
    "torch.load": torch.load("weights.pt"),
    "safetensors load": load(Path("weights.safetensors").read_bytes()),
    "safetensors load_file": load_file("weights.safetensors"),
}
expected = weights["weight"] @ vector
equal = []
for name, state in loaded.items():
    matrix = state["weight"]
    assert torch.equal(matrix, weights["weight"])
    product = matrix @ vector
    equal.append(torch.equal(product, expected))
    place = f"the matrix begins {matrix.data_ptr() % 64} bytes after a multiple of 64"
    print(f"{name}: {place}; largest difference of the product: {(product - expected).abs().max():.1e}")
copied = loaded["safetensors load_file"]["weight"].clone()
equal.append(torch.equal(copied @ vector, expected))
print("a clone of the last one gives the same product:", equal[-1])
sys.exit(equal != [True, True, False, True])
PYTHON
environment/bin/python product.py
