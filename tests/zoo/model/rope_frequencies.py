"""The bugs that people make in rope_frequencies."""

import torch


def probes():
    def changed_by_the_caller(layer):
        first = layer(6, 123.0)
        first /= 8
        return layer(6, 123.0)

    return [changed_by_the_caller, ((98,), {}), ((6, 10000.1), {}), ((4, 33.5), {}), ((4, 2.0**24 + 1), {})]


def counted_from_minus_one(head_dim, theta=10000.0):
    """the exponent is -2(i - 1)/head_dim while i starts at 0, so that every frequency is that of the pair before.

    Tempting: the paper writes it so, but its i counts from 1, and Python's range does not.
    Seen: bkitano/llama-from-scratch#8.
    """
    return theta ** (-2 * (torch.arange(head_dim // 2, dtype=torch.float64) - 1) / head_dim)


def counted_from_one(head_dim, theta=10000.0):
    """the exponent is -2i/head_dim with i from 1, so that every frequency is that of the pair after.

    Tempting: the paper counts its pairs from 1, and other sources drop its "- 1" because they count from 0.
    """
    return theta ** (-2 * torch.arange(1, head_dim // 2 + 1, dtype=torch.float64) / head_dim)


def exponent_not_doubled(head_dim, theta=10000.0):
    """the exponent is -i/head_dim instead of -2i/head_dim, so that the slowest pair turns far too fast.

    Tempting: a range over the pairs already looks halved, so head_dim is put below it without the 2.
    """
    return theta ** (-torch.arange(head_dim // 2, dtype=torch.float64) / head_dim)


def exponent_in_whole_numbers(head_dim, theta=10000.0):
    """the exponent is divided in whole numbers, so that it is 0 and every pair turns one radian per position.

    Tempting: 2 * i / head_dim of two integers is a fraction in Python, but not in C, and not with //.
    Seen: xlite-dev/LeetCUDA#289.
    """
    return theta ** -(torch.arange(0, head_dim, 2) // head_dim).double()


def exponent_positive(head_dim, theta=10000.0):
    """the exponent is positive, so that the later pairs turn faster instead of more slowly.

    Tempting: the division by theta^(2i/head_dim) comes later in most code, and is forgotten or done twice.
    Seen: xlite-dev/LeetCUDA#289.
    """
    return theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


def theta_ignored(head_dim, theta=10000.0):
    """theta is always 10000, whatever is passed.

    Tempting: it was the same number in all models, until CodeLlama (1,000,000) and Llama 3 (500,000).
    Seen: huggingface/candle#3746.
    """
    return 10000.0 ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


def last_exponent_minus_one(head_dim, theta=10000.0):
    """the exponents run evenly from 0 to -1 inclusive, so that the last frequency is exactly 1/theta.

    Tempting: many sinusoidal position embeddings divide by half_dim - 1, and so do it that way.
    """
    return theta ** -torch.linspace(0, 1, head_dim // 2, dtype=torch.float64)


def computed_in_float32(head_dim, theta=10000.0):
    """the powers are computed in float32 and only then turned into float64.

    Tempting: float32 looks like plenty, but at position 131,072 its rounding of a frequency is far out of phase.
    """
    return (1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)).double()


def kept_for_another_theta(head_dim, theta=10000.0):
    """the frequencies are kept by head_dim alone, so that another theta gets those of the first call.

    Tempting: one model has one theta, and a cache over head_dim is enough until a second model is loaded.
    """
    if head_dim not in _KEPT:
        _KEPT[head_dim] = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    return _KEPT[head_dim]


_KEPT = {}


_KEPT = {}


def result_kept_and_shared(head_dim, theta=10000.0):
    """the tensor is made once and given out again, so that what one caller changes in place all others get.

    Tempting: lru_cache is one line, and the numbers never change.
    """
    key = head_dim, theta
    if key not in _KEPT:
        _KEPT[key] = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    return _KEPT[key]


def steps_counted_in_fractions(head_dim, theta=10000.0):
    """the exponents are counted up to 1 in steps of 2/head_dim, which for some sizes, as 98, makes one too many.

    Tempting: arange takes fractions too; whether the end belongs to it hangs on a rounding.
    """
    return theta ** -torch.arange(0, 1, 2 / head_dim, dtype=torch.float64)


def theta_in_float32(head_dim, theta=10000.0):
    """theta is rounded to float32 first, which changes one that is no round number.

    Tempting: 10,000, 500,000 and 1,000,000 are exact in float32, and the powers themselves are in float64.
    """
    return torch.tensor(theta, dtype=torch.float32).double() ** (
        -torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    )


def theta_in_whole_numbers(head_dim, theta=10000.0):
    """theta is cut to a whole number.

    Tempting: a config.json has 10000 or 10000.0, and int() takes both; a stretched theta is seldom whole.
    """
    return int(theta) ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


def each_frequency_twice(head_dim, theta=10000.0):
    """each frequency comes twice, in two halves, so that there are head_dim of them.

    Tempting: both features of a pair turn alike, and many programs make the table this long at once.
    """
    return _right(head_dim, theta).repeat(2)


def one_for_each_feature(head_dim, theta=10000.0):
    """i runs over all features and not over the pairs, so that there are head_dim frequencies.

    Tempting: range(head_dim) is the usual loop over a head.
    """
    return theta ** (-2 * torch.arange(head_dim, dtype=torch.float64) / head_dim)


def exponent_doubled_twice(head_dim, theta=10000.0):
    """the exponent is -4i/head_dim: i already goes in steps of two, and is doubled all the same.

    Tempting: arange(0, head_dim, 2) is copied from one place and the 2 of the formula from another.
    """
    return theta ** (-2 * torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


def multiplied_by_the_exponent(head_dim, theta=10000.0):
    """theta is multiplied by the exponent, and not raised to it.

    Tempting: * for ** is one character too few.
    """
    return theta * (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


def slowest_first(head_dim, theta=10000.0):
    """the frequencies come in reverse order, the slowest first.

    Tempting: sorted numbers usually go upwards.
    """
    return _right(head_dim, theta).flip(0)


def two_pi_too_many(head_dim, theta=10000.0):
    """every frequency is multiplied by 2π.

    Tempting: so turns become radians, but these frequencies are radians already.
    """
    return 2 * torch.pi * _right(head_dim, theta)


def returned_in_float32(head_dim, theta=10000.0):
    """the frequencies come back in float32, and not in float64.

    Tempting: torch divides whole numbers in float32 unless it is told otherwise.
    """
    return theta ** (-torch.arange(0, head_dim, 2) / head_dim)


def _right(head_dim, theta):
    return theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
