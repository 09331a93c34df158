"""A two-layer Llama with random weights and a tokenizer of whole words, for trainers on a CPU. Nothing is downloaded."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def tokenizer(words):
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", *words])}
    of_words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    of_words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=of_words, pad_token="<pad>", eos_token="<eos>")


def model(words, seed=0, hidden=64):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words) + 2,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    return LlamaForCausalLM(config)
