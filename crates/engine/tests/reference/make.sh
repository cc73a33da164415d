#!/usr/bin/env bash
# Makes the vectors in this folder, in ../architectures and in crates/convert/tests anew: make.sh SMOLLM2.gguf GEMMA3.gguf MINILM.gguf
set -euo pipefail

[[ $# == 3 ]] || { printf 'usage: make.sh SMOLLM2.gguf GEMMA3.gguf MINILM.gguf\n' >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
venv=$here/../../../../target/reference-venv
# llama-cpp-python comes as source: this compiles llama.cpp, which is what takes its time.
[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check llama-cpp-python==0.3.36 gguf==0.19.0
printf 'reference: make_tokens\n'
"$venv/bin/python" "$here/make_tokens.py" "smollm2=$1" "gemma3=$2" "minilm=$3" "unigram=$here/unigram.gguf"
printf 'reference: make_embeddings\n'
"$venv/bin/python" "$here/make_embeddings.py" "$3"
for script in make_samplers make_reference; do
  printf 'reference: %s\n' "$script"
  "$venv/bin/python" "$here/$script.py" "smollm2=$1" "gemma3=$2"
done

printf 'reference: make_golden\n'
small=$(mktemp -d)
trap 'rm -rf "$small"' EXIT
cargo run --quiet --locked --manifest-path "$here/../../Cargo.toml" --example synthetic "$small"
"$venv/bin/python" "$here/../architectures/make_golden.py" "$small"
CARAVAN_TEST_MODELS=$(cd "$(dirname "$1")" && pwd) cargo run --quiet --locked -p convert --manifest-path "$here/../../Cargo.toml" \
  --example made "$small/made"
"$venv/bin/python" "$here/../../../convert/tests/make_converted.py" "$small/made"
