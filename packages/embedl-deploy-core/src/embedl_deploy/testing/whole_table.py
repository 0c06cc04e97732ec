"""The checks of whole backends, alone and on networks, in the order in which they are told."""

from embedl_deploy.testing.backend_checks import (
    describes_itself,
    names_are_unique,
    policies_answer,
    translations_are_given,
)
from embedl_deploy.testing.imports import imports_little
from embedl_deploy.testing.pipeline_checks import (
    network_is_exported,
    network_is_quantized,
    network_is_transformed,
    network_keeps_rules,
    network_settles,
)
from embedl_deploy.testing.subjects import BackendSubject, NetworkSubject
from embedl_deploy.testing.table import Check

#: Of every backend.
BACKEND_CHECKS: tuple[Check[BackendSubject], ...] = (
    Check(
        "describes-itself",
        "describes itself",
        "Title and description are what lists and reports show.",
        "Return BackendInfo(title, description) from embedl_deploy_describe.",
        describes_itself,
        backends_only=True,
    ),
    Check(
        "unique-names",
        "gives each thing a name of its own",
        "Plans name patterns, and users choose compilers and devices, by name.",
        "Rename the class, or override the pattern's name.",
        names_are_unique,
    ),
    Check(
        "policies",
        "has policies that answer",
        "A policy is asked about every point of every model; an exception stops the user.",
        "Return None where nothing is known, and test for the kind of the point and the type of its module first.",
        policies_answer,
    ),
    Check(
        "onnx-translations",
        "says what its own operators are in ONNX",
        "A translation that cannot be called with the operator's arguments ends the export of every model that has it.",
        "Return {torch.ops.acme.clip.default: function} from embedl_deploy_onnx_translations; the function takes what "
        "the operator takes.",
        translations_are_given,
    ),
    Check(
        "imports",
        "imports nothing heavy",
        "Listing the installed backends imports all of them.",
        "Import it inside the function that uses it.",
        imports_little,
    ),
)

#: Of every network of the kit, with all patterns of a backend.
NETWORK_CHECKS: tuple[Check[NetworkSubject], ...] = (
    Check(
        "network-numbers",
        "keeps its numbers when it is transformed",
        "Patterns that are right one by one can be wrong together.",
        "Print embedl_deploy.verify_stages(model, args, {'fused': result}, layers=True): it names the module that "
        "differs.",
        network_is_transformed,
    ),
    Check(
        "network-settles",
        "is transformed once and for all",
        "A second run that finds more shows that one pattern prepares another too late.",
        "Make what prepares a conversion; conversions run until none matches.",
        network_settles,
    ),
    Check(
        "network-quantized",
        "is near its float numbers when it is quantized",
        "Quantization in eight bits costs these networks little.",
        "Compare layer by layer: embedl_deploy.verify_stages(model, args, {'fused': result, 'quantized': quantized}, "
        "layers=True).",
        network_is_quantized,
    ),
    Check(
        "network-onnx",
        "exports to ONNX with the same numbers",
        "The file is what is deployed.",
        "Export the parts, model.get_submodule(path), to find the one that differs.",
        network_is_exported,
    ),
    Check(
        "network-rules",
        "keeps the backend's own rules",
        "A backend that refuses its own files is wrong in one of the two.",
        "Mend the rule if the compiler takes the file, else the pattern, module or policy that made it.",
        network_keeps_rules,
    ),
)
