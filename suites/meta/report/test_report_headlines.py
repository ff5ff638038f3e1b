"""The page's headlines are those that suites/test_headlines.py holds to allocations."""

from harness.report.headlines import headlines

EXPECTED = {
    "32 layers, 8192 positions": (1_073_741_824, "1.07 GB"),
    "32 layers, a window of 4096": (536_870_912, "0.54 GB"),
    "E2B as in the example, all layers full": (146_227_200, "143 MB"),
    "E2B as in the example, window 4096, every fifth full": (87_965_696, "86 MB"),
    "E2B as published, all positions kept": (150_994_944, "151.0 MB"),
    "E2B as published, its window": (56_623_104, "56.6 MB"),
    "gemma-3-27b, rule of thumb, no window": (12_683_575_296, "12.68 GB, 1.11 of llama.cpp's"),
    "gemma-3-27b, rule of thumb": (2_196_504_575, "2.20 GB, 0.19 of llama.cpp's"),
    "gemma-3-27b, what llama.cpp allocates": (11_391_729_664, "11.39 GB"),
    "mistral-7b-v0.1, rule of thumb": (3_288_334_336, "3.29 GB, 0.19 of llama.cpp's"),
}


def test_every_headline_has_its_figure_and_its_sum():
    made = {h.of: h for h in headlines()}
    assert set(EXPECTED) <= set(made)
    for of, (nbytes, shown) in EXPECTED.items():
        assert (made[of].nbytes, made[of].shown) == (nbytes, shown)
    assert all(h.arithmetic for h in made.values())
