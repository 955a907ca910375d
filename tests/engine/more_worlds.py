"""Tiny models of more families than `worlds`: other names, layouts and oddities of attention, and
recurrent ones."""

from transformers import (
    AfmoeConfig,
    BitNetConfig,
    CodeGenConfig,
    Cohere2Config,
    CohereConfig,
    CTRLConfig,
    DbrxConfig,
    DeepseekV2Config,
    DiffLlamaConfig,
    FalconH1Config,
    FuyuConfig,
    Gemma4TextConfig,
    GlmConfig,
    GPTBigCodeConfig,
    GPTNeoConfig,
    GPTNeoXJapaneseConfig,
    JambaConfig,
    JetMoeConfig,
    Lfm2Config,
    Llama4TextConfig,
    Mamba2Config,
    MiniMaxConfig,
    ModernBertDecoderConfig,
    NemotronHConfig,
    OpenAIGPTConfig,
    PersimmonConfig,
    Qwen3NextConfig,
    RwkvConfig,
    StableLmConfig,
    Starcoder2Config,
    XGLMConfig,
)

from tests.engine.worlds import VOCAB

_WORDS = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_ALIKE = {
    **_WORDS, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64, "initializer_range": 0.4,
}  # fmt: skip
_GROUPED = {**_ALIKE, "num_key_value_heads": 2}
_GPT = {
    "vocab_size": VOCAB, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 32, "initializer_range": 0.4, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
_MAMBA = {
    "mamba_d_state": 4,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 4,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
}

MORE = {
    "gpt_neo": lambda: GPTNeoConfig(
        vocab_size=VOCAB, hidden_size=32, num_layers=3, num_heads=4, window_size=4, max_position_embeddings=32,
        attention_types=[[["global", "local", "global"], 1]], initializer_range=0.4, bos_token_id=1, eos_token_id=2,
    ),
    "codegen": lambda: CodeGenConfig(**{**_GPT, "n_embd": 64, "n_head": 8}, rotary_dim=4),
    "bigcode": lambda: GPTBigCodeConfig(**_GPT, multi_query=True),
    "bigcode_heads": lambda: GPTBigCodeConfig(**_GPT, multi_query=False),
    "openai": lambda: OpenAIGPTConfig(
        vocab_size=VOCAB, n_embd=32, n_head=4, n_layer=2, n_positions=32, initializer_range=0.4
    ),
    "neox_japanese": lambda: GPTNeoXJapaneseConfig(**_ALIKE),
    "persimmon": lambda: PersimmonConfig(**_ALIKE),
    "fuyu": lambda: FuyuConfig(**_ALIKE, text_config=PersimmonConfig(**_ALIKE).to_dict()),
    "dbrx": lambda: DbrxConfig(
        vocab_size=VOCAB, d_model=32, n_heads=4, n_layers=2, max_seq_len=32,
        attn_config={"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        ffn_config={"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    ),
    "ctrl": lambda: CTRLConfig(vocab_size=VOCAB, n_positions=32, n_embd=32, dff=64, n_layer=2, n_head=4, initializer_range=0.4),
    "xglm": lambda: XGLMConfig(
        **_WORDS, d_model=32, num_layers=2, attention_heads=4, ffn_dim=64, init_std=0.4, max_position_embeddings=32
    ),
    "starcoder2": lambda: Starcoder2Config(**_GROUPED),
    "stablelm": lambda: StableLmConfig(**_GROUPED, qk_layernorm=True),
    "cohere": lambda: CohereConfig(**_GROUPED, use_qk_norm=True),
    "cohere2": lambda: Cohere2Config(**_GROUPED, sliding_window=4),
    "glm": lambda: GlmConfig(**_GROUPED, head_dim=8),
    "modernbert": lambda: ModernBertDecoderConfig(**_ALIKE, local_attention=8),
    # What comes after the mix of values: a norm over all heads, a gate, a norm of each value.
    "bitnet": lambda: BitNetConfig(**_GROUPED),
    "afmoe": lambda: AfmoeConfig(
        **_GROUPED, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, num_dense_layers=1, sliding_window=4
    ),
    "qwen3_next": lambda: Qwen3NextConfig(
        **{**_GROUPED, "num_hidden_layers": 4}, head_dim=8, linear_conv_kernel_dim=2, linear_key_head_dim=8, linear_value_head_dim=8,
        linear_num_key_heads=2, linear_num_value_heads=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
    "gemma4": lambda: Gemma4TextConfig(
        **_GROUPED, head_dim=8, global_head_dim=16, num_kv_shared_layers=0, hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=VOCAB, sliding_window=4, layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
    "llama4": lambda: Llama4TextConfig(
        **_GROUPED, head_dim=8, num_local_experts=2, num_experts_per_tok=1, intermediate_size_mlp=64, attention_chunk_size=4
    ),
    "deepseek_v2": lambda: DeepseekV2Config(
        **_ALIKE, num_key_value_heads=4, num_experts_per_tok=2, moe_intermediate_size=16, q_lora_rank=None, kv_lora_rank=8,
        qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=12, n_routed_experts=4, n_group=1, topk_group=1, first_k_dense_replace=1,
    ),
    # Layers of attention between others.
    "jamba": lambda: JambaConfig(
        **_GROUPED, attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_d_state=4, use_mamba_kernels=False
    ),
    "falcon_h1": lambda: FalconH1Config(**_GROUPED, **_MAMBA, head_dim=8, mamba_d_ssm=64),
    "lfm2": lambda: Lfm2Config(**_GROUPED, layer_types=["conv", "full_attention", "conv"]),
    "minimax": lambda: MiniMaxConfig(
        **_GROUPED, head_dim=8, num_local_experts=4, num_experts_per_tok=2, block_size=4,
        layer_types=["full_attention", "linear_attention", "full_attention"],
    ),
    "nemotron_h": lambda: NemotronHConfig(
        **{k: v for k, v in _GROUPED.items() if k != "num_hidden_layers"}, head_dim=8, mamba_num_heads=8, mamba_head_dim=8,
        ssm_state_size=4, n_groups=1, chunk_size=4, layers_block_type=["mamba", "attention", "mlp"],
    ),
    # What is refused.
    "diffllama": lambda: DiffLlamaConfig(**_GROUPED),
    "jetmoe": lambda: JetMoeConfig(
        **_WORDS, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2, kv_channels=8, intermediate_size=32, num_local_experts=4,
        num_experts_per_tok=2,
    ),
    # Recurrent.
    "mamba2": lambda: Mamba2Config(
        **_WORDS, hidden_size=32, state_size=4, num_hidden_layers=3, num_heads=8, head_dim=8, n_groups=2, chunk_size=4,
        initializer_range=0.4,
    ),
    "rwkv": lambda: RwkvConfig(
        **_WORDS, hidden_size=32, attention_hidden_size=32, num_hidden_layers=3, intermediate_size=64, context_length=32,
        rescale_every=2,
    ),
}  # fmt: skip

WITHOUT_HEADS = ("diffllama", "jetmoe", "mamba2", "rwkv")
HYBRID = {"qwen3_next": (3,), "jamba": (1,), "lfm2": (1,), "minimax": (0, 2), "nemotron_h": (1,)}
"""The layers of attention, of those that have others too."""
