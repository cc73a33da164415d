#!/usr/bin/env python3
"""Makes unigram.gguf: a small vocabulary of XLM-RoBERTa's kind, for `tests/reference/tokens.rs`.

    pip install sentencepiece==0.2.3 gguf==0.19.0
    python make_unigram.py

It is trained on this project's documents and sources and the texts of texts.json, with the normalisation of XLM-RoBERTa (nmt_nfkc), and laid
out as llama.cpp's converter lays that one out. They change, so the file is kept, and made anew only when there is a reason;
then `make_tokens.py unigram=unigram.gguf` makes the token ids that belong to it.
"""

import io
import json
import pathlib

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[3]
PIECES = 4000


def sentences():
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("crates/*/src/**/*.rs")]):
        yield from path.read_text().splitlines()
    for text in json.loads((HERE / "texts.json").read_text()):
        if isinstance(text, str):
            # Often enough to be learnt, beside the documents.
            yield from text.splitlines() * 3


def train():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in sentences() if line.strip()),
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=0.998,
        normalization_rule_name="nmt_nfkc",
        user_defined_symbols=["<repo_name>"],
        num_threads=1,
        minloglevel=2,
    )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto


def write(proto):
    kinds = {1: gguf.TokenType.NORMAL, 2: gguf.TokenType.UNKNOWN, 3: gguf.TokenType.CONTROL, 4: gguf.TokenType.USER_DEFINED}
    control, unknown = gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN
    rows = [("<s>", 0.0, control), ("<pad>", 0.0, control), ("</s>", 0.0, control), ("<unk>", 0.0, unknown)]
    # SentencePiece has three of these, in another order.
    rows += [(piece.piece, piece.score, kinds[piece.type]) for piece in proto.pieces[3:]]
    rows += [(f"[PAD{len(rows)}]", -10000.0, gguf.TokenType.UNUSED), ("<mask>", 0.0, control)]
    writer = gguf.GGUFWriter(HERE / "unigram.gguf", "bert")
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in rows])
    writer.add_token_scores([score for _, score, _ in rows])
    writer.add_token_types([kind for _, _, kind in rows])
    writer.add_add_space_prefix(proto.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(proto.normalizer_spec.remove_extra_whitespaces)
    writer.add_precompiled_charsmap(proto.normalizer_spec.precompiled_charsmap)
    writer.add_token_type_count(1)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_sep_token_id(2)
    writer.add_pad_token_id(1)
    writer.add_mask_token_id(len(rows) - 1)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(train())
