"""A tiny model in GGUF format with random weights: llama's architecture, and one token for each byte.

It knows nothing, so nothing but a grammar gives its answers a form. Its weights come from a seed, and a bias makes it
write printable ASCII unless a grammar forbids it: one dimension of the hidden state is the same for all tokens.
"""

from pathlib import Path

import gguf
import numpy as np

CONTEXT_TOKENS = 4096
LONG_PIECE = "=" * 70
"""A token longer than any buffer that is thought to be long enough."""

_EMBEDDING, _FEED_FORWARD, _HEADS, _BLOCKS = 32, 64, 4, 1
_UNKNOWN, _BEGIN, _END = 0, 1, 2
_SPECIALS = [b"<unk>", b"<s>", b"</s>"]
_FIRST_BYTE = len(_SPECIALS)
_LONG = _FIRST_BYTE + 256
_CONSTANT = 0
"""The dimension that is the same for all tokens."""


def write_tiny_gguf(path: Path, *, seed: int = 7, ends: bool = False, long_pieces: bool = False) -> Path:
    """`ends`: it ends its answer at once, where it may. `long_pieces`: it writes `LONG_PIECE`, where it may."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_EMBEDDING)
    writer.add_block_count(_BLOCKS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    _add_vocabulary(writer)
    _add_weights(writer, seed=seed, ends=ends, long_pieces=long_pieces)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    tokens = [*_SPECIALS, *(f"<0x{byte:02X}>".encode() for byte in range(256)), LONG_PIECE.encode()]
    types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    types += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.USER_DEFINED]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(_BEGIN)
    writer.add_eos_token_id(_END)
    writer.add_unk_token_id(_UNKNOWN)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _add_weights(writer: gguf.GGUFWriter, *, seed: int, ends: bool, long_pieces: bool) -> None:
    random = np.random.default_rng(seed)
    vocabulary = _LONG + 1

    def weights(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.2).astype(np.float32)

    embedding, output = weights(vocabulary, _EMBEDDING), weights(vocabulary, _EMBEDDING)
    embedding[:, _CONSTANT] = 4.0
    output[:, _CONSTANT] = -8.0
    output[_FIRST_BYTE + 0x20 : _FIRST_BYTE + 0x7F, _CONSTANT] = 0.0
    output[_END, _CONSTANT] = 8.0 if ends else -8.0
    output[_LONG, _CONSTANT] = 8.0 if long_pieces else -8.0
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(_EMBEDDING, dtype=np.float32))
    for block in range(_BLOCKS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{name}.weight", np.ones(_EMBEDDING, dtype=np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"blk.{block}.{name}.weight", weights(_EMBEDDING, _EMBEDDING))
        writer.add_tensor(f"blk.{block}.ffn_gate.weight", weights(_FEED_FORWARD, _EMBEDDING))
        writer.add_tensor(f"blk.{block}.ffn_up.weight", weights(_FEED_FORWARD, _EMBEDDING))
        writer.add_tensor(f"blk.{block}.ffn_down.weight", weights(_EMBEDDING, _FEED_FORWARD))
