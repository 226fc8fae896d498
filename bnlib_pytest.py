"""The pytest plugin: the fixture `bn_conformance`.

It lies beside the package, so that pytest starts no slower for those who do not use it: `bnlib`,
and NumPy with it, are imported by the fixture.
"""

import pytest


@pytest.fixture(scope="session")
def bn_conformance():
    """Check a batch norm, and fail with what is wrong: `bn_conformance(maker, level="error")`.

    The arguments are those of `bnlib.conformance.check_batch_norm`, and the level from which on a
    finding is a failure. It returns the report.
    """
    from bnlib.conformance import check_batch_norm

    def conform(maker, *, level="error", **options):
        report = check_batch_norm(maker, **options)
        found = report.at_least(level)
        if found:
            parts = [f"{report.title}: {len(found)} of {len(report)} checks", *found]
            pytest.fail("\n\n".join(map(str, parts)), pytrace=False)
        return report

    return conform
