"""One model of each family of timm, a small one where there is one."""

from functools import partial

import torch

from torchvision_import import import_torchvision
from zoo.member import Made, Member

_NAMES = """
beit_base_patch16_224 botnet26t_256 halonet26t gernet_s mobileone_s0 cait_xxs24_224 coat_lite_tiny coat_tiny convit_tiny convmixer_768_32
convnext_atto cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_s cspnext_tiny davit_tiny deepseek_vit_412m
deit_tiny_distilled_patch16_224 densenet121 dla34 dm_nfnet_f0 dpn68 edgenext_xx_small efficientformer_l1 efficientformerv2_s0
efficientnet_b0 efficientvim_m1 efficientvit_b0 efficientvit_m0 ese_vovnet19b_slim eva02_tiny_patch14_224 fasternet_t0 fastvit_t8
focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050 gmlp_s16_224 hardcorenas_a hgnetv2_b0 hiera_tiny_224 hrnet_w18_small
iformer_s inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small legacy_seresnet18 legacy_xception
levit_128s lowformer_b0 mambaout_femto maxvit_rmlp_pico_rw_256 caformer_s18 convformer_s18 poolformer_s12 mixer_s32_224 resmlp_12_224
mobilenetv3_small_050 mobilenetv5_base mobilevit_xxs mobilevitv2_050 mvitv2_tiny naflexvit_base_patch16_siglip nasnetalarge nest_tiny
nextvit_small nf_resnet26 nf_seresnet26 pit_xs_224 pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnety_002 repghostnet_050 repvit_m0_9
res2net50_26w_4s resnest14d resnet18 resnetv2_18 rexnet_100 sam2_hiera_tiny samvit_base_patch16_224 selecsls42 sequencer2d_s shvit_s1
skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224
tnt_s_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny vit_tiny_patch16_224 vit_tiny_r_s16_p8_224 vit_relpos_small_patch16_224
vitamin_small_224 volo_d1_224 xception41 xcit_nano_12_p16_224
""".split()


def _made(name: str) -> Made:
    import_torchvision()  # timm imports it
    import timm

    model = timm.create_model(name, pretrained=False).eval()
    return Made(model, (torch.randn(1, *model.default_cfg["input_size"]),))


MEMBERS = [Member(name, partial(_made, name)) for name in _NAMES]
