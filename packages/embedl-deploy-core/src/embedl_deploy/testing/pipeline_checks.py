"""Checks of the whole pipeline on a small network: transform, verify, quantize, calibrate, export, check."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import fx

from embedl_deploy.backend import Severity
from embedl_deploy.checking.checker import run_rules
from embedl_deploy.checking.report import WhyNotJudged
from embedl_deploy.errors import ExportError
from embedl_deploy.export import export_onnx
from embedl_deploy.modules import FusedModule
from embedl_deploy.patterns import Example, MatchStatus
from embedl_deploy.pipeline import transform
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize import calibrate, insert_qdq, quantization_report
from embedl_deploy.testing.agreement import require_same_training
from embedl_deploy.testing.exporting import has_onnxruntime, require_onnxruntime
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply
from embedl_deploy.testing.matching import require_settled
from embedl_deploy.testing.subjects import NetworkSubject, config_of
from embedl_deploy.testing.tensors import require_same, run
from embedl_deploy.testing.translations import read_translations_once
from embedl_deploy.verify import output_tensors, signal_to_noise

#: Least ratio of signal to quantization noise in dB: the noise has a tenth of the signal's power.
_LEAST_DB = 10.0


def _transformed(subject: NetworkSubject) -> tuple[Example, TransformationResult]:
    example = subject.make()
    result = transform(example.model, example.args, backend=subject.backend, strict=True)
    if subject.plugin and not _concerns(subject, result):
        raise DoesNotApply("the extension changes nothing in this network")
    return example, result


def _concerns(subject: NetworkSubject, result: TransformationResult) -> bool:
    """Whether a pattern of the extension has taken something, or its policies or rules are asked."""
    kinds = {each.kind for each in subject.backend.contributions if each.plugin == subject.plugin}
    own = {id(pattern) for pattern in subject.backend.patterns_from(subject.plugin)}
    applied = result.report.with_status(MatchStatus.APPLIED)
    return bool(kinds & {"policy", "rule"}) or any(id(match.pattern) in own for match in applied)


def network_is_transformed(subject: NetworkSubject) -> None:
    """All patterns together keep outputs and running statistics, in evaluation and in training mode."""
    example, result = _transformed(subject)
    with torch.no_grad():
        require_same(run(example.model, example.args), run(result.model, example.args))
    trained = example.model.train()
    rewritten = transform(trained, example.args, backend=subject.backend, strict=True).model
    require_same_training(trained, rewritten, example.args)


def network_settles(subject: NetworkSubject) -> None:
    """A second transformation of the result applies nothing."""
    example, first = _transformed(subject)
    require_settled(first, transform(first.model, example.args, backend=subject.backend, strict=True))


def _quantized(subject: NetworkSubject, example: Example, result: TransformationResult) -> fx.GraphModule | None:
    """The network with calibrated quantizers; ``None`` if the backend, or its default policy, has none for it."""
    model = insert_qdq(result.model, result.matches, config_of(subject))
    if not quantization_report(model).quantized:
        return None
    calibrate(model, [example.args], progress=False)
    return model


def network_is_quantized(subject: NetworkSubject) -> None:
    """The quantized network is near the float one."""
    example, result = _transformed(subject)
    quantized = _quantized(subject, example, result)
    if quantized is None:
        raise DoesNotApply("nothing is quantized in this network")
    with torch.no_grad():
        wanted, found = run(example.model, example.args), run(quantized, example.args)
    if not all(bool(output.isfinite().all()) for output in output_tensors(found)):
        raise ConformanceFailure("the quantized network gives numbers that are not finite", "finite outputs")
    ratio = signal_to_noise(wanted, found)
    if ratio < _LEAST_DB:
        raise ConformanceFailure(
            f"signal to quantization noise is {ratio:.1f} dB on the calibration data", f"at least {_LEAST_DB:g} dB"
        )


def network_is_exported(subject: NetworkSubject) -> None:
    """In float and quantized, ONNX Runtime computes what PyTorch computes."""
    require_onnxruntime()
    exported(subject)


def network_keeps_rules(subject: NetworkSubject) -> None:
    """The backend's own rules do not fail on its own files, and find no error in its own fused modules.

    Errors are looked for in the quantized file, if there is one: float numbers may be what the hardware has not. What
    no fusion has taken may break rules, since not every hardware runs every network.
    """
    import onnx  # here: importing the kit need not wait for it

    if not subject.backend.check_rules:
        raise DoesNotApply("the backend has no rules for ONNX files")
    try:
        files = exported(subject)
    except ConformanceFailure as failure:
        raise DoesNotApply(f"it cannot be exported, which is a check of its own: {failure}") from failure
    modules = _transformed(subject)[1].model.named_modules()
    fused = tuple(f"{path}." for path, module in modules if isinstance(module, FusedModule))
    errors: list[str] = []
    for name, content in files.items():
        report = run_rules(subject.backend, subject.backend.check_rules, onnx.load_from_string(content))
        failed = [f"{p.rule}: {p.reason}" for p in report.undecided if p.cause is WhyNotJudged.RULE_FAILED]
        if failed:
            raise ConformanceFailure("; ".join(failed), "rules that do not raise", f"the {name} file")
        found = report.of(Severity.ERROR)
        errors = [f"{f.rule} at {f.module}: {f.message}" for f in found if f"{f.module}.".startswith(fused)]
    if errors:
        raise ConformanceFailure("; ".join(errors), "no error in a fused module", f"the {list(files)[-1]} file")


@lru_cache(maxsize=2)  # two checks need the files of a network, one after the other; exporting takes seconds
def exported(subject: NetworkSubject) -> dict[str, bytes]:
    """The ONNX files of a network, in float and, if it has points, quantized; compared with PyTorch where possible.

    Raises:
        ConformanceFailure: It cannot be exported, or a file computes something else.
    """
    example, result = _transformed(subject)
    models = {"float": result.model}
    quantized = _quantized(subject, example, result)
    if quantized is not None:
        models["quantized"] = quantized
    files: dict[str, bytes] = {}
    read_translations_once()
    with TemporaryDirectory() as folder:
        for name, model in models.items():
            path = Path(folder, f"{name}.onnx")
            try:
                export_onnx(model, example.args, path, tolerance="auto" if has_onnxruntime() else None)
            except ExportError as error:
                raise ConformanceFailure(str(error), "a file that agrees with PyTorch", f"the {name} file") from error
            files[name] = path.read_bytes()
    return files
