"""The checks of patterns, in the order in which they are told: what each asks, why, and what to do when it fails."""

from embedl_deploy.testing.agreement import keeps_gradients, keeps_numbers_in_evaluation, keeps_numbers_in_training
from embedl_deploy.testing.exported_graphs import matches_exported_graphs
from embedl_deploy.testing.exporting import exports_to_onnx
from embedl_deploy.testing.matching import (
    declares_examples,
    declares_near_misses,
    declines_near_misses,
    is_idempotent,
    is_reached,
    leaves_users_model_alone,
    matches_each_example_once,
)
from embedl_deploy.testing.quantizing import is_quantized, points_exist, stubs_are_used, weights_have_places
from embedl_deploy.testing.state import can_be_copied, keeps_parameters, keeps_sharing, state_can_be_loaded
from embedl_deploy.testing.subjects import PatternSubject
from embedl_deploy.testing.table import Check
from embedl_deploy.testing.varying import keeps_numbers_of_variants

#: Of every pattern, on each of its examples.
PATTERN_CHECKS: tuple[Check[PatternSubject], ...] = (
    Check(
        "declares-examples",
        "declares examples",
        "Without an example nothing else about a pattern can be tried.",
        "Override examples() and return models of a few channels, created anew in each call, with a batch of two.",
        declares_examples,
    ),
    Check(
        "declares-near-misses",
        "declares near misses",
        "A pattern that takes too much is found by models that it must leave alone.",
        "Override near_misses() with models that differ from an example in one thing; say in the note which.",
        declares_near_misses,
    ),
    Check(
        "matches-once",
        "matches each of its examples once",
        "An example that does not match shows nothing, and one with two matches does not show which is meant.",
        "Ask get_transformation_plan(model, args, patterns=[...]).why_not(node), then fix the tree, check() or the "
        "example.",
        matches_each_example_once,
    ),
    Check(
        "declines-near-misses",
        "leaves its near misses alone",
        "What hardware cannot run must not be fused.",
        "Return the reason from check(), or make the tree stricter.",
        declines_near_misses,
    ),
    Check(
        "is-reached",
        "is reached among the backend's other patterns",
        "The first pattern that takes a node has it; one that never comes to anything is dead.",
        "Put it before the patterns that take its nodes, in the list that the hook returns.",
        is_reached,
    ),
    Check(
        "model-untouched",
        "leaves the user's model alone",
        "Users go on with the model that they passed.",
        "Change neither modules that were matched nor global state; build modules on device='meta', which draws no "
        "random numbers, and put the original parameters into them.",
        leaves_users_model_alone,
    ),
    Check(
        "numbers-evaluation",
        "keeps its numbers in evaluation mode",
        "A deployed model that computes something else is wrong.",
        "Call the original modules in the original order, with all of their settings.",
        keeps_numbers_in_evaluation,
    ),
    Check(
        "numbers-training",
        "keeps its numbers in training mode",
        "Fused models are fine-tuned, and batch norm works on the batch's statistics then.",
        "Keep batch norm as a module and call it; do not fold it. Hand self.training on to functions.",
        keeps_numbers_in_training,
    ),
    Check(
        "variants",
        "keeps its numbers in variations of its examples",
        "Users have layers with other settings than the examples, and wherever a pattern applies it must be right.",
        "Read every setting of a layer from the layer, and decline in check() what the module cannot do.",
        keeps_numbers_of_variants,
    ),
    Check(
        "exported-graphs",
        "matches its examples as torch.export gives them, with the same numbers",
        "Models that cannot be traced symbolically come as calls of functions, with settings that are numbers.",
        "Match module classes instead of node targets, take settings from get_module(node), and tell with "
        "register_form which module a function of your own is.",
        matches_exported_graphs,
    ),
    Check(
        "gradients",
        "lets gradients through",
        "Fine-tuning and quantization-aware training need the gradients of every parameter and input.",
        "Remove detach(), .data and no_grad from forward, and compute with the parameters themselves.",
        keeps_gradients,
    ),
    Check(
        "parameters",
        "keeps the original parameters",
        "Optimizers, checkpoints and later stages expect the weights that the user trained.",
        "Store the matched modules, or modules around their parameters, cut into rows if need be; keep constants of "
        "your own in buffers.",
        keeps_parameters,
    ),
    Check(
        "sharing",
        "keeps shared weights shared",
        "Tied weights that come apart double the memory, and training makes them differ.",
        "Never copy a matched module or its tensors: use the very parameters and buffers.",
        keeps_sharing,
    ),
    Check(
        "idempotent",
        "finds nothing to do in its own result",
        "Users transform in several steps, and conversions run until none matches.",
        "Make the replacement a FusedModule or ConvertedModule, which patterns for the original class do not match.",
        is_idempotent,
    ),
    Check(
        "deep-copy",
        "can be deep-copied",
        "Quantization and verification work on copies.",
        "Keep tensors in parameters and buffers, modules in sub-modules, and leave __deepcopy__ alone.",
        can_be_copied,
    ),
    Check(
        "state-dict",
        "takes the state of another",
        "A checkpoint is loaded into a model that was transformed again.",
        "Compute in forward from parameters and buffers, not from numbers that the constructor took from them.",
        state_can_be_loaded,
    ),
    Check(
        "onnx",
        "exports to ONNX with the same numbers",
        "The compiler reads the file, not the module.",
        "Write forward with operators that torch.onnx.export knows, without Python branches on values.",
        exports_to_onnx,
    ),
    Check(
        "qdq-points",
        "names quantization points that exist",
        "A point that the module does not declare is silently left in float.",
        "Make qdq_points and the module's inputs_to_quantize name the same arguments.",
        points_exist,
        fusions_only=True,
    ),
    Check(
        "weights-have-places",
        "has a quantization point for each weight",
        "A convolution or product that the hardware runs in the same kernel would stay in float.",
        "Make the part a FusedConv or FusedMatmul, which has a point; or give the module a stub named "
        "<part>_weight_fake_quant; or say in why_not_quantized why it stays in float.",
        weights_have_places,
        fusions_only=True,
    ),
    Check(
        "stubs-used",
        "computes with the quantizers of its module",
        "A weight that is not passed through its quantizer stays in float although the report lists it as quantized.",
        "Compute with self.weight_fake_quant(weight), as FusedConv and FusedMatmul do.",
        stubs_are_used,
        fusions_only=True,
    ),
    Check(
        "quantized",
        "is quantized, or says why not",
        "Every point has a quantizer with a finite scale, or a reason in the report.",
        "Look at quantization_report(quantize(result, data)); fix the module, or the policy's answer.",
        is_quantized,
        fusions_only=True,
    ),
)
