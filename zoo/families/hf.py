"""Transformers of Hugging Face, but for speech and language models: vision, text, and both."""

from typing import Any

import torch

from zoo.families.transformers_member import SIZES, VOCABULARY, both, member, pixels, sentence, tokens

_VIT = {**SIZES, "image_size": 64, "patch_size": 16}
_TEXT = {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
_SWIN: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 32,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
_STAGES: dict[str, Any] = {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 48, 64]}
_RESNET: dict[str, Any] = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 48, 64],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}
_DETR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_queries": 10,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}
_RT_DETR: dict[str, Any] = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [32, 48, 64],
    "decoder_in_channels": [32] * 3,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "decoder_layers": 2,
    "num_queries": 10,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_denoising": 0,
}
_RT_RESNET = {**_RESNET, "model_type": "rt_detr_resnet"}
_TWO = {"text_config": _TEXT, "vision_config": _VIT}
_SWIN_BACKBONE = {
    **_SWIN,
    "model_type": "swin",
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 2, 4],
    "window_size": 2,
} | {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
_DPT_STAGES: dict[str, Any] = {"neck_hidden_sizes": [16, 24, 32, 48], "fusion_hidden_size": 16}
_ENCODER_DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "pad_token_id": 0,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 64,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
}
_SEQUENCES = both(tokens(12), tokens(8, name="decoder_input_ids"))

MEMBERS = [
    # Vision: the eighteen that are named most often.
    member("ViTForImageClassification", pixels(), **_VIT),
    member("DeiTForImageClassification", pixels(), **_VIT),
    member("SwinForImageClassification", pixels(), **_SWIN),
    member("Swinv2ForImageClassification", pixels(), **_SWIN),
    member("BeitForImageClassification", pixels(), **_VIT, use_relative_position_bias=True),
    member("ConvNextForImageClassification", pixels(), **_STAGES),
    member("ConvNextV2ForImageClassification", pixels(), **_STAGES),
    member("Dinov2Model", pixels(56), **{**_VIT, "image_size": 56, "patch_size": 14}, mlp_ratio=2),
    member(
        "SegformerForSemanticSegmentation",
        pixels(),
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 48, 64],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=32,
    ),
    member(
        "MobileViTForImageClassification",
        pixels(),
        image_size=64,
        hidden_sizes=[32, 48, 64],
        neck_hidden_sizes=[8, 16, 24, 32, 48, 64, 96],
    ),
    member("DetrForObjectDetection", pixels(), **_DETR, backbone_config=_RESNET),
    member("YolosForObjectDetection", pixels(), **{**_VIT, "image_size": [64, 64]}, num_detection_tokens=10),
    member("RTDetrForObjectDetection", pixels(), **_RT_DETR, backbone_config=_RT_RESNET),
    member("RTDetrV2ForObjectDetection", pixels(), **_RT_DETR, backbone_config=_RT_RESNET),
    member(
        "SamModel",
        both(pixels(), lambda _: {"input_points": _points()}),
        vision_config={
            **_VIT,
            "output_channels": 16,
            "num_pos_feats": 8,
            "mlp_dim": 64,
            "global_attn_indexes": [1],
            "window_size": 2,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 32,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
            "attention_downsample_rate": 1,
        },
    ),
    member("CLIPModel", both(sentence(), pixels()), **_TWO, projection_dim=32),
    member(
        "DPTForDepthEstimation",
        pixels(),
        **{**_VIT, "num_hidden_layers": 4},
        **_DPT_STAGES,
        backbone_out_indices=[0, 1, 2, 3],
        is_hybrid=False,
    ),
    member(
        "DepthAnythingForDepthEstimation",
        pixels(56),
        backbone_config={
            **_VIT,
            "image_size": 56,
            "patch_size": 14,
            "num_hidden_layers": 4,
            "mlp_ratio": 2,
            "model_type": "dinov2",
            "out_indices": [1, 2, 3, 4],
            "reshape_hidden_states": False,
        },
        reassemble_hidden_size=64,
        patch_size=14,
        head_hidden_size=16,
        depth_estimation_type="metric",  # relative depth ends in a ReLU: of random weights, often nothing
        **_DPT_STAGES,
    ),
    # Vision: others.
    member(
        "BitForImageClassification",
        pixels(),
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        num_groups=8,
    ),
    member("ConditionalDetrForObjectDetection", pixels(), **_DETR, backbone_config=_RESNET),
    member("CvtForImageClassification", pixels(), embed_dim=[16, 32, 48], num_heads=[1, 2, 3], depth=[1, 2, 3]),
    member(
        "DFineForObjectDetection",
        pixels(),
        **_RT_DETR,
        backbone_config={
            "model_type": "hgnet_v2",
            "stem_channels": [3, 8, 16],
            "stage_in_channels": [16, 32, 32, 48],
            "stage_mid_channels": [8, 16, 16, 16],
            "stage_out_channels": [32, 32, 48, 64],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [1, 1, 1, 1],
            "hidden_sizes": [32, 32, 48, 64],
            "out_features": ["stage2", "stage3", "stage4"],
        },
    ),
    member("Data2VecVisionForImageClassification", pixels(), **_VIT, use_relative_position_bias=True),
    member("DeformableDetrForObjectDetection", pixels(), **_DETR, backbone_config=_RESNET, num_feature_levels=3),
    member("Dinov2WithRegistersModel", pixels(56), **{**_VIT, "image_size": 56, "patch_size": 14}, mlp_ratio=2),
    member("DINOv3ViTModel", pixels(), **_VIT),
    member("DINOv3ConvNextModel", pixels(), **_STAGES),
    member(
        "EfficientNetForImageClassification",
        pixels(),
        image_size=64,
        width_coefficient=0.25,
        depth_coefficient=0.25,
        hidden_dim=320,
    ),
    member("FocalNetForImageClassification", pixels(), image_size=64, embed_dim=16, depths=[1, 1, 1, 1]),
    member(
        "GLPNForDepthEstimation",
        pixels(),
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 48, 64],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
    ),
    member(
        "HieraForImageClassification",
        pixels(),
        embed_dim=16,
        image_size=[64, 64],
        patch_stride=[4, 4],
        depths=[1, 1, 1],
        num_heads=[1, 2, 4],
        query_stride=[2, 2],
        masked_unit_size=[4, 4],
        num_query_pool=2,
    ),
    member("IJepaModel", pixels(), **_VIT),
    member(
        "LevitForImageClassification",
        pixels(),
        image_size=64,
        hidden_sizes=[32, 48, 64],
        num_attention_heads=[2, 3, 4],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    member(
        "Mask2FormerForUniversalSegmentation",
        pixels(),
        backbone_config=_SWIN_BACKBONE,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=4,
        dim_feedforward=64,
        num_queries=10,
    ),
    member(
        "MaskFormerForInstanceSegmentation",
        pixels(),
        backbone_config=_SWIN_BACKBONE,
        fpn_feature_size=32,
        mask_feature_size=32,
        decoder_config={
            "model_type": "detr",
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "num_queries": 10,
        },
    ),
    member("MobileNetV1ForImageClassification", pixels(), depth_multiplier=0.25),
    member("MobileNetV2ForImageClassification", pixels(), depth_multiplier=0.25),
    member("MobileViTV2ForImageClassification", pixels(), image_size=64, width_multiplier=0.25),
    member("PoolFormerForImageClassification", pixels(), depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64]),
    member(
        "PvtForImageClassification",
        pixels(),
        image_size=64,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 48, 64],
        num_attention_heads=[1, 2, 3, 4],
    ),
    member(
        "PvtV2ForImageClassification",
        pixels(),
        image_size=64,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 48, 64],
        num_attention_heads=[1, 2, 3, 4],
    ),
    member(
        "RegNetForImageClassification",
        pixels(),
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        groups_width=8,
    ),
    member(
        "ResNetForImageClassification", pixels(), embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1]
    ),
    member("SiglipModel", both(sentence(), pixels()), **_TWO),
    member(
        "SuperPointForKeypointDetection",
        pixels(),
        encoder_hidden_sizes=[16, 16, 32, 32],
        decoder_hidden_size=32,
        descriptor_decoder_dim=32,
    ),
    member(
        "Swin2SRForImageSuperResolution",
        pixels(32),
        image_size=32,
        embed_dim=32,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    member("TableTransformerForObjectDetection", pixels(), **_DETR, backbone_config=_RESNET),
    member("TextNetForImageClassification", pixels()),
    member(
        "UperNetForSemanticSegmentation",
        pixels(),
        backbone_config={**_STAGES, "model_type": "convnext", "out_features": ["stage1", "stage2", "stage3", "stage4"]},
        hidden_size=32,
        auxiliary_in_channels=48,
        auxiliary_channels=16,
    ),
    member("ViTMSNForImageClassification", pixels(), **_VIT),
    member(
        "VitPoseForPoseEstimation",
        pixels(),
        backbone_config={
            **SIZES,
            "model_type": "vitpose_backbone",
            "image_size": [64, 64],
            "patch_size": [16, 16],
            "out_indices": [2],
            "num_labels": 17,
        },
    ),
    # Text.
    member("AlbertModel", sentence(), **_TEXT, embedding_size=32),
    member("BartModel", _SEQUENCES, **_ENCODER_DECODER, use_cache=False),
    member("BertModel", sentence(), **_TEXT),
    member("CamembertModel", sentence(), **_TEXT),
    member("ConvBertModel", sentence(), **_TEXT, embedding_size=32),
    member("DebertaModel", sentence(), **_TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    member("DebertaV2Model", sentence(), **_TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    member("DistilBertModel", sentence(), vocab_size=VOCABULARY, dim=64, n_layers=2, n_heads=4, hidden_dim=128),
    member("ElectraModel", sentence(), **_TEXT, embedding_size=32),
    member("FNetModel", tokens(), **{key: value for key, value in _TEXT.items() if key != "num_attention_heads"}),
    member("LayoutLMModel", both(sentence(), lambda _: {"bbox": _boxes()}), **_TEXT),
    member("MPNetModel", sentence(), **_TEXT),
    member("MobileBertModel", sentence(), **_TEXT, embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32),
    member("ModernBertModel", sentence(), **_TEXT, pad_token_id=0),
    member("NystromformerModel", sentence(), **_TEXT, num_landmarks=8, segment_means_seq_len=16),
    member("RoFormerModel", sentence(), **_TEXT, embedding_size=32),
    member("RobertaModel", sentence(), **_TEXT),
    member("SqueezeBertModel", sentence(), **_TEXT, embedding_size=64),
    member("T5EncoderModel", sentence(), config="T5Config", **_T5),
    member("T5Model", _SEQUENCES, **_T5, use_cache=False),
    member("XLMRobertaModel", sentence(), **_TEXT),
    # Both.
    member("BlipModel", both(sentence(), pixels()), **_TWO, projection_dim=32),
    member("ViltModel", both(sentence(), pixels()), **_TEXT, image_size=64, patch_size=16),
]


def _points() -> torch.Tensor:
    return torch.tensor([[[[20.0, 30.0]]]])


def _boxes() -> torch.Tensor:
    return torch.arange(16).view(1, 16, 1) * torch.ones(4, dtype=torch.int64)
