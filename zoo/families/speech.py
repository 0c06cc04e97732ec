"""Speech: Whisper, and encoders of waves and of spectrograms."""

from typing import Any

from zoo.families.transformers_member import SIZES, VOCABULARY, both, member, tokens, values

_WAVE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **SIZES,
    "conv_dim": [32, 32, 32],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_HEARD = values("input_values", 1, 3200)
_WHISPER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_mel_bins": 16,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_source_positions": 50,
    "max_target_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_SPECTRUM = values("input_features", 1, 16, 100)

MEMBERS = [
    member("WhisperForConditionalGeneration", both(_SPECTRUM, tokens(4, name="decoder_input_ids")), **_WHISPER),
    member(
        "WhisperForConditionalGeneration",
        both(_SPECTRUM, tokens(4, name="decoder_input_ids")),
        name="Whisper without a cache",
        **_WHISPER,
        use_cache=False,
    ),
    member("WhisperForAudioClassification", _SPECTRUM, **_WHISPER),
    member("Wav2Vec2ForCTC", _HEARD, **_WAVE),
    member("HubertForCTC", _HEARD, **_WAVE),
    member("WavLMForCTC", _HEARD, **_WAVE),
    member("UniSpeechForCTC", _HEARD, **_WAVE),
    member("UniSpeechSatForCTC", _HEARD, **_WAVE),
    member("Data2VecAudioForCTC", _HEARD, **_WAVE),
    member("SEWForCTC", _HEARD, **_WAVE, squeeze_factor=2),
    member("SEWDForCTC", _HEARD, **_WAVE, squeeze_factor=2),
    member("Wav2Vec2ConformerForCTC", _HEARD, **_WAVE, position_embeddings_type="relative"),
    member(
        "Wav2Vec2ConformerForCTC",
        _HEARD,
        name="Wav2Vec2Conformer with rotary positions",
        **_WAVE,
        position_embeddings_type="rotary",
    ),
    member(
        "Wav2Vec2BertModel",
        values("input_features", 1, 40, 32),
        **SIZES,
        feature_projection_input_dim=32,
        position_embeddings_type="relative_key",
    ),
    member(
        "ASTForAudioClassification",
        values("input_values", 1, 64, 32),
        **SIZES,
        max_length=64,
        num_mel_bins=32,
    ),
    member(
        "MoonshineForConditionalGeneration",
        both(values("input_values", 1, 3200), tokens(4, name="decoder_input_ids")),
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        pad_token_id=0,
    ),
    member(
        "EncodecModel",
        values("input_values", 1, 1, 2400),
        num_filters=8,
        hidden_size=32,
        codebook_size=64,
        codebook_dim=32,
    ),
]
