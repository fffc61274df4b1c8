"""How coverage grows with the number of samples k: two laws, and their fits to what was sampled.

Beta-binomial (Schaeffer et al. 2025, arXiv 2502.17578; Kazdan et al. 2025, arXiv 2510.05197; Levi 2024, arXiv
2410.16377): a task is solved by a sample with probability p ~ Beta(alpha, beta), so c of n samples are right with
probability C(n, c) B(alpha + c, beta + n - c) / B(alpha, beta), and coverage(k) = 1 - B(alpha, beta + k) / B(alpha,
beta), whose failure rate falls as k^-alpha. A model of the tasks; fitted by maximum likelihood to the counts, so it
uses all that was sampled at every k, where points of one coverage curve are correlated with each other.

Inflated beta-binomial: the same, but a share of the tasks has p = 0 (the zero-inflated form). Without it every task is
solved at some k, and forecasts are too high wherever some cannot be.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

SMALLEST, LARGEST = math.exp(-7.0), math.exp(8.0)
"""Bounds of alpha and beta; a fit that ends on one says that the data do not tell them."""
STEPS = 100

Counts = Mapping[tuple[int, int], float]
"""How many tasks have c right of n samples, by (n, c)."""


@dataclass(frozen=True, slots=True)
class BetaBinomial:
    """Tasks' success rates are Beta(alpha, beta), but for the share `unsolvable` of them, which are never solved."""

    alpha: float
    beta: float
    unsolvable: float = 0.0

    @property
    def at_bound(self) -> bool:
        """Whether the fit ended on a bound of its parameters."""
        return not all(1.01 * SMALLEST < x < LARGEST / 1.01 for x in (self.alpha, self.beta))

    def coverage(self, k: float) -> float:
        """The expected share of tasks with a right sample among k."""
        missed = log_beta(self.alpha, self.beta + k) - log_beta(self.alpha, self.beta)
        return (1.0 - self.unsolvable) * -math.expm1(missed)


def log_beta(x: float, y: float) -> float:
    """The natural logarithm of the beta function B(x, y), for x, y > 0."""
    return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)


def fit_beta_binomial(counts: Counts, near: BetaBinomial | None = None) -> BetaBinomial:
    """The maximum-likelihood fit; some task must have samples. `near`: a fit to much the same counts, to start from."""
    return _climb(_Surface.of(counts), counts, near)


def fit_inflated(counts: Counts, near: BetaBinomial | None = None) -> BetaBinomial:
    """The maximum-likelihood fit, for tasks of one number of samples, at least one of which has a right one.

    The likelihood falls into two factors: how many tasks have a right sample at all, and, among those, how many; the
    second is a beta-binomial cut off at zero and gives alpha and beta, the first then gives the share. Where that would
    be negative, the best share is 0."""
    (n,) = {n for n, _ in counts}
    seen = {(n, c): tasks for (n, c), tasks in counts.items() if c}
    if seen:
        cut = _climb(_Surface.of(seen, cut=True), seen, near)
        share = 1.0 - sum(seen.values()) / sum(counts.values()) / cut.coverage(n)
        if share > 0.0:
            return BetaBinomial(cut.alpha, cut.beta, share)
    return fit_beta_binomial(counts, near)


@dataclass(frozen=True, slots=True)
class _Surface:
    """The likelihood of counts, as a function of alpha and beta.

    As counts are whole numbers, log B(alpha + c, beta + n - c) - log B(alpha, beta) is a sum of log(alpha + j), j < c,
    and so on; `reached` says for each j how many tasks have more than j right, wrong and any samples. `cut`: the
    number of tasks, where only those with a right sample are looked at (0: all are)."""

    reached: tuple[tuple[float, float, float], ...]
    cut: float

    @staticmethod
    def of(counts: Counts, *, cut: bool = False) -> "_Surface":
        deepest = max(n for n, _ in counts)
        right, wrong, drawn = ([0.0] * deepest for _ in range(3))
        for (n, c), tasks in counts.items():
            for counted, upto in ((right, c), (wrong, n - c), (drawn, n)):
                for j in range(upto):
                    counted[j] += tasks
        return _Surface(tuple(zip(right, wrong, drawn, strict=True)), sum(counts.values()) if cut else 0.0)

    def height(self, alpha: float, beta: float) -> float:
        """The log likelihood, up to a constant."""
        log, both = math.log, alpha + beta
        value = sum(
            x * log(alpha + j) + y * log(beta + j) - z * log(both + j) for j, (x, y, z) in enumerate(self.reached)
        )
        if self.cut:
            missed = sum(log((beta + j) / (both + j)) for j in range(len(self.reached)))
            value -= self.cut * log(-math.expm1(missed))
        return value

    def step(self, alpha: float, beta: float) -> tuple[float, float]:
        """Newton's step in (log alpha, log beta), at most 2 long; along the gradient where it is not concave."""
        both = alpha + beta
        ga = gb = haa = hbb = hab = 0.0
        missed = ma = mb = maa = mbb = 0.0
        for j, (x, y, z) in enumerate(self.reached):
            p, q, r = 1.0 / (alpha + j), 1.0 / (beta + j), 1.0 / (both + j)
            ga += x * p - z * r
            gb += y * q - z * r
            haa += z * r * r - x * p * p
            hbb += z * r * r - y * q * q
            hab += z * r * r
            if self.cut:
                missed += math.log((beta + j) * r)
                ma -= r
                mb += q - r
                maa += r * r
                mbb += r * r - q * q
        if self.cut:
            none = math.exp(missed)
            once, twice = self.cut * none / -math.expm1(missed), self.cut * none / math.expm1(missed) ** 2
            ga, gb = ga + once * ma, gb + once * mb
            haa += once * maa + twice * ma * ma
            hbb += once * mbb + twice * mb * mb
            hab += once * maa + twice * ma * mb
        gu, gv = alpha * ga, beta * gb
        huu, hvv, huv = alpha * alpha * haa + gu, beta * beta * hbb + gv, alpha * beta * hab
        determinant = huu * hvv - huv * huv
        if huu < 0 and determinant > 1e-12:
            du, dv = (huv * gv - hvv * gu) / determinant, (huv * gu - huu * gv) / determinant
        else:
            du, dv = gu, gv
        longest = max(abs(du), abs(dv), 2.0)
        return 2.0 * du / longest, 2.0 * dv / longest


def _climb(surface: _Surface, counts: Counts, near: BetaBinomial | None) -> BetaBinomial:
    """Newton's method with step halving, within the bounds, from `near` or the mean rate and alpha + beta = 1."""
    if near is not None:
        u, v = math.log(near.alpha), math.log(near.beta)
    else:
        total = sum(tasks * n for (n, _), tasks in counts.items())
        mean = min(0.99, max(0.01, sum(tasks * c for (_, c), tasks in counts.items()) / total))
        u, v = math.log(mean), math.log1p(-mean)
    low, high = math.log(SMALLEST), math.log(LARGEST)
    value = surface.height(math.exp(u), math.exp(v))
    for _ in range(STEPS):
        du, dv = surface.step(math.exp(u), math.exp(v))
        size = 1.0
        while True:
            nu, nv = min(high, max(low, u + size * du)), min(high, max(low, v + size * dv))
            new = surface.height(math.exp(nu), math.exp(nv))
            if new >= value or size < 1e-6:
                break
            size /= 2
        moved = abs(nu - u) + abs(nv - v)
        if new < value or moved < 1e-6:
            break
        u, v, value = nu, nv, new
    return BetaBinomial(math.exp(u), math.exp(v))
