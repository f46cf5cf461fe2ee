"""The bugs that people make in llama3_frequencies."""

import math

import torch

from tests.cases import target


def _share(frequencies, low_freq_factor, high_freq_factor, original_context):
    """How much of the frequency is kept: 1 where the wavelength is short, 0 where it is long."""
    turns = original_context * frequencies / (2 * math.pi)
    return torch.clamp((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)


def _mix(frequencies, factor, s):
    return (1 - s) * frequencies / factor + s * frequencies


def nothing_rescaled(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """the frequencies come back as they were given.

    Tempting: a second name for the rescaled ones, and the first name in the return; short prompts do not show it.
    Seen: huggingface/transformers#32330.
    """
    return frequencies.clone()


def all_divided(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """every frequency is divided by factor, the short wavelengths too.

    Tempting: that is linear position interpolation, which has a parameter of the same name.
    """
    return frequencies / factor


def long_and_short_swapped(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """the two ends are swapped: short wavelengths are divided by factor and long ones are left alone.

    Tempting: a short wavelength is a high frequency, and one comparison too few or too many turns it around.
    """
    return _mix(frequencies, factor, 1 - _share(frequencies, low_freq_factor, high_freq_factor, original_context))


def bridge_reversed(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """the weights of the bridge are swapped, so that it leads from the wrong end to the wrong end, with a jump at both.

    Tempting: s and 1 - s look alike, and both formulas mix the same two frequencies.
    """
    s = _share(frequencies, low_freq_factor, high_freq_factor, original_context)
    return _mix(frequencies, factor, torch.where((s > 0) & (s < 1), 1 - s, s))


def bridge_linear_in_the_wavelength(
    frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
):
    """the bridge is linear in the wavelength, not in the number of turns that fit into the context.

    Tempting: the two limits are computed as wavelengths, so one interpolates between them.
    """
    wavelength = 2 * math.pi / frequencies
    short, long = original_context / high_freq_factor, original_context / low_freq_factor
    return _mix(frequencies, factor, torch.clamp((long - wavelength) / (long - short), 0, 1))


def wavelengths_mixed(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """the bridge mixes the two wavelengths, not the two frequencies.

    Tempting: some libraries take the reciprocals of the frequencies, and the formula is applied to those as it is.
    """
    s = _share(frequencies, low_freq_factor, high_freq_factor, original_context)
    return 1 / ((1 - s) * factor / frequencies + s / frequencies)


def no_bridge(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """there is no bridge: whatever is not a short wavelength is divided by factor.

    Tempting: "high frequencies stay, low ones are divided" sounds like the whole story.
    """
    s = _share(frequencies, low_freq_factor, high_freq_factor, original_context)
    return _mix(frequencies, factor, (s == 1).to(s.dtype))


def bridge_without_ends(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """the bridge goes on beyond its two ends, since s is not held between 0 and 1.

    Tempting: one formula for all wavelengths; in between it is right.
    """
    turns = original_context * frequencies / (2 * math.pi)
    return _mix(frequencies, factor, (turns - low_freq_factor) / (high_freq_factor - low_freq_factor))


def two_pi_forgotten(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """the wavelength is 1/frequency, without the 2π.

    Tempting: so it is for a frequency in turns; these are in radians.
    """
    s = _share(2 * math.pi * frequencies, low_freq_factor, high_freq_factor, original_context)
    return _mix(frequencies, factor, s)


def limits_from_the_long_context(
    frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
):
    """the limits are taken from the extended context, factor times original_context.

    Tempting: a config.json has max_position_embeddings at its top, and the original one deep inside rope_scaling.
    """
    s = _share(frequencies, low_freq_factor, high_freq_factor, factor * original_context)
    return _mix(frequencies, factor, s)


def factor_always_eight(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """factor is always 8, whatever is passed.

    Tempting: the reference code of Llama 3.1 has it as a constant; Llama 3.2 came with 32.
    """
    return _mix(frequencies, 8.0, _share(frequencies, low_freq_factor, high_freq_factor, original_context))


def probes():
    """Short and long wavelengths and, most of all, those of the bridge; with parameters and without."""

    def call(*parameters, context):
        turns = target.tensor([0.3, 0.9, 1.1, 1.5, 2.5, 3.5, 4.5, 9.0])
        return lambda layer: layer(2 * math.pi * turns / context, *parameters, context)

    def written_to(layer):
        frequencies = target.tensor([1.0, 0.1])
        layer(frequencies, 1.0).zero_()
        return frequencies

    def twice(layer):
        turns = target.tensor([0.3, 1.5, 2.5, 9.0, 1.1])
        return [layer(2 * math.pi * t / 128, original_context=128) for t in (turns, turns.flip(0))]

    return [
        call(8.0, 1.0, 4.0, context=128),
        call(32.0, 1.0, 4.0, context=128),
        call(5.0, 0.8, 3.0, context=32),
        call(2.5, 1.0, 4.0, context=128),
        twice,
        written_to,
    ]


def rescaled_in_float32(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """frequencies in float64 are rescaled in float32.

    Tempting: everything about the wavelengths is coarse; but what is kept has to be kept as it was.
    """
    narrow = frequencies.float()
    share = _share(narrow, low_freq_factor, high_freq_factor, original_context)
    return _mix(narrow, factor, share).to(frequencies.dtype)


def factor_in_whole_numbers(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """factor is cut to a whole number.

    Tempting: 8 and 32 are what the models have, and a context is so many times as long.
    """
    return _mix(frequencies, int(factor), _share(frequencies, low_freq_factor, high_freq_factor, original_context))


_SHARES = {}


def shares_kept_by_length(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """which frequencies are rescaled is kept by their number, so that others get the shares of the first.

    Tempting: head_dim says which frequencies they are, as long as there is one theta.
    """
    key = len(frequencies), factor, low_freq_factor, high_freq_factor, original_context, frequencies.dtype
    if key not in _SHARES:
        _SHARES[key] = _share(frequencies, low_freq_factor, high_freq_factor, original_context)
    return _mix(frequencies, factor, _SHARES[key])


def frequencies_themselves_at_factor_1(
    frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
):
    """at a factor of 1 the result is the given tensor itself: who writes to one writes to the other.

    Tempting: nothing has to be rescaled.
    """
    if factor == 1:
        return frequencies
    return _mix(frequencies, factor, _share(frequencies, low_freq_factor, high_freq_factor, original_context))


def factor_multiplied(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """the frequencies are multiplied by factor where they should be divided by it.

    Tempting: a longer context is more of something; and a wavelength would be multiplied indeed.
    """
    return _mix(frequencies, 1 / factor, _share(frequencies, low_freq_factor, high_freq_factor, original_context))


def ends_swapped(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """short wavelengths are divided by factor and long ones are left alone, while the bridge is right.

    Tempting: a short wavelength is a high frequency, so that the two comparisons are easily written for each other.
    """
    s = _share(frequencies, low_freq_factor, high_freq_factor, original_context)
    return _mix(frequencies, factor, torch.where((s == 0) | (s == 1), 1 - s, s))


def bridge_left_alone(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """there is no bridge: whatever is not a long wavelength stays as it is.

    Tempting: one `if` for the wavelengths that are too long seems to be enough.
    """
    s = _share(frequencies, low_freq_factor, high_freq_factor, original_context)
    return _mix(frequencies, factor, (s > 0).to(s.dtype))


def bridge_not_divided(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """in the bridge, s is not divided by high_freq_factor - low_freq_factor, so that it exceeds 1.

    Tempting: taking off the lower limit looks like all that is needed, and the long end fits.
    """
    s = _share(frequencies, low_freq_factor, high_freq_factor, original_context)
    longer = s * (high_freq_factor - low_freq_factor)
    return _mix(frequencies, factor, torch.where(s < 1, longer, s))


def limits_always_one_and_four(
    frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
):
    """low_freq_factor and high_freq_factor are always 1 and 4, whatever is passed.

    Tempting: all of Meta's own models have these two numbers.
    """
    return _mix(frequencies, factor, _share(frequencies, 1.0, 4.0, original_context))


def context_always_8192(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """original_context is always 8192, whatever is passed.

    Tempting: it is what Llama 3 was trained with.
    """
    return _mix(frequencies, factor, _share(frequencies, low_freq_factor, high_freq_factor, 8192))
