# Every command that a developer or CI needs. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MODELS := target/models
SMOLLM2 := $(MODELS)/SmolLM2-135M-Instruct.Q4_1.gguf
GEMMA3 := $(MODELS)/gemma-3-270m-q4_k_m.gguf
MINILM := $(MODELS)/all-MiniLM-L6-v2.f32.gguf

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: tools
tools: ## Find or install protoc, etcd, a registry, Python, Node, an emulator and tmux, for build and tests
	@.ci/tools protoc etcd registry python node qemu tmux

.PHONY: models
models: $(SMOLLM2) $(GEMMA3) $(MINILM) ## Fetch the three real models that tests and the demo use (440 MB)

$(SMOLLM2): .ci/models
	@.ci/models smollm2 $(MODELS)

$(GEMMA3): .ci/models
	@.ci/models gemma3 $(MODELS)

$(MINILM): .ci/models .ci/bert_to_gguf.py
	@.ci/models minilm $(MODELS)

.PHONY: build
build: ## Build the release binary, target/release/caravan
	@.ci/tools protoc
	cargo build --release --locked -p cli

.PHONY: demo
demo: $(SMOLLM2) build ## Ask a real model one question, from nothing to an answer
	@deploy/demo.sh target/release/caravan $(SMOLLM2)

.PHONY: check
check: ## Format and lint: everything that needs no running
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: check-cuda
check-cuda: ## Hold the code for GPUs to its types; needs no CUDA
	# Its own folder: what the stand-in for nvcc leaves must never be linked.
	PATH="$(CURDIR)/.ci/no-cuda:$$PATH" CUDARC_CUDA_VERSION=13000 CUDA_COMPUTE_CAP=90 CARGO_TARGET_DIR=target/check-cuda \
		cargo clippy -p engine --features cuda --locked -- -D warnings

.PHONY: test
test: tools models check ## Everything that CI runs
	# One build for the binary and the tests: two would compile most dependencies twice, with other features.
	cargo build --workspace --all-targets --locked
	cargo test --workspace --locked

.PHONY: scenarios
scenarios: models ## Run the API scenarios against the server at OLLAMA_HOST
	cargo test --locked -p tests --test scenarios -- --nocapture

.PHONY: reference
reference: models ## Compute the reference vectors anew with llama.cpp (needs 15 minutes)
	@.ci/tools python
	crates/engine/tests/reference/make.sh $(SMOLLM2) $(GEMMA3) $(MINILM)

.PHONY: bench-tags
bench-tags: ## Measure how long a listing of 1,000 models takes
	@.ci/tools protoc
	cargo bench --locked -p store --bench listing

.PHONY: bench-engine
bench-engine: models ## Compare the engine's speed with llama.cpp's (ONLY= ROUNDS= QUICK=1; 4.6 GB of random models)
	@.ci/tools protoc python
	@python3 -B crates/engine/benches/compare
