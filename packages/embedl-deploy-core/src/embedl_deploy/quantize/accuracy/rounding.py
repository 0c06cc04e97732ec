"""Learned rounding: finds the quantized weights that best reproduce a layer's outputs.

A layer computes y = W·x + b from exact inputs x; quantized, it has inputs x' that carry the rounding of everything
before it. First the weight is fitted to them (ridge regression towards W), then its columns are rounded one by one, and
the error of each is made up for by the columns that are still free, as second-order pruning does (Hassibi and Stork
1993; Frantar et al. 2022, GPTQ, for quantization). The bias that remains makes the means agree (Nagel et al. 2019,
section 4.2).
"""

from dataclasses import dataclass

import torch

from embedl_deploy.errors import QuantizationError
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.grid.operators import dequantize_values, quantize_values

#: Damping of the regression and of the rounding, as a share of the mean square of the inputs (GPTQ, section 3.3).
DAMPING = 0.01
_COLUMNS_AT_ONCE = 128


@dataclass
class Moments:
    """Sums over samples of the inputs of a layer, exact (x) and quantized (x'), by group of channels.

    All are of differences to a shift c near the mean, because E[x²] − E[x]² cancels where the mean is large beside the
    deviation (Chan, Golub and LeVeque 1983, shifted data).

    Attributes:
        count: Samples so far.
        shift: c, (G, K): the mean of the first exact samples; zero before any.
        exact: Σ (x − c), (G, K).
        quantized: Σ (x' − c), (G, K).
        square: Σ (x' − c)·(x' − c)ᵀ, (G, K, K).
        cross: Σ (x − c)·(x' − c)ᵀ, (G, K, K).
    """

    count: int
    shift: torch.Tensor
    exact: torch.Tensor
    quantized: torch.Tensor
    square: torch.Tensor
    cross: torch.Tensor

    @staticmethod
    def empty(groups: int, inputs: int, like: torch.Tensor) -> "Moments":
        """No samples yet."""
        vector = torch.zeros(groups, inputs, dtype=torch.float64, device=like.device)
        matrix = torch.zeros(groups, inputs, inputs, dtype=torch.float32, device=like.device)
        shift = torch.zeros(groups, inputs, dtype=torch.float32, device=like.device)
        return Moments(0, shift, vector, vector.clone(), matrix, matrix.clone())

    def add(self, exact: torch.Tensor, quantized: torch.Tensor) -> None:
        """Take in samples, two of (G, K, L), float32."""
        if self.count == 0:
            self.shift = exact.mean(-1)
        exact, quantized = exact - self.shift[:, :, None], quantized - self.shift[:, :, None]
        self.count += exact.shape[-1]
        self.exact += exact.sum(-1, dtype=torch.float64)
        self.quantized += quantized.sum(-1, dtype=torch.float64)
        self.square += quantized @ quantized.transpose(1, 2)
        self.cross += exact @ quantized.transpose(1, 2)

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of x and x', (G, K), float32."""
        exact, quantized = self._shifted_means()
        return (self.shift + exact).float(), (self.shift + quantized).float()

    def _shifted_means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of x − c and x' − c, (G, K), float64."""
        return self.exact / self.count, self.quantized / self.count

    def covariances(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of x' with itself, and of x with x', (G, K, K)."""
        mean, mean_quantized = (m.float() for m in self._shifted_means())
        square = self.square / self.count - mean_quantized[:, :, None] * mean_quantized[:, None, :]
        cross = self.cross / self.count - mean[:, :, None] * mean_quantized[:, None, :]
        return square, cross


def damped(square: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A covariance, (G, K, K), made safely invertible, and the damping that was added to its diagonal, (G, 1, 1).

    The damping is raised where float rounding has left a covariance that is not positive definite even so.

    Raises:
        QuantizationError: The covariance is infinite or NaN.
    """
    if not bool(square.isfinite().all()):
        raise QuantizationError(
            "Rounding cannot be learnt: the covariance of a layer's inputs is not finite. Look for infinity, NaN or "
            "very large values in the calibration data and in the layers before, or pass learned_rounding=False."
        )
    diagonal = square.diagonal(dim1=1, dim2=2)
    # Inputs that were zero in all samples say nothing about their weights; the floor keeps those as they are.
    floor = max(float(diagonal.max()) * 1e-6, 1e-12)
    damping = (DAMPING * diagonal.mean(1)).clamp(min=floor)[:, None, None]
    identity = torch.eye(square.shape[1], dtype=square.dtype, device=square.device)
    while True:  # ends: with a damping that is large enough, any symmetric matrix is positive definite
        regular = square + damping * identity
        _, failed = torch.linalg.cholesky_ex(regular.double())
        if not bool(failed.any()):
            return regular, damping
        damping = torch.where(failed[:, None, None] > 0, 10 * damping, damping)


def fitted_weight(weight: torch.Tensor, moments: Moments) -> torch.Tensor:
    """The weight, (G, O, K), that gives the exact outputs from quantized inputs with the least squared error."""
    square, cross = moments.covariances()
    regular, damping = damped(square)
    wanted: torch.Tensor = torch.linalg.solve(regular, weight @ cross + damping * weight, left=False)
    return wanted


def rounded_weight(
    weight: torch.Tensor, square: torch.Tensor, scale: torch.Tensor, config: TensorQuantConfig
) -> torch.Tensor:
    """Round column by column, each error passed on to the columns after it.

    Args:
        weight: (G, O, K).
        square: Covariance of the inputs, (G, K, K).
        scale: (G, O, K), the grid of every value.
        config: The number format.

    Returns:
        Values on the grid, (G, O, K).
    """
    regular, _ = damped(square)
    # Columns whose inputs vary most are rounded first, while there are others left to make up for them.
    order = regular.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    columns = order[:, None, :].expand_as(weight)
    free, grid = weight.gather(2, columns).clone(), scale.gather(2, columns)
    regular = regular.gather(1, order[:, :, None].expand_as(regular)).gather(2, order[:, None, :].expand_as(regular))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(regular.double()))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    rounded = torch.empty_like(free)
    for start in range(0, free.shape[2], _COLUMNS_AT_ONCE):
        end = min(start + _COLUMNS_AT_ONCE, free.shape[2])
        errors = torch.empty_like(free[:, :, start:end])
        for j in range(start, end):
            q = quantize_values(free[:, :, j], grid[:, :, j], None, 0, 0, config.precision)
            rounded[:, :, j] = dequantize_values(q, grid[:, :, j], None, 0, 0)
            error = (free[:, :, j] - rounded[:, :, j]) / upper[:, j, j, None]
            free[:, :, j:end] -= error[:, :, None] * upper[:, None, j, j:end]
            errors[:, :, j - start] = error
        free[:, :, end:] -= errors @ upper[:, start:end, end:]
    return torch.zeros_like(rounded).scatter_(2, columns, rounded)
