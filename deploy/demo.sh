#!/usr/bin/env bash
# From a binary and a GGUF file to an answer: starts a server on a free port, makes a model, asks one question, stops.
#   deploy/demo.sh BINARY GGUF
set -euo pipefail

binary=$(realpath "$1") gguf=$(realpath "$2")
folder=$(mktemp -d)
server=
cleanup() {
  if [ -n "$server" ] && kill -0 "$server" 2>/dev/null; then
    kill -TERM "$server"
    wait "$server" || true
  fi
  rm -rf "$folder"
}
trap cleanup EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "\$ caravan serve"
OLLAMA_MODELS="$folder/models" "$binary" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 2>"$folder/log" &
server=$!
for _ in $(seq 300); do
  listen=$(sed -nE 's/.* ready .*listen="?([0-9.:]+)"?.*/\1/p' "$folder/log" | head -n 1)
  [ -n "$listen" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
  sleep 0.1
done
[ -n "$listen" ] || { printf 'the server did not get ready:\n' >&2; cat "$folder/log" >&2; exit 1; }
printf 'listening on %s\n' "$listen"
export OLLAMA_HOST=$listen

printf 'FROM %s\nPARAMETER temperature 0\n' "$gguf" >"$folder/Modelfile"
say "\$ caravan create smollm2 -f Modelfile"
"$binary" create smollm2 -f "$folder/Modelfile"

question='What is the capital of France? Answer in one sentence.'
say "\$ caravan run --verbose smollm2 '$question'"
"$binary" run --verbose smollm2 "$question" </dev/null

say "\$ caravan ps"
"$binary" ps

cat <<TXT

That was a real model behind Ollama's API, from one process. To go on:
  target/release/caravan serve                      # the server, on 127.0.0.1:11434
  target/release/caravan create NAME -f Modelfile   # a Modelfile with: FROM /path/to/model.gguf
  target/release/caravan run NAME                   # a conversation
  curl localhost:11434/api/tags                     # or any client that speaks to Ollama or OpenAI
TXT
